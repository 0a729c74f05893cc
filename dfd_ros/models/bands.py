"""The bands that pictures are looked at in: a pyramid of ring-shaped filters, four at each level.

Neighbouring rings overlap, and the levels' bands are an octave apart, so together they hold all of a picture but its finest and
its coarsest detail.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

LEVELS = 4
"""Of the pyramid: the bands of each lie an octave below those of the one before."""
CENTRES = (0.34, 0.27, 0.21, 0.16)
"""Of a level's bands, cycles per pixel of the level: a third of an octave apart."""
BANDS = len(CENTRES)
"""Of a level."""
TAPS = 13
"""Side of the filters, pixels of the level."""
BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
"""Low pass of the pyramid, which then keeps every second pixel (Burt & Adelson, IEEE Trans. Comm. 31(4), 1983)."""

_SIGMA = 0.2  # octaves, of the log-Gabor ring (Field, JOSA A 4(12), 1987)

Array = NDArray[np.float64]


@cache
def band_kernels() -> Array:
    """The filters of a level, (BANDS, 13, 13): log-Gabor rings cut to 13 taps, of no mean and unit energy."""
    size, reach = 64, TAPS // 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    octaves = np.log2(np.maximum(frequency, 1e-9)[None] / np.array(CENTRES)[:, None, None])
    rings = np.exp(-0.5 * (octaves / _SIGMA) ** 2)
    window = np.hanning(TAPS + 2)[1:-1]
    taper = np.minimum(1.0, 1.6 * np.outer(window, window))
    middle = slice(size // 2 - reach, size // 2 + reach + 1)
    kernels = np.fft.fftshift(np.fft.ifft2(rings).real, axes=(1, 2))[:, middle, middle] * taper
    kernels -= taper * kernels.sum(axis=(1, 2), keepdims=True) / taper.sum()
    return np.asarray(kernels / np.sqrt(np.sum(kernels**2, axis=(1, 2), keepdims=True)))


@cache
def band_responses() -> tuple[Array, Array]:
    """Frequencies (n,), cycles per pixel of the picture, and how each band answers to them, (LEVELS, BANDS, directions, n).

    Frequencies go to the corner of what pixels hold, and answers are those of the pyramid's coarser pixels, with all that
    appears there as a lower frequency than it is.
    """
    frequency = np.linspace(0.004, math.sqrt(0.5), 700)
    directions = np.linspace(0.0, np.pi / 4, 5)[:, None]  # the others mirror them
    along = np.stack([np.sin(directions) * frequency, np.cos(directions) * frequency])  # y, x
    passed = (along.max(axis=0) <= 0.5).astype(float)
    reach = TAPS // 2
    kernels, taps = band_kernels(), np.arange(-reach, reach + 1)
    responses = []
    for level in range(LEVELS):
        y, x = np.cos(2.0 * np.pi * 2**level * along[..., None] * taps)
        responses.append(passed * np.einsum("...v,bvu,...u->b...", y, kernels, x))
        waves = np.cos(2.0 * np.pi * 2**level * along[..., None] * np.arange(-2, 3))
        passed = passed * np.prod(waves @ BINOMIAL, axis=0)
    return frequency, np.stack(responses)
