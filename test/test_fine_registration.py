"""Windows tell their shifts, and a registered pair's motion comes out to hundredths of a pixel, parallax or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_registration import SHAPE, displacement_error, photograph

from dfd_ros.capture.fine_registration import refine_motion
from dfd_ros.capture.matching import MatchSettings, match_pair
from dfd_ros.capture.registration import Motion
from dfd_ros.data.synthetic import displaced
from dfd_ros.optics.lens import Lens
from dfd_ros.window_shifts import WINDOW, window_means, window_shifts

DEEP = photograph(Motion(), 0.7)


LENS = Lens("test", 1.0, 2.0, 8.0, coc_scale=20.0, min_depth=0.5, max_depth=10.0)
DEPTH = np.full(SHAPE, 2.0, np.float32)


def outwards(picture: np.ndarray, corner: float) -> np.ndarray:
    """The picture displaced by parallax at one depth, `corner` pixels in the corners."""
    lens = replace(LENS, parallax=corner / float(LENS.signed_coc(2.0)))
    return displaced(picture, DEPTH, lens, np.zeros(2), 1.0)


@settings(max_examples=20, deadline=None)
@given(dx=st.floats(-0.5, 0.5), dy=st.floats(-0.5, 0.5), blur=st.floats(0.8, 2.0))
def test_windows_tell_their_shift_and_place(dx: float, dy: float, blur: float) -> None:
    found = window_shifts(photograph(Motion(dx, dy), blur), DEEP)
    assert found.good.mean() > 0.5
    assert np.median(found.shift[found.good], axis=0) == pytest.approx([dx, dy], rel=0.3, abs=0.02)
    corner = 0.5 * np.hypot(SHAPE[0] - 1, SHAPE[1] - 1)
    assert found.corner == pytest.approx(corner)
    assert found.place[0, 0] * corner == pytest.approx([0.5 * (WINDOW - SHAPE[1]), 0.5 * (WINDOW - SHAPE[0])])
    assert found.place.shape[:2] == window_means(DEEP).shape == found.good.shape[1:]


def test_means_are_those_of_windows() -> None:
    means = window_means(DEEP)
    for row, column in ((0, 0), (3, 5), (means.shape[0] - 1, means.shape[1] - 1)):
        top, left = row * WINDOW // 2, column * WINDOW // 2
        assert means[row, column] == pytest.approx(DEEP[top : top + WINDOW, left : left + WINDOW].mean(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    dx=st.floats(-0.3, 0.3),
    dy=st.floats(-0.3, 0.3),
    rotation=st.floats(-8e-4, 8e-4),
    corner=st.floats(-0.6, 0.6),
    blur=st.floats(0.8, 2.0),
)
def test_what_registration_left_is_taken_out(dx: float, dy: float, rotation: float, corner: float, blur: float) -> None:
    coarse = Motion(2.0, -1.0, 1.002, 0.003, residual=0.1, quality=0.8)
    true = replace(coarse, dx=coarse.dx + dx, dy=coarse.dy + dy, rotation=coarse.rotation + rotation)
    found = refine_motion(photograph(true, blur), outwards(DEEP, -corner), coarse)
    assert displacement_error(found, true) < 0.05
    assert (found.scale, found.residual, found.quality) == (coarse.scale, coarse.residual, coarse.quality)


def test_where_nothing_is_seen_the_motion_stays() -> None:
    flat = np.full(SHAPE, 0.5, np.float32)
    motion = Motion(0.3, -0.2)
    assert refine_motion(flat, flat, motion) == motion
    small = flat[: WINDOW - 1]
    assert refine_motion(small, small, motion) == motion


def test_few_windows_in_a_corner_invent_no_motion() -> None:
    true = Motion(0.2, -0.1)
    shallow, deep = (np.full(SHAPE, 0.5, np.float32) for _ in range(2))
    corner = (slice(0, 96), slice(0, 144))
    shallow[corner], deep[corner] = photograph(true, 1.0)[corner], DEEP[corner]
    found = refine_motion(shallow, deep, Motion())
    assert found != Motion()
    assert displacement_error(found, true) < 0.5


def test_a_pair_of_a_lens_with_parallax_is_matched_finely() -> None:
    """Whatever the gain between its pictures."""
    true = Motion(0.7, -0.4)
    deep, shallow = (
        np.rint(255.0 * np.clip(image, 0.0, 1.0) ** (1 / 2.2)).astype(np.uint8)
        for image in (outwards(DEEP, -0.5), 0.7 * photograph(true, 1.5))
    )
    match = match_pair(shallow, deep, MatchSettings(keep_magnification=True), 1.0)
    assert match.gain == pytest.approx(1 / 0.7, rel=0.02)
    left = photograph(Motion(), 1.5), np.asarray(match.shallow / 255.0, np.float32) ** np.float32(2.2)
    found = window_shifts(left[1], left[0])
    assert np.abs(np.median(found.shift[found.good], axis=0)).max() < 0.03
