"""Point spread functions sampled on the pixel grid, one kernel for every twentieth of a pixel of CoC.

A pixel already holds the light of its area, so a kernel must add the lens's blur and nothing else. Area-sampling the
disk would blur by the pixel a second time (a variance of 1/12, a third of that of a disk 2 pixels wide). Each kernel
here has the PSF's own transfer function within the band that the grid carries: a small one is the least-squares fit to
it on its support, a large one its inverse transform cut to the support.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.transfer import transfer_function

COC_STEP = 0.05
"""Step between neighbouring kernels, pixels of CoC."""
GROUP = 4
"""So many neighbouring pixels are spread together: their kernels must be readable up to GROUP − 1 taps apart."""
LANES = 8
"""Rows of stored kernels are padded with zeros to a multiple of so many taps, for vector registers."""
_GAUSSIAN_REACH = 0.75  # of the CoC: three standard deviations
_FITTED_REACH = 6  # pixels: larger kernels lose next to nothing when they are cut
# The fit: cycles per pixel up to which it is tight, and the weight of its errors beyond, where the PSF leaves little
# and photographs have little.
_BAND, _BEYOND = 0.35, 0.1
_FREQUENCIES = 32  # from 0 to half a cycle per pixel


@dataclass(frozen=True)
class KernelTable:
    """Kernels for CoC 0, 0.05, 0.10, ... pixels.

    Attributes:
        radius: (n,) int32, the reach of each kernel from its centre, pixels.
        taps: (m,) float32, the kernels' weights. A row has GROUP − 1 zeros before its 2r + 1 taps, and zeros behind them
            up to `lanes` and GROUP − 1 more.
        first: (n,) int32, where each kernel begins in `taps`.
        lanes: (n,) int32, what a row takes when GROUP kernels lie side by side, a multiple of LANES.
    """

    radius: NDArray[np.int32]
    taps: NDArray[np.float32]
    first: NDArray[np.int32]
    lanes: NDArray[np.int32]

    def index(self, coc: ArrayLike) -> NDArray[np.int32]:
        """The kernel nearest to each CoC (pixels)."""
        return np.minimum(np.rint(np.asarray(coc) * (1.0 / COC_STEP)), len(self.radius) - 1).astype(np.int32)

    def kernel(self, coc: float) -> NDArray[np.float32]:
        """The kernel nearest to one CoC (pixels), (2r + 1, 2r + 1), of sum 1; a little below 0 around the rim."""
        k = int(self.index(coc))
        width, stored = 2 * int(self.radius[k]) + 1, int(self.lanes[k]) + GROUP - 1
        rows = self.taps[self.first[k] : self.first[k] + width * stored].reshape(width, stored)
        return rows[:, GROUP - 1 : GROUP - 1 + width]


def kernel_table(max_coc: float, psf: str = "disk") -> KernelTable:
    """Kernels for every CoC up to `max_coc` pixels, for the PSF `disk` or `gaussian`.

    Raises:
        InputError: `psf` is neither, or `max_coc` is not a finite number >= 0.
    """
    if not (math.isfinite(max_coc) and max_coc >= 0):
        raise InputError(f"max_coc must be a finite number of pixels, at least 0, got {max_coc!r}")
    return _table(max(1, math.ceil(max_coc)), psf)


@lru_cache(maxsize=16)
def _table(max_coc: int, psf: str) -> KernelTable:
    cocs = np.arange(0.0, max_coc + COC_STEP, COC_STEP)
    radius = _radius(cocs, psf)
    width = 2 * radius + 1
    lanes = -(-(width + GROUP - 1) // LANES) * LANES
    first = np.concatenate([[0], np.cumsum(width * (lanes + GROUP - 1))]).astype(np.int32)
    taps = np.zeros(first[-1], np.float32)
    for r in np.unique(radius):
        some = np.flatnonzero(radius == r)
        make = _fitted if r <= _FITTED_REACH else _cut
        for k, kernel in zip(some, make(cocs[some], int(r), psf), strict=True):
            rows = taps[first[k] : first[k + 1]].reshape(width[k], -1)
            rows[:, GROUP - 1 : GROUP - 1 + width[k]] = kernel
    return KernelTable(radius, taps, first[:-1], lanes)


def _radius(coc: NDArray[np.float64], psf: str) -> NDArray[np.int32]:
    """Reach of the kernels: with it the transfer function is right to 0.012 up to 0.35 cycles per pixel."""
    if psf == "gaussian":
        reach = np.maximum(_GAUSSIAN_REACH * coc, 0.5 * coc + 0.75)
    else:
        fitted = np.maximum(0.5 * coc + 0.25, np.where(coc > 0.5, 2.0, 1.0))
        reach = np.where(np.ceil(fitted) <= _FITTED_REACH, fitted, 0.5 * coc + 0.75)
    return np.ceil(reach).astype(np.int32)


def _fitted(cocs: NDArray[np.float64], radius: int, psf: str) -> Iterator[NDArray[np.float64]]:
    """Kernels of one radius: least squares over frequencies, in the eight-fold symmetry and of sum 1."""
    frequency = np.linspace(0.0, 0.5, _FREQUENCIES + 1)
    fy, fx = (axis.ravel() for axis in np.meshgrid(frequency, frequency, indexing="ij"))
    fy, fx = fy[fy <= fx], fx[fy <= fx]
    rho = np.hypot(fy, fx)
    trust = np.where(rho <= _BAND, 1.0, _BEYOND)
    offset = np.abs(np.arange(-radius, radius + 1))
    far, near = np.maximum(offset[:, None], offset[None]), np.minimum(offset[:, None], offset[None])
    # Taps at equal (far, near) are equal; what one holds the centre lacks, so the transfer is 1 at frequency 0.
    group = far * (far + 1) // 2 + near
    waves = [
        np.sum(np.cos(2.0 * math.pi * (fy[:, None] * y + fx[:, None] * x)) - 1.0, axis=1)
        for y, x in (np.argwhere(group == g).T - radius for g in range(1, int(group.max()) + 1))
    ]
    basis = np.stack(waves, axis=1) * trust[:, None]
    wanted = np.stack([transfer_function(float(coc), rho, psf) - 1.0 for coc in cocs], axis=1) * trust[:, None]
    share = np.concatenate([np.zeros((1, len(cocs))), np.linalg.lstsq(basis, wanted, rcond=None)[0]])
    for values in share.T:
        kernel = values[group]
        kernel[radius, radius] = 1.0 - kernel.sum()
        yield kernel


def _cut(cocs: NDArray[np.float64], radius: int, psf: str) -> Iterator[NDArray[np.float64]]:
    """Kernels of one radius: the inverse transform, its rim smoothed."""
    grid = 4 * radius  # the kernels' ripples, which wrap around, have died out there
    frequency = np.hypot(np.fft.fftfreq(grid)[:, None], np.fft.rfftfreq(grid)[None])
    offset = np.arange(-radius, radius + 1)
    rim = np.clip(radius + 0.5 - np.hypot(offset[:, None], offset[None]), 0.0, 1.0)
    for coc in cocs:
        kernel = np.fft.irfft2(transfer_function(float(coc), frequency, psf), s=(grid, grid))[offset][:, offset] * rim
        yield kernel / kernel.sum()
