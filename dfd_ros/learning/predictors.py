"""What can be evaluated, under one face: networks with weights, the learning-free estimators, and a constant.

predictor = load_predictor("ours")
prediction = predictor.predict(sample)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dfd_ros.data.samples import Image, Sample, resized
from dfd_ros.errors import InputError
from dfd_ros.inference.confidence import laplacian_confidence
from dfd_ros.inference.weights import ModelCard, load_weights
from dfd_ros.inference.zoo import find_weights, zoo_names
from dfd_ros.learning.batches import whole
from dfd_ros.learning.objectives import Outputs
from dfd_ros.learning.system import run_model
from dfd_ros.models.base import DepthModel
from dfd_ros.models.d3net import D3Net, monte_carlo
from dfd_ros.optics.edge_ratio import EdgeRatioEstimator
from dfd_ros.optics.estimate import DepthEstimate, WhitenedProjectionEstimator
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.s_transform import STransformEstimator
from dfd_ros.tone import linear_grey

LEAST_DEPTH = 1e-3
"""Metres: what a network's depth is raised to."""


@dataclass(frozen=True)
class Prediction:
    """What was said of a sample.

    Attributes:
        depth: (H, W) float32 metres.
        confidence: (H, W) float32 in [0, 1], the probability that depth is right to within 10 %; None where none is given.
        uncertainty: (H, W) float32 relative standard deviation of depth; None where none is given.
        all_in_focus: (H, W, 3) float32 in [0, 1]; None where none is given.
    """

    depth: Image
    confidence: Image | None = None
    uncertainty: Image | None = None
    all_in_focus: Image | None = None


class Predictor(Protocol):
    """Anything that says depth.

    Attributes:
        name: What to call it.
    """

    name: str

    def predict(self, sample: Sample) -> Prediction:
        """Depth of a sample; raises InputError if it lacks what is needed."""

    def synchronise(self) -> None:
        """Wait until what was asked for is computed."""


@dataclass(frozen=True)
class PredictorOptions:
    """
    Attributes:
        lens: Of samples that come without one; None for that of the weights' card, if it has one.
        flip: Networks: take the mean of ln depth with that of the mirror image.
        dropout_samples: D3-Net: mean and variance of so many passes with dropout; 0 for none.
        device: `auto` (a GPU if there is one), or a device of torch's.
    """

    lens: Lens | None = None
    flip: bool = False
    dropout_samples: int = 0
    device: str = "auto"


class NetworkPredictor:
    """A network with its weights."""

    def __init__(self, model: DepthModel, card: ModelCard, options: PredictorOptions = PredictorOptions()) -> None:
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name, self.card, self._options, self._device = card.name, card, options, torch.device(device)
        self._model = model.to(self._device).eval()
        self._size = card.size()
        if options.dropout_samples and not isinstance(model, D3Net):
            raise InputError(f"dropout samples: expected a network of D3-Net, got {card.model}")

    @torch.inference_mode()
    def predict(self, sample: Sample) -> Prediction:
        shape = sample.depth.shape
        if sample.lens is None:
            sample = replace(sample, lens=self._options.lens)
        small = sample if self._size is None else resized(sample, self._size)
        if small.lens is None:
            small = replace(small, lens=self.card.lens_used())
        batch = whole(small).to(self._device)
        variance: torch.Tensor | None = None
        if self._options.dropout_samples:
            assert isinstance(self._model, D3Net)
            found = monte_carlo(self._model, batch.images(self._model.signature.inputs), self._options.dropout_samples)
            outputs: Outputs = {"depth": found.mean}
            variance = found.variance
        else:
            outputs = run_model(self._model, batch)
        depth = outputs["depth"].float().clamp_min(LEAST_DEPTH)
        if self._options.flip:
            mirrored = run_model(self._model, batch.flipped())["depth"].flip(-1)
            depth = (0.5 * (depth.log() + mirrored.float().clamp_min(LEAST_DEPTH).log())).exp()
        confidence = uncertainty = None
        if "log_variance" in outputs:
            deviation = (0.5 * outputs["log_variance"].float()).exp()
            confidence, uncertainty = _picture(laplacian_confidence(deviation), shape), _picture(deviation, shape)
        elif variance is not None:
            uncertainty = _picture(variance.sqrt() / depth, shape)
        sharp = outputs.get("all_in_focus")
        return Prediction(
            _picture(depth, shape),
            confidence,
            uncertainty,
            None if sharp is None else _picture(sharp.float().clamp(0.0, 1.0), shape),
        )

    def synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


Estimator = WhitenedProjectionEstimator | EdgeRatioEstimator | STransformEstimator


class ClassicalPredictor:
    """A learning-free estimator; made anew for each new lens and size."""

    def __init__(
        self,
        name: str,
        make: Callable[[Lens, tuple[int, int]], Estimator],
        options: PredictorOptions = PredictorOptions(),
        *,
        calibrated: bool,
    ) -> None:
        self.name, self._make, self._lens, self._calibrated = name, make, options.lens, calibrated
        self._made: tuple[str, Estimator] | None = None

    def predict(self, sample: Sample) -> Prediction:
        lens = sample.lens or self._lens
        if lens is None:
            raise InputError(
                f"sample {sample.name}: expected its lens to be known, got none; give --calibration (`dfd calibrate` fits one)"
            )
        shape = (sample.depth.shape[0], sample.depth.shape[1])
        key = f"{shape} {lens}"  # by their text, in which NaN equals NaN
        if self._made is None or self._made[0] != key:
            self._made = key, self._make(lens, shape)
        shallow, deep = (
            linear_grey(np.rint(255.0 * picture).astype(np.uint8), sample.gamma)
            for picture in (sample.shallow, sample.deep)
        )
        estimate: DepthEstimate = self._made[1].estimate(shallow, deep)
        if self._calibrated:
            return Prediction(estimate.depth, estimate.confidence, 1.0 - estimate.confidence)
        return Prediction(estimate.depth, None, 1.0 - estimate.confidence)

    def synchronise(self) -> None:
        pass


class ConstantPredictor:
    """One depth everywhere, metres: what a method must beat."""

    def __init__(self, depth: float) -> None:
        self.name = f"constant {depth:g} m"
        self._depth = np.float32(depth)

    def predict(self, sample: Sample) -> Prediction:
        return Prediction(np.full(sample.depth.shape, self._depth, np.float32))

    def synchronise(self) -> None:
        pass


_CLASSICAL: Mapping[str, tuple[Callable[[Lens, tuple[int, int]], Estimator], bool]] = {
    "classical": (WhitenedProjectionEstimator, True),
    "s_transform": (lambda lens, _: STransformEstimator(lens), False),
    "edge_ratio": (lambda lens, _: EdgeRatioEstimator(lens), False),
}
CLASSICAL_NAMES = tuple(_CLASSICAL)


def load_predictor(name: str, options: PredictorOptions = PredictorOptions()) -> Predictor:
    """What a name stands for: `classical`, `s_transform`, `edge_ratio`, a depth in metres, weights of the zoo, or a file.

    Raises:
        InputError: It is none of these, or its file cannot be used.
    """
    if name in _CLASSICAL:
        make, calibrated = _CLASSICAL[name]
        return ClassicalPredictor(name, make, options, calibrated=calibrated)
    kind, _, value = name.partition(":")
    if kind == "constant":
        try:
            return ConstantPredictor(float(value))
        except ValueError as error:
            raise InputError(f"model {name}: expected constant:METRES, got {value!r}") from error
    try:
        path = find_weights(name)
    except InputError as error:
        known = ", ".join((*CLASSICAL_NAMES, "constant:METRES", *zoo_names()))
        raise InputError(f"model {name}: expected a file of weights or one of {known}, got neither") from error
    return NetworkPredictor(*load_weights(path), options)


def _picture(tensor: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(1, C, h, w) as (H, W) or (H, W, C)."""
    array = np.ascontiguousarray(tensor[0].float().cpu().numpy().transpose(1, 2, 0))
    if array.shape[:2] != shape:
        array = cv2.resize(array, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
