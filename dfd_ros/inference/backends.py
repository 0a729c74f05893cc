"""The back ends by name. Each imports its runtime when it is made ready, so that none need be installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Backend, BackendOptions
from dfd_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from dfd_ros.inference.openvino_backend import OpenVinoBackend
from dfd_ros.inference.torch_backend import TorchBackend
from dfd_ros.inference.trt.backend import TensorRtBackend

BACKENDS: Mapping[str, Callable[[BackendOptions], Backend]] = MappingProxyType(
    {
        "torch": TorchBackend,
        "onnxruntime": OnnxRuntimeBackend,
        "openvino": OpenVinoBackend,
        "tensorrt": TensorRtBackend,
    }
)


def make_backend(name: str, options: BackendOptions) -> Backend:
    """A back end by name, one of `BACKENDS`; whether it can run shows in `prepare`.

    Raises:
        InputError: There is none of that name.
    """
    if name not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return BACKENDS[name](options)
