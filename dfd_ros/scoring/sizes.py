"""Depth of another size than what it is held against: the depth node's parameter `size` makes it so."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.inference.pictures import keeps_aspect
from dfd_ros.metrics import is_known

FloatImage = NDArray[np.float32]


def at_size(
    shape: tuple[int, ...], depth: FloatImage, confidence: FloatImage | None
) -> tuple[FloatImage, FloatImage | None]:
    """Depth and its confidence brought to another size, bilinearly; what borders on unknown depth is unknown, NaN.

    Those of another aspect than `shape` (height, width) come back as they are, for who scores them to name.
    """
    if depth.shape == shape or not keeps_aspect(depth.shape, shape):
        return depth, confidence
    known = np.where(is_known(depth), depth, np.float32(np.nan))
    return _resized(known, shape), None if confidence is None else _resized(confidence, shape)


def _resized(array: FloatImage, shape: tuple[int, ...]) -> FloatImage:
    return np.asarray(cv2.resize(array, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
