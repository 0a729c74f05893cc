"""How far a blurred picture lies off a sharp one of the same scene, window by window.

In a window of one depth the blurred picture s, band-passed, is the sharp one d, fainter by a gain g and displaced by u:
s = g (d − u · ∇d), which is linear in g and g u (Lucas & Kanade, IJCAI 1981). Blur takes more of what is finer, which slopes
have more of, so u comes out too small: by a tenth where the blur is 1 pixel (standard deviation), by a quarter where it is 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

WINDOW = 48
"""Side of the windows, pixels; they overlap by half."""
MAX_SHIFT = 1.5
"""Pixels: what seems farther off was not understood."""

_BANDS = ((1.0, 2.0), (1.6, 3.2))  # pixels: Gaussians whose difference passes a band
_MIN_ENERGY = 3e-6  # of the sharp band: (0.002 of white)²
_MIN_GAIN = 0.15
_MAX_RESIDUAL = 0.15  # energy that the fit leaves, over the sharp band's
_TINY = 1e-10


@dataclass(frozen=True)
class WindowShifts:
    """
    Attributes:
        place: (h, w, 2), x and y of the windows' centres from the image's, over the corner's distance.
        shift: (bands, h, w, 2), along x and y, of the blurred picture against the sharp one, pixels.
        good: (bands, h, w), where it can be relied on.
        corner: The corner's distance from the image's centre, pixels.
    """

    place: NDArray[np.float64]
    shift: NDArray[np.float64]
    good: NDArray[np.bool_]
    corner: float


def window_shifts(blurred: Image, sharp: Image) -> WindowShifts:
    """Measure them.

    Args:
        blurred, sharp: (H, W) linear light, of one brightness, brought together to within a pixel; H and W at least `WINDOW`.
    """
    height, width = sharp.shape
    measured = [_measure_band(blurred, sharp, narrow, wide) for narrow, wide in _BANDS]
    shift, good = (np.stack(each) for each in zip(*measured, strict=True))
    half = WINDOW // 2
    y, x = np.mgrid[half : half * (good.shape[1] + 1) : half, half : half * (good.shape[2] + 1) : half] - 0.5
    corner = 0.5 * float(np.hypot(height - 1, width - 1))
    place = np.stack([x - 0.5 * (width - 1), y - 0.5 * (height - 1)], axis=-1) / corner
    return WindowShifts(place, shift, good, corner)


def window_means(picture: Image) -> Image:
    """Means of a picture (H, W) over the windows, (h, w)."""
    half = WINDOW // 2
    height, width = (size // half for size in picture.shape)
    cells = cv2.resize(picture[: height * half, : width * half], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(0.25 * (cells[:-1, :-1] + cells[:-1, 1:] + cells[1:, :-1] + cells[1:, 1:]), np.float32)


def _measure_band(
    blurred: Image, sharp: Image, narrow: float, wide: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, d = (cv2.GaussianBlur(p, (0, 0), narrow) - cv2.GaussianBlur(p, (0, 0), wide) for p in (blurred, sharp))
    right, down = (cv2.Sobel(d, cv2.CV_32F, x, 1 - x, ksize=1, scale=0.5) for x in (1, 0))
    basis = (d, right, down)
    height, width = (size // (WINDOW // 2) - 1 for size in sharp.shape)
    normal, target = np.empty((height, width, 3, 3)), np.empty((height, width, 3))
    for i, a in enumerate(basis):
        target[..., i] = window_means(a * s)
        for j, b in enumerate(basis[: i + 1]):
            normal[..., i, j] = normal[..., j, i] = window_means(a * b)
    solution = np.linalg.solve(normal + _TINY * np.eye(3), target[..., None])[..., 0]
    gain, energy = solution[..., 0], normal[..., 0, 0]
    residual = window_means(s * s) - (solution * target).sum(axis=-1)
    good = (energy > _MIN_ENERGY) & (gain > _MIN_GAIN) & (residual < _MAX_RESIDUAL * energy)
    shift = -solution[..., 1:] / np.where(good, gain, 1.0)[..., None]
    return shift, good & (np.linalg.norm(shift, axis=-1) < MAX_SHIFT)
