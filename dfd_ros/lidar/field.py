"""The zone of the image that the LiDAR sees, and how closely its returns lie there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from dfd_ros.errors import InputError

REACH = 6
"""Columns to each side that count as nearby: the spacing of a spinning LiDAR's returns in a row, pixels."""


def lidar_field(sparse: NDArray[np.floating], reach: int = REACH) -> NDArray[np.bool_]:
    """The zone that the LiDAR sees, (H, W) bool: rows between the topmost and the lowest return of nearby columns.

    Outside it (above the uppermost beam, in the sky) colorization only extrapolates.

    Args:
        sparse: (H, W) metres, NaN where unknown.
        reach: Columns to each side that count as nearby; at least the spacing of returns in a row, pixels.
    """
    if reach < 0:
        raise InputError(f"LiDAR field: reach must be at least 0 pixels, got {reach}")
    known = np.isfinite(sparse)
    height = len(sparse)
    filled = known.any(axis=0)
    top = np.where(filled, known.argmax(axis=0), height)
    bottom = np.where(filled, height - 1 - known[::-1].argmax(axis=0), -1)
    top, bottom = field_rows(top, bottom, reach)
    rows = np.arange(height)[:, None]
    return (rows >= top) & (rows <= bottom)


def field_rows(
    top: NDArray[np.integer], bottom: NDArray[np.integer], reach: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """First and last row of the field in each column, (W,) each, from the columns' topmost and lowest returns.

    Args:
        top, bottom: (W,) rows; in a column without a return past the last row and before the first.
        reach: As for `lidar_field`.
    """
    window = 2 * reach + 1
    return minimum_filter1d(top, window, mode="nearest"), maximum_filter1d(bottom, window, mode="nearest")


def return_spacing(sparse: NDArray[np.floating]) -> float:
    """Mean distance between neighbouring returns in the LiDAR's field, pixels; NaN where there is no return."""
    returns = np.count_nonzero(np.isfinite(sparse))
    return math.sqrt(np.count_nonzero(lidar_field(sparse)) / returns) if returns else math.nan
