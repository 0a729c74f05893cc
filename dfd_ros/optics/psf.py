"""The PSF layer: blur a picture by a circle of confusion (CoC) that differs from pixel to pixel, with both gradients.

Location-dependent convolution after Gur & Wolf, "Single Image Depth Estimation Trained via Depth from Defocus Cues"
(CVPR 2019), equations 4 to 9. With C the CoC diameter, d = |x − y| and w the PSF (see `PsfSettings`),

    out_x = Σ_y w(C, d) I_y / Σ_y w(C, d),

y running over the square window around x inside the image. The CoC is the one of the pixel that lends the light, C_y
(`source`, the paper's: a blurred pixel spreads over its neighbours), or of the one that receives it, C_x
(`destination`: a blurred pixel is the mean of its neighbours). What happens at the limits:

- C <= 1: the pixel is in focus and keeps its value. With `source` it lends none to its neighbours.
- C > window: counts as the window; the gradient to such a CoC is 0.
- C NaN: the output is NaN, the gradients are 0, and nothing is lent to neighbours.

In torch the layer is an operator, `dfd::psf_conv`, that torch.compile and torch.export keep as one node. Where
autocast is on, it computes in float32.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.optics.kernels import cpu, reference
from dfd_ros.optics.kernels.settings import CocAt, Kind, PsfSettings

BACKENDS = ("auto", "reference", "cpu", "cuda")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_AUTOCAST_DEVICES = ("cpu", "cuda")


def psf_conv(
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    window: int = 7,
    kind: Kind = "gaussian",
    coc_at: CocAt = "source",
    *,
    spread: float = 0.5,
    backend: str = "auto",
) -> Tensor:  # (N, C, H, W)
    """Blur a picture by a CoC of its own at each pixel; differentiable (once) in both.

    Args:
        image: Picture of any number of channels, (N, C, H, W), floating, finite wherever the CoC is not NaN.
        coc: CoC diameter, (N, 1, H, W), pixels, of the same dtype and device.
        window: Edge of the square window of taps, pixels; odd, 3 to 31.
        kind: `gaussian` (standard deviation spread · CoC) or `disk` (anti-aliased).
        coc_at: Whose CoC weighs a tap: `source` or `destination`.
        spread: See `PsfSettings`.
        backend: `cpu` (compiled, on torch's number of threads; computes in float32), `cuda` (float32, float16,
            bfloat16), `reference` (plain torch, any device and dtype, slow), or `auto`: `cuda` for tensors there,
            `reference` for float64, else `cpu`.

    Returns:
        The blurred picture, (N, C, H, W), of the image's dtype.

    Raises:
        InputError: Tensors that don't fit each other or the back end, or a setting out of range.
        RuntimeError: The CUDA kernels cannot be built or run here.
    """
    settings = PsfSettings(window, kind, coc_at, spread)
    _check(image, coc)
    _resolve(backend, image)
    return _convolve(image, coc, settings, backend)


class PsfLayer(torch.nn.Module):
    """`psf_conv` with its settings, as a module that says once when CoCs do not fit in the window.

    Attributes:
        settings: Window, kind, coc_at and spread.
        backend: As for `psf_conv`.
        beyond_window: How many CoCs were larger than the window so far (int64, on the device, not in the state dict).
            Not counted in an exported graph.
    """

    beyond_window: Tensor

    def __init__(
        self,
        window: int = 7,
        kind: Kind = "gaussian",
        coc_at: CocAt = "source",
        *,
        spread: float = 0.5,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.settings = PsfSettings(window, kind, coc_at, spread)
        self.backend = backend
        self.register_buffer("beyond_window", torch.zeros((), dtype=torch.int64), persistent=False)
        self._calls = 0
        self._next_look: int | None = 1  # None once the warning is given

    def forward(
        self,
        image: Tensor,  # (N, C, H, W)
        coc: Tensor,  # (N, 1, H, W)
    ) -> Tensor:  # (N, C, H, W)
        """Blur `image` by `coc` (pixels); errors as for `psf_conv`."""
        _check(image, coc)
        if not torch.compiler.is_exporting():
            self.beyond_window += (coc.detach() > self.settings.window).sum()
        if not torch.compiler.is_compiling():
            self._look()
        _resolve(self.backend, image)
        return _convolve(image, coc, self.settings, self.backend)

    def extra_repr(self) -> str:
        return f"{self.settings}, backend={self.backend!r}"

    def _look(self) -> None:
        """Look at the count, which waits for the device, at call 1, 2, 4, 8, ... until there is something to say."""
        self._calls += 1
        if self._calls != self._next_look:
            return
        self._next_look = 2 * self._calls
        count = int(self.beyond_window)
        if count:
            self._next_look = None
            warnings.warn(
                f"{count} CoCs so far are larger than the window of {self.settings.window} pixels and count as that; "
                "take a larger window (said once)",
                stacklevel=5,  # the caller's line
            )


def _check(image: Tensor, coc: Tensor) -> None:
    if image.ndim != 4:
        raise InputError(f"image has shape {tuple(image.shape)}, but must be (N, C, H, W)")
    n, _, height, width = image.shape
    if coc.shape != (n, 1, height, width):
        raise InputError(f"coc has shape {tuple(coc.shape)}, but must be {(n, 1, height, width)} for this image")
    for name, tensor in (("image", image), ("coc", coc)):
        if tensor.dtype not in _DTYPES:
            raise InputError(f"{name} is {tensor.dtype}, but must be float32, float16, bfloat16 or float64")
    if coc.device != image.device:
        raise InputError(f"coc is on {coc.device}, but must be on the image's device, {image.device}")
    if coc.dtype != image.dtype and not torch.is_autocast_enabled(image.device.type):
        raise InputError(f"coc is {coc.dtype}, but must be of the image's dtype, {image.dtype}")


def _resolve(backend: str, image: Tensor) -> str:
    """The back end that works on `image`."""
    device = image.device.type
    if backend == "auto":
        return "reference" if image.dtype == torch.float64 or device not in BACKENDS else device
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}, but must be one of {', '.join(BACKENDS)}")
    if backend != "reference" and device != backend:
        raise InputError(f"image is on {image.device}, but backend {backend!r} was asked for")
    if backend != "reference" and image.dtype == torch.float64:
        raise InputError(f"image is float64, which back end {backend!r} does not compute in: take 'reference'")
    return backend


def _convolve(image: Tensor, coc: Tensor, settings: PsfSettings, backend: str) -> Tensor:
    out, _ = _forward(image, coc, settings.window, settings.kind, settings.coc_at, settings.spread, backend)
    return out


def _back_end(backend: str, image: Tensor) -> ModuleType:
    """The module that does the work; found when the operator runs, so that an exported graph suits any device."""
    resolved = _resolve(backend, image)
    if resolved == "cuda":  # imported at first use: it needs what only machines with a GPU have
        from dfd_ros.optics.kernels import cuda

        return cuda
    return cpu if resolved == "cpu" else reference


def _settings(window: int, kind: str, coc_at: str, spread: float) -> PsfSettings:
    return PsfSettings(window, cast(Kind, kind), cast(CocAt, coc_at), spread)


# The operator and its gradient. Operators take no records, so the settings come one by one.


@torch.library.custom_op("dfd::psf_conv", mutates_args=())
def _forward(
    image: Tensor, coc: Tensor, window: int, kind: str, coc_at: str, spread: float, backend: str
) -> tuple[Tensor, Tensor]:
    """The blurred picture and the sums of weights, (N, C, H, W) and (N, 1, H, W)."""
    settings = _settings(window, kind, coc_at, spread)
    if not image.numel():
        return image.new_empty(image.shape), _weight_sum_like(coc)
    return _back_end(backend, image).forward(image, coc, settings)


@torch.library.custom_op("dfd::psf_conv_backward", mutates_args=())
def _backward(
    grad: Tensor,
    image: Tensor,
    coc: Tensor,
    out: Tensor,
    weight_sum: Tensor,
    window: int,
    kind: str,
    coc_at: str,
    spread: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The gradients to image and CoC."""
    settings = _settings(window, kind, coc_at, spread)
    if not image.numel():
        return image.new_empty(image.shape), coc.new_empty(coc.shape)
    return _back_end(backend, image).backward(grad, image, coc, out, weight_sum, settings)


@_forward.register_fake
def _(image: Tensor, coc: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), _weight_sum_like(coc)


@_backward.register_fake
def _(grad: Tensor, image: Tensor, coc: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), coc.new_empty(coc.shape)


def _weight_sum_like(coc: Tensor) -> Tensor:
    """Sums of weights are kept in float32 at least."""
    return coc.new_empty(coc.shape, dtype=torch.promote_types(coc.dtype, torch.float32))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    image, coc, *ctx.settings = inputs
    out, weight_sum = output
    ctx.mark_non_differentiable(weight_sum)
    ctx.save_for_backward(image, coc, out, weight_sum)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    image, coc, out, weight_sum = ctx.saved_tensors
    return *_backward(grad, image, coc, out, weight_sum, *ctx.settings), None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
for _device in _AUTOCAST_DEVICES:
    _forward.register_autocast(_device, torch.float32)
