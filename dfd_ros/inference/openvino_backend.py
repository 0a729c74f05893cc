"""OpenVINO, on the CPU: in float32 or, what is learned of a network, in bfloat16 where the processor has it.

Its precision counts for whole models, so for bfloat16 the graph's parts (`segments`) are models of their own that hand
their tensors on in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Array, BackendOptions, Buffers, missing_package, not_prepared
from dfd_ros.inference.export import Program
from dfd_ros.inference.segments import NETWORK, split_parts


class OpenVinoBackend:
    """See `dfd_ros.inference.backend.Backend`."""

    def __init__(self, options: BackendOptions) -> None:
        self.name = f"openvino {options.precision}"
        self._options = options
        self._buffers: Buffers | None = None
        self._requests: list[Any] = []
        self._arrays: dict[str, Array] = {}  # what requests point into, which they do not keep alive

    @property
    def inputs(self) -> Mapping[str, Array]:
        return self._buffers.inputs if self._buffers else {}

    def prepare(self, program: Program) -> None:
        if self._options.device != "cpu":
            raise InputError(f"backend openvino: expected device cpu, got {self._options.device}")
        if self._options.precision == "fp16":
            raise InputError("backend openvino: expected precision fp32 or bf16, got fp16")
        try:
            import openvino
        except ImportError as error:
            raise missing_package("openvino", "openvino") from error
        core = openvino.Core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._options.precision == "bf16" and "BF16" not in able:
            raise InputError(f"backend openvino: expected a processor with bfloat16, got one with {', '.join(able)}")
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._options.threads:
            settings["INFERENCE_NUM_THREADS"] = self._options.threads
        buffers = Buffers(self.name, program)
        arrays: dict[str, Array] = {**buffers.inputs, **buffers.outputs}
        requests = []
        try:
            for precision, model in self._models(program):
                hint = {**settings, "INFERENCE_PRECISION_HINT": precision}
                compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", hint)
                request = compiled.create_infer_request()
                for value in (*model.graph.input, *model.graph.output):
                    shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
                    array = arrays.setdefault(value.name, np.zeros(shape, np.float32))
                    request.set_tensor(value.name, openvino.Tensor(array, shared_memory=True))
                requests.append(request)
        except (DecodeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"backend openvino: expected a program that it runs, got {reason}") from error
        self._requests, self._buffers, self._arrays = requests, buffers, arrays

    def _models(self, program: Program) -> list[tuple[str, onnx.ModelProto]]:
        """The models to run one after another, each with its precision, without functions of their own: it knows none."""
        model = onnx.load_model_from_string(program.onnx)
        if self._options.precision == "fp32":
            return [("f32", onnx.inliner.inline_local_functions(model))]
        return [("bf16" if segment.part == NETWORK else "f32", segment.model) for segment in split_parts(model)]

    def infer(self, inputs: Mapping[str, Array | Tensor]) -> Mapping[str, Array]:
        if self._buffers is None:
            raise not_prepared(self.name)
        self._buffers.take(inputs)
        for request in self._requests:
            request.infer(share_inputs=True)
        return self._buffers.outputs

    def close(self) -> None:
        self._requests, self._buffers, self._arrays = [], None, {}
