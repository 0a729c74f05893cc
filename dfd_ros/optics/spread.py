"""The inner loop of the defocus renderer: layers of samples, spread by their kernels and composed, a strip of rows.

Compiled; `dfd_ros.optics.render` says what is computed. Strips share nothing, so threads may render them side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dfd_ros.optics.disks import COC_STEP, GROUP, LANES
from dfd_ros.optics.layers import HIDING_LAYERS

STRIP_ROWS = 32
"""Rows rendered together: their buffers stay in a second-level cache."""
_INDEX_PER_COC = np.float32(1.0 / COC_STEP)
_LEAST_WEIGHT = np.float32(1e-3)  # a pixel that gets less light than this is black


class View(NamedTuple):
    """One picture's lens: CoC = |at_infinity − slope · w| (1 + field ρ²), ρ = 1 in the corner; its last kernel's index
    and reach."""

    at_infinity: np.float32
    slope: np.float32
    field: np.float32
    last: int
    reach: int


class Kernels(NamedTuple):
    """Packed kernels: see `dfd_ros.optics.disks.KernelTable`."""

    taps: NDArray[np.float32]
    first: NDArray[np.int32]
    radius: NDArray[np.int32]
    lanes: NDArray[np.int32]


class Workspace(NamedTuple):
    """One thread's buffers for a strip.

    Attributes:
        layer: Light and weight of one layer, (rows, 4, columns with margins); zero between layers.
        total: Sums over the layers, (rows, 4, columns).
        transmittance: What the layers so far leave open, (rows, columns).
        coverage: Weights of the layers that do not hide yet, (layers, rows, columns).
        covered: Where in `coverage`, columns from and to of each row, (layers, rows, 2).
        touched: Where in `layer`, likewise, (rows, 2).
        tap, light: Of the samples of a group, where their kernels begin, and what they lend, (GROUP,) and (GROUP, 4).
    """

    layer: NDArray[np.float32]
    total: NDArray[np.float32]
    transmittance: NDArray[np.float32]
    coverage: NDArray[np.float32]
    covered: NDArray[np.int32]
    touched: NDArray[np.int32]
    tap: NDArray[np.int64]
    light: NDArray[np.float32]


def workspace(width: int, margin: int) -> Workspace:
    """Buffers for pictures so wide, with such a margin to the frame (pixels)."""
    layer = np.zeros((STRIP_ROWS, 4, width + 4 * margin + 2 * LANES), np.float32)
    total = np.empty((STRIP_ROWS, 4, width), np.float32)
    shares = np.empty((1 + HIDING_LAYERS, STRIP_ROWS, width), np.float32)
    extents = np.empty((1 + HIDING_LAYERS, STRIP_ROWS, 2), np.int32)
    group = np.empty(GROUP, np.int64), np.empty((GROUP, 4), np.float32)
    return Workspace(layer, total, shares[0], shares[1:], extents[1:], extents[0], *group)


@njit(cache=True, nogil=True, fastmath=True)
def render_strip(top, count, margin, view, kernels, visible, hidden, work, picture):  # type: ignore[no-untyped-def]
    """Render rows `top` to top + STRIP_ROWS of `picture` (H, W, 3), layer by layer from the nearest.

    `visible` and `hidden` are pairs of samples and sources.
    """
    height, width = min(STRIP_ROWS, picture.shape[0] - top), picture.shape[1]
    layer, total, transmittance, coverage, covered, touched = work[:6]
    shift = 2 * margin  # a column of the picture, in `layer`
    total[:height] = 0.0
    transmittance[:height] = 1.0
    covered[:] = 0
    for k in range(count):
        # What has come to hide this layer gives its place to what this layer will hide.
        old = k % HIDING_LAYERS
        hides, hidden_columns = coverage[old], covered[old]
        for j in range(height):
            for x in range(hidden_columns[j, 0], hidden_columns[j, 1]):
                transmittance[j, x] = max(transmittance[j, x] - hides[j, x], np.float32(0.0))
            touched[j, 0], touched[j, 1] = width, 0
        _spread_layer(k, top, height, margin, picture.shape, view, kernels, visible[0], visible[1], work)
        for j in range(height):
            hidden_columns[j, 0], hidden_columns[j, 1] = touched[j, 0], touched[j, 1]
            for x in range(touched[j, 0], touched[j, 1]):
                hides[j, x] = min(max(layer[j, 3, x + shift], np.float32(0.0)), np.float32(1.0))
        _spread_layer(k, top, height, margin, picture.shape, view, kernels, hidden[0], hidden[1], work)
        for j in range(height):
            if touched[j, 0] < touched[j, 1]:
                for c in range(4):
                    for x in range(touched[j, 0], touched[j, 1]):
                        total[j, c, x] += transmittance[j, x] * layer[j, c, x + shift]
                    layer[j, c, touched[j, 0] : touched[j, 1] + 2 * shift + 2 * LANES] = 0.0
    for j in range(height):
        for x in range(width):
            scale = np.float32(1.0) / max(total[j, 3, x], _LEAST_WEIGHT)
            for c in range(3):
                picture[top + j, x, c] = max(total[j, c, x] * scale, np.float32(0.0))


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)  # allocates nothing: no reference counting
def _spread_layer(k, top, height, margin, shape, view, kernels, samples, sources, work):  # type: ignore[no-untyped-def]
    """Add the kernels of layer k's samples to the strip; widen `touched`, columns from and to of each row, by them.

    Neighbours in a row whose kernels are of one size go together, so that the sums are loaded and stored once for all.
    """
    frame_rows = shape[0] + 2 * margin
    reach = view.reach
    touched = work.touched
    centre_y, centre_x = np.float32(0.5 * (shape[0] - 1)), np.float32(0.5 * (shape[1] - 1))
    field = view.field / max(centre_y**2 + centre_x**2, np.float32(0.25))
    hiding = len(sources.distance) > 0
    # Row j of the strip is row j + above of the frame.
    above, below = top + margin, top + margin + height
    end = np.uintp(view.last)
    for row in range(max(above - reach, 0), min(below + reach, frame_rows)):
        start, stop = samples.first[k * frame_rows + row], samples.first[k * frame_rows + row + 1]
        if start == stop:
            continue
        left = max(samples.column[start] - margin - reach, 0)
        right = min(samples.column[stop - 1] - margin + reach + 1, shape[1])
        for j in range(max(row - reach - above, 0), min(row + reach + 1 - above, height)):
            touched[j, 0], touched[j, 1] = min(touched[j, 0], left), max(touched[j, 1], right)
        off_y = np.float32(row - margin) - centre_y
        members, r, leftmost, lanes = 0, 0, 0, 0
        for i in range(np.uintp(start), np.uintp(stop)):  # unsigned: no check for indices that count from the end
            source, column = np.uintp(samples.source[i]), samples.column[i]
            off_x = np.float32(column - margin) - centre_x
            gain = np.float32(1.0) + field * (off_y * off_y + off_x * off_x)
            coc = abs(view.at_infinity - view.slope * sources.inverse_depth[source]) * gain
            if hiding:
                before = abs(view.at_infinity - view.slope * sources.before[source]) * gain
                if np.float32(0.5) * (coc + before) + np.float32(1.0) < sources.distance[source]:
                    continue
            # No min and max here: numba calls them, and counts references around the call.
            kernel = np.uintp(coc * _INDEX_PER_COC + np.float32(0.5))
            kernel = kernel if kernel < end else end
            radius = kernels.radius[kernel]
            if members == GROUP or (members > 0 and (radius != r or column >= leftmost + GROUP)):
                _add_group(members, row, leftmost - r + margin, r, lanes, above, below, kernels.taps, work)
                members = 0
            if members == 0:
                r, leftmost, lanes = radius, column, kernels.lanes[kernel]
            work.tap[members] = kernels.first[kernel] + GROUP - 1 - (column - leftmost)
            for c in range(4):
                work.light[members, c] = sources.light[source, c]
            members += 1
        if members > 0:
            _add_group(members, row, leftmost - r + margin, r, lanes, above, below, kernels.taps, work)


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)
def _add_group(members, row, column, r, lanes, above, below, taps, work):  # type: ignore[no-untyped-def]
    """Add a group's kernels, of radius r about a row of the frame, to the strip from a column of `layer` on."""
    tap, light, flat = work.tap, work.light, work.layer.reshape(-1)
    for m in range(members, GROUP):
        tap[m] = tap[0]
        light[m] = 0.0
    first = row - r if row - r > above else above
    last = row + r + 1 if row + r + 1 < below else below
    plane = work.layer.shape[2]
    at, stored = (first - above) * 4 * plane + column, lanes + GROUP - 1
    skipped = (first - row + r) * stored
    t0, t1, t2, t3 = tap[0] + skipped, tap[1] + skipped, tap[2] + skipped, tap[3] + skipped
    lent = (
        (light[0, 0], light[0, 1], light[0, 2], light[0, 3]),
        (light[1, 0], light[1, 1], light[1, 2], light[1, 3]),
        (light[2, 0], light[2, 1], light[2, 2], light[2, 3]),
        (light[3, 0], light[3, 1], light[3, 2], light[3, 3]),
    )
    for _ in range(first, last):
        done = 0
        while done + 2 * LANES <= lanes:
            _add_sixteen(flat, at + done, plane, taps, (t0 + done, t1 + done, t2 + done, t3 + done), lent)
            done += 2 * LANES
        if done < lanes:
            _add_eight(flat, at + done, plane, taps, (t0 + done, t1 + done, t2 + done, t3 + done), lent)
        at += 4 * plane
        t0, t1, t2, t3 = t0 + stored, t1 + stored, t2 + stored, t3 + stored


def _adder(lanes: int) -> Any:
    """target[at + c plane :] += Σ_m taps[first_m :] · light[m, c], so many lanes of each, in vector registers.

    numba cannot promise LLVM that target and taps are apart, and without that promise the loop stays scalar.
    """

    @intrinsic
    def add(typing_context, target, at, plane, taps, first, light):  # type: ignore[no-untyped-def]
        places, lent = types.UniTuple(types.intp, GROUP), types.UniTuple(types.UniTuple(types.float32, 4), GROUP)
        return types.void(target, types.intp, types.intp, taps, places, lent), emit

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        target, at, plane, taps, first, light = arguments
        vector, index = ir.VectorType(ir.FloatType(), lanes), ir.IntType(32)
        nothing = ir.Constant(vector, ir.Undefined)

        def place(array: Any, array_type: Any, offset: Any) -> Any:
            data = context.make_array(array_type)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

        def repeat(value: Any) -> Any:
            one = builder.insert_element(nothing, value, ir.Constant(index, 0))
            return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(index, lanes), [0] * lanes))

        weights = [
            builder.load(place(taps, signature.args[3], builder.extract_value(first, m)), align=4) for m in range(GROUP)
        ]
        for c in range(4):
            where = place(target, signature.args[0], at)
            total = builder.load(where, align=4)
            for m, weight in enumerate(weights):
                part = builder.fmul(weight, repeat(builder.extract_value(light, [m, c])), flags=("fast",))
                total = builder.fadd(total, part, flags=("fast",))
            builder.store(total, where, align=4)
            at = builder.add(at, plane)
        return context.get_dummy_value()

    return add


_add_eight, _add_sixteen = _adder(LANES), _adder(2 * LANES)
