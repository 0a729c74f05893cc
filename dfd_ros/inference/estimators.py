"""What answers pairs with depth, learned or not, under one face.

    source = open_source(EstimatorOptions(model="ours"))       (`sources`): a model, or the classical method
    estimator = source.estimator(lens, pair)                   made for a lens and a form of pictures, and kept
    estimate = estimator.estimate(pair)                        in buffers that the next call overwrites

Nothing here loads torch; what needs it is imported when a model is opened.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dfd_ros.inference.pictures import Pair
from dfd_ros.optics.estimate import DepthEstimate
from dfd_ros.optics.lens import Lens

STAGES = ("prepare", "infer", "finish")


class DepthEstimator(Protocol):
    """An estimator for one lens and one form of pictures; not for use by two threads at a time.

    Attributes:
        description: What it is and why, in a line.
        warning: Why its answers are to be trusted less with this lens; empty where they are not.
        seconds: How long each of `STAGES` took of the last call.
    """

    description: str
    warning: str

    @property
    def seconds(self) -> Mapping[str, float]: ...

    def estimate(self, pair: Pair) -> DepthEstimate:
        """Depth (H, W) metres, NaN unknown, and confidence (H, W) in [0, 1], 0 where depth is NaN.

        Args:
            pair: Of the form that the estimator was made for. One with a picture that shows nothing (all of one value)
                has no known depth.

        Returns:
            Both in buffers that the next call overwrites.
        """


class EstimatorSource(ABC):
    """A model, or the classical method, from which estimators are made; the last one is kept.

    Args:
        name: Of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._made: tuple[str, DepthEstimator] | None = None

    def estimator(self, lens: Lens, pair: Pair) -> DepthEstimator:
        """The estimator of a lens and of pairs like this one, on which back ends are measured where that is asked for.

        Raises:
            InputError: There can be none for them, with the reason.
        """
        key = f"{pair.form} {lens!r}"  # by their text, in which NaN, a value not known, equals NaN
        if self._made is None or self._made[0] != key:
            self._made = key, self._make(lens, pair)
        return self._made[1]

    def close(self) -> None:
        """Give back what is held."""
        self._made = None

    def give_up_backend(self) -> bool:
        """After a GpuMemoryError: leave its back end out from the next pair on; False where there is no choice."""
        return False

    @abstractmethod
    def _make(self, lens: Lens, pair: Pair) -> DepthEstimator: ...


class StageTimes:
    """How long each stage took, seconds; of the last time."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


class Blank:
    """Makes what is not known NaN, and its confidence 0, in place.

    Args:
        shape: Height and width.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._known, self._finite = np.empty(shape, bool), np.empty(shape, bool)

    def __call__(self, depth: NDArray[np.float32], confidence: NDArray[np.float32], *, shown: bool) -> None:
        """Known are positive depths with a confidence, of pictures that show anything."""
        if not shown:
            depth.fill(np.nan)
            confidence.fill(0.0)
            return
        known = self._known
        np.greater(depth, 0.0, out=known)  # NaN is not
        np.logical_and(known, np.less(depth, np.inf, out=self._finite), out=known)
        np.logical_and(known, np.greater_equal(confidence, 0.0, out=self._finite), out=known)
        unknown = np.logical_not(known, out=known)
        np.copyto(depth, np.float32(np.nan), where=unknown)
        np.copyto(confidence, np.float32(0.0), where=unknown)


def shows_something(picture: NDArray[np.generic]) -> bool:
    """Whether not all of it is of one value."""
    return bool(picture.min() != picture.max())
