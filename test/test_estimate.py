"""The whitened-projection estimator on scenes whose depth is known, blurred by kernels of the test's own."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfd_ros.errors import InputError
from dfd_ros.optics.estimate import EstimatorSettings, WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.likelihood import LabelLikelihood
from dfd_ros.optics.projection import CELL, LOW_CUT, SPECTRAL_FLOOR, SPLIT, WhitenedProjection
from dfd_ros.optics.readout import discount_edges, upsample
from dfd_ros.optics.tree import CombMarginals

SHAPE = (160, 240)
MARGIN = 24
FAR = Lens("far", 2.0, 2.0, 8.0, 24.0, 2.0, 20.0)
"""12 px of blur at infinity, focus at the nearest depth."""
BOTH = replace(FAR, name="both", min_depth=1.2)
INSIDE = (slice(16, -16), slice(16, -16))


FINE = 3
"""Scenes are blurred on a grid this much finer than the pixels, which then integrate over their area."""


def texture(seed: int = 0) -> np.ndarray:
    """1/f noise in [0.1, 0.8] on the fine grid with a margin on all sides, float32."""
    shape = (FINE * (SHAPE[0] + 2 * MARGIN), FINE * (SHAPE[1] + 2 * MARGIN))
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    spectrum = np.fft.rfft2(random.standard_normal(shape)) / np.maximum(np.hypot(fy, fx), 1.0 / max(shape))
    image = np.fft.irfft2(spectrum, s=shape)
    return np.clip(0.45 + 0.12 * image / image.std(), 0.1, 0.8).astype(np.float32)


def disk(diameter: float) -> np.ndarray:
    """A disk kernel by 15 x 15 samples a pixel: nothing in common with Bessel functions."""
    samples, half = 15, int(np.ceil(diameter / 2 + 0.5))
    axis = (np.arange((2 * half + 1) * samples) + 0.5) / samples - (half + 0.5)
    inside = np.hypot(axis[:, None], axis[None]) <= max(diameter / 2, 0.05)
    kernel = inside.reshape(2 * half + 1, samples, 2 * half + 1, samples).mean(axis=(1, 3))
    return kernel / kernel.sum()


def expose(scene: np.ndarray, coc: float) -> np.ndarray:
    """The fine scene through a lens with this CoC (pixels), then integrated by the pixels, (H, W)."""
    blurred = cv2.filter2D(scene, -1, disk(FINE * coc), borderType=cv2.BORDER_REFLECT)
    size = (scene.shape[1] // FINE, scene.shape[0] // FINE)
    return cv2.resize(blurred, size, interpolation=cv2.INTER_AREA)[MARGIN:-MARGIN, MARGIN:-MARGIN]


def photograph(
    lens: Lens, depth: np.ndarray, scene: np.ndarray, noise: float = 0.003, seed: int = 1
) -> list[np.ndarray]:
    """Shallow and deep picture of a textured scene of `depth` (H, W): each pixel by its own disk, then noise."""
    random = np.random.default_rng(seed)
    images = []
    for f_number in (lens.f_number_shallow, lens.f_number_deep):
        coc = np.broadcast_to(lens.coc(depth, f_number, field_radius(SHAPE)), SHAPE)
        levels = np.arange(np.floor(coc.min() * 3), np.ceil(coc.max() * 3) + 1) / 3
        stack = np.stack([expose(scene, level) for level in levels])
        position = (coc - levels[0]) * 3
        low = np.minimum(position.astype(int), max(len(levels) - 2, 0))
        part = position - low
        rows, columns = np.indices(SHAPE)
        image = (1 - part) * stack[low, rows, columns] + part * stack[
            np.minimum(low + 1, len(levels) - 1), rows, columns
        ]
        images.append((image + noise * random.standard_normal(SHAPE)).astype(np.float32))
    return images


@pytest.fixture(scope="module")
def far_estimator() -> WhitenedProjectionEstimator:
    return WhitenedProjectionEstimator(FAR, SHAPE)


@pytest.mark.parametrize(("depth", "limit"), [(2.1, 0.02), (2.5, 0.01), (4.0, 0.01), (7.0, 0.02), (12.0, 0.06)])
def test_a_textured_plane_is_where_it_is(
    far_estimator: WhitenedProjectionEstimator, depth: float, limit: float
) -> None:
    found = far_estimator.estimate(*photograph(FAR, np.full(SHAPE, depth), texture()))
    error = np.abs(found.depth - depth)[INSIDE] / depth
    assert np.median(error) < limit
    assert found.depth.dtype == found.confidence.dtype == np.float32
    assert found.depth.shape == found.confidence.shape == SHAPE
    assert 0.0 <= found.confidence.min() <= found.confidence.max() <= 1.0
    if depth < 10.0:  # at 12 m 0.1 px of blur is 5 % of depth: little to vouch for
        assert np.mean(found.confidence[INSIDE] > 0.5) > 0.9


def test_a_slanted_plane_is_followed(far_estimator: WhitenedProjectionEstimator) -> None:
    inverse = np.linspace(1 / 2.2, 1 / 8.0, SHAPE[1])
    depth = np.broadcast_to(1.0 / inverse, SHAPE)
    found = far_estimator.estimate(*photograph(FAR, depth, texture()))
    error = (np.abs(found.depth - depth) / depth)[INSIDE]
    assert np.median(error) < 0.03
    assert np.quantile(error, 0.9) < 0.1


def test_a_floor_that_passes_through_the_focus_is_near_below_and_far_above() -> None:
    depth = np.broadcast_to((1.0 / np.linspace(1 / 6.0, 1 / 1.3, SHAPE[0]))[:, None], SHAPE)
    found = WhitenedProjectionEstimator(BOTH, SHAPE).estimate(*photograph(BOTH, depth, texture()))
    error = (np.abs(found.depth - depth) / depth)[INSIDE]
    assert np.median(error) < 0.05
    assert np.mean((found.depth < 2.0) == (depth < 2.0)) > 0.9


def test_confidence_ranks_errors_and_keeps_its_word(far_estimator: WhitenedProjectionEstimator) -> None:
    inverse = np.linspace(1 / 2.2, 1 / 18.0, SHAPE[1])
    depth = np.broadcast_to(1.0 / inverse, SHAPE)
    scene = texture()
    fade = np.linspace(0.0, 1.0, scene.shape[0], dtype=np.float32)[:, None]
    found = far_estimator.estimate(*photograph(FAR, depth, 0.45 + (scene - 0.45) * fade**2))
    error, sure = np.abs(found.depth - depth) / depth, found.confidence > 0.5
    assert 0.05 < sure.mean() < 0.95
    assert np.median(error[sure]) < 0.06
    assert np.median(error[~sure]) > 2 * np.median(error[sure])


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_a_flat_wall_has_no_confidence(far_estimator: WhitenedProjectionEstimator, noise: float) -> None:
    scene = np.full_like(texture(), 0.5)
    found = far_estimator.estimate(*photograph(FAR, np.full(SHAPE, 5.0), scene, noise))
    assert np.all(np.isfinite(found.depth))
    assert np.mean(found.confidence > 0.5) < 0.05


def test_a_clipped_wall_has_no_confidence(far_estimator: WhitenedProjectionEstimator) -> None:
    pair = [np.minimum(2.5 * image, 1.0) for image in photograph(FAR, np.full(SHAPE, 4.0), texture() + 0.3)]
    found = far_estimator.estimate(*pair)
    assert np.mean(found.confidence > 0.5) < 0.05


def test_where_the_image_does_not_tell_the_prior_does() -> None:
    lens = replace(FAR, prior_depth=6.0, prior_log_sigma=0.1)
    flat = np.full(SHAPE, 0.5, np.float32)
    found = WhitenedProjectionEstimator(lens, SHAPE).estimate(flat, flat)
    assert np.median(found.depth) == pytest.approx(6.0, rel=0.1)


@settings(max_examples=8, deadline=None)
@given(gain=st.floats(0.95, 1.05), corner=st.floats(0.85, 1.0))
def test_vignetting_and_gain_change_little(gain: float, corner: float) -> None:
    estimator = WhitenedProjectionEstimator(FAR, SHAPE)
    shallow, deep = photograph(FAR, np.full(SHAPE, 4.0), texture())
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    dim = gain * (1.0 - (1.0 - corner) * (x**2 + y**2) / 2)
    found = estimator.estimate((shallow * dim).astype(np.float32), deep)
    assert np.median(np.abs(found.depth - 4.0)[INSIDE] / 4.0) < 0.04


def test_estimates_are_the_callers_to_keep(far_estimator: WhitenedProjectionEstimator) -> None:
    pair = photograph(FAR, np.full(SHAPE, 4.0), texture())
    first = far_estimator.estimate(*pair)
    kept = first.depth.copy()
    far_estimator.estimate(*photograph(FAR, np.full(SHAPE, 9.0), texture(3)))
    assert np.array_equal(first.depth, kept)
    assert np.array_equal(far_estimator.estimate(*pair).depth, kept)


def test_sizes_need_not_divide_by_the_cell() -> None:
    shape = (157, 235)
    pair = [
        np.ascontiguousarray(image[: shape[0], : shape[1]]) for image in photograph(FAR, np.full(SHAPE, 4.0), texture())
    ]
    found = WhitenedProjectionEstimator(FAR, shape).estimate(*pair)
    assert found.depth.shape == shape
    assert np.median(np.abs(found.depth - 4.0)) / 4.0 < 0.03


def test_a_plane_is_measured_much_finer_than_the_hypotheses_lie(far_estimator: WhitenedProjectionEstimator) -> None:
    spacing = np.diff(far_estimator._projection.cocs)
    errors, allowed = [], []
    for coc in np.linspace(2.0, 9.0, 6):
        depth = float(FAR.depth(coc))
        found = far_estimator.estimate(*photograph(FAR, np.full(SHAPE, depth), texture()))
        errors.append(abs(float(np.median(FAR.coc(found.depth[INSIDE]))) - coc))
        allowed.append(spacing[np.searchsorted(far_estimator._projection.cocs, coc) - 1] / 5)
    assert np.all(np.array(errors) < allowed)


def test_what_is_filled_in_is_never_surer_than_what_it_was_filled_from(
    far_estimator: WhitenedProjectionEstimator,
) -> None:
    scene = texture()
    middle = scene.shape[1] // 2
    scene[:, middle:] = 0.45
    found = far_estimator.estimate(*photograph(FAR, np.full(SHAPE, 4.0), scene))
    columns = found.confidence[16:-16].mean(axis=0)
    edge = SHAPE[1] // 2
    assert columns[edge + 12 :].max() < columns[24 : edge - 12].min()
    assert np.all(np.diff(columns[edge + 12 : -16 : CELL]) < 0.01)  # it falls with the distance from evidence
    assert columns[-16] < 0.1
    assert np.median(abs(found.depth - 4.0)[:, edge:]) < 0.4


def test_both_sides_of_the_focus_have_labels_at_the_same_blurs() -> None:
    labels = WhitenedProjectionEstimator(BOTH, SHAPE).labels
    assert labels[0] <= BOTH.signed_coc(BOTH.min_depth)
    assert labels[-1] == pytest.approx(BOTH.signed_coc(BOTH.max_depth))
    near, far = -labels[labels < -1e-9][::-1], labels[labels > 1e-9]
    shared = min(len(near), len(far))
    assert shared > 5
    assert np.allclose(near[:shared], far[:shared])
    assert np.allclose(np.diff(labels), labels[1] - labels[0])


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_wall_on_one_side_of_the_focus_may_be_on_the_other(side: str) -> None:
    depth = float(BOTH.depth(4.0, side=side))
    pair = photograph(BOTH, np.full(SHAPE, depth), texture())
    confidence = WhitenedProjectionEstimator(BOTH, SHAPE).estimate(*pair).confidence
    assert np.median(confidence) < 0.55
    told = replace(BOTH, prior_depth=depth, prior_log_sigma=0.1)
    found = WhitenedProjectionEstimator(told, SHAPE).estimate(*pair)
    assert np.median(found.confidence[INSIDE]) > 0.8
    assert np.median(found.depth[INSIDE]) == pytest.approx(depth, rel=0.02)


@pytest.mark.parametrize("coc_field", [-0.25, 0.25])
def test_a_lens_that_blurs_its_corners_otherwise_is_undone(coc_field: float) -> None:
    lens = replace(FAR, coc_field=coc_field)
    pair = photograph(lens, np.full(SHAPE, 5.0), texture())
    corner = (field_radius(SHAPE) > 0.8)[INSIDE]
    error = abs(WhitenedProjectionEstimator(lens, SHAPE).estimate(*pair).depth - 5.0)[INSIDE] / 5.0
    assert np.median(error[corner]) < 0.03
    assert np.median(error[~corner]) < 0.02
    unaware = abs(WhitenedProjectionEstimator(FAR, SHAPE).estimate(*pair).depth - 5.0)[INSIDE] / 5.0
    assert np.median(unaware[corner]) > 5 * np.median(error[corner])


def test_the_true_blur_leaves_only_noise_and_flat_areas_favour_none() -> None:
    cocs = np.arange(0.0, 12.5, 0.5)
    projection = WhitenedProjection(SHAPE, cocs, FAR.f_number_ratio)
    energies, usable = projection(*photograph(FAR, np.full(SHAPE, 4.0), texture(), noise=0.002))
    assert np.all(usable == 1.0)
    for band in energies[:, :, 6:-6, 6:-6].mean(axis=(2, 3)):
        assert cocs[band.argmin()] == pytest.approx(float(FAR.coc(4.0)), abs=0.5)
        assert band.max() > 5 * band.min()
    energies, _ = projection(*photograph(FAR, np.full(SHAPE, 4.0), np.full_like(texture(), 0.5), noise=0.002))
    for band, share in zip(energies.mean(axis=(2, 3)), projection.shares, strict=True):
        assert band.max() < 1.1 * band.min()
        # Both images were divided by the root of their brightness.
        assert band[0] == pytest.approx(share * 0.002**2 / 0.5, rel=0.2)


def test_bands_on_the_coarse_grid_are_those_of_the_whole_residual() -> None:
    """Against the formula at full resolution: the low band sample by sample, the high one by its total energy."""
    size, coc, ratio = (96, 128), 3.0, 0.3
    random = np.random.default_rng(0)
    images = random.standard_normal((2, *size)).astype(np.float32)
    projection = WhitenedProjection((64, 96), np.array([coc]), ratio)
    assert projection._size == size
    projection._even = lambda *_: list(images)  # no mirrored border, no evening out
    energies, _ = projection(*np.zeros((2, 64, 96), np.float32))

    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    frequency = np.hypot(fy, fx)

    def disk_spectrum(diameter: float) -> np.ndarray:
        radius = np.linspace(0.0, 0.5 * diameter, 4001)[1:]  # the disk as a sum of its chords' cosines
        chord = np.sqrt(np.maximum((0.5 * diameter) ** 2 - radius**2, 0.0))
        weights = chord / chord.sum()
        levels = np.linspace(0.0, 0.8, 2001)
        return np.interp(frequency, levels, np.cos(2 * np.pi * levels[:, None] * radius) @ weights)

    shallow, deep = disk_spectrum(coc), disk_spectrum(ratio * coc)
    whole = deep * np.fft.rfft2(images[0]) - shallow * np.fft.rfft2(images[1])
    whole *= -np.expm1(-(frequency**2) / (2 * LOW_CUT**2)) / np.sqrt(shallow**2 + deep**2 + SPECTRAL_FLOOR)
    phase = 0.5 * np.pi * np.clip(np.log(np.maximum(frequency, 1e-9) / SPLIT[0]) / np.log(SPLIT[1] / SPLIT[0]), 0, 1)
    top, left = projection._origin
    low = np.fft.irfft2(whole * np.cos(phase), s=size)[top : top + 64 : 2, left : left + 96 : 2]
    cells = (low**2).reshape(16, 2, 24, 2).mean(axis=(1, 3))
    expected = cv2.GaussianBlur(cells, (0, 0), projection._window, borderType=cv2.BORDER_REFLECT)
    assert np.allclose(energies[0, 0], expected, rtol=2e-2, atol=1e-4)
    corner = (abs(fy) > 0.25) & (fx > 0.25)
    high = np.fft.irfft2(whole * np.sin(phase) * ~corner, s=size)
    assert energies[1, 0].mean() == pytest.approx((high**2).mean(), rel=0.1)


def test_likelihoods_follow_the_least_energy_and_know_how_much_they_know() -> None:
    cocs, labels, grid = np.linspace(0.0, 10.0, 11), np.linspace(0.0, 10.0, 41), (6, 8)
    likelihood = LabelLikelihood(FAR, SHAPE, grid, labels, cocs, np.array([1e-6, 1e-6]))
    energies = np.full((2, 11, *grid), 1e-4, np.float32)
    energies[:, :, :, 4:] *= (1.0 + 3.0 * (cocs - 6.0) ** 2).astype(np.float32)[:, None, None]
    found, support = likelihood(energies, np.ones(grid, np.float32))
    assert np.allclose(found.max(axis=2), 1.0, atol=1e-3)
    assert np.allclose(found[:, :4], 1.0, atol=1e-3)
    found = found.copy()
    assert labels[found[0, 5].argmax()] == pytest.approx(6.0, abs=0.2)
    # One sample of the low band and half of one of the high, at a label that is a hypothesis too.
    expected = ((1e-6 + 1e-4) / (1e-6 + 1e-4 * (1.0 + 3.0 * 36.0))) ** (0.5 + 0.25)
    assert found[0, 5, 0] == pytest.approx(expected, rel=0.02)
    # Half-usable cells know half as much, in ln.
    half, _ = likelihood(energies, np.full(grid, 0.5, np.float32))
    assert half[0, 5, 0] == pytest.approx(expected**0.5, rel=0.02)
    assert np.all(support[:, 7] > support[:, 0])
    assert 0.0 <= support.min() <= support.max() < 1.0


def test_cells_beside_a_depth_edge_are_less_sure_and_none_is_surer() -> None:
    coc = np.where(np.arange(20) < 10, 2.0, 8.0).astype(np.float32) * np.ones((12, 1), np.float32)
    sure, out = np.full(coc.shape, 0.9, np.float32), np.empty(coc.shape, np.float32)
    discount_edges(coc, sure, np.float32(12.0), np.float32(0.1), out)
    assert np.all(out[:, [9, 10]] < 0.6)
    assert np.allclose(out[:, :7], 0.9)
    assert np.all(out <= sure + 1e-6)


def test_pixels_listen_to_the_cells_that_look_like_them() -> None:
    image = np.where(np.arange(64) < 34, 0.04, 0.64).astype(np.float32) * np.ones((32, 1), np.float32)
    guide = np.sqrt(image[::CELL, ::CELL])
    guide[:, 8] = 0.8  # the cell that the edge runs through, half a cell from it
    coc = np.where(guide < 0.5, 2.0, 8.0).astype(np.float32)
    confidence, depth, sure = (np.full(s, 0.7, np.float32) for s in (coc.shape, image.shape, image.shape))
    upsample(coc, confidence, guide, image, *np.array([0.06, 12.0, 2.0], np.float32), depth, sure)
    near, far = 2.0 / (1.0 - 2.0 / 12.0), 2.0 / (1.0 - 8.0 / 12.0)
    assert np.allclose(depth[:, :33], near, rtol=0.05)
    assert np.allclose(depth[:, 34:], far, rtol=0.05)
    assert np.allclose(sure, 0.7)


def test_chain_marginals_are_those_of_brute_force() -> None:
    random = np.random.default_rng(0)
    cells, labels, drift, rising, falling = 5, 4, 0.2, 0.1, 0.25
    evidence = random.uniform(0.05, 1.0, (cells, labels)).astype(np.float32)
    jumps = random.uniform(0.01, 0.5, cells).astype(np.float32)
    prior = np.full((cells, labels), 1.0 / labels, np.float32)

    def brute_force(up: float, down: float) -> np.ndarray:
        step = np.eye(labels) * (1.0 - up - down) + np.eye(labels, k=1) * up + np.eye(labels, k=-1) * down
        step[0, 0], step[-1, -1] = 1.0 - up, 1.0 - down
        total = np.zeros((cells, labels))
        for field in itertools.product(range(labels), repeat=cells):
            p = float(np.prod([evidence[i, k] for i, k in enumerate(field)]))
            for i, (a, b) in enumerate(itertools.pairwise(field)):
                p *= (1 - jumps[i]) * step[a, b] + jumps[i] / labels
            for i, k in enumerate(field):
                total[i, k] += p
        return total / total.sum(axis=1, keepdims=True)

    row = CombMarginals((1, cells, labels))(evidence[None], prior[:1], jumps[None], jumps[None], drift, rising, falling)
    assert np.allclose(row[0], brute_force(drift, drift), atol=1e-5)
    column = CombMarginals((cells, 1, labels))(
        evidence[:, None], prior, jumps[:, None], jumps[:, None], drift, rising, falling
    )
    assert np.allclose(column[:, 0], brute_force(rising, falling), atol=1e-5)


def test_comb_marginals_are_those_of_brute_force() -> None:
    """Each cell's is the geometric mean over the two combs through it, every labelling summed up."""
    random = np.random.default_rng(1)
    (height, width), labels, drift = (3, 2), 3, 0.2
    cells = list(itertools.product(range(height), range(width)))
    evidence = random.uniform(0.05, 1.0, (height, width, labels)).astype(np.float32)
    jump_x, jump_y = random.uniform(0.01, 0.5, (2, height, width)).astype(np.float32)
    step = np.eye(labels) * (1 - 2 * drift) + (np.eye(labels, k=1) + np.eye(labels, k=-1)) * drift
    step[0, 0] = step[-1, -1] = 1 - drift

    def along_x(y: int, x: int) -> tuple:
        return (y, x), (y, x + 1), jump_x[y, x]

    def along_y(y: int, x: int) -> tuple:
        return (y, x), (y + 1, x), jump_y[y, x]

    rows = [along_x(y, x) for y in range(height) for x in range(width - 1)]
    columns = [along_y(y, x) for y in range(height - 1) for x in range(width)]

    def marginal(cell: tuple[int, int], edges: list[tuple]) -> np.ndarray:
        total = np.zeros(labels)
        for field in itertools.product(range(labels), repeat=len(cells)):
            label = dict(zip(cells, field, strict=True))
            p = np.prod([evidence[c][label[c]] for c in cells])
            p *= np.prod([(1 - j) * step[label[a], label[b]] + j / labels for a, b, j in edges])
            total[label[cell]] += p
        return total

    prior = np.full((height, labels), 1.0 / labels, np.float32)
    found = CombMarginals((height, width, labels))(evidence, prior, jump_x, jump_y, drift, drift, drift)
    for y, x in cells:
        spine_x = [along_x(y, i) for i in range(width - 1)]
        spine_y = [along_y(i, x) for i in range(height - 1)]
        expected = np.sqrt(marginal((y, x), rows + spine_y) * marginal((y, x), columns + spine_x))
        assert np.allclose(found[y, x], expected / expected.sum(), atol=1e-5)


def test_bad_input_is_named(far_estimator: WhitenedProjectionEstimator) -> None:
    good = np.full(SHAPE, 0.5, np.float32)
    with pytest.raises(InputError, match="shallow image: expected float32"):
        far_estimator.estimate(good[:-1], good)
    with pytest.raises(InputError, match="deep image: expected float32"):
        far_estimator.estimate(good, good.astype(np.float64))
    with pytest.raises(InputError, match="image size"):
        WhitenedProjectionEstimator(FAR, (10, 10))
    with pytest.raises(InputError, match="hypotheses"):
        EstimatorSettings(hypotheses=2)
    with pytest.raises(InputError, match="jump"):
        EstimatorSettings(jump=(0.5, 0.1))
    with pytest.raises(InputError, match="window"):
        EstimatorSettings(window=0.0)
