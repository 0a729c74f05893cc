"""Point spread functions sampled on the pixel grid, one kernel for every twentieth of a pixel of CoC.

A disk of diameter c has the variance c²/16 along each axis (a Gaussian of standard deviation c/4 the same). Sampling
it by pixel area would add the pixel's own variance, 1/12, to every kernel but the smallest, and so blur a picture that
already holds its pixels' integrals a second time. Each kernel here is therefore an area-sampled one of the diameter
whose variance, on the grid, is exactly c²/16: no false blur at small CoC, positive weights, compact support.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError

COC_STEP = 0.05
"""Step between neighbouring kernels, pixels of CoC."""
_SUBSAMPLES = 12  # per pixel side; the rim is anti-aliased on top, so the area is good to 1e-3
_GAUSSIAN_REACH = 3.0  # standard deviations kept of a Gaussian: 99.7 % of each axis


@dataclass(frozen=True)
class KernelTable:
    """Kernels for CoC 0, 0.05, 0.10, ... pixels.

    Attributes:
        weights: (n, size, size) float32, each kernel centred and of sum 1.
        radius: (n,) int32, the reach of each kernel from its centre, pixels.
    """

    weights: NDArray[np.float32]
    radius: NDArray[np.int32]

    @property
    def max_radius(self) -> int:
        """The reach of the largest kernel, pixels."""
        return self.weights.shape[1] // 2

    def index(self, coc: NDArray[np.floating]) -> NDArray[np.int32]:
        """The kernel nearest to each CoC (pixels)."""
        return np.minimum(np.rint(coc * (1.0 / COC_STEP)), len(self.radius) - 1).astype(np.int32)


def kernel_table(max_coc: float, psf: str = "disk") -> KernelTable:
    """Kernels for every CoC up to `max_coc` pixels, for the PSF `disk` or `gaussian`.

    Raises:
        InputError: `psf` is neither, or `max_coc` is not a finite number >= 0.
    """
    if psf not in ("disk", "gaussian"):
        raise InputError(f"psf must be disk or gaussian, got {psf!r}")
    if not (math.isfinite(max_coc) and max_coc >= 0):
        raise InputError(f"max_coc must be a finite number of pixels, at least 0, got {max_coc!r}")
    return _table(max(1, math.ceil(max_coc)), psf)


@lru_cache(maxsize=16)
def _table(max_coc: int, psf: str) -> KernelTable:
    coc = np.arange(0.0, max_coc + COC_STEP, COC_STEP)
    # Area sampling needs at most 1.2 px more of diameter (where the kernel leaves its centre pixel).
    sampled_coc = np.arange(0.0, max_coc + 1.5, COC_STEP)
    reach = sampled_coc / 2.0 if psf == "disk" else sampled_coc / 4.0 * _GAUSSIAN_REACH
    size = 2 * math.ceil(reach[-1] + 0.5) + 1
    sampled = _area_sampled(sampled_coc, reach, size, psf == "disk")

    offset = np.arange(size) - size // 2
    variance = sampled.sum(axis=1) @ (offset.astype(np.float64) ** 2)
    first = int(np.searchsorted(variance, 1e-9)) - 1  # the last kernel that is still a single pixel
    position = np.interp(coc**2 / 16.0, variance[first:], np.arange(first, len(variance)))
    below = np.minimum(position.astype(np.intp), len(variance) - 2)
    mix = (position - below).astype(np.float32)[:, None, None]
    weights = (1.0 - mix) * sampled[below] + mix * sampled[below + 1]

    reached = (weights.sum(axis=1) > 0) @ np.eye(size)  # columns in use
    radius = np.max(np.where(reached > 0, np.abs(offset), 0), axis=1).astype(np.int32)
    return KernelTable(np.ascontiguousarray(weights, np.float32), radius)


@njit(cache=True, nogil=True)
def _area_sampled(coc, reach, size, is_disk):  # type: ignore[no-untyped-def]
    """Kernels (n, size, size) float32 of sum 1: the PSF of each CoC integrated over each pixel."""
    kernels = np.zeros((len(coc), size, size), np.float32)
    centre = size // 2
    step = 1.0 / _SUBSAMPLES
    for k in range(len(coc)):
        radius = reach[k]
        limit = min(centre, int(math.ceil(radius + 0.5)))
        sigma = max(coc[k] / 4.0, 1e-3)
        total = 0.0
        for j in range(-limit, limit + 1):
            for i in range(-limit, limit + 1):
                weight = 0.0
                for sj in range(_SUBSAMPLES):
                    y = j - 0.5 + (sj + 0.5) * step
                    for si in range(_SUBSAMPLES):
                        x = i - 0.5 + (si + 0.5) * step
                        distance = math.sqrt(x * x + y * y)
                        inside = min(max((radius - distance) / step + 0.5, 0.0), 1.0)
                        weight += inside if is_disk else inside * math.exp(-0.5 * (distance / sigma) ** 2)
                kernels[k, centre + j, centre + i] = weight
                total += weight
        if total > 0.0:
            kernels[k] /= total
        else:
            kernels[k, centre, centre] = 1.0
    return kernels
