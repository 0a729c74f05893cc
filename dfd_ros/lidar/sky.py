"""Sky: what a LiDAR never has a return from, and nothing may be filled into.

Sky is what can be reached from the image's top border without crossing an edge, above the LiDAR's field, through
pixels brighter than what the LiDAR sees on average. At night nothing is sky; a bright wall or ceiling that fills the
top of the picture above the LiDAR's field is taken for it: there, too, no return supports a depth.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_EDGE = 0.02
"""Difference of grey in [0, 1] between neighbouring pixels that ends the sky: five steps of an 8-bit picture."""


def find_sky(
    guide: NDArray[np.float32], limit: NDArray[np.integer], brightness: float, sky: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Write into `sky` (h, w) where the sky is, and return it.

    Args:
        guide: (h, w) grey in [0, 1].
        limit: (w,) rows of each column that may be sky: those before it.
        brightness: What sky is brighter than, the mean grey where the LiDAR has returns.
        sky: (h, w), written.
    """
    sky[:] = False
    _flood(guide, limit, np.float32(brightness), np.float32(_EDGE), sky, np.empty(guide.size, np.int32))
    return sky


@njit(nogil=True, cache=True)
def _flood(guide, limit, brightness, edge, sky, stack):  # type: ignore[no-untyped-def]
    height, width = guide.shape
    count = 0
    for column in range(width):
        if limit[column] > 0 and guide[0, column] > brightness:
            sky[0, column] = True
            stack[count] = column
            count += 1
    while count > 0:
        count -= 1
        row, column = divmod(stack[count], width)
        here = guide[row, column]
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= c < width and 0 <= r < min(limit[c], height) and not sky[r, c]:
                there = guide[r, c]
                if there > brightness and abs(there - here) < edge:
                    sky[r, c] = True
                    stack[count] = r * width + c
                    count += 1
