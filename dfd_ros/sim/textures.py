"""Photographic textures: photographs that ship inside scikit-image's wheel, carried to every scale.

One photograph has detail over a factor of a few hundred in distance. Each surface texture here is the photograph at
several scales, one upon the other, over 1/f noise (natural images have amplitude spectra near 1/f: Field, JOSA A
1987), so that at any distance there is detail at the scale of a pixel. All textures lie in one `Atlas` with their mip
maps (Williams, SIGGRAPH 1983), 8 bit at gamma 2, for the ray caster to filter.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

Picture = NDArray[np.float32]
"""A texture while it is made: (H, W, 3) float32, linear reflectance, H and W powers of two."""

TILE = 1024
"""Side of a repeating texture, texels."""


@dataclass
class Atlas:
    """All textures of a scene in one array, each with its mip maps, looked up by name while the scene is built."""

    names: dict[str, int] = field(default_factory=dict)
    _texels: list[NDArray[np.uint32]] = field(default_factory=list)
    _layout: list[tuple[int, int]] = field(default_factory=list)
    _levels: list[tuple[int, int, int]] = field(default_factory=list)
    _size: int = 0

    def add(self, name: str, picture: Picture) -> str:
        """Store a texture and return its name."""
        height, width = picture.shape[:2]
        if height & (height - 1) or width & (width - 1):
            raise InputError(f"texture {name!r}: sides must be powers of two, got {width}x{height}")
        levels = height.bit_length() if height < width else width.bit_length()
        self.names[name] = len(self._layout)
        self._layout.append((len(self._levels), levels))
        for _ in range(levels):
            self._levels.append((self._size, *picture.shape[:2]))
            roots = cv2.convertScaleAbs(cv2.sqrt(np.maximum(picture, 0.0)), alpha=255.0)  # rounds, and ends at 255
            self._texels.append(cv2.cvtColor(roots, cv2.COLOR_RGB2RGBA).reshape(-1).view("<u4"))
            self._size += self._texels[-1].size
            picture = cv2.resize(
                picture, (max(picture.shape[1] // 2, 1), max(picture.shape[0] // 2, 1)), interpolation=cv2.INTER_AREA
            )
        return name

    def texels(self) -> NDArray[np.uint32]:
        """All texels, (n,): the square root of reflectance, 8 bits each for red (the lowest), green and blue."""
        return np.concatenate(self._texels)

    def layout(self) -> NDArray[np.int64]:
        """Per texture: its first mip level (the finest) in `levels`, and how many there are; (t, 2)."""
        return np.array(self._layout, np.int64)

    def levels(self) -> NDArray[np.int64]:
        """Per mip level: first texel, height, width; (l, 3)."""
        return np.array(self._levels, np.int64)


def noise(shape: tuple[int, int], rng: np.random.Generator, slope: float = 1.0) -> NDArray[np.float32]:
    """Repeating noise of amplitude spectrum 1/f^slope, mean 0, standard deviation 1."""
    field_ = np.roll(_noise_field(shape, slope), tuple(rng.integers(0, max(shape), 2)), (0, 1))
    return field_ if rng.random() < 0.5 else -field_[::-1]


@cache
def _noise_field(shape: tuple[int, int], slope: float) -> NDArray[np.float32]:
    """One field of each shape and slope; rolled and flipped, it serves for all."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(np.random.default_rng(shape[0] * shape[1]).standard_normal(shape, np.float32))
    field_ = np.fft.irfft2(white * frequency**-slope, s=shape)
    return (field_ / field_.std()).astype(np.float32)


@cache
def photograph(name: str) -> NDArray[np.float32]:
    """A photograph of scikit-image's wheel, linear light, (H, W, 3) float32 RGB.

    Raises:
        InputError: scikit-image, or that file in it, is not there.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise InputError("the simulator's textures need scikit-image: pip install scikit-image")
    path = Path(package.submodule_search_locations[0]) / "data" / f"{name}.png"
    encoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if encoded is None:
        raise InputError(f"texture photograph {path}: expected a PNG file of scikit-image, found none that can be read")
    linear = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
    return linear[encoded[..., ::-1]]


@cache
def tile(name: str, turned: bool = False) -> NDArray[np.float32]:
    """A photograph's brightness as a repeating pattern of mean 0 and standard deviation 1, (512, 512)."""
    grey = cv2.resize(photograph(name).mean(axis=2), (512, 512), interpolation=cv2.INTER_AREA)
    if turned:
        grey = np.ascontiguousarray(grey.T)
    grey = grey / cv2.blur(grey, (255, 255), borderType=cv2.BORDER_REFLECT)  # even lighting
    # Cross-fade with the picture shifted by half its size, so that the borders meet; keep the contrast.
    ramp = np.abs(np.linspace(-1.0, 1.0, 512, dtype=np.float32))
    fade = np.clip((np.maximum(ramp[:, None], ramp[None]) - 0.6) / 0.3, 0.0, 1.0)
    if turned:  # masonry must not be cross-faded: mirror it instead
        half = cv2.resize(grey, (256, 256), interpolation=cv2.INTER_AREA)
        grey = np.vstack([np.hstack([half, half[:, ::-1]]), np.hstack([half[::-1], half[::-1, ::-1]])])
    else:
        shifted = np.roll(grey, (256, 256), (0, 1))
        grey = 1.0 + ((1 - fade) * (grey - 1.0) + fade * (shifted - 1.0)) / np.hypot(1 - fade, fade)
    return ((grey - grey.mean()) / grey.std()).astype(np.float32)


def repeated(pattern: NDArray[np.float32], times: int, size: int = TILE) -> NDArray[np.float32]:
    """A repeating pattern `times` times along each side of a size x size texture."""
    side = -(-size // times)
    interpolation = cv2.INTER_AREA if side < pattern.shape[0] else cv2.INTER_CUBIC
    tiled = np.tile(cv2.resize(pattern, (side, side), interpolation=interpolation), (times, times))
    return cv2.resize(tiled, (size, size), interpolation=cv2.INTER_LINEAR)


def surface(
    colour: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    photo: str = "",
    contrast: float = 0.3,
    scales: tuple[int, ...] = (2, 8),
    grain: float = 0.2,
    tint: float = 0.04,
    turned: bool = False,
    size: int = TILE,
) -> Picture:
    """A repeating texture of mean `colour`: a photograph's pattern at several scales, over 1/f noise.

    Args:
        colour: Mean linear reflectance.
        rng: Source of the noise.
        photo: Which photograph; none: noise only.
        contrast: Relative standard deviation of the photograph's pattern, shared by its scales.
        scales: How often the photograph repeats along a side, per scale.
        grain: Relative standard deviation of the noise.
        tint: Relative standard deviation of the noise in colour.
        turned: Swap the photograph's axes.
        size: Side in texels.
    """
    brightness = 1.0 + grain * noise((size, size), rng)
    for times in scales if photo else ():
        pattern = np.roll(repeated(tile(photo, turned), times, size), tuple(rng.integers(0, size, 2)), (0, 1))
        brightness *= 1.0 + contrast / np.sqrt(len(scales)) * pattern
    picture = np.maximum(brightness, 0.12)[..., None] * np.asarray(colour, np.float32)
    for channel in range(3):
        cast = cv2.resize(noise((size // 4, size // 4), rng, 1.3), (size, size), interpolation=cv2.INTER_LINEAR)
        picture[..., channel] *= 1.0 + tint * cast
    return np.clip(picture, 0.004, 0.92)
