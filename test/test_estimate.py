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
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.projection import WhitenedProjection, transfer_function
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
        coc = np.broadcast_to(lens.coc(depth, f_number), SHAPE)
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


def test_the_true_blur_leaves_only_noise_and_flat_areas_favour_none() -> None:
    cocs = np.arange(0.0, 12.5, 0.5)
    projection = WhitenedProjection(SHAPE, cocs, FAR.f_number_ratio)
    energies, usable = projection(*photograph(FAR, np.full(SHAPE, 4.0), texture(), noise=0.002))
    assert np.all(usable == 1.0)
    mean = energies[:, 6:-6, 6:-6].mean(axis=(1, 2))
    assert cocs[mean.argmin()] == pytest.approx(float(FAR.coc(4.0)), abs=0.5)
    assert mean.max() > 10 * mean.min()
    energies, _ = projection(*photograph(FAR, np.full(SHAPE, 4.0), np.full_like(texture(), 0.5), noise=0.002))
    mean = energies.mean(axis=(1, 2))
    assert mean.max() < 1.1 * mean.min()
    # Both images were divided by the root of their brightness.
    assert mean[0] == pytest.approx(0.002**2 / 0.5, rel=0.2)


@pytest.mark.parametrize("coc", [1.5, 4.0, 11.3])
def test_the_transfer_function_is_the_transform_of_a_disk(coc: float) -> None:
    kernel = np.zeros((64, 64))
    small = disk(coc)
    kernel[: small.shape[0], : small.shape[1]] = small
    fy, fx = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None]
    # Sampled over pixels the disk gains the pixel's own sinc.
    expected = np.abs(np.fft.rfft2(kernel)) / (np.sinc(fy) * np.sinc(fx))
    low = np.hypot(fy, fx) < 0.25
    assert np.abs(np.abs(transfer_function(coc, fy, fx)) - expected)[low].max() < 0.03


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
