"""Torch: the network as it was trained, on the CPU, or on a GPU as one captured CUDA graph.

On the GPU weights and features lie channels last, convolutions run in bfloat16 where that is asked for, and pictures
go there and back through pinned memory on a stream of their own; a call launches one graph and waits for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from dfd_ros.errors import GpuMemoryError, InputError
from dfd_ros.inference.backend import Array, BackendOptions, Buffers, not_prepared
from dfd_ros.inference.export import Program
from dfd_ros.inference.graph import DepthGraph

_WARM_UPS = 3  # passes before a capture: libraries choose their kernels and take their memory


class TorchBackend:
    """See `dfd_ros.inference.backend.Backend`."""

    def __init__(self, options: BackendOptions) -> None:
        self.name = f"torch {options.precision}" + (" on the GPU" if options.device == "cuda" else "")
        self._options = options
        self._buffers: Buffers | None = None
        self._graph: DepthGraph | None = None
        self._captured: _CapturedGraph | None = None

    @property
    def inputs(self) -> Mapping[str, Array]:
        return self._buffers.inputs if self._buffers else {}

    def prepare(self, program: Program) -> None:
        if program.graph is None:
            raise InputError(f"backend torch: expected weights, got the exported file of {program.info.name} alone")
        if self._options.precision == "fp16":
            raise InputError("backend torch: expected precision fp32 or bf16, got fp16")
        on_gpu = self._options.device == "cuda"
        if on_gpu and not torch.cuda.is_available():
            raise InputError("backend torch: expected a GPU that CUDA sees, got none")
        buffers = Buffers(self.name, program, pinned=on_gpu)
        if on_gpu:
            try:
                self._captured = _CapturedGraph(program.graph, buffers, self._options)
            except torch.cuda.OutOfMemoryError as error:
                raise GpuMemoryError(
                    "backend torch: expected room for the network on the GPU, got too little"
                ) from error
        self._graph, self._buffers = program.graph.eval(), buffers

    @torch.inference_mode()
    def infer(self, inputs: Mapping[str, Array | Tensor]) -> Mapping[str, Array]:
        if self._buffers is None or self._graph is None:
            raise not_prepared(self.name)
        if self._captured is not None:
            self._captured.run(inputs)
            return self._buffers.outputs
        self._buffers.take(inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._options.precision == "bf16"):
            outputs = self._graph(*self._buffers.input_tensors.values())
        for buffer, output in zip(self._buffers.output_tensors.values(), outputs, strict=True):
            buffer.copy_(output)
        return self._buffers.outputs

    def close(self) -> None:
        self._buffers = self._graph = self._captured = None


class _CapturedGraph:
    """A pass from pinned inputs to pinned outputs, its launches recorded once."""

    @torch.inference_mode()
    def __init__(self, graph: DepthGraph, buffers: Buffers, options: BackendOptions) -> None:
        self._host = buffers
        # torch's stubs do not know memory_format.
        self._module = copy.deepcopy(graph).eval().to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._bf16 = options.precision == "bf16"
        self._inputs = {key: tensor.to("cuda") for key, tensor in buffers.input_tensors.items()}
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                self._forward()
        self._stream.synchronize()
        self._recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._recorded, stream=self._stream):
            self._outputs = self._forward()

    def run(self, inputs: Mapping[str, Array | Tensor]) -> None:
        on_gpu = {key: value for key, value in inputs.items() if isinstance(value, Tensor) and value.is_cuda}
        self._host.take({**inputs, **{key: self._host.inputs[key] for key in on_gpu if key in self._host.inputs}})
        # What lies on the GPU already may still be in the making on the caller's stream.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for key, tensor in self._inputs.items():
                tensor.copy_(on_gpu.get(key, self._host.input_tensors[key]), non_blocking=True)
            self._recorded.replay()
            for buffer, output in zip(self._host.output_tensors.values(), self._outputs, strict=True):
                buffer.copy_(output, non_blocking=True)
        self._stream.synchronize()

    def _forward(self) -> tuple[Tensor, ...]:
        with torch.autocast("cuda", torch.bfloat16, enabled=self._bf16):
            outputs = self._module(*self._inputs.values())
        return tuple(output.float() for output in outputs)
