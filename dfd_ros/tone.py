"""Between a picture's encoded values and linear light: value = light ** (1 / gamma), both in [0, 1].

Defocus mixes light, so whatever compares blur works on linear light.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

# Rec. 709 luma weights for linear R, G, B.
LUMA = np.array([[0.2126, 0.7152, 0.0722]], np.float32)


@lru_cache(maxsize=8)
def _light_table(gamma: float) -> NDArray[np.float32]:
    """Linear light of each 8-bit value."""
    return ((np.arange(256, dtype=np.float64) / 255.0) ** gamma).astype(np.float32)


def linear_grey(
    image: NDArray[np.uint8],
    gamma: float,
    out: NDArray[np.float32] | None = None,
    *,
    bgr: bool = False,
    light: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Luminance in linear light of a colour (H, W, 3) or grey (H, W) 8-bit image: (H, W) float32 in [0, 1].

    Args:
        image: Red first, unless `bgr`.
        gamma: Of its values.
        out: Where to put it, (H, W).
        bgr: Whether blue is first.
        light: Room for the colours in linear light, (H, W, 3), where nothing shall be allocated.
    """
    table = _light_table(gamma)
    if image.ndim == 2:
        return cv2.LUT(image, table, dst=out)
    return cv2.transform(cv2.LUT(image, table, dst=light), LUMA[:, ::-1].copy() if bgr else LUMA, dst=out)


@lru_cache(maxsize=8)
def gamma_table(gamma: float, wanted: float) -> NDArray[np.float32]:
    """What each 8-bit value of one gamma is in [0, 1] at another, (256,) float32."""
    return ((np.arange(256, dtype=np.float64) / 255.0) ** (gamma / wanted)).astype(np.float32)


@lru_cache(maxsize=64)
def _gain_table(thousandths: int, gamma: float) -> NDArray[np.uint8]:
    light = (thousandths / 1000.0) * (np.arange(256) / 255.0) ** gamma
    return np.round(255.0 * np.minimum(light, 1.0) ** (1.0 / gamma)).astype(np.uint8)


def apply_gain(image: NDArray[np.uint8], gain: float, gamma: float) -> NDArray[np.uint8]:
    """The 8-bit image as if it had been exposed `gain` times as long (to a thousandth); clips at white."""
    return cv2.LUT(image, _gain_table(round(1000.0 * gain), gamma))
