"""One GPU through CUDA's driver: its context, its memory, pinned memory of the host, one stream, and kernels of ours.

By NVIDIA's own bindings (`cuda.bindings`), which share the context that torch uses and take TensorRT's stream as it is;
torch need not be built for CUDA. Nothing is touched before a `Device` is made.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import GpuMemoryError, InputError
from dfd_ros.optics.kernels.cuda import Compilable, cubin

_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
INSTALL = "pip install 'dfd_ros[cuda]'"


@dataclass(frozen=True)
class Gpu:
    """
    Attributes:
        name: As its maker calls it.
        capability: Compute capability, such as (9, 0).
        memory: Bytes, all of it.
        cuda: The newest CUDA that its driver runs, such as (13, 0).
    """

    name: str
    capability: tuple[int, int]
    memory: int
    cuda: tuple[int, int]

    def describe(self) -> str:
        """One line."""
        capability, cuda = (".".join(map(str, pair)) for pair in (self.capability, self.cuda))
        return f"{self.name}, compute capability {capability}, {self.memory / 2**30:.1f} GiB, driver for CUDA {cuda}"


class Launchable(Compilable, Protocol):
    """A kernel that knows its grid."""

    def launch(self, batch: Any, height: Any, width: Any) -> tuple[tuple[Any, Any, Any], tuple[int, int, int]]: ...
    def __hash__(self) -> int: ...


@lru_cache
def driver() -> ModuleType:
    """The bindings to CUDA's driver, started.

    Raises:
        InputError: The bindings, the driver or the GPU are missing.
    """
    try:
        bindings = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise InputError(
            f"backend tensorrt: expected the package cuda-bindings to be installed, got none; {INSTALL}"
        ) from error
    try:
        checked(bindings.cuInit(0))
        count = checked(bindings.cuDeviceGetCount())
    except RuntimeError as error:
        raise InputError(f"backend tensorrt: expected a GPU and NVIDIA's driver, got none ({error})") from error
    if not count:
        raise InputError("backend tensorrt: expected a GPU that CUDA sees, got none")
    return bindings


def checked(answer: tuple[Any, ...]) -> Any:
    """What a function of the bindings returned beside its result code.

    Raises:
        GpuMemoryError: The GPU is full.
        RuntimeError: Anything else went wrong.
    """
    result, *values = answer
    if result.value != 0:
        if result.name == _OUT_OF_MEMORY:
            raise GpuMemoryError("backend tensorrt: expected room on the GPU, got too little; a smaller size may do")
        raise RuntimeError(f"CUDA answered {result.name}")
    return values[0] if len(values) == 1 else values


def find_gpu(index: int = 0) -> Gpu:
    """A GPU; raises InputError where there is none."""
    cuda = driver()
    device = checked(cuda.cuDeviceGet(index))
    attribute = cuda.CUdevice_attribute
    major, minor = (
        checked(cuda.cuDeviceGetAttribute(getattr(attribute, f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}"), device))
        for part in ("MAJOR", "MINOR")
    )
    version = checked(cuda.cuDriverGetVersion())
    return Gpu(
        name=checked(cuda.cuDeviceGetName(128, device)).split(b"\0")[0].decode(),
        capability=(major, minor),
        memory=checked(cuda.cuDeviceTotalMem(device)),
        cuda=(version // 1000, version % 1000 // 10),
    )


class Device:
    """A GPU's context, the one that torch uses, with a stream of our own.

    Attributes:
        gpu: Which.
        handle: The driver's.
        stream: The stream, as TensorRT wants it.

    Raises:
        InputError: There is no such GPU.
        GpuMemoryError: It has no room for a context.
    """

    def __init__(self, index: int = 0) -> None:
        self.gpu = find_gpu(index)
        self._cuda = cuda = driver()
        self.handle = checked(cuda.cuDeviceGet(index))
        self._context = checked(cuda.cuDevicePrimaryCtxRetain(self.handle))
        with self.current():
            self._stream = checked(cuda.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
            self._event = checked(cuda.cuEventCreate(cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        self.stream = int(self._stream)
        self._memory: list[int] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context is the calling thread's meanwhile: TensorRT works in that one."""
        checked(self._cuda.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            checked(self._cuda.cuCtxPopCurrent())

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the GPU, held until `close`; raises GpuMemoryError."""
        address = int(checked(self._cuda.cuMemAlloc(size)))
        self._memory.append(address)
        return address

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Zeros on the host that the GPU copies from and to without help; freed with the last view of them."""
        return np.asarray(_Pinned(self, shape))

    def upload(self, address: int, array: NDArray[np.float32]) -> None:
        """Queue the copy of a pinned array to the GPU."""
        checked(self._cuda.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, self._stream))

    def download(self, array: NDArray[np.float32], address: int) -> None:
        """Queue the copy into a pinned array."""
        checked(self._cuda.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, self._stream))

    def wait_for(self, stream: int) -> None:
        """Let what is queued from now on come after what is queued on another stream."""
        checked(self._cuda.cuEventRecord(self._event, stream))
        checked(self._cuda.cuStreamWaitEvent(self._stream, self._event, 0))

    def synchronize(self) -> None:
        """Wait for all that is queued."""
        checked(self._cuda.cuStreamSynchronize(self._stream))

    def begin_capture(self) -> None:
        """Record what is queued from now on instead of doing it."""
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        checked(self._cuda.cuStreamBeginCapture(self._stream, mode))

    def end_capture(self) -> Any:
        """What was recorded, to be replayed with `replay`; raises RuntimeError where it cannot be."""
        graph = checked(self._cuda.cuStreamEndCapture(self._stream))
        try:
            return checked(self._cuda.cuGraphInstantiate(graph, 0))
        finally:
            self._cuda.cuGraphDestroy(graph)

    def replay(self, recorded: Any) -> None:
        """Queue what was recorded."""
        checked(self._cuda.cuGraphLaunch(recorded, self._stream))

    def forget(self, recorded: Any) -> None:
        """Free what was recorded."""
        self._cuda.cuGraphExecDestroy(recorded)

    def close(self) -> None:
        """Give back memory and stream, once nothing uses them any more."""
        if not self._context:
            return
        with self.current():
            with suppress(RuntimeError):  # an error of before; it has been told
                self.synchronize()
            for address in self._memory:
                self._cuda.cuMemFree(address)
            self._cuda.cuEventDestroy(self._event)
            self._cuda.cuStreamDestroy(self._stream)
        self._memory.clear()
        self._cuda.cuDevicePrimaryCtxRelease(self.handle)
        self._context = None


class _Pinned:
    """Memory that numpy makes an array of, and that lives as long as that."""

    def __init__(self, device: Device, shape: tuple[int, ...]) -> None:
        self._cuda = driver()
        size = max(4 * int(np.prod(shape)), 1)
        flag = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for every context, so that it can be freed in any
        with device.current():
            self._address = int(checked(self._cuda.cuMemHostAlloc(size, flag)))
        ctypes.memset(self._address, 0, size)
        self._device = device.handle
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (self._address, False), "version": 3}

    def __del__(self) -> None:
        with suppress(AttributeError, RuntimeError, TypeError):  # never made, or the interpreter is going down
            context = checked(self._cuda.cuDevicePrimaryCtxRetain(self._device))
            checked(self._cuda.cuCtxPushCurrent(context))
            self._cuda.cuMemFreeHost(self._address)
            checked(self._cuda.cuCtxPopCurrent())
            self._cuda.cuDevicePrimaryCtxRelease(self._device)


def launch(
    kernel: Launchable, size: tuple[int, int, int], inputs: Sequence[int], outputs: Sequence[int], stream: int
) -> None:
    """Queue a kernel of ours, in the current context.

    Args:
        kernel: Which; its arguments are the inputs, height and width, and the outputs.
        size: Batch, height and width.
        inputs, outputs: Addresses.
        stream: As TensorRT gives it.
    """
    grid, block = kernel.launch(*size)
    values = (*inputs, *size[1:], *outputs)
    integer, pointer = ctypes.c_int, ctypes.c_void_p
    types = (*[pointer] * len(inputs), integer, integer, *[pointer] * len(outputs))
    checked(driver().cuLaunchKernel(load(kernel), *grid, *block, 0, stream, (values, types), 0))


@lru_cache(maxsize=64)
def load(kernel: Launchable) -> Any:
    """The kernel, compiled and loaded into the current context; not inside a capture."""
    cuda = driver()
    module = checked(cuda.cuModuleLoadData(cubin(kernel, find_gpu().capability)))
    return checked(cuda.cuModuleGetFunction(module, kernel.name.encode()))


def driver_is_there() -> bool:
    """Whether NVIDIA's driver is: without it, some of TensorRT's libraries end the process instead of raising."""
    try:
        ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return False
    return True
