"""Point spread functions sampled on the pixel grid, one kernel for every twentieth of a pixel of CoC.

A pixel already holds the light of its area, so a kernel must add the lens's blur and nothing else. Area-sampling the
disk would blur by the pixel a second time (a variance of 1/12, a third of that of a disk 2 pixels wide). Each kernel
here is the inverse transform of the PSF's own transfer function within the band that the grid carries (Goodman,
Introduction to Fourier Optics, ch. 6: a disk of diameter c has 2 J1(π c ρ) / (π c ρ)), cut to a compact support.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import j1

from dfd_ros.errors import InputError

COC_STEP = 0.05
"""Step between neighbouring kernels, pixels of CoC."""
_MIN_REACH = 3  # pixels: keeps the transfer function of the smallest kernels to 0.02 up to 0.35 cycles per pixel
_GAUSSIAN_REACH = 0.75  # of the CoC: three standard deviations


@dataclass(frozen=True)
class KernelTable:
    """Kernels for CoC 0, 0.05, 0.10, ... pixels.

    Attributes:
        weights: (n, size, size) float32, each kernel centred and of sum 1; band-limited, so a little below 0 (at most
            0.02) around the rim.
        radius: (n,) int32, the reach of each kernel from its centre, pixels.
    """

    weights: NDArray[np.float32]
    radius: NDArray[np.int32]

    def index(self, coc: ArrayLike) -> NDArray[np.int32]:
        """The kernel nearest to each CoC (pixels)."""
        return np.minimum(np.rint(np.asarray(coc) * (1.0 / COC_STEP)), len(self.radius) - 1).astype(np.int32)


def transfer_function(coc: float, frequency: NDArray[np.floating], psf: str = "disk") -> NDArray[np.floating]:
    """The PSF's transfer function for a CoC in pixels at radial frequencies in cycles per pixel.

    Raises:
        InputError: `psf` is neither `disk` nor `gaussian`.
    """
    if psf == "disk":
        argument = np.maximum(math.pi * coc * frequency, 1e-6)
        return 2.0 * j1(argument) / argument
    if psf == "gaussian":  # standard deviation c / 4, the disk's
        return np.exp(-2.0 * (math.pi * coc / 4.0 * frequency) ** 2)
    raise InputError(f"psf must be disk or gaussian, got {psf!r}")


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
    coc = np.arange(0.0, max_coc + COC_STEP, COC_STEP)
    share = 0.5 if psf == "disk" else _GAUSSIAN_REACH
    radius = np.maximum(np.ceil(share * coc).astype(np.int32) + 1, _MIN_REACH)
    reach = int(radius[-1])
    grid = 4 * reach  # the kernels' ripples, which wrap around, have died out there
    frequency = np.hypot(np.fft.fftfreq(grid)[:, None], np.fft.rfftfreq(grid)[None])
    offset = np.arange(-reach, reach + 1)
    distance = np.hypot(offset[:, None], offset[None])
    weights = np.empty((len(coc), 2 * reach + 1, 2 * reach + 1), np.float32)
    for k, diameter in enumerate(coc):
        kernel = np.fft.irfft2(transfer_function(float(diameter), frequency, psf), s=(grid, grid))[offset][:, offset]
        kernel *= np.clip(radius[k] + 0.5 - distance, 0.0, 1.0)
        weights[k] = kernel / kernel.sum()
    return KernelTable(weights, radius)
