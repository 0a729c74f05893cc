"""The image sensor: exposure, photon and read noise, gamma, 8 bits.

A pixel gathers e electrons on average; what is read has the variance e + r² (photon noise, read noise r). The square
root makes that noise uniform (Anscombe, Biometrika 1948): with a standard normal n,

    y = 2 √(e + r² − 1/8),    e' = (y + n)² / 4 − r² − 1/8,

e' has the mean e and the variance e + r² exactly. So noise is one addition in y, and the way back, the gamma curve and
the rounding to 8 bits are one table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError

_STEPS = 64
"""Table entries per standard deviation of noise: rounding to them adds 1/(12·64²) to a variance of 1."""
_NOISE_SAMPLES = 1 << 20  # beyond one picture: the number of different starts in the noise table


@dataclass(frozen=True)
class SensorSettings:
    """A camera's sensor.

    Attributes:
        full_well: Electrons of a pixel at full scale. 10,000 gives 0.5 % of full scale at mid grey, encoded.
        read_noise: Electrons, standard deviation.
        gamma: Encoding exponent: 8-bit value = 255 · (linear light)^(1/gamma); 1 is linear.
    """

    full_well: float = 10_000.0
    read_noise: float = 6.0
    gamma: float = 2.2

    def __post_init__(self) -> None:
        if not self.full_well >= 1.0:
            raise InputError(f"full_well must be at least 1 electron, got {self.full_well!r}")
        if not self.read_noise >= 1.0:
            raise InputError(f"read_noise must be at least 1 electron, got {self.read_noise!r}")
        if not self.gamma > 0.0:
            raise InputError(f"gamma must be positive, got {self.gamma!r}")


class Sensor:
    """Turns light into noisy 8-bit pictures; the noise is a function of `seed` and the picture's number alone."""

    def __init__(self, settings: SensorSettings, shape: tuple[int, int], seed: int) -> None:
        self.settings = settings
        self._shape = shape
        self._seed = seed
        self._size = shape[0] * shape[1] * 3
        noise = np.random.default_rng(seed).standard_normal(self._size + _NOISE_SAMPLES, np.float32)
        self._noise = np.rint(noise * _STEPS).astype(np.int16)
        self._table = self._encoding()

    def expose(
        self,
        pictures: tuple[NDArray[np.float32], NDArray[np.float32]],
        gains: tuple[float, float],
        number: int,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Take a picture of the mix gains[0] · pictures[0] + gains[1] · pictures[1].

        Args:
            pictures: Two (H, W, 3) float32 pictures, linear; a mix of 1 is full scale.
            gains: Their shares of the exposure, >= 0.
            number: The picture's number: a new one is new noise.
            out: Where to write, (H, W, 3) uint8, contiguous.

        Returns:
            (H, W, 3) uint8.
        """
        if out is None:
            out = np.empty((*self._shape, 3), np.uint8)
        draw = np.random.default_rng((self._seed, number % (1 << 63)))
        start, sign = int(draw.integers(_NOISE_SAMPLES)), int(draw.integers(2)) * 2 - 1
        scale = self.settings.full_well
        _expose(
            pictures[0].reshape(-1),
            pictures[1].reshape(-1),
            np.float32(gains[0] * scale),
            np.float32(gains[1] * scale),
            np.float32(self.settings.read_noise**2 - 0.125),
            self._noise[start : start + self._size],
            sign,
            self._table,
            out.reshape(-1),
        )
        return out

    def _encoding(self) -> NDArray[np.uint8]:
        """8-bit value for each step of y."""
        settings = self.settings
        highest = 2.0 * math.sqrt(settings.full_well + settings.read_noise**2) + 1.0
        y = np.arange(int(highest * _STEPS) + 2) / _STEPS
        electrons = y**2 / 4.0 - settings.read_noise**2 - 0.125
        linear = np.clip(electrons / settings.full_well, 0.0, 1.0)
        return np.rint(255.0 * linear ** (1.0 / settings.gamma)).astype(np.uint8)


@njit(cache=True, nogil=True, fastmath=True)
def _expose(first, second, gain_first, gain_second, offset, noise, sign, table, out):  # type: ignore[no-untyped-def]
    last = len(table) - 1
    for i in range(len(out)):
        electrons = gain_first * first[i] + gain_second * second[i]
        y = np.float32(2.0 * _STEPS) * np.sqrt(electrons + offset)
        step = int(y + np.float32(0.5)) + sign * noise[i]
        out[i] = table[min(max(step, 0), last)]
