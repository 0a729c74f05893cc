"""The PSF layer in plain torch: Gur & Wolf (CVPR 2019), equations 4 to 9, a tap at a time.

The definition of right for the other back ends: any device, any floating dtype, slow, and checked in double precision
against finite differences. One plane of weights is held at a time, so memory does not grow with the window.

With L the pixels that lend light, the picture is out_x = Σ_y w(C, |x − y|) I_y / Σ_y w(C, |x − y|) over the y in L
within the window, C being C_y (`source`) or C_x (`destination`). With G = ∂/∂out over the weight sum, the gradients are

    ∂/∂I_y = Σ_x w G_x,    ∂/∂C = Σ ∂w/∂C · Σ_c G_x (I_y − out_x),

the last sum running over the x (`source`) or the y (`destination`) that the CoC reaches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn import functional

from dfd_ros.optics.kernels.settings import PsfSettings

Tensor = torch.Tensor


def forward(
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    settings: PsfSettings,
) -> tuple[Tensor, Tensor]:  # (N, C, H, W), (N, 1, H, W) float32 at least
    """Blur `image` by `coc`; also give the sum of weights, 0 where a pixel is passed through or NaN."""
    dtype = image.dtype
    image, coc = _widened(image, coc)
    lends, blurred = _roles(coc, settings)
    light = _padded(torch.where(lends, image, 0.0), settings)
    lent = _padded(lends.to(coc.dtype), settings)
    diameter = _padded(_diameter(coc, settings), settings, value=1.0)
    total, weight_sum = torch.zeros_like(image), torch.zeros_like(coc)
    for distance, tap, centre in _taps(image.shape, settings):
        own = tap if settings.coc_at == "source" else centre
        weight = _weight(diameter[own], distance, settings) * lent[tap]
        total += weight * light[tap]
        weight_sum += weight
    out = torch.where(blurred, total / torch.where(blurred, weight_sum, 1.0), image)
    return torch.where(coc.isnan(), math.nan, out).to(dtype), torch.where(blurred, weight_sum, 0.0)


def backward(
    grad: Tensor,  # (N, C, H, W)
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    out: Tensor,  # (N, C, H, W)
    weight_sum: Tensor,  # (N, 1, H, W)
    settings: PsfSettings,
) -> tuple[Tensor, Tensor]:  # (N, C, H, W), (N, 1, H, W)
    """The gradients to image and CoC, from that to `out` and from what `forward` gave."""
    dtypes = image.dtype, coc.dtype
    grad, image, coc, out = _widened(grad, image, coc, out)
    lends, blurred = _roles(coc, settings)
    own_light = torch.where(lends, image, 0.0)
    own_gradient = torch.where(blurred, grad / torch.where(blurred, weight_sum, 1.0), 0.0)
    own_mean = (own_gradient * torch.where(blurred, out, 0.0)).sum(1, keepdim=True)
    light, lent = _padded(own_light, settings), _padded(lends.to(coc.dtype), settings)
    gradient, mean = _padded(own_gradient, settings), _padded(own_mean, settings)
    diameter = _padded(_diameter(coc, settings), settings, value=1.0)
    grad_image, grad_coc = torch.zeros_like(own_light), torch.zeros_like(own_mean)
    for distance, tap, centre in _taps(image.shape, settings):
        slope = _slope(diameter[centre], distance, settings)
        if settings.coc_at == "source":  # the tap is where the centre's light goes
            weight = _weight(diameter[centre], distance, settings)
            grad_coc += slope * ((own_light * gradient[tap]).sum(1, keepdim=True) - mean[tap])
        else:  # to the image so, too; to the CoC it is where light comes from
            weight = _weight(diameter[tap], distance, settings)
            grad_coc += slope * ((own_gradient * light[tap]).sum(1, keepdim=True) - own_mean * lent[tap])
        grad_image += weight * gradient[tap]
    grad_image = torch.where(lends, grad_image, 0.0) + torch.where(coc <= 1.0, grad, 0.0)
    grad_coc = torch.where(blurred & (coc <= settings.window), grad_coc, 0.0)
    return grad_image.to(dtypes[0]), grad_coc.to(dtypes[1])


def _widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Contiguous, and in float32 at least."""
    return tuple(t.to(torch.promote_types(t.dtype, torch.float32)).contiguous() for t in tensors)


def _roles(coc: Tensor, settings: PsfSettings) -> tuple[Tensor, Tensor]:
    """Which pixels lend light, and which are blurred; a NaN is in neither."""
    blurred = coc > 1.0
    return (blurred if settings.coc_at == "source" else ~coc.isnan()), blurred


def _diameter(coc: Tensor, settings: PsfSettings) -> Tensor:
    """The CoC that counts: no less than 1 and no more than the window, 1 for NaN."""
    return coc.nan_to_num(1.0).clamp(1.0, settings.window)


def _padded(planes: Tensor, settings: PsfSettings, value: float = 0.0) -> Tensor:
    return functional.pad(planes, (settings.radius,) * 4, value=value)


Index = tuple[slice, slice, slice, slice]


def _taps(shape: torch.Size, settings: PsfSettings) -> Iterator[tuple[float, Index, Index]]:
    """Each tap: its distance, and the indices that show a padded plane from there and from the centre."""
    height, width = shape[2:]
    radius, everything = settings.radius, slice(None)

    def seen_from(row: int, column: int) -> Index:
        return everything, everything, slice(row, row + height), slice(column, column + width)

    for row in range(settings.window):
        for column in range(settings.window):
            distance = math.hypot(row - radius, column - radius)
            yield distance, seen_from(row, column), seen_from(radius, radius)


def _weight(diameter: Tensor, distance: float, settings: PsfSettings) -> Tensor:
    """w(C, d) before normalisation."""
    if settings.kind == "gaussian":
        return torch.exp(-0.5 * (distance / (settings.spread * diameter)) ** 2) / diameter**2
    return (0.5 * diameter + 0.5 - distance).clamp(0.0, 1.0) / (diameter**2 + 1.0 / 3.0)


def _slope(diameter: Tensor, distance: float, settings: PsfSettings) -> Tensor:
    """∂w/∂C."""
    weight = _weight(diameter, distance, settings)
    if settings.kind == "gaussian":
        return weight * (distance**2 / (settings.spread**2 * diameter**3) - 2.0 / diameter)
    area = diameter**2 + 1.0 / 3.0
    rim = 0.5 * diameter + 0.5 - distance
    return torch.where((rim > 0.0) & (rim < 1.0), 0.5 / area, 0.0) - weight * 2.0 * diameter / area
