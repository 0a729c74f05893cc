"""The fronts of the subtraction-free solver: dense elimination of dividing lines with sgemm.

A front is the couplings among a node's own pixels (its line) and its ring: rows [own | ring | hold | rhs]. It is put
together from what its children left (Schur complements, rows [their ring | hold | rhs]) and from the system's rows of
the line, where they do not reach into the children. Eliminating the line leaves couplings among the ring, for the
parent, and the line's x as a function of the ring's, for the way back (multifrontal elimination: Duff and Reid, ACM
TOMS 1983). All numbers are nonnegative and are only added and multiplied (`mmatrix_solver`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.lidar.box_elimination import RING, RING_PIXELS, SCHUR, TINY, BoxWork, box_work, eliminate_boxes
from dfd_ros.lidar.dissection import NEIGHBOURS, Dissection, begins, stack_sizes
from dfd_ros.lidar.vector_ops import (
    BYTES,
    LANES,
    add_product,
    add_run,
    address,
    as_float,
    copy_run,
    fill_run,
    invert_block,
    write_product,
)

FloatImage = NDArray[np.float32]

_BLOCK = LANES  # own pixels inverted at once; sgemm puts together twice and four times as many
_LARGE_BLOCK = 4 * _BLOCK
_CUT = 12  # last bits of float32's 23 after the point that `Factors` leave out
_LOWEST = (127 - 31) << (23 - _CUT)  # what is left of 2⁻³¹
_FAST = {"contract", "reassoc", "nsz"}


class FrontPlan(NamedTuple):
    """The dissection, and how its fronts are put together."""

    boxes: NDArray[np.int64]
    children: NDArray[np.int32]
    depth: NDArray[np.int32]
    own_at: NDArray[np.int64]
    own: NDArray[np.int32]
    ring_at: NDArray[np.int64]
    ring: NDArray[np.int32]
    rank: NDArray[np.int64]  # (K,): how many smallest boxes come before
    share_at: NDArray[np.int64]  # (K + 1,): where a node's shares, own x ring, begin
    run_span: NDArray[np.int64]  # (K, 2): first and past-the-last of a node's runs, and so on
    runs: NDArray[np.int64]  # (N, 3): stretches of a node's ring: first pixel, place in its parent's front, length
    gap_span: NDArray[np.int64]
    gaps: NDArray[np.int64]  # (N, 2): stretches of the parent's front between them: first place, past-the-last
    joint_span: NDArray[np.int64]
    joints: NDArray[np.int64]  # (N, 3): pixel of the line, neighbouring pixel of the ring, which neighbour it is


def plan_fronts(tree: Dissection, height: int, width: int) -> FrontPlan:
    own, ring = np.diff(tree.own_at), np.diff(tree.ring_at)
    rank = begins(tree.children[:, 0] < 0)[:-1]
    return FrontPlan(*tree, rank, begins(own * ring), *_connect(*tree, height, width))


@njit(nogil=True, cache=True)
def _connect(boxes, children, depth, own_at, own, ring_at, ring, height, width):  # type: ignore[no-untyped-def]
    """Runs, gaps and joints of all nodes."""
    nodes = len(children)
    place = np.full(height * width, -1, np.int32)
    box_ring = np.empty(RING, np.int32)
    run_span, gap_span, joint_span = (
        np.zeros((nodes, 2), np.int64),
        np.zeros((nodes, 2), np.int64),
        np.zeros((nodes, 2), np.int64),
    )
    runs, gaps, joints = [(0, 0, 0)], [(0, 0)], [(0, 0, 0)]
    for k in range(nodes):
        n = own_at[k + 1] - own_at[k]
        front = np.concatenate((own[own_at[k] : own_at[k + 1]], ring[ring_at[k] : ring_at[k + 1]]))
        for i in range(len(front)):
            place[front[i]] = i
        for child in children[k]:
            if child < 0:
                continue
            child_ring = ring[ring_at[child] : ring_at[child + 1]]
            if children[child, 0] < 0:
                _write_box_ring(boxes[child], height, width, box_ring)
                child_ring = box_ring
            run_span[child, 0], gap_span[child, 0] = len(runs), len(gaps)
            _append_runs(child_ring, place, n, len(front), runs, gaps)
            run_span[child, 1], gap_span[child, 1] = len(runs), len(gaps)
        joint_span[k, 0] = len(joints)
        if n > 0:
            _append_joints(front, n, place, height, width, joints)
        joint_span[k, 1] = len(joints)
        for i in range(len(front)):
            place[front[i]] = -1
    return run_span, np.array(runs), gap_span, np.array(gaps), joint_span, np.array(joints)


@njit(nogil=True, cache=True)
def _write_box_ring(box, height, width, out):  # type: ignore[no-untyped-def]
    """Write the pixels of a smallest box's ring as `eliminate_boxes` numbers them, -1 outside the image."""
    for i in range(RING):
        row, column = box[0] + RING_PIXELS[i, 0], box[2] + RING_PIXELS[i, 1]
        out[i] = row * width + column if 0 <= row < height and 0 <= column < width else -1


@njit(nogil=True, cache=True)
def _append_runs(child_ring, place, n, size, runs, gaps):  # type: ignore[no-untyped-def]
    """The stretches of a child's ring that lie side by side in the front too, either in own or in ring; and the gaps."""
    given = np.zeros(size + 1, np.bool_)
    given[size] = True
    begin = 0
    while begin < len(child_ring):
        end = begin + 1
        if child_ring[begin] >= 0:
            first = place[child_ring[begin]]
            while end < len(child_ring) and child_ring[end] >= 0 and place[child_ring[end]] == first + end - begin != n:
                end += 1
            runs.append((begin, np.int64(first), end - begin))
            given[first : first + end - begin] = True
        begin = end
    begin = 0
    while begin < size:
        end = begin + 1
        if not given[begin]:
            while not given[end] and end != n:
                end += 1
            gaps.append((begin, end))
        begin = end


@njit(nogil=True, cache=True)
def _append_joints(front, n, place, height, width, joints):  # type: ignore[no-untyped-def]
    """The neighbours in the ring of a line's ends."""
    for i in range(0, n, max(n - 1, 1)):
        row, column = divmod(front[i], width)
        for q in range(8):
            r, c = row + NEIGHBOURS[q][0], column + NEIGHBOURS[q][1]
            if 0 <= r < height and 0 <= c < width and place[r * width + c] >= n:
                joints.append((i, np.int64(place[r * width + c]) - n, q))


class Factors(NamedTuple):
    """What the way back needs: x of a line's pixel is unit · Σ_j share_j x_j + known, over the ring.

    Shares are float32 of which 16 bits are kept: numbers from 2⁻³¹ to 2 with 11 bits after the point, each right to one
    part in 8192, and by their unit right in their sum. They halve the memory; where x is the same all along the ring
    they do not shift it, elsewhere by some 1e-5, and by 1.2e-4 a level of the tree at the very most.
    """

    shares: NDArray[np.uint16]
    units: FloatImage  # (own pixels,)
    known: FloatImage


def room_for_factors(plan: FrontPlan) -> Factors:
    own = len(plan.own)
    return Factors(np.empty(int(plan.share_at[-1]), np.uint16), np.empty(own, np.float32), np.empty(own, np.float32))


class FrontWork(NamedTuple):
    """The buffers of one thread, for a stretch of nodes."""

    stacks: tuple[FloatImage, FloatImage]  # Schur complements awaiting their parents, at even and at odd depths
    own_rows: FloatImage
    ring_own: FloatImage
    block: FloatImage  # of rows, _BLOCK of them
    square: FloatImage  # (_BLOCK, _BLOCK)
    excess: FloatImage  # (_BLOCK,)
    around: FloatImage
    corners: NDArray[np.int64]  # (B, LANES, 2) first inner pixels of boxes in the order of the nodes, the last repeated
    box_schurs: FloatImage  # (2, LANES, SCHUR) of the newest batch of boxes and the one before
    box: BoxWork


def front_work(plan: FrontPlan, tree: Dissection, nodes: range, also: int) -> FrontWork:
    """Buffers for a stretch of nodes, and for one node more."""
    own, ring, is_box = np.diff(plan.own_at), np.diff(plan.ring_at), plan.children[:, 0] < 0
    even, odd = stack_sizes(tree, np.where(is_box, 0, ring * (ring + 2)), nodes)
    fronts = [*nodes, also]
    n, g = own[fronts], ring[fronts]
    part = slice(nodes.start, nodes.stop)
    corners = plan.boxes[part][is_box[part]][:, [0, 2]]
    corners = np.concatenate([corners, corners[-1:].repeat(-len(corners) % LANES, axis=0)])

    def empty(*shape: int) -> FloatImage:
        return np.empty(shape, np.float32)

    return FrontWork(
        (empty(even), empty(odd)),
        empty(int((n * (n + g + 2)).max())),
        empty(int((n * g).max())),
        empty(_BLOCK * int((n + g + 2).max())),
        empty(_BLOCK, _BLOCK),
        empty(_BLOCK),
        empty(int(g.max())),
        corners.reshape(-1, LANES, 2),
        empty(2, LANES, SCHUR),
        box_work(),
    )


@njit(nogil=True, cache=True)
def eliminate(plan, begin, end, system, work, factors):  # type: ignore[no-untyped-def]
    """Eliminate the pixels of nodes `begin` to `end` - 1; returns the address of what the last one left.

    A node reads what its children left from the stack of the one parity of depth and leaves its own on the other. Boxes
    leave theirs elsewhere, batch by batch: a box's sibling holds two boxes at most, so its parent comes before the next
    batch but one.
    """
    tops = np.zeros(2, np.int64)
    left_at = np.int64(0)
    for k in range(begin, end):
        if plan.children[k, 0] < 0:
            batch, lane = divmod(plan.rank[k] - plan.rank[begin], LANES)
            if lane == 0:
                eliminate_boxes(*system, work.corners[batch], work.box, work.box_schurs[batch % 2])
            left_at = address(work.box_schurs[batch % 2, lane])
        else:
            parity = plan.depth[k] % 2
            below = address(work.stacks[1 - parity])
            left = np.zeros(2, np.int64)
            for side in range(1, -1, -1):
                child = plan.children[k, side]
                if child >= 0 and plan.children[child, 0] < 0:
                    batch, lane = divmod(plan.rank[child] - plan.rank[begin], LANES)
                    left[side] = address(work.box_schurs[batch % 2, lane])
                elif child >= 0:
                    size = plan.ring_at[child + 1] - plan.ring_at[child]
                    tops[1 - parity] -= size * (size + 2)
                    left[side] = below + tops[1 - parity] * BYTES
            g = plan.ring_at[k + 1] - plan.ring_at[k]
            ring_ring = work.stacks[parity][tops[parity] : tops[parity] + g * (g + 2)].reshape(g, g + 2)
            eliminate_front(plan, k, left[0], left[1], system, work, ring_ring, factors)
            tops[parity] += g * (g + 2)
            left_at = address(ring_ring)
    return left_at


@njit(nogil=True, cache=True)
def eliminate_front(plan, k, first, second, system, work, ring_ring, factors):  # type: ignore[no-untyped-def]
    """Eliminate a node's line; `first` and `second` are the addresses of what its children left.

    Writes what is left on the ring to `ring_ring` (g, g + 2), and the factors.
    """
    n, g = plan.own_at[k + 1] - plan.own_at[k], plan.ring_at[k + 1] - plan.ring_at[k]
    own_rows = work.own_rows[: n * (n + g + 2)].reshape(n, n + g + 2)
    ring_own = work.ring_own[: g * n].reshape(g, n)
    for side in range(2):
        child = plan.children[k, side]
        if child < 0:
            continue
        size = plan.ring_at[child + 1] - plan.ring_at[child] if plan.children[child, 0] >= 0 else np.int64(RING)
        runs = plan.runs[plan.run_span[child, 0] : plan.run_span[child, 1]]
        gaps = plan.gaps[plan.gap_span[child, 0] : plan.gap_span[child, 1]]
        if side == 0:
            _copy_first(runs, gaps, first, size, own_rows, ring_own, ring_ring)
        else:
            _add_second(runs, second, size, own_rows, ring_own, ring_ring)
    own, ring = plan.own[plan.own_at[k] : plan.own_at[k + 1]], plan.ring[plan.ring_at[k] : plan.ring_at[k + 1]]
    joints = plan.joints[plan.joint_span[k, 0] : plan.joint_span[k, 1]]
    onward = 6 if plan.boxes[k, 5] >= 0 else 4  # down a column, along a row
    _add_line(own, ring, onward, joints, system, own_rows, ring_own)
    _solve_own(own_rows, work)
    if g > 0:
        solved = address(own_rows) + n * BYTES
        add_product(g, g + 2, n, address(ring_own), n, solved, n + g + 2, address(ring_ring), g + 2)
    shares = factors.shares[plan.share_at[k] : plan.share_at[k + 1]].reshape(n, g)
    _keep(own_rows, shares, factors.units[plan.own_at[k] :], factors.known[plan.own_at[k] :])


# ---- putting a front together ----


@njit(nogil=True, cache=True)
def _row_addresses(row, own_rows, ring_own, ring_ring):  # type: ignore[no-untyped-def]
    """Where column 0 of a front's row is, as seen from its own columns and from the others."""
    n, stride = own_rows.shape
    if row < n:
        at = address(own_rows) + row * stride * BYTES
        return at, at
    row -= n
    g = len(ring_own)
    return address(ring_own) + row * n * BYTES, address(ring_ring) + (row * (g + 2) - n) * BYTES


@njit(nogil=True, cache=True)
def _copy_first(runs, gaps, left, size, own_rows, ring_own, ring_ring):  # type: ignore[no-untyped-def]
    """Begin a front with what the first child left, on `size` pixels, and TINY couplings elsewhere."""
    n, g = own_rows.shape[0], len(ring_own)
    for r in range(len(runs)):
        for i in range(runs[r, 2]):
            row, source = runs[r, 1] + i, left + (runs[r, 0] + i) * (size + 2) * BYTES
            to_own, to_ring = _row_addresses(row, own_rows, ring_own, ring_ring)
            for k in range(len(runs)):
                target = to_own if runs[k, 1] < n else to_ring
                copy_run(target + runs[k, 1] * BYTES, source + runs[k, 0] * BYTES, runs[k, 2])
            copy_run(to_ring + (n + g) * BYTES, source + size * BYTES, 2)
            for k in range(len(gaps)):
                target = to_own if gaps[k, 0] < n else to_ring
                fill_run(target + gaps[k, 0] * BYTES, TINY, gaps[k, 1] - gaps[k, 0])
    for k in range(len(gaps)):
        for row in range(gaps[k, 0], gaps[k, 1]):
            to_own, to_ring = _row_addresses(row, own_rows, ring_own, ring_ring)
            fill_run(to_own, TINY, n)
            fill_run(to_ring + n * BYTES, TINY, g)
            fill_run(to_ring + (n + g) * BYTES, np.float32(0), 2)


@njit(nogil=True, cache=True)
def _add_second(runs, left, size, own_rows, ring_own, ring_ring):  # type: ignore[no-untyped-def]
    """Add what the second child left."""
    n, g = own_rows.shape[0], len(ring_own)
    for r in range(len(runs)):
        for i in range(runs[r, 2]):
            source = left + (runs[r, 0] + i) * (size + 2) * BYTES
            to_own, to_ring = _row_addresses(runs[r, 1] + i, own_rows, ring_own, ring_ring)
            for k in range(len(runs)):
                target = to_own if runs[k, 1] < n else to_ring
                add_run(target + runs[k, 1] * BYTES, source + runs[k, 0] * BYTES, runs[k, 2])
            add_run(to_ring + (n + g) * BYTES, source + size * BYTES, 2)


@njit(nogil=True, cache=True)
def _add_line(own, ring, onward, joints, system, own_rows, ring_own):  # type: ignore[no-untyped-def]
    """Add the system's rows of a line, and the couplings of the ring to its ends."""
    coupling, hold, rhs = system
    width, n = hold.shape[1], len(own)
    last = own_rows.shape[1] - 1
    for i in range(n):
        row, column = divmod(own[i], width)
        own_rows[i, last - 1] += hold[row, column]
        own_rows[i, last] += rhs[row, column]
        if i + 1 < n:
            own_rows[i, i + 1] += coupling[row, column, onward]
        if i > 0:
            own_rows[i, i - 1] += coupling[row, column, 7 - onward]
    for m in range(len(joints)):
        i, j, q = joints[m, 0], joints[m, 1], joints[m, 2]
        own_rows[i, n + j] += coupling[own[i] // width, own[i] % width, q]
        ring_own[j, i] += coupling[ring[j] // width, ring[j] % width, 7 - q]


# ---- eliminating a line ----


@njit(nogil=True, cache=True)
def _solve_own(own_rows, work):  # type: ignore[no-untyped-def]
    """From rows [own | ring | hold | rhs] of a front, own⁻¹ [ring | hold | rhs] in place; the own part is spent."""
    n, stride = own_rows.shape
    begin = address(own_rows)
    for first in range(0, n, _LARGE_BLOCK):
        end = min(first + _LARGE_BLOCK, n)
        _solve_large_block(own_rows, first, end, work)
        if end < n:
            _eliminate_rows(begin, stride, end, n, first, end)
    for end in range((n - 1) // _LARGE_BLOCK * _LARGE_BLOCK, 0, -_LARGE_BLOCK):
        _eliminate_columns(begin, stride, end - _LARGE_BLOCK, end, end, n, n)


@njit(nogil=True, cache=True)
def _eliminate_rows(begin, stride, row, row_end, first, end):  # type: ignore[no-untyped-def]
    """Eliminate the solved pixels `first` to `end` - 1 from rows below: from columns `end` on."""
    a = begin + (row * stride + first) * BYTES
    b = begin + (first * stride + end) * BYTES
    c = begin + (row * stride + end) * BYTES
    add_product(row_end - row, stride - end, end - first, a, stride, b, stride, c, stride)


@njit(nogil=True, cache=True)
def _eliminate_columns(begin, stride, row, row_end, first, end, column):  # type: ignore[no-untyped-def]
    """Put what pixels `first` to `end` - 1 solved to into solved rows above: from column `column` on."""
    a = begin + (row * stride + first) * BYTES
    b = begin + (first * stride + column) * BYTES
    c = begin + (row * stride + column) * BYTES
    add_product(row_end - row, stride - column, end - first, a, stride, b, stride, c, stride)


@njit(nogil=True, cache=True)
def _solve_large_block(own_rows, first, last, work):  # type: ignore[no-untyped-def]
    """Solve rows `first` to `last` - 1 for their pixels: small blocks, put together in pairs, and those in pairs."""
    begin, stride = address(own_rows), own_rows.shape[1]
    for at in range(first, last, _BLOCK):
        end = min(at + _BLOCK, last)
        _solve_block(own_rows, at, end, work)
        size = _BLOCK
        while True:
            number = (at - first) // size
            left = first + number * size
            if number % 2:  # a pair is complete
                _eliminate_columns(begin, stride, left - size, left, left, end, end)
            elif end < last:
                _eliminate_rows(begin, stride, end, min(left + 2 * size, last), left, end)
                break
            elif number == 0:
                break
            size *= 2


@njit(nogil=True, cache=True, fastmath=_FAST)
def _solve_block(own_rows, first, end, work):  # type: ignore[no-untyped-def]
    """Solve rows `first` to `end` - 1, at most _BLOCK, for their pixels."""
    stride, count = own_rows.shape[1], end - first
    # Not allocated here: numba frees an array after its last use by name, whoever still works on its address.
    block, excess, scratch = work.square, work.excess, work.block
    block[:], excess[:] = 0.0, 1.0
    rest = stride - end
    for i in range(count):
        row = address(own_rows) + (first + i) * stride * BYTES
        copy_run(address(block) + i * _BLOCK * BYTES, row + first * BYTES, count)
        copy_run(address(scratch) + i * rest * BYTES, row + end * BYTES, rest)
        leaving, total = own_rows[first + i, end : stride - 1], np.float32(0)
        for j in range(len(leaving)):
            total += leaving[j]
        excess[i] = total
    invert_block(address(block), address(excess))
    solved = address(own_rows) + (first * stride + end) * BYTES
    write_product(count, rest, count, address(block), _BLOCK, address(scratch), rest, solved, stride)


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _keep(own_rows, shares, units, known):  # type: ignore[no-untyped-def]
    """Keep a solved line's rows [own | ring | hold | rhs] for the way back, as `Factors`."""
    n, g = shares.shape
    lowest, half = np.int32(_LOWEST << _CUT), np.int32(1 << (_CUT - 1))
    bits = own_rows.view(np.int32)
    for i in range(n):
        row, row_bits, share = own_rows[i, n : n + g], bits[i, n : n + g], shares[i]
        total, kept = np.float32(0), np.float32(0)
        for j in range(g):
            total += row[j]
            share[j] = np.uint16((max(row_bits[j], lowest) - lowest + half) >> np.int32(_CUT))
        for j in range(g):
            kept += _number(share[j])
        units[i] = total / kept if g else np.float32(0)
        known[i] = own_rows[i, n + g + 1]


@njit(nogil=True, cache=True)
def _number(share):  # type: ignore[no-untyped-def]
    """The number that a share stands for."""
    return as_float((np.int32(share) + np.int32(_LOWEST)) << np.int32(_CUT))


# ---- solution ----


@njit(nogil=True, cache=True, fastmath=_FAST)
def substitute(plan, begin, end, factors, around, x):  # type: ignore[no-untyped-def]
    """Write the solution at the lines of nodes `begin` to `end` - 1 into x (H·W), from the last, parents first."""
    for k in range(end - 1, begin - 1, -1):
        first, ring = plan.own_at[k], plan.ring[plan.ring_at[k] : plan.ring_at[k + 1]]
        n, g = plan.own_at[k + 1] - first, len(ring)
        shares = factors.shares[plan.share_at[k] : plan.share_at[k + 1]].reshape(n, g)
        if n > 0:
            for j in range(g):
                around[j] = x[ring[j]]
        for i in range(n):
            row, value = shares[i], np.float32(0)
            for j in range(g):
                value += _number(row[j]) * around[j]
            x[plan.own[first + i]] = value * factors.units[first + i] + factors.known[first + i]
