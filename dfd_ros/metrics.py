"""The field's depth metrics, pooled exactly over every pixel of every frame.

For estimates d and truths d* over n pixels (Eigen, Puhrsch, Fergus, NIPS 2014, section 4.2)

    rel = mean |d - d*| / d*        log10 = mean |log10 d - log10 d*|        rms = sqrt(mean (d - d*)²)
    d1, d2, d3 = share of pixels with max(d / d*, d* / d) < 1.25, 1.25², 1.25³.

Depths are metres; NaN, infinite, zero and negative depths are unknown (REP 117/118). A pixel is scored where truth and
estimate are both known; how many of the known truths were scored is the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

STREET_EDGES = (2.0, 6.0, 12.0, 25.0, 45.0, 70.0)  # metres
INDOOR_EDGES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0)  # metres
DELTA_BASE = 1.25
CONFIDENCE_THRESHOLD = 0.5

# The median comes from a histogram of the relative error over the top bits of its float32 representation: within each
# octave 2^9 bins of equal width, so a bin is 0.1 to 0.2 % wide. Errors below 2^-20 count as that, above 2^12 likewise.
MANTISSA_BITS = 9
SMALLEST_ERROR = np.float32(2.0**-20)
LARGEST_ERROR = np.float32(2.0**12)
FLOAT32_MANTISSA_BITS = 23
_SHIFT = FLOAT32_MANTISSA_BITS - MANTISSA_BITS
_FIRST_BIN = int(SMALLEST_ERROR.view(np.uint32)) >> _SHIFT
_BINS = (int(LARGEST_ERROR.view(np.uint32)) >> _SHIFT) - _FIRST_BIN + 1
_CLASSES = 4  # of the ratio: below the base, its square, its cube, not even that

FloatImage = NDArray[np.floating]
BoolImage = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """The metrics over `n` pixels: `rms` in metres, the others without unit; NaN where n is 0."""

    rel: float
    log10: float
    rms: float
    d1: float
    d2: float
    d3: float
    n: int
    median_rel: float = math.nan

    def to_dict(self) -> dict[str, float | int | None]:
        """Ready for JSON: NaN becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class RangeScores:
    """Scores of the pixels whose truth lies in a range [start, stop) of metres.

    `coverage` is the share of the known truths that were scored; `confident` and `confident_coverage` are the same over
    confident pixels alone, None where no confidence was given.
    """

    start: float
    stop: float
    scores: Scores
    coverage: float
    confident: Scores | None
    confident_coverage: float | None

    def to_dict(self) -> dict[str, Any]:
        """`{rel, …, n, coverage, from, to, confident}`."""
        head = {**self.scores.to_dict(), "coverage": _json_number(self.coverage), "from": self.start, "to": self.stop}
        return {**head, "confident": _confident_dict(self.confident, self.confident_coverage)}


class ScoreAccumulator:
    """Sums up frames; the scores are exact over all pixels so far (the median to 0.1 %).

    Args:
        edges: Of the distance bins in metres, rising.
        confidence_threshold: Pixels of at least this confidence are confident.
    """

    def __init__(
        self, edges: Sequence[float] = STREET_EDGES, confidence_threshold: float = CONFIDENCE_THRESHOLD
    ) -> None:
        if len(edges) < 2 or not all(0 <= a < b for a, b in pairwise(edges)):
            raise InputError(f"distance bins: expected two or more rising edges in metres, got {list(edges)}")
        self.edges = tuple(map(float, edges))
        self.confidence_threshold = confidence_threshold
        self.frames = 0
        self.has_confidence = False
        # Pixels fall in groups: distance range (one before the first edge, one after the last), times unsure/confident.
        self._float_edges = np.asarray(self.edges, np.float32)
        self._ranges = len(self.edges) + 1
        groups = 2 * self._ranges
        self._missed = np.zeros(self._ranges, np.int64)  # known truths without an estimate
        self._sums = np.zeros((3, groups))  # of rel, |log10|, squared error
        self._classes = np.zeros((groups, _CLASSES), np.int64)
        self._histogram = np.zeros((groups, _BINS), np.int64)

    def add(
        self,
        estimate: FloatImage,
        truth: FloatImage,
        confidence: FloatImage | None = None,
        mask: BoolImage | None = None,
    ) -> None:
        """Add one frame: arrays of one shape, depths in metres, confidence in [0, 1]; `mask` says where to look at all.

        Raises:
            InputError: The shapes differ, or frames with and without confidence are mixed.
        """
        for name, array in (("estimate", estimate), ("confidence", confidence), ("mask", mask)):
            if array is not None and array.shape != truth.shape:
                raise InputError(f"scoring: expected {name} in the truth's shape {truth.shape}, got {array.shape}")
        if self.frames and self.has_confidence != (confidence is not None):
            raise InputError("scoring: expected all frames with confidence or all without, got both")
        self.has_confidence = confidence is not None
        self.frames += 1

        known = is_known(truth) if mask is None else is_known(truth) & mask
        scored = known & is_known(estimate)
        missed = known & ~scored
        if missed.any():
            self._missed += np.bincount(self._range_of(truth[missed]), minlength=self._ranges)
        pixels = np.flatnonzero(scored)
        truths = truth.ravel()[pixels].astype(np.float32, copy=False)
        group = self._range_of(truths)
        if confidence is not None:
            group += np.uint8(self._ranges) * (confidence.ravel()[pixels] >= self.confidence_threshold)
        self._add_pixels(estimate.ravel()[pixels].astype(np.float32, copy=False), truths, group)

    def _range_of(self, truths: FloatImage) -> NDArray[np.uint8]:
        distance_range = np.zeros(truths.shape, np.uint8)
        for edge in self._float_edges:
            distance_range += truths >= edge
        return distance_range

    def _add_pixels(
        self, estimates: NDArray[np.float32], truths: NDArray[np.float32], group: NDArray[np.uint8]
    ) -> None:
        """Add known pixels; `group` numbers their group."""
        groups = len(self._classes)
        error = np.abs(estimates - truths)
        relative = error / truths
        magnitude = np.abs(np.log10(estimates / truths))
        ratio_class = np.zeros(group.shape, np.uint8)
        for power in (1, 2, 3):
            ratio_class += magnitude >= np.float32(power * math.log10(DELTA_BASE))
        group_index = group.astype(np.intp)
        for sums, values in zip(self._sums, (relative, magnitude, error * error), strict=True):
            sums += np.bincount(group_index, values, groups)
        self._classes += np.bincount(group_index * _CLASSES + ratio_class, minlength=groups * _CLASSES).reshape(
            groups, _CLASSES
        )
        bits = np.clip(relative, SMALLEST_ERROR, LARGEST_ERROR).view(np.uint32) >> _SHIFT
        error_bin = bits.astype(np.intp) - _FIRST_BIN
        error_bin += group_index * _BINS
        self._histogram += np.bincount(error_bin, minlength=groups * _BINS).reshape(groups, _BINS)

    @property
    def scores(self) -> Scores:
        """Over every pixel scored, whatever its distance and confidence."""
        return self._scores_of(slice(None))

    @property
    def coverage(self) -> float:
        """Share of the known truths that were scored, NaN where there were none."""
        return self._coverage_of(slice(None), slice(None))

    @property
    def confident(self) -> Scores | None:
        """Over the confident pixels; None where no confidence was given."""
        return self._scores_of(slice(self._ranges, None)) if self.has_confidence else None

    @property
    def confident_coverage(self) -> float | None:
        """Share of the known truths that were scored and are confident; None where no confidence was given."""
        return self._coverage_of(slice(self._ranges, None), slice(None)) if self.has_confidence else None

    @property
    def bins(self) -> tuple[RangeScores, ...]:
        """The scores by distance, one between any two edges."""
        return tuple(self._range_scores(index) for index in range(1, len(self.edges)))

    def to_dict(self) -> dict[str, Any]:
        """`{"all": …, "confident": …, "bins": […]}`, ready for JSON."""
        return {
            "all": {**self.scores.to_dict(), "coverage": _json_number(self.coverage)},
            "confident": _confident_dict(self.confident, self.confident_coverage),
            "bins": [bin_.to_dict() for bin_ in self.bins],
        }

    def _range_scores(self, index: int) -> RangeScores:
        both, confident = [index, index + self._ranges], [index + self._ranges]
        return RangeScores(
            self.edges[index - 1],
            self.edges[index],
            self._scores_of(both),
            self._coverage_of(both, [index]),
            self._scores_of(confident) if self.has_confidence else None,
            self._coverage_of(confident, [index]) if self.has_confidence else None,
        )

    def _coverage_of(self, groups: slice | list[int], ranges: slice | list[int]) -> float:
        scored = self._classes.sum(axis=1).reshape(2, self._ranges).sum(axis=0)
        truths = int((scored + self._missed)[ranges].sum())
        return float(self._classes[groups].sum() / truths) if truths else math.nan

    def _scores_of(self, groups: slice | list[int]) -> Scores:
        classes = self._classes[groups].sum(axis=0)
        n = int(classes.sum())
        if not n:
            return Scores(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0)
        rel, log10, squared = (float(value) / n for value in self._sums[:, groups].sum(axis=1))
        d1, d2, d3 = (float(share) for share in np.cumsum(classes[:3]) / n)
        return Scores(rel, log10, math.sqrt(squared), d1, d2, d3, n, _median(self._histogram[groups].sum(axis=0), n))


@dataclass(frozen=True)
class Box:
    """A box in an image, pixels: columns [x, x + width), rows [y, y + height)."""

    x: int
    y: int
    width: int
    height: int

    def centre(self) -> Box:
        """The box of half the width and height around the same centre, at least one pixel."""
        width, height = max(self.width // 2, 1), max(self.height // 2, 1)
        return Box(self.x + (self.width - width) // 2, self.y + (self.height - height) // 2, width, height)

    def slices(self) -> tuple[slice, slice]:
        """Index of an (H, W) array."""
        return slice(max(self.y, 0), max(self.y + self.height, 0)), slice(max(self.x, 0), max(self.x + self.width, 0))


def mean_in_box(estimate: FloatImage, truth: FloatImage, box: Box) -> tuple[float, float] | None:
    """Mean estimate and mean truth, metres, over the pixels known in both within the centre of `box`; None if none."""
    index = box.centre().slices()
    estimates, truths = estimate[index], truth[index]
    known = is_known(estimates) & is_known(truths)
    if not known.any():
        return None
    return float(estimates[known].mean(dtype=np.float64)), float(truths[known].mean(dtype=np.float64))


def is_known(depth: FloatImage) -> BoolImage:
    """Where a depth is a positive finite number."""
    return (depth > 0) & (depth < np.inf)


def edges_for(depth_range: float) -> tuple[float, ...]:
    """The default distance bins for scenes that reach to `depth_range` metres."""
    return INDOOR_EDGES if depth_range <= INDOOR_EDGES[-1] else STREET_EDGES


def _median(histogram: NDArray[np.int64], n: int) -> float:
    """The value below which half of the n counts lie, linear within its bin."""
    below = np.cumsum(histogram)
    index = int(np.searchsorted(below, 0.5 * n))
    start, stop = (np.uint32((index + k + _FIRST_BIN) << _SHIFT).view(np.float32) for k in (0, 1))
    inside = (0.5 * n - (below[index] - histogram[index])) / histogram[index]
    return float(start + inside * (stop - start))


def _confident_dict(scores: Scores | None, coverage: float | None) -> dict[str, Any] | None:
    return None if scores is None else {**scores.to_dict(), "coverage": _json_number(coverage)}


def _json_number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
