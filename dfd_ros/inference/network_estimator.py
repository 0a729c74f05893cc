"""A network on a back end under the face of `estimators`: weights of the zoo or of a file, or an exported file.

Weights are exported for the size of the pictures that come; an exported file has a size of its own. Pictures go straight
into the back end's buffers, answers are views of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Array, Backend, BackendOptions
from dfd_ros.inference.backends import make_backend
from dfd_ros.inference.choose import AUTO, Choice, candidates, choose
from dfd_ros.inference.estimators import Blank, DepthEstimator, EstimatorSource, StageTimes, shows_something
from dfd_ros.inference.export import Program, export_model, load_program
from dfd_ros.inference.files import EXPORT_SUFFIX
from dfd_ros.inference.graph import GraphSettings, lens_inputs
from dfd_ros.inference.lens_range import figures, outside
from dfd_ros.inference.metadata import ExportInfo
from dfd_ros.inference.pictures import Pair, Picture, PictureForm
from dfd_ros.inference.trt.backend import why_not
from dfd_ros.inference.weights import load_weights
from dfd_ros.inference.zoo import find_weights
from dfd_ros.optics.estimate import DepthEstimate
from dfd_ros.optics.lens import Lens
from dfd_ros.tone import gamma_table

OUTSIDE = np.float32(0.5)
"""Confidence is multiplied by it with a lens that the model was not made for."""
_SIZE_TOLERANCE = 0.1
_SEEN = ("shallow", "deep", "difference")
_TRIAL_SIZE = (64, 64)  # at which is tried whether a back end runs at all


class PictureWriter:
    """Writes pairs into a network's input, as RGB in [0, 1] of the network's gamma, one channel after another.

    Args:
        form: Of the pictures; grey ones are repeated.
        info: Of the network.
        images: The input, (1, 3 k, H, W).
    """

    def __init__(self, form: PictureForm, info: ExportInfo, images: Array) -> None:
        self._order = (2, 1, 0) if form.bgr else (0, 1, 2)
        self._targets = {name: images[0, 3 * k : 3 * k + 3] for k, name in enumerate(info.pictures)}
        self._gamma = info.gamma
        self._plane = np.empty(form.shape, np.uint8)
        self._spare = np.empty((3, *form.shape), np.float32) if "difference" in self._targets else None

    def write(self, pair: Pair) -> bool:
        """Whether the pictures show anything."""
        table = gamma_table(pair.gamma, self._gamma)
        pictures = {"shallow": pair.shallow, "deep": pair.deep}
        shown = True
        for name, target in self._targets.items():
            if self._spare is not None and name == "difference":
                shown &= self._spread(pair.shallow, table, target) and self._spread(pair.deep, table, self._spare)
                target -= self._spare
            else:
                shown &= self._spread(pictures[name], table, target)
        return shown

    def _spread(self, picture: Picture, table: NDArray[np.float32], target: Array) -> bool:
        if picture.ndim == 2:
            cv2.LUT(picture, table, dst=target[0])
            target[1:] = target[0]
            return shows_something(picture)
        shown = False
        for channel, plane in zip(self._order, target, strict=True):
            cv2.extractChannel(picture, channel, dst=self._plane)
            cv2.LUT(self._plane, table, dst=plane)
            shown = shown or shows_something(self._plane)
        return shown


class NetworkEstimator:
    """See `dfd_ros.inference.estimators.DepthEstimator`.

    Args:
        description: For people.
        backend: With the network, made ready.
        info: Of the network.
        lens: In pixels of the pictures.
        form: Of the pictures.
        warning: Why this lens does not suit the network, which halves the confidence; empty where it does.
    """

    def __init__(
        self, description: str, backend: Backend, info: ExportInfo, lens: Lens, form: PictureForm, warning: str
    ) -> None:
        self.description, self.warning = description, warning
        self._backend = backend
        for name, value in lens_inputs(lens, info.inputs).items():
            backend.inputs[name][...] = value.numpy()
        self._writer = PictureWriter(form, info, backend.inputs["images"])
        self._blank = Blank(form.shape)
        # Where a network has none, nothing vouches for its depth.
        self._no_confidence = np.zeros(form.shape, np.float32)
        self._times = StageTimes()

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._times.seconds

    def estimate(self, pair: Pair) -> DepthEstimate:
        with self._times.measure("prepare"):
            shown = self._writer.write(pair)
        with self._times.measure("infer"):
            outputs = self._backend.infer(self._backend.inputs)
        with self._times.measure("finish"):
            depth = outputs["depth"][0, 0]
            confidence = outputs["confidence"][0, 0] if "confidence" in outputs else self._no_confidence
            if self.warning:
                confidence *= OUTSIDE
            self._blank(depth, confidence, shown=shown)
            all_in_focus = outputs["all_in_focus"][0] if "all_in_focus" in outputs else None
        return DepthEstimate(depth, confidence, all_in_focus)


class NetworkSource(EstimatorSource):
    """Makes estimators of one network.

    The back end chosen stays for other lenses; another size of pictures is another program.

    Args:
        model: Name of the zoo, weights file or exported file.
        backend: `auto` or one of `dfd_ros.inference.backends.BACKENDS`; torch runs on the GPU where there is one.
        options: Precision and threads; `auto` tries every precision.

    Raises:
        InputError: The model cannot be read, or the back end cannot run it, with the reason.
    """

    def __init__(self, model: str, backend: str, options: BackendOptions) -> None:
        self._backend, self._options = backend, options
        if backend == "torch" and torch.cuda.is_available():
            self._options = BackendOptions(options.precision, "cuda", options.threads)
        self._file: Program | None = None
        self._size: tuple[int, int] | None = None  # of pictures trained on, where it was one
        if model.endswith(EXPORT_SUFFIX):
            self._file = load_program(Path(model))
            info = self._file.info
            built_in = info.lens_used()
            ranges = {key: (value, value) for key, value in figures(built_in).items()} if built_in else info.lens
            name, seen = info.name, info.pictures
        else:
            self._network, self._card = load_weights(find_weights(model))
            name, seen, ranges = self._card.name, self._network.signature.inputs, self._card.lens
            self._size = self._card.size()
        if not set(seen) <= set(_SEEN):
            raise InputError(f"model {name}: expected one that sees a pair, got one that sees {', '.join(seen)}")
        super().__init__(name)
        self._ranges = ranges
        self._chosen: tuple[Program, Choice] | None = None
        self._full: set[str] = set()
        self._check_it_runs()

    def close(self) -> None:
        super().close()
        if self._chosen is not None:
            self._chosen[1].backend.close()
        self._chosen = None

    def give_up_backend(self) -> bool:
        if self._backend != AUTO or self._chosen is None:
            return False
        self._full.add(self._chosen[1].backend.name)
        self.close()
        return True

    def _make(self, lens: Lens, pair: Pair) -> DepthEstimator:
        if self._chosen is None or self._chosen[0].info.size != pair.form.shape:
            program = self._program(pair.form.shape)
            self.close()
            self._chosen = program, self._choose(program, lens, pair)
        program, choice = self._chosen
        warning = outside(lens, self._ranges)
        if warning:
            warning = f"model {self.name}: {warning}; confidence is halved"
        description = f"model {self.name}: {choice.sentence}{self._hint(pair.form.shape)}"
        return NetworkEstimator(description, choice.backend, program.info, lens, pair.form, warning)

    def _hint(self, shape: tuple[int, int]) -> str:
        """For pictures of another size than those trained on, by more than a tenth."""
        if self._size is None or np.allclose(shape, self._size, rtol=_SIZE_TOLERANCE):
            return ""
        (height, width), (rows, columns) = shape, self._size
        return f"; more exact at the size it was trained at, {columns}x{rows}, than at {width}x{height}: set size"

    def _choose(self, program: Program, lens: Lens, pair: Pair) -> Choice:
        if self._backend != AUTO:
            return choose(self._backend, program, [], self._options)
        inputs = {name: np.zeros(shape, np.float32) for name, shape in program.info.inputs.items()}
        PictureWriter(pair.form, program.info, inputs["images"]).write(pair)
        for name, value in lens_inputs(lens, program.info.inputs).items():
            inputs[name][...] = value.numpy()
        return choose(AUTO, program, [inputs], self._options, full=self._full)

    def _program(self, shape: tuple[int, int]) -> Program:
        if self._file is None:
            signature = self._network.signature
            # Who says no variance is held against the pair, where it sees one.
            consistency = "log_variance" not in signature.outputs and {"shallow", "deep"} <= set(signature.inputs)
            return export_model(self._network, self._card, GraphSettings(shape, consistency=consistency))
        height, width = self._file.info.size
        if shape != (height, width):
            raise InputError(
                f"model {self.name}: expected pictures of {width}x{height}, for which it was exported, got "
                f"{shape[1]}x{shape[0]}; set size"
            )
        return self._file

    def _check_it_runs(self) -> None:
        """Raises InputError where the back end asked for, or each of `auto`'s, cannot run."""
        if self._backend == "tensorrt":  # an engine for a trial alone takes too long
            reason = why_not()
            if reason is not None:
                raise InputError(reason)
            return
        program = self._file or self._program(_TRIAL_SIZE)
        named = [(self._backend, self._options)]
        reasons = []
        for name, options in candidates(self._options.threads) if self._backend == AUTO else named:
            backend = make_backend(name, options)
            try:
                backend.prepare(program)
            except InputError as error:
                reasons.append(str(error))
            else:
                backend.close()
                return
        raise InputError("; ".join(reasons))
