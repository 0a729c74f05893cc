"""What runs an exported network: one face for all runtimes, and the buffers that they share with whoever calls.

    backend = make_backend("onnxruntime")                 (`backends`)
    backend.prepare(program)
    outputs = backend.infer({"images": images})        name -> array, until the next call
    backend.close()

Nothing is allocated per picture. Inputs are copied into the back end's own buffers, unless the caller writes there
himself (`backend.inputs`) and hands these very arrays over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.export import Program

Array = NDArray[np.float32]
Precision = Literal["fp32", "fp16", "bf16"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class BackendOptions:
    """How to run.

    Attributes:
        precision: Of the arithmetic, `fp32`, `fp16` or `bf16`; what goes in and out is float32.
        device: `cpu` or `cuda`; `tensorrt` runs on the GPU, whatever stands here.
        threads: On the CPU; 0 for as many as the runtime thinks best. Torch's are the process's own and stay as they are.

    Raises:
        InputError: One of them is none of these.
    """

    precision: Precision = "fp32"
    device: Device = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("precision", Precision), ("device", Device)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name}: expected one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if self.threads < 0:
            raise InputError(f"threads: expected 0 or more, got {self.threads}")


class Backend(Protocol):
    """A runtime with one network.

    Attributes:
        name: Runtime, precision and device, for people.
        inputs: Its input buffers by name, to write into; empty before `prepare`.
    """

    name: str

    @property
    def inputs(self) -> Mapping[str, Array]: ...

    def prepare(self, program: Program) -> None:
        """Make ready; raises InputError with the reason where the runtime cannot run, or not this program."""

    def infer(self, inputs: Mapping[str, Array | Tensor]) -> Mapping[str, Array]:
        """The outputs by name, views of buffers that the next call overwrites.

        Raises:
            InputError: An input is missing or of another shape, or the back end is not prepared.
        """

    def close(self) -> None:
        """Give back what is held; does nothing the second time."""


class Buffers:
    """The arrays that a program's inputs and outputs live in.

    Args:
        name: Of the back end, for errors.
        program: Whose they are.
        pinned: Whether a GPU shall copy from and to them.
        allocate: Makes arrays of zeros in memory of another kind.
    """

    def __init__(
        self,
        name: str,
        program: Program,
        *,
        pinned: bool = False,
        allocate: Callable[[tuple[int, ...]], Array] | None = None,
    ) -> None:
        def make(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
            if allocate is not None:
                return {key: torch.from_numpy(allocate(shape)) for key, shape in shapes.items()}
            return {key: torch.zeros(shape, pin_memory=pinned) for key, shape in shapes.items()}

        self._name = name
        self.input_tensors, self.output_tensors = make(program.info.inputs), make(program.info.outputs)
        self.inputs = MappingProxyType({key: tensor.numpy() for key, tensor in self.input_tensors.items()})
        self.outputs = MappingProxyType({key: tensor.numpy() for key, tensor in self.output_tensors.items()})

    def take(self, given: Mapping[str, Array | Tensor]) -> None:
        """Copy what is given into the inputs; raises InputError where one is missing or of another shape."""
        for key, buffer in self.inputs.items():
            if key not in given:
                expected, got = ", ".join(self.inputs), ", ".join(given) or "none"
                raise InputError(f"backend {self._name}: expected the inputs {expected}, got {got}")
            value = given[key]
            if value is buffer:
                continue
            if tuple(value.shape) != buffer.shape:
                shape = tuple(value.shape)
                raise InputError(f"backend {self._name}: expected {key} of shape {buffer.shape}, got {shape}")
            if isinstance(value, Tensor):
                self.input_tensors[key].copy_(value)
            else:
                np.copyto(buffer, value, casting="same_kind")


def not_prepared(name: str) -> InputError:
    """The error of a back end that is asked for answers too early or too late."""
    return InputError(f"backend {name}: expected prepare() before infer(), got none")


def missing_package(name: str, package: str) -> InputError:
    """The error of a back end whose package is not there."""
    return InputError(
        f"backend {name}: expected the package {package} to be installed, got none; pip install 'dfd_ros[infer]'"
    )
