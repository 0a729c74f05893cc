"""What a pair tells of its blur, with nothing learned: band energies, and how well each depth of a lens explains them.

Both pictures pass the pyramid of `bands`; around each cell the means of the bands' products are kept, which `lens_table` turns
into a cost of each depth. Products vary slowly, so at the finer levels they are taken at two of a cell's pixels only.
With the energies comes what the pair tells of the side of the focus (`displacement`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from numpy.typing import NDArray
from torch import Tensor, nn

from dfd_ros.models.bands import BANDS, BINOMIAL, LEVELS, TAPS, band_kernels
from dfd_ros.models.displacement import LEVELS as SHIFT_LEVELS
from dfd_ros.models.displacement import Displacement
from dfd_ros.models.filters import block_kernels, enlarge_map, filter_each, filter_picture, with_margin
from dfd_ros.models.lens_table import PRODUCTS

CELL = 4
"""Side of a cell, pixels."""
FEATURE_BANDS = slice(0, BANDS, 2)
"""Of a level, those that `band_features` and the displacement make use of: half an octave and more apart."""
ENERGIES = 3 * len(range(BANDS)[FEATURE_BANDS])
"""Of a level: each feature band's energy in the shallow picture, then in the deep one, then what they have in common."""
FEATURES = LEVELS * ENERGIES
"""Channels of `band_features`."""
NOISE_ENERGY = 2e-6
"""Added to energies before the logarithm: what 8 bits and compression leave on a flat wall."""

_LEAST_MISFIT = 4e-5  # E of a flat wall's noise
# Side of a cell at each level, its pixels; at the coarsest, cells are twice as large.
_CELLS = tuple(max(CELL >> level, 1) for level in range(LEVELS))
_PLACES = (((0, 0), (2, 2)), ((0, 0), (1, 1)), ((0, 0),), ((0, 0),))  # in a cell, y and x, where answers are taken
_MEAN_CELL = 16  # pixels: local brightness is made even over such cells, blurred
_SHADOW = 0.01  # linear light, where read noise takes over from photon noise
_TRIANGLE = np.array([1.0, 2.0, 1.0]) / 4.0
_WIDE_TRIANGLE = np.array([1.0, 3.0, 3.0, 1.0]) / 8.0  # of two neighbours' triangles the mean

Array = NDArray[np.float64]


class Evidence(NamedTuple):
    """What is kept of a pair.

    Attributes:
        energies: (N, LEVELS, ENERGIES, H/4, W/4).
        products: (N, LEVELS, len(PRODUCTS), H/8, W/8).
        displacement: A and B of `displacement`, (N, 2, H/4, W/4).
    """

    energies: Tensor
    products: Tensor
    displacement: Tensor


class BandStatistics(nn.Module):
    """What is kept of a pair, (N, 6, H, W) with H and W multiples of 32. Nothing in it is learned.

    The pair is shallow and deep RGB in [0, 1] with light = value ** gamma. Bands are those of pictures divided by the
    square root of the local mean (which makes photon noise even), the shallow one at the deep one's local brightness:
    neither exposure nor vignetting counts.
    """

    low_pass: Tensor
    triangle: Tensor
    wide_triangle: Tensor
    luma: Tensor

    def __init__(self, gamma: float = 2.2) -> None:
        super().__init__()
        self.gamma = gamma

        def constant(name: str, value: Array) -> None:
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)

        self.displacement = Displacement(band_kernels()[FEATURE_BANDS], _PLACES[:SHIFT_LEVELS])
        for level, places in enumerate(_PLACES):
            constant(f"kernels_{level}", block_kernels(band_kernels(), places))
        for name, filtered in (("low_pass", BINOMIAL), ("triangle", _TRIANGLE), ("wide_triangle", _WIDE_TRIANGLE)):
            constant(name, np.outer(filtered, filtered)[None, None])
        constant("luma", np.array([0.2126, 0.7152, 0.0722])[None, :, None, None])  # Rec. 709

    def forward(self, pair: Tensor, size: tuple[int, int] | None = None, aspect: Tensor | None = None) -> Evidence:
        """The evidence.

        Args:
            pair: The pictures.
            size: Their height and width before they were grown to the right and at the bottom.
            aspect: Of the lenses' parallax, (N or 1,); radial ones if None.
        """
        count, _, height, width = pair.shape
        size = size or (height, width)
        aspect = pair.new_ones(1) if aspect is None else aspect
        light = pair.reshape(2 * count, 3, height, width).clamp(0.0, 1.0) ** self.gamma
        picture = self._even((light * self.luma).sum(dim=1, keepdim=True))
        energies, products, shifts = [], [], []
        for level in range(LEVELS):
            coarsest = level == LEVELS - 1
            answers = filter_picture(picture, getattr(self, f"kernels_{level}"), TAPS // 2, _CELLS[level])
            shallow, deep = answers.unflatten(0, (count, 2)).unbind(dim=1)  # (N, bands, b, h, w)
            found = torch.cat([_products(shallow, shallow), _products(deep, deep), _products(shallow, deep)], dim=1)
            products.append(
                filter_each(found, self.triangle) if coarsest else filter_each(found, self.wide_triangle, stride=2)
            )
            shallow, deep = shallow[:, FEATURE_BANDS], deep[:, FEATURE_BANDS]
            kept = [shallow * shallow, deep * deep, shallow * deep]
            if level < SHIFT_LEVELS:
                lower = picture.unflatten(0, (count, 2))[:, 1]
                kept += self.displacement.products(lower, shallow, deep, level, _CELLS[level], size, aspect)
            smooth = filter_each(torch.cat(kept, dim=1).mean(dim=2), self.triangle)
            if coarsest:
                smooth = F.interpolate(smooth, scale_factor=2.0, mode="bilinear", align_corners=False)
            energies.append(smooth[:, :ENERGIES])
            if level < SHIFT_LEVELS:
                shifts.append(self.displacement.evidence(smooth.chunk(6, dim=1), 0.5**level, CELL, size))
            if not coarsest:
                picture = F.conv2d(with_margin(picture, 2), self.low_pass, stride=2)
        return Evidence(torch.stack(energies, dim=1), torch.stack(products, dim=1), torch.stack(shifts).sum(dim=0))

    def _even(self, picture: Tensor) -> Tensor:
        """Pictures, shallow and deep in turn, (2 N, 1, H, W), of one brightness and of even noise."""
        mean = F.conv2d(with_margin(F.avg_pool2d(picture, _MEAN_CELL), 2), self.low_pass) + _SHADOW
        shallow, deep = mean.unflatten(0, (-1, 2)).unbind(dim=1)
        factors = torch.stack([deep.sqrt() / shallow, deep.rsqrt()], dim=1).flatten(0, 1)
        return picture * enlarge_map(factors, _MEAN_CELL)


def _products(one: Tensor, other: Tensor) -> Tensor:
    """Each of the answers with each of the others, (N, BANDS, b, h, w), averaged over the cell: (N, BANDS², h, w).

    Within a picture that is each product twice, which costs less than to pick them.
    """
    return (one[:, :, None] * other[:, None]).mean(dim=3).flatten(1, 2)


def band_features(energies: Tensor) -> Tensor:
    """What the energies say without a lens, (N, LEVELS, ENERGIES, h, w) -> (N, FEATURES, h, w).

    Of each band, with the energies S, D and the correlation X of the pictures: ln S/D, ln D, and how alike the two are.
    """
    s, d, x = (found.flatten(1, 2) for found in energies.chunk(3, dim=2))
    ln_s, ln_d = torch.log(torch.cat([s, d], dim=1) + NOISE_ENERGY).chunk(2, dim=1)
    ratio = ln_s - ln_d
    strength = 0.5 * ln_d + 4.0  # about 0 in the middle of what occurs
    likeness = 2.0 * x / (s + d + 2.0 * NOISE_ENERGY)
    return torch.cat([ratio, strength, likeness], dim=1)


def cost_volume(products: Tensor, table: Tensor) -> Tensor:
    """How badly each depth of a lens table explains the pair, by the levels' bands.

    Args:
        products: (N, LEVELS, len(PRODUCTS), h, w).
        table: (N or 1, K, TABLE_COLUMNS).

    Returns:
        (N, LEVELS, K, h, w): ln E of each level, less its mean over the depths.
    """
    labels, (height, width) = table.shape[1], products.shape[-2:]
    factors = table[..., -LEVELS * len(PRODUCTS) :].reshape(-1, labels, LEVELS, len(PRODUCTS)).transpose(1, 2)
    costs = torch.log((factors @ products.flatten(3)).clamp_min(0.0) + _LEAST_MISFIT)  # (N, LEVELS, K, cells)
    costs = costs - costs.mean(dim=2, keepdim=True)
    return costs.unflatten(3, (height, width))
