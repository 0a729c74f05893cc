"""Which estimator answers: what was asked for is opened, or refused with the reason. Torch is loaded for models only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from dfd_ros.errors import InputError
from dfd_ros.inference.classical_estimator import CLASSICAL, ClassicalSource
from dfd_ros.inference.estimators import EstimatorSource
from dfd_ros.inference.files import EXPORT_SUFFIX
from dfd_ros.inference.zoo import find_weights
from dfd_ros.optics.estimate import EstimatorSettings

BACKEND_NAMES = ("auto", "torch", "onnxruntime", "openvino", "tensorrt", CLASSICAL)
PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class EstimatorOptions:
    """What is asked for.

    Attributes:
        model: Name of the zoo, weights file or exported file; empty for the classical estimator.
        backend: One of `BACKEND_NAMES`.
        precision: Of a network's arithmetic, one of `PRECISIONS`; `auto` tries them all.
        threads: On the CPU; 0 for as many as the back end thinks best.
        classical: Settings of the classical estimator, but for its threads.

    Raises:
        InputError: A back end without a model or a model that is not learned, or a model that is no file.
    """

    model: str = ""
    backend: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    classical: EstimatorSettings = field(default_factory=EstimatorSettings)

    def __post_init__(self) -> None:
        for name, known in (("backend", BACKEND_NAMES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not self.model:
            if self.backend not in ("auto", CLASSICAL):
                raise InputError(f"backend {self.backend}: expected a model to run, got none; set model")
        elif self.backend == CLASSICAL:
            raise InputError(f"backend {CLASSICAL}: expected no model, it is not learned, got {self.model!r}")
        elif not self.model.endswith(EXPORT_SUFFIX):
            find_weights(self.model)
        elif not Path(self.model).is_file():
            raise InputError(f"model {self.model}: expected an ONNX file, got no such file")


def open_source(options: EstimatorOptions) -> EstimatorSource:
    """The source of what was asked for, tried.

    Raises:
        InputError: It cannot be read, or the back end cannot run it, or a package is missing.
    """
    if not options.model:
        why = "as asked for" if options.backend == CLASSICAL else "chosen by auto: no model is given"
        return ClassicalSource(why, options.classical)
    try:
        from dfd_ros.inference.backend import BackendOptions, Precision
        from dfd_ros.inference.network_estimator import NetworkSource
    except ModuleNotFoundError as error:
        raise InputError(
            f"model {options.model}: expected the package {error.name} to be installed, got none; "
            "pip install 'dfd_ros[infer]'"
        ) from error
    runs = BackendOptions(precision=cast(Precision, options.precision), threads=options.threads)
    return NetworkSource(options.model, options.backend, runs)
