"""Nested dissection of a pixel grid (George, SIAM J. Numer. Anal. 1973), shared by the direct solvers.

The grid is halved again and again by lines one pixel wide, which gives a tree of boxes. A box eliminates its own pixels,
its dividing line (or, where a solver does not leave them to others, all pixels of a smallest box), after its children
have eliminated theirs. What it then leaves is couplings among its ring: the pixels around the box that lie in the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Neighbours (row, column) in the order of a coupling's last axis; the opposite of neighbour q is 7 - q."""

Divide = Callable[[int, int], tuple[int, int]]


class Dissection(NamedTuple):
    """The tree in postorder: node k's own pixels are own[own_at[k]:own_at[k + 1]], its ring alike, as row·W + column."""

    boxes: NDArray[np.int64]  # (K, 6): first and past-the-last row and column, dividing row or -1, column or -1
    children: NDArray[np.int32]  # (K, 2), -1 where there is none; a smallest box has no first child
    depth: NDArray[np.int32]  # (K,)
    own_at: NDArray[np.int64]  # (K + 1,)
    own: NDArray[np.int32]
    ring_at: NDArray[np.int64]  # (K + 1,)
    ring: NDArray[np.int32]  # above, below, to the left, to the right


def dissect(height: int, width: int, divide: Divide, *, smallest_own_pixels: bool) -> Dissection:
    """The tree of an image.

    Args:
        height, width: Of the image.
        divide: Gives the dividing row and column of a box of so many rows and columns, counted from the box's first;
            one of them is -1, and both for a smallest box. A line at a box's end leaves it one child.
        smallest_own_pixels: Whether the smallest boxes' pixels are their own, or the caller sees to them.
    """
    boxes: list[tuple[int, int, int, int, int, int]] = []
    children: list[tuple[int, int]] = []
    depths: list[int] = []

    def visit(top: int, bottom: int, left: int, right: int, depth: int) -> int:
        row, column = divide(bottom - top, right - left)
        first = second = -1
        if column >= 0:
            column += left
            first = visit(top, bottom, left, column, depth + 1)
            second = visit(top, bottom, column + 1, right, depth + 1) if column + 1 < right else -1
        elif row >= 0:
            row += top
            first = visit(top, row, left, right, depth + 1)
            second = visit(row + 1, bottom, left, right, depth + 1) if row + 1 < bottom else -1
        boxes.append((top, bottom, left, right, row, column))
        children.append((first, second))
        depths.append(depth)
        return len(boxes) - 1

    visit(0, height, 0, width, 0)
    tree = np.array(boxes, np.int64), np.array(children, np.int32), np.array(depths, np.int32)
    return Dissection(*tree, *_lay_out(tree[0], height, width, smallest_own_pixels))


def stack_sizes(tree: Dissection, sizes: NDArray[np.int64], nodes: range) -> tuple[int, int]:
    """Numbers that Schur complements of `sizes` (K,) take while they await their parents, at even and at odd depths.

    A node reads its children's from the stack of the one parity and writes its own on the other.
    """
    now, most = [0, 0], [0, 0]
    for node in nodes:
        parity = int(tree.depth[node] % 2)
        now[parity] += int(sizes[node])
        most[parity] = max(most[parity], now[parity])
        now[1 - parity] -= sum(int(sizes[child]) for child in tree.children[node] if child >= 0)
    return most[0], most[1]


def begins(sizes: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where each of the stretches of these sizes begins in a flat array, and the end of the last."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


@njit(nogil=True, cache=True)
def _lay_out(boxes, height, width, smallest_own_pixels):  # type: ignore[no-untyped-def]
    """The pixel lists of all nodes, and where each node's begin."""
    nodes = len(boxes)
    own_at, ring_at = np.zeros(nodes + 1, np.int64), np.zeros(nodes + 1, np.int64)
    scratch = np.empty(2 * (height + width) + 4, np.int32)
    for k in range(nodes):
        own_at[k + 1] = own_at[k] + _write_own(boxes[k], width, smallest_own_pixels, False, scratch)
        ring_at[k + 1] = ring_at[k] + _write_ring(boxes[k], height, width, scratch)
    own, ring = np.empty(own_at[nodes], np.int32), np.empty(ring_at[nodes], np.int32)
    for k in range(nodes):
        _write_own(boxes[k], width, smallest_own_pixels, True, own[own_at[k] : own_at[k + 1]])
        _write_ring(boxes[k], height, width, ring[ring_at[k] : ring_at[k + 1]])
    return own_at, own, ring_at, ring


@njit(nogil=True, cache=True)
def _write_own(box, width, smallest_own_pixels, write, out):  # type: ignore[no-untyped-def]
    """Write a box's own pixels, if `write`; returns their number."""
    top, bottom, left, right, row, column = box
    if column >= 0:
        left, right = column, column + 1
    elif row >= 0:
        top, bottom = row, row + 1
    elif not smallest_own_pixels:
        return 0
    if write:
        n = 0
        for r in range(top, bottom):
            for c in range(left, right):
                out[n] = r * width + c
                n += 1
    return (bottom - top) * (right - left)


@njit(nogil=True, cache=True)
def _write_ring(box, height, width, out):  # type: ignore[no-untyped-def]
    """Write the pixels around a box that lie inside the image; returns their number."""
    top, bottom, left, right = box[0], box[1], box[2], box[3]
    n = 0
    for row in (top - 1, bottom):
        if 0 <= row < height:
            for column in range(max(left - 1, 0), min(right + 1, width)):
                out[n] = row * width + column
                n += 1
    for column in (left - 1, right):
        if 0 <= column < width:
            for row in range(top, bottom):
                out[n] = row * width + column
                n += 1
    return n
