"""The smallest boxes of the subtraction-free solver: the inner pixels of `LANES` boxes at once, one in each SIMD lane.

A box is 15x15 pixels inside a ring of 64, as far as they lie in the image. `eliminate_boxes` leaves the couplings that
eliminating the inner pixels makes among the ring; it goes from tiles of 3x3 pixels upwards, merging pairs of sub-boxes
over the line between them. Nothing of this is kept: once x is known on the rings, `solve_boxes` solves for the inner
pixels anew, row by row in a band as wide as the box, which costs less than reading kept factors would.

Both keep to couplings and the rows' excess (`mmatrix_solver`), and only add and multiply nonnegative numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.vector_ops import (
    BYTES,
    ENTRY,
    LANES,
    add_dot_lanes,
    add_lanes,
    add_scaled_lanes,
    address,
    copy_lanes,
    fill_lanes,
    normalise_lanes,
    push_lanes,
    separate_lanes,
)

FloatImage = NDArray[np.float32]
Pixel = tuple[int, int]

INNER = 15  # pixels a side
RING = 4 * (INNER + 1)
SCHUR = RING * (RING + 2)  # numbers that a box leaves: couplings among its ring, hold and right-hand side
TINY = np.float32(1e-17)
"""Couplings begin at this instead of 0: far below any that matters, and far above where products become denormal
numbers, with which processors are slow. It only connects; hold begins at 0, where it would bias."""

_WINDOW = INNER + 2
_PLANES = len(NEIGHBOURS) + 2  # of a window: couplings, hold, right-hand side
_HOLD, _RHS = len(NEIGHBOURS), len(NEIGHBOURS) + 1
_PIXELS = INNER * INNER
_BAND = INNER + 1  # how far ahead, row by row, an inner pixel's last neighbour is
_BAND_ROW = (_BAND + 2) * ENTRY

_push_one = push_lanes(1, 1)
_push_three = push_lanes(2, 3)
_push_seven = push_lanes(2, 7)
_push_eight = push_lanes(2, 8)
_push_nine = push_lanes(2, 9)


# ---- the stages: which numbers a front is put together from ----

# Sub-boxes (rows, columns): tiles, then pairs merged over a line of pixels. From each stage to the next the own pixels
# are as many as the `_push_…` above take.
_STAGES = ((3, 3), (3, 7), (7, 7), (7, 15), (15, 15))
_FILL, _CLEAR, _COPY, _ADD = range(4)  # what is done to a stretch of a row; _FILL with TINY
_FROM_WINDOW = 2  # sources: the first child, the second, the window


def _ring_of(height: int, width: int) -> list[Pixel]:
    """The ring of a box whose pixels are rows 1 to height and columns 1 to width: above, below, left, right."""
    columns, rows = range(width + 2), range(1, height + 1)
    return (
        [(0, c) for c in columns]
        + [(height + 1, c) for c in columns]
        + [(r, 0) for r in rows]
        + [(r, width + 1) for r in rows]
    )


RING_PIXELS = np.array(_ring_of(INNER, INNER)) - 1
"""(64, 2): row and column of a box's ring, counted from its first inner pixel."""


def _own_of(stage: int) -> tuple[list[Pixel], list[Pixel]]:
    """A stage's own pixels, and where its children's windows begin."""
    height, width = _STAGES[stage]
    if stage == 0:
        return [(r, c) for r in range(1, height + 1) for c in range(1, width + 1)], []
    if stage % 2:
        line = _STAGES[stage - 1][1] + 1
        return [(r, line) for r in range(1, height + 1)], [(0, 0), (0, line)]
    line = _STAGES[stage - 1][0] + 1
    return [(line, c) for c in range(1, width + 1)], [(0, 0), (line, 0)]


def _row_operations(stage: int, i: int) -> list[tuple[int, int, int, int, int]]:
    """What puts row i of a stage's front together: (operation, target, source, offset there, count), in entries.

    A row is [own | ring | hold | rhs], a child's Schur complement [its ring | hold | rhs].
    """
    own, children = _own_of(stage)
    front = own + _ring_of(*_STAGES[stage])
    size = len(front)
    operations = [(_FILL, 0, 0, 0, size), (_CLEAR, size, 0, 0, 2)]
    begun = np.zeros(size + 2, bool)
    for child, (top, left) in enumerate(children):
        ring = [(r + top, c + left) for r, c in _ring_of(*_STAGES[stage - 1])]
        if front[i] not in ring:
            continue
        row = ring.index(front[i]) * (len(ring) + 2)
        targets = np.array([front.index(pixel) for pixel in ring] + [size, size + 1])
        # Stretches that lie side by side in both, and are begun already or not.
        breaks = np.flatnonzero((np.diff(targets) != 1) | (np.diff(begun[targets].astype(int)) != 0)) + 1
        for stretch in np.split(np.arange(len(targets)), breaks):
            target = int(targets[stretch[0]])
            operation = _ADD if begun[target] else _COPY
            operations.append((operation, target, child, row + int(stretch[0]), len(stretch)))
        begun[targets] = True
    if begun.any():  # fill only what no child gives
        operations = operations[2:]
        gaps = np.flatnonzero(~begun)
        for gap in np.split(gaps, np.flatnonzero(np.diff(gaps) != 1) + 1) if len(gaps) else []:
            operations.append((_FILL, int(gap[0]), 0, 0, len(gap)))
    r, c = front[i]
    at = (r * _WINDOW + c) * _PLANES
    for q, (row_step, column_step) in enumerate(NEIGHBOURS):
        neighbour = (r + row_step, c + column_step)
        if neighbour in front and min(i, front.index(neighbour)) < len(own):
            operations.append((_ADD, front.index(neighbour), _FROM_WINDOW, at + q, 1))
    if i < len(own):
        operations.append((_ADD, size, _FROM_WINDOW, at + _HOLD, 2))
    return operations


_OWN = np.array([len(_own_of(stage)[0]) for stage in range(len(_STAGES))])
_RINGS = np.array([len(_ring_of(*size)) for size in _STAGES])
_ROWS = [_row_operations(stage, i) for stage in range(len(_STAGES)) for i in range(_OWN[stage] + _RINGS[stage])]
_OPERATIONS = np.array([operation for row in _ROWS for operation in row], np.int64)
_OPERATION_AT = np.cumsum([0] + [len(row) for row in _ROWS])  # by row
_FIRST_ROW = np.cumsum([0, *(_OWN + _RINGS)])  # by stage
_LAST = len(_STAGES) - 1


class BoxWork(NamedTuple):
    """The buffers of one thread."""

    window: FloatImage  # (17, 17, 10, LANES): a box and its ring
    rows: FloatImage  # own rows of a front, and two of its ring
    schurs: tuple[FloatImage, ...]  # for each stage, those of two sub-boxes
    band: FloatImage  # (225, 18, LANES): couplings to the pixels ahead, hold, right-hand side
    band_row: FloatImage  # (33, LANES): couplings of a pixel from the first to the last that it may have
    x: FloatImage  # (17, 17, LANES)
    inner_x: FloatImage  # (225 + 16, LANES), the last 16 being 0


def box_work() -> BoxWork:
    def empty(*shape: int) -> FloatImage:
        return np.empty((*shape, LANES), np.float32)

    return BoxWork(
        empty(_WINDOW, _WINDOW, _PLANES),
        empty(int(_OWN[_LAST]) + 2, int(_OWN[_LAST] + _RINGS[_LAST]) + 2),
        tuple(empty(1 if ring == RING else 2, int(ring), int(ring) + 2) for ring in _RINGS),
        empty(_PIXELS, _BAND + 2),
        empty(2 * _BAND + 1),
        empty(_WINDOW, _WINDOW),
        np.zeros((_PIXELS + _BAND, LANES), np.float32),
    )


@njit(nogil=True, cache=True)
def _gather(coupling, hold, rhs, corners, first, last, window):  # type: ignore[no-untyped-def]
    """Write rows and columns `first` to `last` - 1 of boxes' windows; 0 outside the image."""
    height, width = hold.shape
    for r in range(first, last):
        for c in range(first, last):
            here = window[r, c]
            for lane in range(LANES):
                row, column = corners[lane, 0] - 1 + r, corners[lane, 1] - 1 + c
                if 0 <= row < height and 0 <= column < width:
                    for q in range(8):
                        here[q, lane] = coupling[row, column, q]
                    here[8, lane] = hold[row, column]
                    here[9, lane] = rhs[row, column]
                else:
                    for plane in range(10):
                        here[plane, lane] = 0


# ---- elimination ----


@njit(nogil=True, cache=True)
def eliminate_boxes(coupling, hold, rhs, corners, work, schurs):  # type: ignore[no-untyped-def]
    """Eliminate the inner pixels of LANES boxes whose first inner pixels are `corners` (LANES, 2).

    Writes to `schurs` (LANES, SCHUR), for each box row by row, what is left on its ring: couplings | hold | rhs.
    """
    _gather(coupling, hold, rhs, corners, 0, _WINDOW, work.window)
    for tile in range(1 << _LAST):
        stage, number = 0, tile
        _eliminate_sub_box(stage, number, work)
        while number % 2:  # as in counting: a parent follows its second child
            stage, number = stage + 1, number // 2
            _eliminate_sub_box(stage, number, work)
    separate_lanes(address(schurs), SCHUR * BYTES, address(work.schurs[_LAST]), SCHUR)


@njit(nogil=True, cache=True)
def _eliminate_sub_box(stage, number, work):  # type: ignore[no-untyped-def]
    own, ring = _OWN[stage], _RINGS[stage]
    row, column = _sub_box(stage, number)
    below = work.schurs[max(stage - 1, 0)]
    sources = (
        address(below[0]),
        address(below[1]),
        address(work.window) + (row * _WINDOW + column) * _PLANES * ENTRY,
    )
    size = own + ring + 2
    stride, schur_stride = size * ENTRY, (ring + 2) * ENTRY
    pivots = address(work.rows)
    for a in range(own):
        _put_together(_FIRST_ROW[stage] + a, sources, pivots + a * stride)
    for a in range(own):
        pivot = pivots + a * (stride + ENTRY)
        normalise_lanes(pivot + ENTRY, size - a - 1)
        for b in range(a + 1, own):
            x = pivots + b * stride + a * ENTRY
            _push_one(x + ENTRY, 0, x, 0, pivot, 0, size - a - 1)
    x, out = pivots + own * stride, address(work.schurs[stage][number % 2])
    for i in range(0, ring, 2):
        _put_together(_FIRST_ROW[stage] + own + i, sources, x)
        _put_together(_FIRST_ROW[stage] + own + i + 1, sources, x + stride)
        _push(own, out + i * schur_stride, schur_stride, x, stride, pivots, ring + 2)


@njit(nogil=True, cache=True)
def _sub_box(stage, number):  # type: ignore[no-untyped-def]
    """Row and column of a sub-box in its box; the bits of its number, from the highest, halve rows and columns in turn."""
    row = column = 0
    for bit in range(_LAST - stage):
        half = (number >> (_LAST - 1 - stage - bit)) & 1
        if bit % 2:
            column += half * ((INNER + 1) // 2 >> bit // 2)
        else:
            row += half * ((INNER + 1) // 2 >> bit // 2)
    return row, column


@njit(nogil=True, cache=True)
def _put_together(row, sources, target):  # type: ignore[no-untyped-def]
    """Write a row of a front from what its children left and from the window."""
    for k in range(_OPERATION_AT[row], _OPERATION_AT[row + 1]):
        operation, count = _OPERATIONS[k, 0], _OPERATIONS[k, 4]
        to, source = target + _OPERATIONS[k, 1] * ENTRY, sources[_OPERATIONS[k, 2]] + _OPERATIONS[k, 3] * ENTRY
        if operation == _COPY:
            copy_lanes(to, source, count)
        elif operation == _ADD:
            add_lanes(to, source, count)
        else:
            fill_lanes(to, TINY if operation == _FILL else np.float32(0), count)


@njit(nogil=True, cache=True)
def _push(own, out, out_stride, x, stride, pivots, count):  # type: ignore[no-untyped-def]
    """Eliminate all own pixels of a front from two rows x of its ring."""
    if own == 3:
        _push_three(out, out_stride, x, stride, pivots, stride, count)
    elif own == 7:
        _push_seven(out, out_stride, x, stride, pivots, stride, count)
    elif own == 9:
        _push_nine(out, out_stride, x, stride, pivots, stride, count)
    else:  # 15
        x_next = x + 8 * ENTRY
        _push_eight(x_next, stride, x, stride, pivots, stride, 7 + count)
        _push_seven(out, out_stride, x_next, stride, pivots + 8 * (stride + ENTRY), stride, count)


# ---- solution ----


@njit(nogil=True, cache=True)
def solve_boxes(coupling, hold, rhs, corners, count, work, x):  # type: ignore[no-untyped-def]
    """Write the solution at the inner pixels of the first `count` of LANES boxes into x (H, W), which holds it on rings."""
    height, width = x.shape
    _gather(coupling, hold, rhs, corners, 1, _WINDOW - 1, work.window)
    for k in range(RING):
        r, c = RING_PIXELS[k]
        for lane in range(LANES):
            row, column = corners[lane, 0] + r, corners[lane, 1] + c
            inside = 0 <= row < height and 0 <= column < width
            work.x[r + 1, c + 1, lane] = x[row, column] if inside else np.float32(0)
    band, inner_x = address(work.band), address(work.inner_x)
    _eliminate_in_band(address(work.window), address(work.x), address(work.band_row), band)
    for pixel in range(_PIXELS - 1, -1, -1):
        row, value = band + pixel * _BAND_ROW, inner_x + pixel * ENTRY
        copy_lanes(value, row + (_BAND + 1) * ENTRY, 1)
        add_dot_lanes(value, row, value + ENTRY, _BAND)
    for lane in range(count):
        top, left = corners[lane]
        for r in range(min(INNER, height - top)):
            for c in range(min(INNER, width - left)):
                x[top + r, left + c] = work.inner_x[r * INNER + c, lane]


@njit(nogil=True, cache=True)
def _eliminate_in_band(window, x, row, band):  # type: ignore[no-untyped-def]
    """Write the band from the window, x on the ring, and room for a row: each pixel's row, those before it eliminated."""
    behind, here, beyond = row, row + _BAND * ENTRY, row + (2 * _BAND + 1) * ENTRY
    for pixel in range(_PIXELS):
        r, c = divmod(pixel, INNER)
        out = band + pixel * _BAND_ROW
        extra = out + _BAND * ENTRY  # hold and right-hand side
        planes = window + ((r + 1) * _WINDOW + c + 1) * _PLANES * ENTRY
        ahead = min(_BAND, _PIXELS - 1 - pixel)
        fill_lanes(behind, TINY, _BAND + 1 + ahead)
        fill_lanes(beyond - (_BAND - ahead) * ENTRY, np.float32(0), _BAND - ahead)
        copy_lanes(extra, planes + _HOLD * ENTRY, 2)
        for q in range(8):
            row_step, column_step = NEIGHBOURS[q]
            coupling = planes + q * ENTRY
            if 0 <= r + row_step < INNER and 0 <= c + column_step < INNER:
                add_lanes(here + (row_step * INNER + column_step) * ENTRY, coupling, 1)
            else:
                known = x + ((r + row_step + 1) * _WINDOW + c + column_step + 1) * ENTRY
                add_lanes(extra, coupling, 1)
                add_scaled_lanes(extra + ENTRY, coupling, known, 1)
        for step in range(min(_BAND, pixel), 0, -1):
            factor, u = here - step * ENTRY, out - step * _BAND_ROW
            add_scaled_lanes(factor + ENTRY, factor, u, _BAND)
            add_scaled_lanes(extra, factor, u + _BAND * ENTRY, 2)
        copy_lanes(out, here + ENTRY, _BAND)
        normalise_lanes(out, _BAND + 2)
