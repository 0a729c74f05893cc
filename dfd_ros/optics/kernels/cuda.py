"""The PSF layer on a GPU: `psf.cu`, compiled when it is first called for.

NVRTC compiles the text for the very settings, number of channels, data type and GPU, which takes some tenths of a
second and is kept for the life of the process; it needs neither a CUDA toolkit nor, for itself, a driver or a GPU. The
kernels run on torch's current stream. Inside the capture of a CUDA graph nothing may be compiled: call once before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import torch

from dfd_ros.errors import InputError
from dfd_ros.optics.kernels.settings import PsfSettings

Tensor = torch.Tensor

SOURCE = Path(__file__).with_name("psf.cu")

ELEMENTS = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
"""The numbers that `numbers.cuh` gives them."""
HEADERS = (SOURCE.with_name("numbers.cuh"),)
"""What the texts include."""
_TILE_WIDTH = 32  # outputs, and threads of a warp
_TILE_HEIGHT, _TILE_HEIGHT_WIDE = 32, 16  # outputs; the latter where a window is wider than _WIDE
_WIDE = 23  # the widest window whose tile of 32 x 32 outputs fits the 48 KiB of shared memory that any block may have
_ROWS_LENT, _ROWS_OWN = 8, 4  # outputs of a thread where weights are lent, and where they are its own: see psf.cu
_LARGEST_BATCH = 65535  # blocks of a grid along z


class Compilable(Protocol):
    """A kernel of one of the texts beside this file.

    Attributes:
        source: The text.
        name: Of the kernel in the compiled module.
        defines: What the text asks to be defined.
    """

    @property
    def source(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def defines(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Kernel:
    """One of the two kernels of `psf.cu`, for given settings and data.

    Attributes:
        direction: Which; its arguments are, pointers first and last,
            forward: image, coc; height, width; out, and weight_sum if asked for,
            backward: grad, image, coc, out, weight_sum; height, width; grad_image, grad_coc.
        settings, channels, dtype: What it is compiled for; weight_sum is float32 throughout.
        weight_sum: Whether `forward` writes the sum of weights, which only the gradients need.
    """

    direction: Literal["forward", "backward"]
    settings: PsfSettings
    channels: int
    dtype: torch.dtype
    weight_sum: bool = True

    @property
    def source(self) -> Path:
        """The text."""
        return SOURCE

    @property
    def name(self) -> str:
        """Its name in the compiled module."""
        return f"psf_{self.direction}"

    @property
    def defines(self) -> dict[str, str]:
        """What `psf.cu` asks to be defined."""
        return {
            "WINDOW": str(self.settings.window),
            "CHANNELS": str(self.channels),
            "SPREAD": f"{float(self.settings.spread)!r}",
            "DISK": str(int(self.settings.kind == "disk")),
            "DESTINATION": str(int(self.settings.coc_at == "destination")),
            "ELEMENT": str(ELEMENTS[self.dtype]),
            "BACKWARD": str(int(self.direction == "backward")),
            "WEIGHT_SUM": str(int(self.weight_sum)),
            "TILE_WIDTH": str(_TILE_WIDTH),
            "WARPS": str(self._tile_height // self._rows),
            "ROWS": str(self._rows),
        }

    def launch(self, batch: Any, height: Any, width: Any) -> tuple[tuple[Any, Any, Any], tuple[int, int, int]]:
        """Grid and block for images of that size: integers, or expressions that know + and //."""
        columns = (width + (_TILE_WIDTH - 1)) // _TILE_WIDTH
        rows = (height + (self._tile_height - 1)) // self._tile_height
        return (columns, rows, batch), (_TILE_WIDTH, self._tile_height // self._rows, 1)

    @property
    def _rows(self) -> int:
        only_lent = self.direction == "forward" and self.settings.coc_at == "source"
        return _ROWS_LENT if only_lent else _ROWS_OWN

    @property
    def _tile_height(self) -> int:
        return _TILE_HEIGHT if self.settings.window <= _WIDE else _TILE_HEIGHT_WIDE


def forward(
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    settings: PsfSettings,
) -> tuple[Tensor, Tensor]:  # (N, C, H, W), (N, 1, H, W) float32
    """Blur `image` by `coc`; also give the sum of weights, 0 where a pixel is passed through or NaN.

    Raises:
        RuntimeError: There is no GPU, or what compiles for it is missing.
    """
    image, coc = image.contiguous(), coc.contiguous()
    out, weight_sum = torch.empty_like(image), torch.empty_like(coc, dtype=torch.float32)
    kernel = Kernel("forward", settings, image.shape[1], image.dtype)
    _launch(kernel, [image, coc], [out, weight_sum])
    return out, weight_sum


def backward(
    grad: Tensor,  # (N, C, H, W)
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    out: Tensor,  # (N, C, H, W)
    weight_sum: Tensor,  # (N, 1, H, W) float32
    settings: PsfSettings,
) -> tuple[Tensor, Tensor]:  # (N, C, H, W), (N, 1, H, W)
    """The gradients to image and CoC, from that to `out` and from what `forward` gave.

    Raises:
        RuntimeError: There is no GPU, or what compiles for it is missing.
    """
    grad, image, coc = grad.contiguous(), image.contiguous(), coc.contiguous()
    grad_image, grad_coc = torch.empty_like(image), torch.empty_like(coc)
    kernel = Kernel("backward", settings, image.shape[1], image.dtype)
    _launch(kernel, [grad, image, coc, out.contiguous(), weight_sum.contiguous()], [grad_image, grad_coc])
    return grad_image, grad_coc


def ptx(kernel: Compilable, capability: tuple[int, int]) -> bytes:
    """The kernel as PTX for GPUs of that compute capability, such as (9, 0), or later.

    Raises:
        RuntimeError: NVRTC is missing, or does not know the capability.
    """
    return _compile(kernel, capability, "compute")


def cubin(kernel: Compilable, capability: tuple[int, int]) -> bytes:
    """The kernel as machine code for GPUs of exactly that compute capability.

    Raises:
        RuntimeError: NVRTC is missing, or does not know the capability.
    """
    return _compile(kernel, capability, "sm")


def compiler_version() -> tuple[int, int]:
    """Of NVRTC: a GPU's driver must be for that CUDA, or a later one, to take its PTX.

    Raises:
        RuntimeError: NVRTC is missing.
    """
    major, minor = _checked(_bindings("nvrtc").nvrtcVersion())
    return major, minor


def _compile(kernel: Compilable, capability: tuple[int, int], target: Literal["compute", "sm"]) -> bytes:
    nvrtc = _bindings("nvrtc")
    known = _checked(nvrtc.nvrtcGetSupportedArchs())
    number = 10 * capability[0] + capability[1]
    if number not in known:
        version = ".".join(map(str, _checked(nvrtc.nvrtcVersion())))
        names = ", ".join(f"{each // 10}.{each % 10}" for each in known)
        raise RuntimeError(
            f"NVRTC {version} compiles for compute capability {names}, not for {capability[0]}.{capability[1]}: "
            "install another version of nvidia-cuda-nvrtc"
        )
    # Denormals are 0 and 1/x is off by an ulp: exp2f and division are one instruction each. Square roots are exact.
    options = [f"--gpu-architecture={target}_{number}", "--std=c++17", "--ftz=true", "--prec-div=false"]
    options += [f"--define-macro={name}={value}" for name, value in kernel.defines.items()]
    headers, included = [path.read_bytes() for path in HEADERS], [path.name.encode() for path in HEADERS]
    text, name = kernel.source.read_bytes(), kernel.source.name
    program = _checked(nvrtc.nvrtcCreateProgram(text, name.encode(), len(headers), headers, included))
    try:
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = _bytes(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise RuntimeError(f"{name} does not compile:\n{log.decode()}")
        if target == "sm":
            return _bytes(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        return _bytes(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).rstrip(b"\0")
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _launch(kernel: Kernel, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Queue the kernel on the current stream of the device that everything is on."""
    device, (batch, _, height, width) = outputs[0].device, outputs[0].shape
    if not torch.cuda.is_available():
        raise RuntimeError("the cuda back end of the PSF layer needs a GPU, and torch finds none")
    if device.type != "cuda":
        raise InputError(f"image is on {device}, but must be on a GPU")
    if batch > _LARGEST_BATCH:
        raise InputError(f"image has a batch of {batch}, but a GPU takes {_LARGEST_BATCH} at most")
    context, function = _load(kernel, device.index)
    grid, block = kernel.launch(batch, height, width)
    values = (*_pointers(inputs), height, width, *_pointers(outputs))
    integer, pointer = ctypes.c_int, ctypes.c_void_p
    types = (*[pointer] * len(inputs), integer, integer, *[pointer] * len(outputs))
    stream = torch.cuda.current_stream(device).cuda_stream
    driver = _bindings("driver")
    with _current(context):
        _checked(driver.cuLaunchKernel(function, *grid, *block, 0, stream, (values, types), 0))


@lru_cache(maxsize=256)
def _load(kernel: Kernel, device: int) -> tuple[Any, Any]:
    """The context that torch uses on a device, and the kernel loaded into it."""
    driver = _bindings("driver")
    code = cubin(kernel, torch.cuda.get_device_capability(device))
    context = _checked(driver.cuDevicePrimaryCtxRetain(_checked(driver.cuDeviceGet(device))))
    with _current(context):
        module = _checked(driver.cuModuleLoadData(code))
        return context, _checked(driver.cuModuleGetFunction(module, kernel.name.encode()))


@contextmanager
def _current(context: Any) -> Iterator[None]:
    """The context is the calling thread's: a thread that has called nothing of CUDA yet has none."""
    driver = _bindings("driver")
    _checked(driver.cuCtxPushCurrent(context))
    try:
        yield
    finally:
        _checked(driver.cuCtxPopCurrent())


def _pointers(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


@lru_cache
def _bindings(library: Literal["nvrtc", "driver"]) -> ModuleType:
    """The Python bindings to one of CUDA's libraries, with the library behind them."""
    try:
        bindings = import_module(f"cuda.bindings.{library}")
        _checked(bindings.nvrtcVersion() if library == "nvrtc" else bindings.cuInit(0))
    except (ImportError, RuntimeError) as error:
        cure = (
            "pip install 'dfd_ros[cuda]'" if library == "nvrtc" else "pip install 'dfd_ros[cuda]' and NVIDIA's driver"
        )
        raise RuntimeError(f"the cuda back end of the PSF layer needs {cure}: {error}") from error
    return bindings


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a function of the bindings returned beside its result code."""
    result, *values = answer
    if result.value != 0:
        raise RuntimeError(f"CUDA answered {result.name}")
    return values[0] if len(values) == 1 else values


def _bytes(size: Any, write: Any, program: Any) -> bytes:
    """What NVRTC writes into a buffer of the size that it asks for."""
    buffer = bytes(_checked(size(program)))
    _checked(write(program, buffer))
    return buffer
