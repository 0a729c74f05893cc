"""Runs an engine: pinned buffers, one stream, and one CUDA graph of copies and kernels where TensorRT lets it be recorded.

Tensors that lie on the GPU are read where they are, without a graph, whose addresses are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Buffers
from dfd_ros.inference.trt.device import Device
from dfd_ros.inference.trt.messages import LOG, Messages, make_logger

_WARM_UPS = 2  # before recording: what is loaded or allocated at the first call must not be recorded


class ForeignEngineError(InputError):
    """An engine that this TensorRT does not take: of another version, GPU or form."""


class EngineRunner:
    """An engine with its memory; made, used and closed in the device's context.

    Attributes:
        recorded: Whether a call is one CUDA graph.

    Raises:
        ForeignEngineError: TensorRT does not take the engine, or it is of another network.
        GpuMemoryError: The GPU has no room for it.
    """

    def __init__(self, trt: Any, engine: bytes, buffers: Buffers, device: Device) -> None:
        self._messages = Messages()
        self._logger = make_logger(trt, self._messages)
        self._device, self._buffers = device, buffers
        self._runtime = trt.Runtime(self._logger)
        # Version-compatible engines bring code of the host's; ours come from the user's own cache.
        self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            error = self._messages.error("load the engine")
            raise error if type(error) is not InputError else ForeignEngineError(str(error))
        self._check(trt)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._messages.error("make room for the engine")
        self._addresses = {}
        for name, tensor in (*buffers.input_tensors.items(), *buffers.output_tensors.items()):
            self._addresses[name] = device.allocate(tensor.numel() * tensor.element_size())
            self._context.set_tensor_address(name, self._addresses[name])
        for _ in range(_WARM_UPS):
            self._queue({})
            device.synchronize()
        self._graph = self._record()

    @property
    def recorded(self) -> bool:
        return self._graph is not None

    def run(self, on_gpu: Mapping[str, Tensor]) -> None:
        """From the host's inputs, but for those given, which lie on the GPU, to the host's outputs.

        Args:
            on_gpu: float32, contiguous, of the right shape.
        """
        if on_gpu:
            for tensor in on_gpu.values():  # they may still be in the making on the caller's stream
                self._device.wait_for(torch.cuda.current_stream(tensor.device).cuda_stream)
            self._queue(on_gpu)
        elif self._graph is not None:
            self._device.replay(self._graph)
        else:
            self._queue({})
        self._device.synchronize()

    def close(self) -> None:
        """Give back the engine; the memory is the device's."""
        if self._graph is not None:
            self._device.forget(self._graph)
        self._graph = self._context = self._engine = self._runtime = None

    def _queue(self, on_gpu: Mapping[str, Tensor]) -> None:
        device, buffers = self._device, self._buffers
        for name, array in buffers.inputs.items():
            if name in on_gpu:
                self._context.set_tensor_address(name, on_gpu[name].data_ptr())
            else:
                device.upload(self._addresses[name], array)
        try:
            if not self._context.execute_async_v3(device.stream):
                raise self._messages.error("run the engine")
        finally:
            for name in on_gpu:
                self._context.set_tensor_address(name, self._addresses[name])
        for name, array in buffers.outputs.items():
            device.download(array, self._addresses[name])

    def _record(self) -> Any:
        """A call as a CUDA graph; None where it cannot be one, which is said in the log and in the back end's name."""
        failure: Exception | None = None
        self._device.begin_capture()
        try:
            self._queue({})
        except (InputError, RuntimeError) as error:
            failure = error
        try:
            recorded = self._device.end_capture()
        except RuntimeError as error:
            recorded, failure = None, failure or error
        if failure is not None:
            LOG.info("no CUDA graph: %s", failure)
            if recorded is not None:  # of a part of it
                self._device.forget(recorded)
            return None
        return recorded

    def _check(self, trt: Any) -> None:
        """The engine's tensors are the network's, in single precision."""
        engine, buffers = self._engine, self._buffers
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        found = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        wanted = {name: tuple(array.shape) for name, array in (*buffers.inputs.items(), *buffers.outputs.items())}
        if found != wanted or any(engine.get_tensor_dtype(name) != trt.DataType.FLOAT for name in names):
            raise ForeignEngineError(f"backend tensorrt: expected an engine of {wanted}, got one of {found}")
