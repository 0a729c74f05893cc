"""Pictures, camera and lens brought to the samples' size: an even crop to its shape, then a reduction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera
from dfd_ros.optics.lens import Lens


@dataclass(frozen=True)
class Fit:
    """From pictures of `width` x `height` pixels, the part at (`column`, `row`), reduced to `size` (width, height)."""

    width: int
    height: int
    column: int
    row: int
    part: tuple[int, int]
    size: tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels of the result for one of the original."""
        return self.size[0] / self.part[0]

    def picture(self, picture: NDArray[np.uint8], gamma: float) -> NDArray[np.uint8]:
        """A picture (H, W) or (H, W, 3) of encoding `gamma`. Light is averaged, not encoded values: blur mixes light."""
        part = picture[self.row : self.row + self.part[1], self.column : self.column + self.part[0]]
        if self.part == self.size:
            return part
        light = cv2.LUT(part, (np.arange(256) / 255.0).astype(np.float32) ** np.float32(gamma))
        mean = cv2.resize(light, self.size, interpolation=cv2.INTER_AREA)
        values = np.clip(mean, 0.0, 1.0) ** np.float32(1.0 / gamma)
        return np.asarray(np.rint(values * np.float32(255.0)), np.uint8)

    def camera(self, camera: Camera) -> Camera:
        """The camera of the result."""
        return camera.cropped(self.column, self.row, *self.part).resized(*self.size)

    def lens(self, lens: Lens) -> Lens:
        """The lens of the result, its blur in the result's pixels and its field that of the result's corners."""
        inside = math.hypot(*self.part) / math.hypot(self.width, self.height)
        return replace(
            lens,
            coc_scale=lens.coc_scale * self.scale,
            pixel_pitch=lens.pixel_pitch / self.scale,
            coc_uncertainty=lens.coc_uncertainty * self.scale,
            focus_blur=lens.focus_blur * self.scale,
            coc_field=lens.coc_field * inside**2,
            parallax=lens.parallax * inside**2,
            prior_log_slope=lens.prior_log_slope * self.part[1] / self.height,
        )


def fit_to(shape: tuple[int, ...], size: tuple[int, int] | None) -> Fit:
    """How pictures of `shape` (H, W, ...) are brought to `size` (width, height); None leaves them as they are.

    Raises:
        InputError: They are smaller than that.
    """
    height, width = shape[:2]
    if size is None:
        return Fit(width, height, 0, 0, (width, height), (width, height))
    reduction = min(width / size[0], height / size[1])
    if reduction < 1.0:
        raise InputError(f"picture: expected at least {size[0]}x{size[1]} pixels, got {width}x{height}")
    part = (min(round(size[0] * reduction), width), min(round(size[1] * reduction), height))
    return Fit(width, height, (width - part[0]) // 2, (height - part[1]) // 2, part, size)
