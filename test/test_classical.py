"""The classical estimators beside ours: the edge ratio for one picture, the S-transform for two."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

from dfd_ros.errors import InputError
from dfd_ros.optics.edge_ratio import EdgeRatioEstimator, apparent_blur, edge_blur, smooth_edges, spread_edges
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus
from dfd_ros.optics.s_transform import STransformEstimator, s_transform

LENS = Lens("test", 1.0, 2.0, 14.0, 12.0, 1.0, 8.0)
"""6 px of blur at infinity, 5.2 at 8 m."""
SHAPE = (160, 200)


def step(sigma: float, angle: float = 0.0, contrast: float = 0.6, offset: float = 0.3) -> np.ndarray:
    """A straight edge blurred by a Gaussian, (96, 96)."""
    y, x = np.mgrid[:96, :96] - 47.5
    across = x * math.cos(angle) + y * math.sin(angle) - offset
    return (0.2 + 0.5 * contrast * (1.0 + erf(across / (sigma * math.sqrt(2.0))))).astype(np.float32)


def noise_texture(seed: int = 0, smooth: float = 1.0) -> np.ndarray:
    field = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32), (0, 0), smooth)
    return np.clip(0.5 + 0.15 * field / field.std(), 0.0, 1.0).astype(np.float32)


def patches(seed: int = 0) -> np.ndarray:
    """Overlapping rectangles of random grey: edges of all heights, far enough apart to be steps."""
    random = np.random.default_rng(seed)
    image = np.full(SHAPE, 0.4, np.float32)
    for _ in range(60):
        top, left = random.integers(0, SHAPE[0] - 20), random.integers(0, SHAPE[1] - 20)
        height, width = random.integers(24, 60, 2)
        image[top : top + height, left : left + width] = random.uniform(0.05, 0.95)
    return image


def photograph(image: np.ndarray, depth: np.ndarray, lens: Lens = LENS, noise: float = 0.002) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    pair = render_defocus(image, depth, lens, [lens.f_number_shallow, lens.f_number_deep])
    return [(picture + noise * random.standard_normal(SHAPE)).astype(np.float32) for picture in pair]


def relative_error(estimate: np.ndarray, depth: np.ndarray | float) -> float:
    inside = (slice(16, -16), slice(16, -16))
    return float(np.mean(np.abs(estimate - depth)[inside] / np.broadcast_to(depth, SHAPE)[inside]))


# The edge ratio.


@given(
    sigma=st.floats(1.0, 6.0),
    angle=st.floats(0.0, 2.0 * math.pi),
    contrast=st.floats(0.35, 0.75),
    offset=st.floats(-0.5, 0.5),
)
def test_a_blurred_step_shows_how_much_it_is_blurred_whatever_its_height(
    sigma: float, angle: float, contrast: float, offset: float
) -> None:
    blur = edge_blur(step(sigma, angle, contrast, offset), largest=8.0)[16:-16, 16:-16]
    assert np.isfinite(blur).any()
    # A pixel's centre is up to half a pixel off the edge, where the ratio is a little less: seen on sharp edges.
    assert float(np.nanmedian(blur)) == pytest.approx(sigma, rel=0.03, abs=0.15)


def test_a_flat_picture_and_one_softer_than_believed_have_no_edges() -> None:
    assert not np.isfinite(edge_blur(np.full((40, 40), 0.3, np.float32))).any()
    assert not np.isfinite(edge_blur(step(4.0), largest=2.0)[8:-8, 8:-8]).any()
    estimate = EdgeRatioEstimator(LENS).estimate(np.full(SHAPE, 0.3, np.float32))
    assert np.isnan(estimate.depth).all()
    assert not estimate.confidence.any()


def test_an_odd_edge_follows_its_neighbours_of_the_same_grey_only() -> None:
    guide = np.full((40, 60), 0.2, np.float32)
    guide[:, 30:] = 0.8
    blur = np.full((40, 60), np.nan, np.float32)
    blur[10:30:2, 20], blur[20, 20], blur[10:30:2, 40] = 1.0, 3.0, 5.0
    smooth = smooth_edges(blur, guide)
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(blur))
    assert 1.0 < smooth[20, 20] < 1.6
    np.testing.assert_allclose(smooth[10:30:2, 40], 5.0, atol=0.01)


def test_values_spread_to_what_looks_alike_and_stop_at_its_edge() -> None:
    guide = np.full((40, 60), 0.2, np.float32)
    guide[:, 30:] = 0.8
    sparse = np.full((40, 60), np.nan, np.float32)
    sparse[:, 3:8], sparse[:, 52:57] = 1.0, 4.0
    dense = spread_edges(sparse, guide)
    np.testing.assert_allclose(dense[:, :28], 1.0, atol=0.15)
    np.testing.assert_allclose(dense[:, 32:], 4.0, atol=0.15)
    with pytest.raises(InputError, match="sparse"):
        spread_edges(np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), np.float32))


def test_the_matting_laplacian_is_that_of_its_definition() -> None:
    """Σ over windows of δ_ij − (1 + (I_i − μ)(I_j − μ)/(v + ε))/n, after Levin et al."""
    from dfd_ros.optics import edge_ratio

    guide = np.random.default_rng(0).random((6, 7)).astype(np.float32)
    matrix = np.zeros((42, 42))
    index = np.arange(42).reshape(6, 7)
    for y, x in np.ndindex(6, 7):
        window = (slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2))
        members, values = index[window].ravel(), guide[window].ravel().astype(float)
        deviation = values - values.mean()
        share = 1.0 + np.outer(deviation, deviation) / (values.var() + edge_ratio.MATTING_EPSILON)
        matrix[np.ix_(members, members)] += np.eye(members.size) - share / members.size
    product = edge_ratio._MattingLaplacian(guide, 1)
    x = np.random.default_rng(1).random((6, 7))
    np.testing.assert_allclose(product(x).ravel(), matrix @ x.ravel(), atol=1e-8)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9

    # And what is spread is the solution of the system with it.
    sparse = np.full((6, 7), np.nan, np.float32)
    sparse[1, 1], sparse[4, 5], sparse[2, 4] = 1.0, 4.0, 2.0
    known = np.isfinite(sparse).ravel()
    fidelity = edge_ratio.FIDELITY * known
    right = fidelity * np.where(known, sparse.ravel(), 0.0)
    expected = np.linalg.solve(matrix + np.diag(fidelity), right).reshape(6, 7)
    np.testing.assert_allclose(spread_edges(sparse, guide), expected, atol=0.02)


@pytest.mark.parametrize("depth", [1.5, 2.5, 5.0])
def test_one_picture_of_a_wall_of_patches_tells_its_distance(depth: float) -> None:
    shallow, _ = photograph(patches(), np.full(SHAPE, depth))
    estimate = EdgeRatioEstimator(LENS).estimate(shallow)
    # Where two edges meet they seem too sharp, so that blur comes out a little small.
    assert float(np.median(LENS.coc(estimate.depth))) == pytest.approx(float(LENS.coc(depth)), rel=0.2, abs=0.5)
    assert estimate.depth.dtype == estimate.confidence.dtype == np.float32
    assert 0.0 <= estimate.confidence.min() <= estimate.confidence.max() <= 1.0


def test_one_picture_tells_a_near_surface_from_a_far_one() -> None:
    depth = np.full(SHAPE, 5.0)
    depth[:, 100:] = 1.4
    shallow, _ = photograph(patches(3), depth)
    estimate = EdgeRatioEstimator(LENS).estimate(shallow).depth
    assert np.median(estimate[:, :85]) > 1.4 * np.median(estimate[:, 115:])


@pytest.mark.parametrize("psf", ["disk", "gaussian"])
@pytest.mark.parametrize("coc", [1.0, 2.0, 4.0, 8.0])
def test_an_edge_behind_a_lens_seems_as_soft_as_its_psf_predicts(psf: str, coc: float) -> None:
    """Rendered edges of wide disks seem twice as soft as a Gaussian of the disk's variance."""
    lens = Lens("wide", 1.0, 2.0, 14.0, 20.0, 1.0, 8.0, psf=psf)
    image = np.full(SHAPE, 0.2, np.float32)
    image[:, 100:] = 0.8
    (picture,) = render_defocus(image, np.full(SHAPE, lens.depth(coc)), lens, 2.0)
    predicted = float(apparent_blur(np.array([coc]), psf)[0])
    assert float(np.nanmedian(edge_blur(picture, 20.0))) == pytest.approx(predicted, rel=0.04, abs=0.05)
    wide = apparent_blur(np.array([60.0]), psf)[0]
    assert wide == pytest.approx({"disk": 30.0, "gaussian": 15.0}[psf], rel=0.03)
    assert np.all(np.diff(apparent_blur(np.arange(0.0, 30.0, 0.1), psf)) > 0)


# The S-transform.


@given(seed=st.integers(0, 2**31), difference=st.floats(-8.0, 20.0), own=st.floats(0.0, 6.0))
def test_on_a_cubic_picture_the_difference_of_blur_is_exact(seed: int, difference: float, own: float) -> None:
    """For a cubic f blurring by second moment σ² is f + σ²/4 ∇²f, to the last term."""
    random = np.random.default_rng(seed)
    y, x = (np.mgrid[:64, :80] - 32.0) / 40.0
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    coefficients = dict(zip(powers, random.uniform(-1.0, 1.0, len(powers)), strict=True))
    # Enough curvature everywhere: a picture with none tells nothing.
    coefficients[2, 0], coefficients[0, 2] = 4.0, 4.0
    cubic = sum(c * x**i * y**j for (i, j), c in coefficients.items())
    laplacian = sum(
        c * (i * (i - 1) * x ** max(i - 2, 0) * y**j + j * (j - 1) * x**i * y ** max(j - 2, 0))
        for (i, j), c in coefficients.items()
    ) / (40.0**2)
    deep = (cubic + own / 4.0 * laplacian).astype(np.float32)
    shallow = (cubic + (own + difference) / 4.0 * laplacian).astype(np.float32)
    moments = s_transform(shallow, deep, noise=1e-6).moments
    # float32 keeps seven digits of pictures whose Laplacian is a two-hundredth of them.
    np.testing.assert_allclose(moments[12:-12, 12:-12], difference, atol=0.05)


@pytest.mark.parametrize("sigma", [(0.5, 1.0), (1.0, 1.5), (0.0, 1.0)])
def test_gaussians_of_noise_differ_by_twice_their_variances(sigma: tuple[float, float]) -> None:
    """The second moment of a Gaussian over the plane is 2 σ². Smooth texture: the equations hold to small blur only."""
    texture = noise_texture(smooth=4.0)
    deep, shallow = (cv2.GaussianBlur(texture, (0, 0), s) if s else texture for s in sigma)
    found = s_transform(shallow, deep, noise=1e-4)
    expected = 2.0 * (sigma[1] ** 2 - sigma[0] ** 2)
    assert float(np.median(found.moments)) == pytest.approx(expected, rel=0.12)
    swapped = s_transform(deep, shallow, noise=1e-4)
    np.testing.assert_allclose(swapped.moments, -found.moments, atol=1e-4)


def test_flat_areas_have_no_evidence_and_take_the_blur_of_what_surrounds_them() -> None:
    texture = noise_texture(smooth=2.0)
    texture[50:110, 70:130] = 0.5
    random = np.random.default_rng(2)
    deep, shallow = (cv2.GaussianBlur(texture, (0, 0), s) for s in (0.5, 1.5))
    deep, shallow = ((p + 0.002 * random.standard_normal(SHAPE)).astype(np.float32) for p in (deep, shallow))
    found = s_transform(shallow, deep, noise=0.002)
    flat = (slice(60, 100), slice(80, 120))
    assert found.evidence[flat].max() < 0.7
    assert found.evidence[:40].min() > 0.9
    assert float(np.median(found.moments[flat])) == pytest.approx(float(np.median(found.moments[:40])), rel=0.3)


@pytest.mark.parametrize("depth", [1.4, 2.0, 3.0])
def test_a_pair_of_a_textured_wall_tells_its_distance(depth: float) -> None:
    shallow, deep = photograph(noise_texture(smooth=2.5), np.full(SHAPE, depth))
    estimate = STransformEstimator(LENS).estimate(shallow, deep)
    assert relative_error(estimate.depth, depth) < 0.15
    assert estimate.depth.dtype == estimate.confidence.dtype == np.float32


def test_a_pair_of_a_slanted_ground_beats_the_best_constant_by_far() -> None:
    depth = np.repeat(np.linspace(6.0, 1.3, SHAPE[0])[:, None], SHAPE[1], axis=1)
    shallow, deep = photograph(noise_texture(5, 2.5), depth)
    estimate = STransformEstimator(LENS).estimate(shallow, deep).depth
    constants = [relative_error(np.full(SHAPE, z), depth) for z in np.linspace(1.0, 8.0, 50)]
    assert relative_error(estimate, depth) < 0.5 * min(constants)


def test_focus_blur_and_the_lens_field_are_taken_into_account() -> None:
    texture = noise_texture(smooth=2.5)
    curved = Lens(**{**vars(LENS), "coc_field": -0.3})
    shallow, deep = photograph(texture, np.full(SHAPE, 2.0), curved)
    plain, aware = (STransformEstimator(lens).estimate(shallow, deep).depth for lens in (LENS, curved))
    assert relative_error(aware, 2.0) < relative_error(plain, 2.0)
    soft = Lens(**{**vars(LENS), "focus_blur": 1.0})
    assert (STransformEstimator(soft).estimate(shallow, deep).depth <= plain).all()


def test_pictures_of_another_form_are_refused_in_one_sentence() -> None:
    image = np.zeros((40, 50), np.float32)
    for shallow, deep, said in (
        (image, image[:, :-1], "one shape"),
        (image.astype(np.float64), image, "shallow must be"),
        (image, np.zeros((40, 50, 3), np.float32), "deep must be"),
    ):
        with pytest.raises(InputError, match=said):
            s_transform(shallow, deep)
    with pytest.raises(InputError, match="positive"):
        s_transform(image, image, smoothing=0.0)
    with pytest.raises(InputError, match="image must be"):
        edge_blur(np.zeros((4, 4, 3), np.float32))
