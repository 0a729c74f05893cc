"""The classical estimator (`optics.estimate`), nothing learned, under the face of `estimators`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dfd_ros.inference.estimators import Blank, DepthEstimator, EstimatorSource, StageTimes, shows_something
from dfd_ros.inference.pictures import Pair, PictureForm
from dfd_ros.optics.estimate import DepthEstimate, EstimatorSettings, WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens
from dfd_ros.tone import linear_grey

CLASSICAL = "classical"


class ClassicalEstimator:
    """See `dfd_ros.inference.estimators.DepthEstimator`."""

    warning = ""

    def __init__(self, description: str, lens: Lens, form: PictureForm, settings: EstimatorSettings) -> None:
        self.description = description
        self._estimator = WhitenedProjectionEstimator(lens, form.shape, settings)
        self._times = StageTimes()
        self._blank = Blank(form.shape)
        self._shallow, self._deep = np.empty(form.shape, np.float32), np.empty(form.shape, np.float32)
        self._light = np.empty((*form.shape, 3), np.float32) if form.channels == 3 else None
        self._answer = DepthEstimate(np.empty(form.shape, np.float32), np.empty(form.shape, np.float32))

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._times.seconds

    def estimate(self, pair: Pair) -> DepthEstimate:
        answer = self._answer
        with self._times.measure("prepare"):
            for picture, grey in ((pair.shallow, self._shallow), (pair.deep, self._deep)):
                linear_grey(picture, pair.gamma, grey, bgr=pair.bgr, light=self._light)
            shown = shows_something(self._shallow) and shows_something(self._deep)
        with self._times.measure("infer"):
            if shown:
                self._estimator.estimate(self._shallow, self._deep, answer)
        with self._times.measure("finish"):
            self._blank(answer.depth, answer.confidence, shown=shown)
        return answer


class ClassicalSource(EstimatorSource):
    """Makes classical estimators.

    Args:
        why: Why it is this one, for the log.
        settings: Of all estimators.
    """

    def __init__(self, why: str, settings: EstimatorSettings) -> None:
        super().__init__(CLASSICAL)
        self._settings = settings
        self._description = f"back end {CLASSICAL} (whitened projection), {why}"
        self._warm_up()

    def _make(self, lens: Lens, pair: Pair) -> DepthEstimator:
        return ClassicalEstimator(self._description, lens, pair.form, self._settings)

    def _warm_up(self) -> None:
        """Estimate the depth of next to nothing: kernels are compiled at the first call ever, which takes seconds."""
        grey = np.full((64, 64), 128, np.uint8)
        grey[::2] = 64
        pair = Pair(grey, grey, 1.0)
        self._make(Lens("warm-up", 1.0, 2.0, 4.0, 10.0, 1.0, 2.0), pair).estimate(pair)
