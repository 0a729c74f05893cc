"""Transfer functions of the PSFs: what a blur of a given CoC leaves of each spatial frequency.

A disk of diameter c has 2 J1(π c ρ) / (π c ρ) (Goodman, Introduction to Fourier Optics, section 6.4), a Gaussian of
the same variance, standard deviation c / 4, exp(−2 (π c ρ / 4)²).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import j1

from dfd_ros.errors import InputError


def transfer_function(coc: float, frequency: ArrayLike, psf: str = "disk") -> NDArray[np.float64]:
    """Transfer function of a PSF at radial frequencies.

    Args:
        coc: Diameter of the circle of confusion, pixels.
        frequency: Distance from zero frequency, cycles per pixel, any shape.
        psf: `disk` or `gaussian`.

    Returns:
        Real factors of the shape of `frequency`, 1 at frequency 0.

    Raises:
        InputError: `psf` is neither.
    """
    argument = math.pi * coc * np.asarray(frequency, np.float64)
    if psf == "disk":
        argument = np.maximum(argument, 1e-6)  # 1 to the last digit there
        return 2.0 * j1(argument) / argument
    if psf == "gaussian":
        return np.exp(-0.125 * argument**2)
    raise InputError(f"psf: expected disk or gaussian, got {psf!r}")
