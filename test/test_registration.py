"""Registration and gain of a pair: known motions come back, whatever the defocus."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dfd_ros.capture.registration import Motion, measure_gain, register_pair, warp
from dfd_ros.errors import InputError

SHAPE = (300, 400)


def texture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """1/f noise in [0.1, 0.8], float32: the spectrum of natural images."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    spectrum = np.fft.rfft2(random.standard_normal(shape)) / np.maximum(np.hypot(fy, fx), 1.0 / max(shape))
    image = np.fft.irfft2(spectrum, s=shape)
    return np.clip(0.45 + 0.12 * image / image.std(), 0.1, 0.8).astype(np.float32)


SCENE = texture((SHAPE[0] + 100, SHAPE[1] + 100))


def photograph(motion: Motion, blur: float) -> np.ndarray:
    """What the camera sees of SCENE after `motion`, defocused by a Gaussian: a resampling independent of `warp`."""
    height, width = SHAPE
    v, u = np.mgrid[:height, :width].astype(np.float64)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    # The shallow image at y shows what the deep one shows at x, y = centre + s R (x - centre) + t: invert.
    x, y = u - cx - motion.dx, v - cy - motion.dy
    cosine, sine = math.cos(motion.rotation) / motion.scale, math.sin(motion.rotation) / motion.scale
    map_x, map_y = cosine * x + sine * y + cx + 50, -sine * x + cosine * y + cy + 50
    sharp = cv2.remap(SCENE, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LANCZOS4)
    return cv2.GaussianBlur(sharp, (0, 0), blur)


def displacement_error(found: Motion, true: Motion) -> float:
    """Largest distance between where the two motions send the corners and the centre, pixels."""
    points = np.array([[x, y, 1.0] for x in (0, SHAPE[1] / 2, SHAPE[1]) for y in (0, SHAPE[0] / 2, SHAPE[0])])
    return float(np.linalg.norm(points @ (found.matrix(SHAPE) - true.matrix(SHAPE)).T, axis=1).max())


@settings(max_examples=25, deadline=None)
@given(
    dx=st.floats(-20, 20),
    dy=st.floats(-20, 20),
    scale=st.floats(0.985, 1.015),
    rotation=st.floats(-0.012, 0.012),
    blur=st.floats(1.0, 3.0),
)
def test_a_motion_comes_back_to_a_quarter_pixel_despite_defocus(
    dx: float, dy: float, scale: float, rotation: float, blur: float
) -> None:
    true = Motion(dx, dy, scale, rotation)
    found = register_pair(1.3 * photograph(true, blur), photograph(Motion(), 0.7))
    assert displacement_error(found, true) < 0.25
    assert found.quality > 0.4
    assert found.residual < 0.25


def test_a_pair_at_rest_has_no_motion() -> None:
    found = register_pair(photograph(Motion(), 2.5), photograph(Motion(), 0.7))
    assert found.largest_shift(SHAPE) < 0.05
    assert found.quality > 0.8


def test_warping_undoes_the_motion() -> None:
    true = Motion(3.4, -2.2, 1.004, 0.006)
    shallow, deep = photograph(true, 1.5), photograph(Motion(), 1.5)
    out = np.empty_like(shallow)
    moved = warp(shallow, register_pair(shallow, deep), out)
    assert moved is out
    inside = (slice(12, -12), slice(12, -12))
    assert np.abs(moved - deep)[inside].max() < 0.02
    assert np.abs(shallow - deep)[inside].max() > 0.1
    assert register_pair(moved, deep).largest_shift(SHAPE) < 0.1


def test_warp_takes_colour_and_bytes() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[100, 103] = 200
    moved = warp(image, Motion(dx=3.0))
    assert moved.dtype == np.uint8
    assert tuple(moved[100, 100]) == (200, 200, 200)


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_a_flat_scene_is_reported_not_guessed(noise: float) -> None:
    random = np.random.default_rng(1)
    pair = [(0.4 + noise * random.standard_normal(SHAPE)).astype(np.float32) for _ in range(2)]
    found = register_pair(*pair)
    assert found.quality < 0.1
    assert found.largest_shift(SHAPE) < 1e-9


def test_unrelated_images_have_low_quality() -> None:
    found = register_pair(texture(SHAPE, 1), texture(SHAPE, 2))
    assert found.quality < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_pictures_hardly_larger_than_a_tile_are_measured_whatever_they_show(seed: int) -> None:
    """Unrelated ones may give any coarse shift, which must leave a tile in common."""
    found = register_pair(texture((140, 150), seed), texture((140, 150), 10 + seed))
    assert found.quality < 0.5


def test_one_moving_object_does_not_turn_the_picture() -> None:
    true = Motion(1.5, 0.5)
    shallow, deep = photograph(true, 1.0), photograph(Motion(), 1.0)
    other = photograph(Motion(9.0, 5.0), 1.0)
    shallow[40:140, 60:180] = other[40:140, 60:180]
    assert displacement_error(register_pair(shallow, deep), true) < 0.25


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.3, 1.2), blur=st.floats(0.8, 5.0), dx=st.floats(-4, 4))
def test_the_gain_is_found_within_two_percent(gain: float, blur: float, dx: float) -> None:
    deep = photograph(Motion(), 0.7)
    shallow = np.clip(photograph(Motion(dx), blur) / gain, 0.0, 1.0)
    assume(np.mean(shallow < 0.95) > 0.5)  # with more than half of it clipped, 5 % is what is left to be had
    assert measure_gain(shallow, deep) == pytest.approx(gain, rel=0.02)


def test_a_clipped_window_does_not_bias_the_gain() -> None:
    deep = photograph(Motion(), 0.7)
    deep[50:150, 50:200] = 1.0
    shallow = np.minimum(1.25 * cv2.GaussianBlur(deep, (0, 0), 3.0), 1.0)
    assert measure_gain(shallow, deep) == pytest.approx(0.8, rel=0.02)


def test_bad_pairs_are_refused() -> None:
    grey = np.full((200, 200), 0.5, np.float32)
    with pytest.raises(InputError, match="one size"):
        register_pair(grey, grey[:150])
    with pytest.raises(InputError, match="float32"):
        measure_gain(grey.astype(np.uint8), grey.astype(np.uint8))
    with pytest.raises(InputError, match="at least 128x128"):
        register_pair(grey[:100], grey[:100])
    with pytest.raises(InputError, match="clipped"):
        measure_gain(np.ones_like(grey), grey)
