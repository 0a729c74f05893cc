"""A pair of pictures as cameras encode them, its form, and bringing it to another size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

Picture = NDArray[np.uint8]
_STRETCH = 0.02
"""How much more a picture may be resized one way than the other: the lens's blur is round."""


@dataclass(frozen=True)
class PictureForm:
    """What estimators are made for.

    Attributes:
        shape: Height and width, pixels.
        channels: 3, or 1 of grey pictures.
        bgr: Whether blue is the first of three.
    """

    shape: tuple[int, int]
    channels: int = 3
    bgr: bool = False


@dataclass(frozen=True)
class Pair:
    """A registered pair of one brightness.

    Attributes:
        shallow, deep: (H, W, 3) or (H, W) uint8.
        gamma: Encoding exponent of both: value = light ** (1 / gamma).
        bgr: Whether blue is the first of three channels.

    Raises:
        InputError: They are of two forms or not of 8 bits, or gamma is not a positive number.
    """

    shallow: Picture
    deep: Picture
    gamma: float
    bgr: bool = False

    def __post_init__(self) -> None:
        shallow, deep = self.shallow, self.deep
        if shallow.shape != deep.shape:
            raise InputError(f"pair: expected two images of one size, got {shallow.shape} and {deep.shape}")
        if not shallow.dtype == deep.dtype == np.uint8:
            raise InputError(f"pair: expected 8-bit images, got {shallow.dtype} and {deep.dtype}")
        if not (math.isfinite(self.gamma) and self.gamma > 0.0):
            raise InputError(f"pair: expected a gamma above 0, got {self.gamma:g}")

    @property
    def form(self) -> PictureForm:
        height, width = self.deep.shape[:2]
        return PictureForm((height, width), 1 if self.deep.ndim == 2 else self.deep.shape[2], self.bgr)


def keeps_aspect(size: tuple[int, ...], of: tuple[int, ...]) -> bool:
    """Whether pictures of height and width `of` are hardly stretched when they are brought to `size`."""
    down, across = size[0] / of[0], size[1] / of[1]
    return abs(across / down - 1.0) <= _STRETCH


class Resizer:
    """Brings pairs to one size, into buffers of its own that the next call overwrites.

    Args:
        size: Height and width, pixels; (0, 0) leaves pairs as they come.
    """

    def __init__(self, size: tuple[int, int] = (0, 0)) -> None:
        self._size = size
        self._buffers: tuple[Picture, Picture] | None = None

    def resize(self, pair: Pair) -> tuple[Pair, float]:
        """The pair at that size, and by how much it was enlarged.

        Raises:
            InputError: It would be stretched.
        """
        height, width = pair.form.shape
        if self._size in ((0, 0), (height, width)):
            return pair, 1.0
        if not keeps_aspect(self._size, (height, width)):
            raise InputError(
                f"size: expected one of the pictures' aspect, {width}x{height}, got {self._size[1]}x{self._size[0]}"
            )
        shape = (*self._size, *pair.deep.shape[2:])
        if self._buffers is None or self._buffers[0].shape != shape:
            self._buffers = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        across = self._size[1] / width
        way = cv2.INTER_AREA if across < 1.0 else cv2.INTER_LINEAR
        for picture, buffer in zip((pair.shallow, pair.deep), self._buffers, strict=True):
            cv2.resize(picture, self._size[::-1], dst=buffer, interpolation=way)
        return Pair(*self._buffers, pair.gamma, pair.bgr), across
