"""ONNX Runtime, on the CPU in float32: its session reads from and writes to buffers bound to it once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Array, BackendOptions, Buffers, missing_package, not_prepared
from dfd_ros.inference.export import Program


class OnnxRuntimeBackend:
    """See `dfd_ros.inference.backend.Backend`."""

    def __init__(self, options: BackendOptions) -> None:
        self.name = "onnxruntime"
        self._options = options
        self._buffers: Buffers | None = None
        self._session: Any = None
        self._binding: Any = None

    @property
    def inputs(self) -> Mapping[str, Array]:
        return self._buffers.inputs if self._buffers else {}

    def prepare(self, program: Program) -> None:
        if self._options.device != "cpu" or self._options.precision != "fp32":
            got = f"{self._options.device} and {self._options.precision}"
            raise InputError(f"backend onnxruntime: expected device cpu and precision fp32, got {got}")
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_package(self.name, "onnxruntime") from error
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self._options.threads
        # Threads that wait in a loop take the cores from the nodes that prepare the next picture.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(program.onnx, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base of their own
            reason = str(error).splitlines()[0]
            raise InputError(f"backend onnxruntime: expected a program that it runs, got {reason}") from error
        buffers, binding = Buffers(self.name, program), session.io_binding()
        for bind, arrays in ((binding.bind_input, buffers.inputs), (binding.bind_output, buffers.outputs)):
            for key, array in arrays.items():
                bind(key, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._session, self._binding, self._buffers = session, binding, buffers

    def infer(self, inputs: Mapping[str, Array | Tensor]) -> Mapping[str, Array]:
        if self._buffers is None:
            raise not_prepared(self.name)
        self._buffers.take(inputs)
        self._session.run_with_iobinding(self._binding)
        return self._buffers.outputs

    def close(self) -> None:
        self._binding = self._session = self._buffers = None
