"""Reliability curves of estimates whose chance of being right is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfd_ros.errors import InputError
from dfd_ros.scoring.reliability import ReliabilityAccumulator, plot_reliability


def frame(
    power: float, seed: int = 0, shape: tuple[int, int] = (300, 400)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate, truth, confidence: right (to 5 %, not 50 %) with probability confidence ** power."""
    random = np.random.default_rng(seed)
    confidence = random.random(shape).astype(np.float32)
    right = random.random(shape) < confidence**power
    truth = random.uniform(1.0, 5.0, shape).astype(np.float32)
    return truth * np.where(right, 1.05, 1.5).astype(np.float32), truth, confidence


def test_confidence_that_is_a_probability_is_called_calibrated() -> None:
    reliability = ReliabilityAccumulator()
    for seed in range(2):
        reliability.add(*frame(1.0, seed))
    curve = reliability.curve
    assert np.allclose(curve.actual, curve.predicted, atol=0.02)
    assert np.allclose(curve.share, 0.1, atol=0.005)
    assert curve.calibration_error < 0.01
    right, share = reliability.right_when_said(0.9)
    assert right == pytest.approx(0.9, abs=0.01)
    assert share == pytest.approx(0.2, abs=0.01)  # those above 0.8


def test_boasting_shows() -> None:
    reliability = ReliabilityAccumulator()
    reliability.add(*frame(3.0))
    curve = reliability.curve
    assert np.allclose(curve.actual, curve.predicted**3, atol=0.04)
    assert curve.calibration_error == pytest.approx(1 / 2 - 1 / 4, abs=0.02)
    assert reliability.right_when_said(0.9)[0] < 0.8


def test_unknown_depths_do_not_count_and_nobody_may_be_that_sure() -> None:
    reliability = ReliabilityAccumulator(tolerance=0.01)
    truth = np.array([1.0, np.nan, 0.0, 2.0], np.float32)
    estimate = np.array([1.0, 1.0, 1.0, np.nan], np.float32)
    reliability.add(estimate, truth, np.full(4, 0.6, np.float32))
    assert reliability.curve.share.tolist() == [1.0]
    assert reliability.curve.actual.tolist() == [1.0]
    assert reliability.right_when_said(0.9)[1] == 0.0


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    reliability = ReliabilityAccumulator()
    reliability.add(*frame(1.0))
    plot_reliability({"made up": reliability.curve}, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").stat().st_size > 5000


def test_bad_input_is_named() -> None:
    estimate, truth, confidence = frame(1.0)
    reliability = ReliabilityAccumulator()
    with pytest.raises(InputError, match="arrays of one shape"):
        reliability.add(estimate[:-1], truth, confidence)
    with pytest.raises(InputError, match="values in"):
        reliability.add(estimate, truth, 2.0 * confidence)
    with pytest.raises(InputError, match="tolerance"):
        ReliabilityAccumulator(tolerance=0.0)
