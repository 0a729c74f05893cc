"""`dfd eval`: how right a method is on data, in the field's metrics, and how well it knows.

Pixels whose true depth is itself in doubt, as a LiDAR's dense depth tells, are left out (`Sample.truth`). Beyond the metrics
of `dfd_ros.metrics`, pooled over all pixels:

    rms log      sqrt(mean (ln d − ln d*)²)    (Eigen, Puhrsch & Fergus, NIPS 2014)
    pearson      mean over the pictures of the correlation of d and d*: for data of another scale
    calibration  expected calibration error of the confidence (Guo et al., ICML 2017)
    knows        rank correlation of the uncertainty with the relative error (Spearman)
    psnr, ssim   of the all-in-focus picture, and of the picture it was made from
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dfd_ros.data.samples import Dataset, Image, Sample
from dfd_ros.errors import InputError
from dfd_ros.learning.predictors import Prediction, Predictor
from dfd_ros.metrics import INDOOR_EDGES, STREET_EDGES, ScoreAccumulator, Scores, is_known, mean_in_box
from dfd_ros.scoring.regions import Boxes, RegionScores, boxes_of_sample
from dfd_ros.scoring.reliability import Reliability, ReliabilityAccumulator

EDGES = (*INDOOR_EDGES, *(edge for edge in STREET_EDGES if edge > INDOOR_EDGES[-1]))
"""Of the distance bins, metres: rooms and streets alike, so that all data is scored by the same."""
FINE_BINS = 48
"""Distance bins of the curve of error against distance over that range, even in ln depth."""
RANKED_PIXELS = 4000
"""Of each picture, for the rank correlation: it costs a sort."""
EXAMPLES = 6
"""Pictures kept for the report, evenly spread."""


@dataclass(frozen=True)
class Example:
    """A sample and what was said of it, for the report."""

    sample: Sample
    prediction: Prediction
    rel: float


@dataclass(frozen=True)
class DistanceCurve:
    """Mean relative error and pixels by distance: edges (b + 1,) metres, rel (b,) NaN where there are none, count (b,)."""

    edges: NDArray[np.float64]
    rel: NDArray[np.float64]
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        model, data: Their names.
        images: How many samples.
        scores: `{"all", "confident", "bins", "objects", "regions"}` as in a run's summary.
        total: The scores over all pixels.
        rms_log, pearson: See the module's head.
        calibration_error, reliability: Of the confidence; None without one.
        uncertainty_correlation: None without an uncertainty.
        sharp: `psnr`, `ssim` of the all-in-focus picture, `psnr_input`, `ssim_input` of the shallow one; None without.
        milliseconds: Median time for a picture.
        rel_by_name: rel of each sample.
        curve: Error against distance.
        examples: For the report.
    """

    model: str
    data: str
    images: int
    scores: dict[str, Any]
    total: Scores
    rms_log: float
    pearson: float
    calibration_error: float | None
    reliability: Reliability | None
    uncertainty_correlation: float | None
    sharp: Mapping[str, float] | None
    milliseconds: float
    rel_by_name: Mapping[str, float]
    curve: DistanceCurve
    examples: tuple[Example, ...] = field(repr=False, default=())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "scores": self.scores,
            "rms_log": _number(self.rms_log),
            "pearson": _number(self.pearson),
            "calibration_error": _number(self.calibration_error),
            "uncertainty_correlation": _number(self.uncertainty_correlation),
            "all_in_focus": None if self.sharp is None else {k: _number(v) for k, v in self.sharp.items()},
            "ms": self.milliseconds,
            "rel_by_name": {name: _number(rel) for name, rel in self.rel_by_name.items()},
        }


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    data: str = "",
    *,
    edges: Sequence[float] = EDGES,
    boxes: Boxes | None = None,
    progress: Callable[[float], None] | None = None,
    examples: int = EXAMPLES,
) -> Evaluation:
    """Score a method on a data set.

    Args:
        predictor: The method.
        dataset: Samples with known depth.
        data: What to call it.
        edges: Of the distance bins, metres; those in which there is nothing are left out.
        boxes: Objects to score one by one.
        progress: Told the share that is done.
        examples: How many pictures to keep for the report.

    Raises:
        InputError: There is no sample with known depth, or one lacks what the method needs.
    """
    sums = _Sums(edges, boxes or {})
    count = len(dataset)
    kept = {k * count // examples for k in range(min(examples, count))} if examples else set()
    shown: list[Example] = []
    for index in range(count):
        sample = dataset.read(index)
        if index == 0:
            predictor.predict(sample)  # what is compiled or allocated once is not timed
            predictor.synchronise()
        start = time.perf_counter()
        prediction = predictor.predict(sample)
        predictor.synchronise()
        sums.add(sample, prediction, 1e3 * (time.perf_counter() - start))
        if index in kept:
            shown.append(Example(sample, prediction, sums.rel_by_name[sample.name]))
        if progress is not None:
            progress((index + 1) / count)
    return sums.finish(predictor.name, data, tuple(shown))


class _Sums:
    """Everything that is summed up over the samples."""

    def __init__(self, edges: Sequence[float], boxes: Boxes) -> None:
        self._boxes = boxes
        self._scores = ScoreAccumulator(edges)
        self._fine = np.geomspace(edges[0], edges[-1], FINE_BINS + 1)
        self._reliability = ReliabilityAccumulator()
        self._log_squares, self._pixels, self._unsure = 0.0, 0, False
        self._pearson: list[float] = []
        self._ranked: list[NDArray[np.float32]] = []
        self._sharp: list[tuple[float, float, float, float]] = []
        self._times: list[float] = []
        self._objects: list[dict[str, Any]] = []
        self._regions = RegionScores(edges)
        self._fine_rel = np.zeros(FINE_BINS)
        self._fine_count = np.zeros(FINE_BINS, np.int64)
        self.rel_by_name: dict[str, float] = {}

    def add(self, sample: Sample, prediction: Prediction, milliseconds: float) -> None:
        self._times.append(milliseconds)
        estimate, truth = prediction.depth, sample.truth()
        known = is_known(estimate) & is_known(truth)
        self._scores.add(estimate, truth, prediction.confidence)
        if prediction.confidence is not None:
            self._reliability.add(estimate, truth, prediction.confidence)
        said, true = estimate[known].astype(np.float64), truth[known].astype(np.float64)
        relative = np.abs(said - true) / true
        self.rel_by_name[sample.name] = float(relative.mean()) if relative.size else math.nan
        self._log_squares += float(np.sum(np.log(said / true) ** 2))
        self._pixels += said.size
        if said.size > 1 and said.std() > 0 and true.std() > 0:
            self._pearson.append(float(np.corrcoef(said, true)[0, 1]))
        place = np.searchsorted(self._fine, true, side="right") - 1
        inside = (place >= 0) & (place < FINE_BINS)
        self._fine_rel += np.bincount(place[inside], relative[inside], FINE_BINS)
        self._fine_count += np.bincount(place[inside], minlength=FINE_BINS)
        if prediction.uncertainty is not None:
            step = max(1, said.size // RANKED_PIXELS)
            rows = (prediction.uncertainty[known][::step], relative[::step])
            self._ranked.append(np.stack(rows).astype(np.float32))
        if prediction.all_in_focus is not None and sample.all_in_focus is not None:
            self._sharp.append(
                (
                    *_likeness(prediction.all_in_focus, sample.all_in_focus),
                    *_likeness(sample.shallow, sample.all_in_focus),
                )
            )
        for one in boxes_of_sample(self._boxes, sample.name, truth.shape):
            if means := mean_in_box(estimate, truth, one.box):
                said_mean, true_mean = means
                self._regions.add(one.kind, said_mean, true_mean)
                rel = abs(said_mean - true_mean) / true_mean
                about = {"sample": sample.name, "name": one.name, "kind": one.kind}
                self._objects.append({**about, "estimate": said_mean, "truth": true_mean, "rel": rel})

    def finish(self, model: str, data: str, examples: tuple[Example, ...]) -> Evaluation:
        if not self._pixels:
            raise InputError(f"data {data}: expected depth at some pixel to score against, got none")
        if self._boxes and not self._objects:
            known, asked = ", ".join(list(self.rel_by_name)[:1]), ", ".join(list(self._boxes)[:1])
            raise InputError(f"boxes: expected some on depth of samples such as {known}, got those of {asked}")
        found = {**self._scores.to_dict(), "objects": self._objects, "regions": self._regions.to_dict()}
        curve = self._reliability.curve if self._scores.has_confidence else None
        ranks = None
        if self._ranked:
            uncertainty, error = np.concatenate(self._ranked, axis=1)
            if np.ptp(uncertainty) > 0 and np.ptp(error) > 0:
                ranks = float(spearmanr(uncertainty, error).statistic)
        sharp = None
        if self._sharp:
            means = np.mean(self._sharp, axis=0).tolist()
            sharp = dict(zip(("psnr", "ssim", "psnr_input", "ssim_input"), means, strict=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            by_distance = DistanceCurve(self._fine, self._fine_rel / self._fine_count, self._fine_count)
        return Evaluation(
            model=model,
            data=data,
            images=len(self._times),
            scores={**found, "bins": [row for row in found["bins"] if row["n"]]},
            total=self._scores.scores,
            rms_log=math.sqrt(self._log_squares / self._pixels),
            pearson=float(np.mean(self._pearson)) if self._pearson else math.nan,
            calibration_error=None if curve is None else curve.calibration_error,
            reliability=curve,
            uncertainty_correlation=ranks,
            sharp=sharp,
            milliseconds=float(np.median(self._times)),
            rel_by_name=self.rel_by_name,
            curve=by_distance,
            examples=examples,
        )


def _likeness(picture: Image, truth: Image) -> tuple[float, float]:
    """PSNR (dB) and SSIM of pictures in [0, 1]."""
    psnr = peak_signal_noise_ratio(truth, picture, data_range=1.0)
    ssim = structural_similarity(truth, picture, data_range=1.0, channel_axis=2)
    return float(psnr), float(ssim)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
