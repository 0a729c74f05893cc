"""Which side of the focus: evidence from the lens's parallax, with nothing learned.

Blur is the same at two depths, before and behind the focus. What tells them apart is that vignetting displaces the shallow
picture outwards or inwards (`dfd_ros.optics.lens`): a shallow band s lies by u off the deep band d, s = g (d − u ∂d) with ∂ the
derivative outwards, the lens's share of it along the horizontal, and u = v ρ² has the sign of parallax times signed CoC. With R
the residual energy of s = g d the displacement's negative log-likelihood is A v + B v² with

    A = Σ 2 g ⟨(s − g d) ∂d⟩ ρ² / R,    B = Σ g² ⟨(∂d)²⟩ ρ⁴ / R,

summed over bands. It is faint, tenths of a pixel in the corners, and counts where it is gathered over large windows. Pairs are
displaced as a whole by as much (a magnification that differs, registration), so it also counts how much farther than the whole
picture a window lies (`parallax_evidence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from numpy.typing import NDArray
from torch import Tensor, nn

from dfd_ros.models.filters import block_kernels, filter_picture, mean_over_window

LEVELS = 3
"""Of the pyramid: a tenth of a pixel is nothing to coarser ones."""
WINDOWS = (3, 9, 33, 0)
"""Sides of the windows over which it is gathered, in cells of 8 pixels; 0 for the whole picture."""
SIDES = 2 * len(WINDOWS) - 1
"""What each window tells of the side, then what each but the whole picture tells by how much farther it lies."""
JITTER = 0.06
"""Standard deviation of what pairs are displaced outwards as a whole, by chance: pixels in the corners."""

_GAINS = (1.0, 3.0, 6.0, 6.0)  # of the windows: what is gathered over more is surer
_UNMODELLED = 0.05  # part of R that is always there, of the shallow energy
_NOISE_ENERGY = 2e-5
_LEAST_INFORMATION = 5e-4  # B v² that counts for nothing
_LARGEST = 4.0
_SAMPLES = 8.0  # that a cell is worth, when it is weighed against the jitter
_FARTHEST = 3.0  # pixels in the corners
_PROPORTIONAL = 0.5  # of a displacement: by how much it may be found too small
_TINY = 1e-12

Array = NDArray[np.float64]


class Displacement(nn.Module):
    """A and B of the levels of a pyramid.

    Args:
        kernels: The levels' band filters, (bands, taps, taps).
        places: Of each level, where in a cell the answers are, its pixels.
    """

    def __init__(self, kernels: Array, places: Sequence[Sequence[tuple[int, int]]]) -> None:
        super().__init__()
        slopes = slope_kernels(kernels).reshape(-1, kernels.shape[1] + 2, kernels.shape[2] + 2)
        for level, of_level in enumerate(places):
            in_blocks = torch.from_numpy(block_kernels(slopes, of_level).astype(np.float32))
            self.register_buffer(f"slopes_{level}", in_blocks, persistent=False)
        self._places = tuple(places)
        self._bands = len(kernels)
        self._reach = slopes.shape[-1] // 2

    def products(
        self,
        deep: Tensor,  # (N, 1, H, W), the level's picture
        shallow_bands: Tensor,  # (N, bands, b, h, w), b answers a cell
        deep_bands: Tensor,  # likewise
        level: int,
        cell: int,
        size: tuple[int, int],
        aspect: Tensor,
    ) -> list[Tensor]:
        """s ∂d, d ∂d and (∂d)², each (N, bands, b, h, w).

        Args:
            level: Of the pyramid.
            cell: Side of a cell, the level's pixels.
            size: Height and width of the picture, which may have been grown to the right and at the bottom since.
            aspect: Of the lenses' parallax, (N or 1,).
        """
        answers = filter_picture(deep, getattr(self, f"slopes_{level}"), self._reach, cell)
        down, right = answers.split(self._bands, dim=1)
        y, x, radius = outwards(deep, 2**level, size)
        direction = torch.cat([y, x], dim=1) / radius.clamp_min(1e-3)
        at = [direction[..., top::cell, left::cell] for top, left in self._places[level]]
        y, x = torch.stack(at, dim=2).split(1, dim=1)  # (1, 1, b, h, w)
        slope = down * y + right * (x * aspect[:, None, None, None, None])
        return [shallow_bands * slope, deep_bands * slope, slope * slope]

    def evidence(
        self,
        products: Sequence[Tensor],  # s², d², s d, s ∂d, d ∂d and (∂d)², each (N, bands, h, w), averaged over cells
        scale: float,
        pitch: int,
        size: tuple[int, int],
    ) -> Tensor:
        """A and B, (N, 2, h, w), `scale` being the level's pixels per pixel of the picture."""
        ss, dd, sd, cross, own, slope = products
        gain = (sd / (dd + _TINY)).clamp(0.0, 1.5)
        residual = (ss - sd * sd / (dd + _TINY)).clamp_min(0.0) + _UNMODELLED * ss + _NOISE_ENERGY
        _, _, radius = outwards(cross, pitch, size)
        weight = scale * radius * radius
        a = (2.0 * gain * (cross - gain * own) / residual).sum(dim=1, keepdim=True) * weight
        b = (gain * gain * slope / residual).sum(dim=1, keepdim=True) * (weight * weight)
        return torch.cat([a, b], dim=1)


class ParallaxEvidence(NamedTuple):
    """What a pair's displacement tells, gathered over each of the windows.

    Attributes:
        side: How much it speaks against far and for near, or the converse where negative: about how many standard deviations,
            −4 to 4; (N, SIDES, h, w), 0 for lenses without parallax.
        costs: How badly each depth of a lens explains it, (N, len(WINDOWS), K, h, w).
    """

    side: Tensor
    costs: Tensor


def parallax_evidence(displacement: Tensor, parallax: Tensor, expected: Tensor) -> ParallaxEvidence:
    """What is gathered of A and B, for cells twice as large.

    What is likeliest in a window, −A / 2B, is off by noise, by what the pair is displaced as a whole (`JITTER`) and by a part
    of itself, since blur differs within a band. Costs are robust: half the square of the error, in standard deviations, counts
    by its logarithm.

    Args:
        displacement: A and B, (N, 2, h, w), h and w even.
        parallax: Of the lenses, (N or 1,).
        expected: Displacement of each of the lens's depths, (N or 1, K) pixels in the corners.
    """
    cells = F.avg_pool2d(displacement, 2)
    v, expected = parallax[:, None, None, None], expected[:, :, None, None]
    whole = cells.mean(dim=(2, 3), keepdim=True)
    share = whole[:, :1] / (whole[:, 1:] + _TINY)  # −2 u of the whole picture
    variance = JITTER**2 + (_PROPORTIONAL * expected) ** 2
    height, width = cells.shape[-2:]
    absolute, relative, costs = [], [], []
    for window, gain in zip(WINDOWS, _GAINS, strict=True):
        a, b = (mean_over_window(cells, window) if window else whole).split(1, dim=1)
        weight = gain * v / torch.sqrt(b * v * v + _LEAST_INFORMATION)
        absolute.append((weight * a).expand(-1, -1, height, width))
        if window:
            relative.append(weight * (a - share * b))
        count = _SAMPLES * (window * window if window else height * width)
        found = (-0.5 * a / (b + _TINY)).clamp(-_FARTHEST, _FARTHEST)
        cost = torch.log1p(b * (found - expected) ** 2 / (1.0 / count + 2.0 * b * variance))
        costs.append(cost.expand(-1, -1, height, width))
    side = torch.cat(absolute + relative, dim=1).clamp(-_LARGEST, _LARGEST)
    return ParallaxEvidence(side, torch.stack(costs, dim=1))


def displaced_evidence(displacement: Tensor, by: Tensor) -> Tensor:
    """A and B, (N, 2, h, w), of pairs whose shallow picture lies outwards by so much more, (N,) pixels in the corners."""
    a, b = displacement.split(1, dim=1)
    return torch.cat([a - 2.0 * b * by[:, None, None, None], b], dim=1)


def outwards(like: Tensor, pitch: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """y, x and their length at a grid's cells, (1, 1, h, w): from the picture's centre, 1 in its corners.

    Args:
        like: Of the grid's height, width, type and device.
        pitch: Pixels between two cells, the first of which holds the picture's first pixel.
        size: Height and width of the picture, pixels.
    """
    height, width = size
    corner = 0.5 * max(np.hypot(height - 1.0, width - 1.0), 1.0)
    middle = 0.0 if pitch <= 2 else 0.5 * (pitch - 1)  # bands are sampled at a pixel, cells are means
    y, x = (
        (torch.arange(count, device=like.device, dtype=like.dtype) * pitch + (middle - 0.5 * (whole - 1))) / corner
        for count, whole in zip(like.shape[-2:], (height, width), strict=True)
    )
    y, x = torch.broadcast_tensors(y[:, None], x)
    return y[None, None], x[None, None], torch.sqrt(y * y + x * x)[None, None]


def slope_kernels(kernels: Array) -> Array:
    """Filters (bands, n, n) whose answers are the derivatives of the kernels' answers, (2, bands, n + 2, n + 2).

    Down and to the right, per pixel; what the derivative has beyond that size is cut off.
    """
    bands, height, width = kernels.shape
    size = 64
    padded = np.zeros((bands, size, size))
    padded[:, 1 : 1 + height, 1 : 1 + width] = kernels
    frequency = 2j * np.pi * np.fft.fftfreq(size)
    spectrum = np.fft.fft2(padded)
    slopes = [np.fft.ifft2(spectrum * f).real for f in (frequency[:, None], frequency[None])]
    # Convolution layers correlate: moving the picture is moving the kernel the other way.
    return -np.stack(slopes)[:, :, : height + 2, : width + 2]
