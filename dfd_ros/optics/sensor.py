"""The image sensor: exposure, gain, photon (shot) and read noise, gamma or linear encoding, 8, 10 or 12 bits.

A pixel gathers e electrons on average; what is read has the variance e + r² (photon noise, read noise r). The square
root makes that noise uniform (Anscombe, Biometrika 1948): with a standard normal n,

    y = 2 √(e + r² − 1/8),    e' = (y + n)² / 4 − r² − 1/8,

e' has the mean e and the variance e + r² exactly. So noise is one addition in y, and the way back, the gamma curve and
the rounding to bits are one table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError

BITS = (8, 10, 12)
_STEPS = 64
"""Table entries per standard deviation of noise: rounding to them adds 1/(12·64²) to a variance of 1."""
_NOISE_SAMPLES = 1 << 20  # beyond one picture: the number of different starts in the noise table


@dataclass(frozen=True)
class SensorSettings:
    """A camera's sensor.

    Attributes:
        full_well: Electrons of a pixel at full scale, at a gain of 1. 10,000 gives 0.5 % of full scale at mid grey,
            encoded.
        read_noise: Electrons, standard deviation.
        gain: Amplification before digitising: full scale is `full_well / gain` electrons.
        gamma: Encoding exponent: value = white · (linear light)^(1/gamma); 1 is linear.
        bits: 8, 10 or 12; white is 2^bits − 1.
    """

    full_well: float = 10_000.0
    read_noise: float = 6.0
    gain: float = 1.0
    gamma: float = 2.2
    bits: int = 8

    def __post_init__(self) -> None:
        if not self.gain > 0.0:
            raise InputError(f"gain must be positive, got {self.gain!r}")
        if not self.full_well / self.gain >= 1.0:
            raise InputError(
                f"full_well must be at least 1 electron at a gain of {self.gain:g}, got {self.full_well!r}"
            )
        if not self.read_noise >= 1.0:
            raise InputError(f"read_noise must be at least 1 electron, got {self.read_noise!r}")
        if not self.gamma > 0.0:
            raise InputError(f"gamma must be positive, got {self.gamma!r}")
        if self.bits not in BITS:
            raise InputError(f"bits must be one of {', '.join(map(str, BITS))}, got {self.bits!r}")

    @property
    def white(self) -> int:
        """The largest value."""
        return (1 << self.bits) - 1

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """Of the pictures: uint8 for 8 bits, else uint16 (not shifted)."""
        return np.uint8 if self.bits == 8 else np.uint16


class Sensor:
    """Turns light into noisy pictures of one shape; the noise is a function of `seed` and the picture's number alone."""

    def __init__(self, settings: SensorSettings, shape: tuple[int, int], seed: int) -> None:
        self.settings = settings
        self._shape = (*shape, 3)
        self._seed = seed
        self._size = shape[0] * shape[1] * 3
        noise = np.random.default_rng(seed).standard_normal(self._size + _NOISE_SAMPLES, np.float32)
        self._noise = np.rint(noise * _STEPS).astype(np.int16)
        self._table = self._encoding()

    def expose(
        self,
        light: NDArray[np.floating],
        exposure: float,
        number: int,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Take a picture of `light` · `exposure`; see `expose_mix`."""
        return self.expose_mix((light, light), (exposure, 0.0), number, out)

    def expose_mix(
        self,
        lights: tuple[NDArray[np.floating], NDArray[np.floating]],
        exposures: tuple[float, float],
        number: int,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Take a picture while the light changes: of exposures[0] · lights[0] + exposures[1] · lights[1].

        Args:
            lights: Two (H, W, 3) pictures, linear, of any floating type. An exposed value of 1 fills the wells; above
                1 / gain it is clipped.
            exposures: Their shares of the exposure, >= 0.
            number: The picture's number: a new one is new noise.
            out: Where to write, (H, W, 3) of the settings' dtype, contiguous.

        Returns:
            (H, W, 3) of the settings' dtype.

        Raises:
            InputError: A picture has another shape or type.
        """
        for light in lights:
            if light.shape != self._shape or light.dtype.kind != "f":
                raise InputError(f"light: expected floats of shape {self._shape}, got {light.dtype} of {light.shape}")
        if out is None:
            out = np.empty(self._shape, self.settings.dtype)
        draw = np.random.default_rng((self._seed, number % (1 << 63)))
        start, sign = int(draw.integers(_NOISE_SAMPLES)), int(draw.integers(2)) * 2 - 1
        scale = self.settings.full_well
        _expose(
            lights[0].reshape(-1),
            lights[1].reshape(-1),
            np.float32(exposures[0] * scale),
            np.float32(exposures[1] * scale),
            np.float32(self.settings.read_noise**2 - 0.125),
            self._noise[start : start + self._size],
            sign,
            self._table,
            out.reshape(-1),
        )
        return out

    def _encoding(self) -> NDArray[Any]:
        """The value for each step of y."""
        settings = self.settings
        full_scale = settings.full_well / settings.gain
        highest = 2.0 * math.sqrt(full_scale + settings.read_noise**2) + 1.0
        y = np.arange(int(highest * _STEPS) + 2) / _STEPS
        electrons = y**2 / 4.0 - settings.read_noise**2 - 0.125
        linear = np.clip(electrons / full_scale, 0.0, 1.0)
        return np.rint(settings.white * linear ** (1.0 / settings.gamma)).astype(settings.dtype)


@njit(cache=True, nogil=True, fastmath=True)
def _expose(first, second, gain_first, gain_second, offset, noise, sign, table, out):  # type: ignore[no-untyped-def]
    last = len(table) - 1
    for i in range(len(out)):
        electrons = gain_first * first[i] + gain_second * second[i]
        y = np.float32(2.0 * _STEPS) * np.sqrt(electrons + offset)
        step = int(y + np.float32(0.5)) + sign * noise[i]
        out[i] = table[min(max(step, 0), last)]
