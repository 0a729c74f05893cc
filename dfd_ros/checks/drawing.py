"""Pictures that show what is wrong."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.checks.findings import Picture

WIDEST = 960
"""Pixels: what is looked at and kept does not grow with the camera."""
RECORDED, BETTER = (255, 60, 60), (60, 255, 90)
"""Colours of outlines: where the extrinsics put them, and where they would fit."""


def shrunk(picture: Picture) -> Picture:
    """The picture, of `WIDEST` columns at most."""
    height, width = picture.shape[:2]
    if width <= WIDEST:
        return picture
    size = (WIDEST, max(1, round(height * WIDEST / width)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def side_by_side(shallow: Picture, deep: Picture) -> Picture:
    """Shallow and deep, left and right."""
    return np.concatenate([_colour(shrunk(shallow)), _colour(shrunk(deep))], axis=1)


def overlay(shallow: Picture, deep: Picture) -> Picture:
    """The shallow image in red over the deep one in cyan: what moved has coloured rims."""
    grey = [cv2.cvtColor(_colour(shrunk(image)), cv2.COLOR_RGB2GRAY) for image in (shallow, deep)]
    return np.stack([grey[0], grey[1], grey[1]], axis=2)


def with_outlines(picture: Picture, pixels: NDArray[np.floating], shift: tuple[int, int]) -> Picture:
    """A LiDAR's outlines at pixels (N, 2) in red, and shifted by (columns, rows) in green."""
    drawn = np.ascontiguousarray(_colour(picture) // 2)
    for colour, (right, down) in ((RECORDED, (0, 0)), (BETTER, shift)):
        for u, v in np.rint(pixels[np.isfinite(pixels).all(axis=1)] + (right, down)).astype(int):
            cv2.circle(drawn, (int(u), int(v)), 1, colour, -1)
    return drawn


def _colour(picture: Picture) -> Picture:
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
