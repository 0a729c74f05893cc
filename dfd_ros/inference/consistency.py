"""Self-consistency: does the depth found explain the pair? If not, confidence falls.

The deep picture, blurred by what the shallow one should be blurred more at that depth, must be the shallow picture.
Blurs add as variances, so by that much is sqrt(c_s² − c_d²), the CoC at the effective f-number of the pair. With S and
D the luminances in linear light, R the blurred D, ~ the part that varies within a window and ⟨·⟩ the mean over it,

    u = ⟨(S − R)~²⟩ / (a ⟨D~²⟩ + b ⟨D⟩ + c),    confidence · 1 / (1 + u),

a allowing for what the lens model leaves open, as a share of the texture, b for photon and c for read noise. What two
depths before and behind the focus would explain equally well, it can't tell apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from dfd_ros.models.filters import mean_over_window
from dfd_ros.optics.kernels.settings import PsfSettings
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.psf import psf_conv

OPTICS = 4
"""Numbers that `optics_of` gives."""
REDUCTION = 2
"""Pictures are compared at half size: a quarter of the work, and less noise."""
PSF = PsfSettings(window=9, kind="disk", coc_at="source")
"""CoCs up to 18 pixels of the whole picture."""
_WINDOW = 15  # pixels of the reduced pictures, over which residuals are gathered
_BRIGHTNESS_WINDOW = 17  # and over which the pictures are brought to one brightness
_MODEL_ERROR = 0.02  # a
_PHOTON_NOISE = 3e-5  # b
_READ_NOISE = 1e-6  # c
_LEAST_LIGHT = 1e-3
_LUMA = (0.2126, 0.7152, 0.0722)  # Rec. 709


def optics_of(lens: Lens) -> Tensor:
    """What is needed of a lens, (1, OPTICS) float32.

    The effective CoC at infinity (pixels), the focus distance (metres), the focus blur (pixels) and `coc_field`.
    """
    at_infinity = lens.coc_scale / lens.f_number_effective
    return torch.tensor([[at_infinity, lens.focus_distance, lens.focus_blur, lens.coc_field]])


class Consistency(nn.Module):
    """The factor of confidence, (1, 1, H, W) in [0, 1], for pictures of one size.

    Args:
        size: Height and width, pixels.
        gamma: Encoding exponent of the pictures.
    """

    luma: Tensor
    field_square: Tensor

    def __init__(self, size: tuple[int, int], gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        square = torch.from_numpy(np.square(field_radius(size)).astype(np.float32))[None, None]
        self.register_buffer("luma", torch.tensor(_LUMA)[None, :, None, None], persistent=False)
        self.register_buffer("field_square", F.avg_pool2d(square, REDUCTION), persistent=False)

    def forward(
        self,
        shallow: Tensor,  # (1, 3, H, W)
        deep: Tensor,  # (1, 3, H, W)
        depth: Tensor,  # (1, 1, H, W), metres, positive
        optics: Tensor,  # (1, OPTICS)
    ) -> Tensor:  # (1, 1, H, W)
        taken, sharp = self._luminance(shallow), self._luminance(deep)
        taken = taken * (
            mean_over_window(sharp, _BRIGHTNESS_WINDOW)
            / mean_over_window(taken, _BRIGHTNESS_WINDOW).clamp_min(_LEAST_LIGHT)
        )
        coc = self._coc(F.avg_pool2d(1.0 / depth, REDUCTION), optics)
        residual = _energy(taken - _blur(sharp, coc))
        expected = _MODEL_ERROR * _energy(sharp) + _PHOTON_NOISE * mean_over_window(sharp, _WINDOW) + _READ_NOISE
        factor = 1.0 / (1.0 + residual / expected)
        return F.interpolate(factor, size=depth.shape[-2:], mode="bilinear", align_corners=False)

    def _luminance(self, picture: Tensor) -> Tensor:
        light = (picture.clamp(0.0, 1.0) ** self.gamma * self.luma).sum(dim=1, keepdim=True)
        return F.avg_pool2d(light, REDUCTION)

    def _coc(self, inverse_depth: Tensor, optics: Tensor) -> Tensor:
        """By how much the shallow picture is blurred more, pixels of the reduced pictures."""
        at_infinity, focus, blur, field = (optics[:, i : i + 1, None, None] for i in range(OPTICS))
        coc = at_infinity * (1.0 - focus * inverse_depth) * (1.0 + field * self.field_square)
        return torch.sqrt(coc * coc + blur * blur) / REDUCTION


def _blur(picture: Tensor, coc: Tensor) -> Tensor:
    """The PSF layer; one node of an exported graph."""
    if torch.onnx.is_in_onnx_export():
        return cast(Callable[[Tensor, Tensor], Tensor], _Node.apply)(picture, coc)
    return psf_conv(picture, coc, PSF.window, PSF.kind, PSF.coc_at, spread=PSF.spread)


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, picture: Tensor, coc: Tensor) -> Tensor:
        return psf_conv(picture, coc, PSF.window, PSF.kind, PSF.coc_at, spread=PSF.spread)

    @staticmethod
    def symbolic(g: Any, picture: Any, coc: Any) -> Any:
        settings = {"window_i": PSF.window, "kind_s": PSF.kind, "coc_at_s": PSF.coc_at, "spread_f": PSF.spread}
        node = g.op("dfd::PsfConv", picture, coc, **settings)
        node.setType(picture.type())
        return node


def _energy(picture: Tensor) -> Tensor:
    """The mean square, over the window, of what varies within it."""
    varying = picture - mean_over_window(picture, _WINDOW)
    return mean_over_window(varying * varying, _WINDOW)
