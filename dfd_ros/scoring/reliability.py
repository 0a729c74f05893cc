"""Is confidence a probability? Predicted against actual share of right depths, in figures and in a picture.

A depth is right where it is within `tolerance` of the truth, relatively: what the estimators' confidence vouches for.
Reliability curves and the expected calibration error are those of Guo et al., "On Calibration of Modern Neural
Networks" (ICML 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.metrics import is_known

TOLERANCE = 0.1
BINS = 10  # of the curve
_FINE_BINS = 1000  # of confidence, while frames are summed up

FloatImage = NDArray[np.floating]


@dataclass(frozen=True)
class Reliability:
    """A reliability curve: mean confidence, share of right depths and share of all pixels in each bin, (b,)."""

    predicted: NDArray[np.float64]
    actual: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def calibration_error(self) -> float:
        """Mean difference of predicted and actual over all pixels (the expected calibration error)."""
        return float(np.sum(self.share * np.abs(self.predicted - self.actual)))


class ReliabilityAccumulator:
    """Sums up frames: arrays of one shape, depths in metres (unknown where not positive and finite), confidence in [0, 1]."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        if not tolerance > 0:
            raise InputError(f"reliability: tolerance must be positive, got {tolerance!r}")
        self.tolerance = tolerance
        # Per fine bin: pixels, their confidence summed up, and how many are right.
        self._sums = np.zeros((3, _FINE_BINS))

    def add(self, estimate: FloatImage, truth: FloatImage, confidence: FloatImage) -> None:
        """Add one frame.

        Raises:
            InputError: The shapes differ, or a confidence is outside [0, 1].
        """
        if not estimate.shape == truth.shape == confidence.shape:
            raise InputError(
                f"reliability: expected arrays of one shape, got estimate {estimate.shape}, truth {truth.shape} "
                f"and confidence {confidence.shape}"
            )
        known = is_known(estimate) & is_known(truth)
        sure, true = confidence[known], truth[known]
        if sure.size and not (sure.min() >= 0 and sure.max() <= 1):
            raise InputError(f"confidence: expected values in [0, 1], got {sure.min():g} to {sure.max():g}")
        right = np.abs(estimate[known] - true) <= self.tolerance * true
        index = np.minimum((sure * _FINE_BINS).astype(np.intp), _FINE_BINS - 1)
        for sums, weights in zip(self._sums, (None, sure, right), strict=True):
            sums += np.bincount(index, weights, _FINE_BINS)

    @property
    def curve(self) -> Reliability:
        """The reliability curve; empty bins are left out."""
        count, confidence, right = self._sums.reshape(3, BINS, -1).sum(axis=2)
        used = count > 0
        count, confidence, right = count[used], confidence[used], right[used]
        return Reliability(confidence / count, right / count, count / max(count.sum(), 1.0))

    def right_when_said(self, confidence: float) -> tuple[float, float]:
        """Share that is right of the most confident pixels whose mean confidence is `confidence`, and their share.

        NaN and 0 where no pixel is as confident.
        """
        count, sure, right = np.cumsum(self._sums[:, ::-1], axis=1)
        reached = np.flatnonzero((count > 0) & (sure >= confidence * count))
        if not len(reached):
            return float("nan"), 0.0
        last = reached[-1]
        return float(right[last] / count[last]), float(count[last] / count[-1])


def plot_reliability(curves: Mapping[str, Reliability], path: str | Path) -> None:
    """Draw curves, by name, into a picture file (PNG, PDF, SVG by its suffix); dots show the share of pixels."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], "k:", label="calibrated")
    for name, curve in curves.items():
        (line,) = axes.plot(curve.predicted, curve.actual, label=f"{name} (error {curve.calibration_error:.3f})")
        axes.scatter(curve.predicted, curve.actual, s=400 * curve.share, color=line.get_color(), alpha=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share of depths that are right", aspect="equal")
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
