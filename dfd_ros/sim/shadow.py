"""Who may stand in the sun's way: the scene's parts in a grid across the sunlight.

All shadow rays are parallel, so they are points on a plane across them, and a part can only shade points within its
own outline on that plane. Each cell of a grid there lists the parts whose outline touches it, those nearest to the sun
first (Haines & Greenberg, "The Light Buffer", IEEE CG&A 1986, for a light at infinity).
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

CELL = 0.2
"""Side of a cell, metres."""


class ShadowGrid(NamedTuple):
    """The grid, for the ray caster.

    axes (3, 3): rows are the grid's two directions and the one to the sun (world, unit). low (2,): the grid's corner.
    columns: cells along the first direction. first (cells + 1) and part (n,): each cell's parts. low_of (P, 2) and high_of
    (P, 3): each part's outline on the grid, and how far it reaches towards the sun.
    """

    axes: NDArray[np.float64]
    low: NDArray[np.float64]
    columns: int
    first: NDArray[np.int32]
    part: NDArray[np.int32]
    low_of: NDArray[np.float64]
    high_of: NDArray[np.float64]


def shadow_grid(corners: NDArray[np.floating], axes: NDArray[np.float64]) -> ShadowGrid:
    """Sort parts into the grid: corners (P, 8, 3) of their bounding boxes in the world; axes as in `ShadowGrid`."""
    seen = corners @ axes.T
    low, high = seen.min(axis=1), seen.max(axis=1)
    corner = low[:, :2].min(axis=0)
    cells = (np.stack([low[:, :2], high[:, :2]], axis=1) - corner) / CELL  # (P, first and last, column and row)
    cells = cells.astype(np.int32)
    columns, rows = (int(last) + 1 for last in cells[:, 1].max(axis=0))
    first, part = _sort_in(cells, np.argsort(-high[:, 2]), columns, rows)
    return ShadowGrid(np.ascontiguousarray(axes), corner, columns, first, part, low[:, :2].copy(), high)


@njit(cache=True)
def _sort_in(cells, order, columns, rows):
    """Counting sort: each cell's parts, in `order`; cells (P, 2, 2): their first and last column and row."""
    first = np.zeros(columns * rows + 1, np.int32)
    for part in order:
        for row in range(cells[part, 0, 1], cells[part, 1, 1] + 1):
            for column in range(cells[part, 0, 0], cells[part, 1, 0] + 1):
                first[row * columns + column + 1] += 1
    for cell in range(columns * rows):
        first[cell + 1] += first[cell]
    parts = np.empty(first[-1], np.int32)
    fill = first[:-1].copy()
    for part in order:
        for row in range(cells[part, 0, 1], cells[part, 1, 1] + 1):
            for column in range(cells[part, 0, 0], cells[part, 1, 0] + 1):
                cell = row * columns + column
                parts[fill[cell]] = part
                fill[cell] += 1
    return first, parts
