"""A pair's shallow image comes to the exposure and the place of its deep one."""

from __future__ import annotations

import numpy as np
import pytest
from test_registration import SHAPE, photograph

from dfd_ros.capture.matching import MatchSettings, MotionError, match_pair
from dfd_ros.capture.registration import Motion

MAGNIFICATION = 1.01


def encoded(motion: Motion, blur: float, gain: float = 1.0) -> np.ndarray:
    return np.rint(255.0 * np.clip(gain * photograph(motion, blur), 0.0, 1.0) ** (1 / 2.2)).astype(np.uint8)


@pytest.fixture(scope="module")
def deep() -> np.ndarray:
    return encoded(Motion(), 0.8)


@pytest.fixture(scope="module")
def magnified() -> np.ndarray:
    return encoded(Motion(scale=MAGNIFICATION), 2.0)


def difference(image: np.ndarray, deep: np.ndarray) -> float:
    inside = (slice(20, -20), slice(20, -20))
    return float(np.abs(image[inside].astype(float) - deep[inside]).mean())


def test_the_lens_s_own_magnification_is_no_motion(deep: np.ndarray, magnified: np.ndarray) -> None:
    for motion in ("compensate", "refuse"):
        settings = MatchSettings(motion=motion, max_motion=0.3, magnification=MAGNIFICATION)
        match = match_pair(magnified, deep, settings, 1.0)
        assert match.motion < 0.3
        assert match.scale == pytest.approx(MAGNIFICATION, abs=1e-3)
    with pytest.raises(MotionError, match="of motion or less"):
        match_pair(magnified, deep, MatchSettings(motion="refuse", max_motion=0.3), 1.0)


def test_a_magnification_that_is_kept_is_not_measured(deep: np.ndarray, magnified: np.ndarray) -> None:
    """With parallax the size tells near from far: registration must leave it."""
    moved = encoded(Motion(dx=3.0, dy=-1.5, scale=MAGNIFICATION, rotation=0.004), 1.0)
    known = match_pair(moved, deep, MatchSettings(magnification=MAGNIFICATION, keep_magnification=True), 1.0)
    assert known.scale == pytest.approx(MAGNIFICATION, abs=2e-5)
    assert difference(known.shallow, encoded(Motion(), 1.0)) < 1.5
    assumed = match_pair(magnified, deep, MatchSettings(keep_magnification=True), 1.0)
    assert assumed.scale == pytest.approx(1.0, abs=2e-5)


def test_it_is_undone_even_where_nothing_is_measured(deep: np.ndarray, magnified: np.ndarray) -> None:
    same = encoded(Motion(), 2.0)
    plain = match_pair(magnified, deep, MatchSettings(motion="ignore"), 1.0)
    known = match_pair(magnified, deep, MatchSettings(motion="ignore", magnification=MAGNIFICATION), 1.0)
    assert plain.shallow is magnified
    assert not plain.compensated
    assert known.compensated
    assert np.isnan(known.motion)
    assert difference(known.shallow, same) < 0.25 * difference(plain.shallow, same)


def test_a_pair_that_fits_is_left_alone(deep: np.ndarray) -> None:
    shallow = encoded(Motion(), 1.5)
    match = match_pair(shallow, deep, MatchSettings(), 1.0)
    assert match.shallow is shallow
    assert match.gain == 1.0
    assert match.motion < 0.1


def test_both_gain_and_shift_are_taken_out(deep: np.ndarray) -> None:
    match = match_pair(encoded(Motion(2.3, -1.6), 1.5, gain=0.7), deep, MatchSettings(), 1.0)
    assert match.gain == pytest.approx(1 / 0.7, rel=0.02)
    assert match.motion == pytest.approx(np.hypot(2.3, 1.6), abs=0.25)
    assert difference(match.shallow, encoded(Motion(), 1.5)) < 2.0
    assert SHAPE == match.shallow.shape
