"""The defocus renderer against closed forms, convolution by transfer function, and a thin-lens ray tracer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from dfd_ros.errors import InputError
from dfd_ros.optics.disks import kernel_table
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus
from dfd_ros.optics.transfer import transfer_function

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from published import render_published
from ray_tracer import Scene, photograph, pinhole, psnr, scenes


def lens_of(coc_at_infinity: float, focus: float = 5.0, psf: str = "disk") -> Lens:
    """A lens whose CoC at infinity is this many pixels at F/2."""
    return Lens("test", focus, 2.0, 4.0, 2.0 * coc_at_infinity, 0.5, 100.0, psf=psf)


def texture(shape: tuple[int, int], seed: int = 0, smooth: float = 0.8) -> np.ndarray:
    field = np.random.default_rng(seed).random((*shape, 3))
    field = gaussian_filter(field, (smooth, smooth, 0), mode="wrap")
    return ((field - field.min()) / np.ptp(field)).astype(np.float32)


def disk_edge(x: np.ndarray, diameter: float) -> np.ndarray:
    """Share of a disk around x that lies at positions > 0 (the edge spread function of a disk)."""
    t = np.clip(2.0 * np.asarray(x, float) / diameter, -1.0, 1.0)
    return 0.5 + (t * np.sqrt(1.0 - t**2) + np.arcsin(t)) / np.pi


@pytest.mark.parametrize("psf", ["disk", "gaussian"])
def test_kernels_have_the_transfer_function_of_their_psf(psf: str) -> None:
    table = kernel_table(20.0, psf)
    frequency = np.linspace(0.01, 0.35, 35)
    for coc in (0.3, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0):
        kernel = table.kernel(coc)
        offset = np.arange(len(kernel)) - len(kernel) // 2
        along_row = np.cos(2 * np.pi * frequency[:, None] * offset) @ kernel.sum(axis=0)
        diagonal = 2 * np.pi * frequency / np.sqrt(2)
        across = np.cos(diagonal[:, None, None] * (offset[:, None] + offset)) * kernel
        assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
        expected = transfer_function(coc, frequency, psf)
        np.testing.assert_allclose(along_row, expected, atol=0.012)
        np.testing.assert_allclose(across.sum(axis=(1, 2)), expected, atol=0.012)


def test_the_transfer_functions_are_those_of_a_disk_and_of_a_gaussian_of_its_variance() -> None:
    frequency = np.array([0.0, 1.2196698912665045 / 7.0])
    np.testing.assert_allclose(
        transfer_function(7.0, frequency), [1.0, 0.0], atol=1e-9
    )  # the Airy pattern's first zero
    low = np.array([1e-3])
    disk, gaussian = (1.0 - transfer_function(4.0, low, psf) for psf in ("disk", "gaussian"))
    np.testing.assert_allclose(disk, gaussian, rtol=1e-3)


def test_no_blur_where_the_coc_is_zero() -> None:
    image = texture((40, 50))
    (picture,) = render_defocus(image, np.full((40, 50), 5.0), lens_of(8.0), [2.0])
    np.testing.assert_allclose(picture, image, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    value=st.floats(0.01, 1.0),
    coc=st.floats(0.5, 30.0),
    psf=st.sampled_from(["disk", "gaussian"]),
)
def test_a_constant_picture_stays_constant(seed: int, value: float, coc: float, psf: str) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.choice([2.5, 4.0, 5.0, 8.0, 20.0, np.nan], (8, 10))
    depth = np.kron(blocks, np.ones((8, 8))) * rng.uniform(0.98, 1.02, (64, 80))
    image = np.full((64, 80, 3), value, np.float32)
    for picture in render_defocus(image, depth, lens_of(coc, psf=psf), [2.0, 4.0]):
        np.testing.assert_allclose(picture, value, rtol=1e-3)


@pytest.mark.parametrize(("psf", "coc"), [("disk", 1.2), ("disk", 4.0), ("disk", 9.3), ("gaussian", 6.0)])
def test_a_flat_scene_is_convolved_with_the_psf(psf: str, coc: float) -> None:
    lens = lens_of(12.0, psf=psf)
    image = texture((128, 128))
    depth = np.full(image.shape[:2], lens.depth(coc))
    (picture,) = render_defocus(image, depth, lens, [2.0])
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    otf = transfer_function(coc, frequency, psf)[..., None]
    expected = np.fft.irfft2(np.fft.rfft2(image, axes=(0, 1)) * otf, s=(128, 128), axes=(0, 1))
    inside = slice(16, -16)
    error = picture[inside, inside] - expected[inside, inside]
    assert np.sqrt(np.mean(error**2)) < 0.02 * np.std(image)


def test_the_edge_of_a_blurred_foreground_is_half_transparent() -> None:
    """A near half-plane before a far one: what shows of the far one is what the near one's disk leaves open."""
    lens = lens_of(10.0)
    shape, edge = (60, 120), 60
    depth = np.full(shape, np.inf)
    depth[:, :edge] = lens.depth(12.0, side="near")
    image = np.full((*shape, 3), 0.2, np.float32)
    image[:, :edge] = 0.9
    (picture,) = render_defocus(image, depth, lens, [2.0])
    near_share = disk_edge(edge - 0.5 - np.arange(shape[1]), 12.0)
    np.testing.assert_allclose(picture[30, :, 0], 0.2 + 0.7 * near_share, atol=0.03)


def test_a_sharp_foreground_hides_the_blur_behind_it() -> None:
    """Plain blurring by each pixel's own disk would spill the bright background over the object in focus."""
    lens = lens_of(12.0)
    depth = np.full((60, 120), np.inf)
    depth[:, :60] = lens.focus_distance
    image = np.ones((60, 120, 3), np.float32)
    image[:, :60] = texture((60, 60)) * 0.2
    (picture,) = render_defocus(image, depth, lens, [2.0])
    np.testing.assert_allclose(picture[:, :58], image[:, :58], atol=0.01)
    # Behind the edge the background goes on: no dark fringe either.
    np.testing.assert_allclose(picture[10:-10, 63:], 1.0, atol=0.01)


@pytest.mark.parametrize("coc", [8.0, 30.0])
def test_nothing_shines_through_a_slanted_surface(coc: float) -> None:
    """A dark road before a bright sky: the layers that the road is cut into must not let the sky through."""
    lens = lens_of(coc, focus=3.0)
    height, width = 200, 120
    row = np.arange(height)
    depth = np.full((height, width), np.nan)
    depth[40:] = (120.0 / (row[40:] - 38.0))[:, None]
    image = np.zeros((height, width, 3), np.float32)
    image[:40] = 1.0
    (picture,) = render_defocus(image, depth, lens, [2.0])
    assert picture[40 + int(coc) + 4 :].max() < 0.01
    assert picture[: 36 - int(coc / 2)].min() > 0.99


def test_blur_grows_with_the_aperture_and_with_distance_from_focus() -> None:
    lens, image = lens_of(10.0), texture((80, 80), smooth=0.6)
    contrasts = []
    for z in (5.0, 7.0, 12.0, 40.0):
        shallow, deep = render_defocus(image, np.full((80, 80), z), lens, [2.0, 4.0])
        contrasts.append((shallow.std(), deep.std()))
    shallow_contrast, deep_contrast = np.array(contrasts).T
    assert np.all(np.diff(shallow_contrast) < 0)
    assert np.all(np.diff(deep_contrast) < 0)
    assert np.all(shallow_contrast[1:] < deep_contrast[1:])


def test_sky_is_infinitely_far_and_threads_change_nothing() -> None:
    lens, image = lens_of(10.0), texture((100, 90))
    depth = np.full((100, 90), 6.0)
    depth[:50] = np.nan
    far = np.where(np.isnan(depth), 1e9, depth)
    one = render_defocus(image, depth, lens, [2.0, 4.0])
    two = render_defocus(image, far, lens, [2.0, 4.0], threads=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("scene", "area"),
    [pytest.param(scene, True, id=scene.name) for scene in scenes()]
    + [pytest.param(scene, False, id=f"{scene.name}, point samples") for scene in scenes() if scene.edges],
)
def test_the_picture_is_the_ray_tracers_and_no_worse_than_the_published_formula(scene: Scene, area: bool) -> None:
    image, depth = pinhole(scene, area)
    truth = photograph(scene, samples=256, area=area)
    (picture,) = render_defocus(image, depth, scene.lens, scene.f_number)
    published = render_published(image, depth, scene.lens, scene.f_number)
    assert psnr(picture, truth) >= max(38.0, psnr(published, truth) - 0.01)


def test_the_ray_tracer_blurs_a_wall_as_its_transfer_function() -> None:
    scene = next(scene for scene in scenes() if scene.name == "wall out of focus")
    image, depth = pinhole(scene)
    truth = photograph(scene, samples=256)
    coc = float(scene.lens.coc(depth[0, 0], scene.f_number))
    shape = image.shape[:2]
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    otf = transfer_function(coc, frequency)[..., None]
    expected = np.fft.irfft2(np.fft.rfft2(image, axes=(0, 1)) * otf, s=shape, axes=(0, 1))
    inside = slice(10, -10)
    np.testing.assert_allclose(truth[inside, inside], expected[inside, inside], atol=0.01)


def test_a_focal_stack_is_the_pictures_of_its_focus_distances() -> None:
    lens, image = lens_of(8.0), texture((70, 90))
    depth = np.linspace(2.0, 30.0, 90) * np.ones((70, 1))
    stack = render_defocus(image, depth, lens, 2.0, [2.5, 5.0, 20.0], threads=2)
    for distance, picture in zip((2.5, 5.0, 20.0), stack, strict=True):
        (alone,) = render_defocus(image, depth, lens.refocused(distance), [2.0])
        np.testing.assert_allclose(picture, alone, atol=0.02)
        blurred = np.abs(picture - image).mean(axis=(0, 2))
        assert blurred.argmin() == pytest.approx(np.abs(depth[0] - distance).argmin(), abs=2)


def test_blur_follows_the_field_of_the_lens() -> None:
    """A lens whose CoC doubles towards the corners: the centre is as without, the corner as at half the f-number."""
    plain = lens_of(4.0)
    lens = Lens(**{**vars(plain), "coc_field": 1.0})
    image, depth = texture((101, 141)), np.full((101, 141), np.inf)
    even, doubled = (render_defocus(image, depth, plain, n)[0] for n in (2.0, 1.0))
    (picture,) = render_defocus(image, depth, lens, 2.0)
    np.testing.assert_allclose(picture[46:55, 66:75], even[46:55, 66:75], atol=0.02)
    np.testing.assert_allclose(picture[:4, :4], doubled[:4, :4], atol=0.05)


def test_a_grey_picture_is_one_channel_of_a_coloured_one() -> None:
    lens, image = lens_of(6.0), texture((50, 60))[..., 0]
    depth = np.full((50, 60), 9.0)
    depth[:, :30] = 3.0
    grey, coloured = (render_defocus(one, depth, lens, 2.0)[0] for one in (image, np.dstack([image] * 3)))
    assert grey.shape == image.shape
    np.testing.assert_allclose(grey, coloured[..., 1], atol=1e-6)


def test_a_pixel_that_is_not_finite_stays_so_and_lends_nothing() -> None:
    lens, image = lens_of(8.0), np.full((60, 70, 3), 0.4, np.float32)
    depth = np.full((60, 70), 12.0)
    depth[20:40, 20:50] = 3.0
    image[30, 35], image[10, 10, 1], image[20, 20] = np.nan, np.inf, np.nan
    lost = ~np.isfinite(image).all(axis=2)
    for picture in render_defocus(image, depth, lens, [2.0, 4.0]):
        assert np.isnan(picture[lost]).all()
        np.testing.assert_allclose(picture[~lost], 0.4, rtol=1e-3)


def test_bad_input_is_named() -> None:
    lens, image, depth = lens_of(10.0), np.zeros((8, 9, 3), np.float32), np.ones((8, 9))
    with pytest.raises(InputError, match="HxWx3"):
        render_defocus(image[..., :2], depth, lens, [2.0])
    with pytest.raises(InputError, match=r"\(8, 9\)"):
        render_defocus(image, depth[1:], lens, [2.0])
    with pytest.raises(InputError, match="positive metres"):
        render_defocus(image, depth * 0, lens, [2.0])
    with pytest.raises(InputError, match="f_numbers"):
        render_defocus(image, depth, lens, [])
    with pytest.raises(InputError, match="f_numbers"):
        render_defocus(image, depth, lens, [2.0, -1.0])
    with pytest.raises(InputError, match="as many"):
        render_defocus(image, depth, lens, [2.0, 4.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="CoC"):
        render_defocus(image, 0.01 * depth, lens, [2.0])
    physical = Lens.physical(
        *("test",),
        **{"focal_length": 0.05, "pixel_pitch": 5e-6, "focus_distance": 5.0, "f_number_shallow": 2.0},
        **{"f_number_deep": 8.0, "min_depth": 1.0, "max_depth": 50.0},
    )
    with pytest.raises(InputError, match="focal length"):
        render_defocus(image, depth, physical, 2.0, 0.05)
    with pytest.raises(InputError, match="focal length"):
        render_defocus(image, 0.04 * depth, physical, 2.0)
    with pytest.raises(InputError, match="psf"):
        kernel_table(3.0, "square")
    with pytest.raises(InputError, match="max_coc"):
        kernel_table(float("nan"))
