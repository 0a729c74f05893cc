"""A direct solver for nine-point systems on a regular grid: nested dissection with dense multifrontal elimination.

The system couples each pixel r of an H x W grid with its (up to 8) neighbours s,

    (hold_r + Σ_s coupling_rs) x_r − Σ_s coupling_rs x_s = rhs_r,

as colorization does. Each box of a nested `dissection` eliminates its own pixels - its dividing line, or all pixels of a
smallest box - from a dense front over them and the ring of pixels around the box, and hands the remaining Schur
complement on the ring to its parent (Duff and Reid, ACM TOMS 1983). Nearly all work is dense matrix products in BLAS,
the pattern is computed once per shape, and the answer is that of a general sparse LU to rounding.

The order of elimination ignores the numbers, so the matrix must not need pivoting: diagonally dominant will do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.blas import keep_blas_to_one_thread
from dfd_ros.errors import InputError
from dfd_ros.lidar.dissection import NEIGHBOURS, begins, dissect, stack_sizes

FloatImage = NDArray[np.floating]
Stacks = tuple[NDArray[np.float64], NDArray[np.float64]]

# Measured at 640x480: boxes up to this many pixels are not divided, and fronts with up to this many own pixels are
# eliminated by plain loops, where calling LAPACK costs more than it saves.
_SMALLEST_BOX = 16
_FEW_PIXELS = 24


class _Plan(NamedTuple):
    """The dissection, and node k's factors: factor_at[k] to factor_at[k + 1]."""

    children: NDArray[np.int32]
    depth: NDArray[np.int32]
    own_at: NDArray[np.int64]
    own: NDArray[np.int32]
    ring_at: NDArray[np.int64]
    ring: NDArray[np.int32]
    factor_at: NDArray[np.int64]


class GridSolver:
    """Solves nine-point systems of one shape; keeps the pattern and all buffers between calls.

    About 150 MB at 640x480. The work runs without the GIL; one object serves one thread at a time.
    """

    dtype: type[np.floating] = np.float64

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = shape
        if height < 2 or width < 2:
            raise InputError(f"grid solver: expected a shape of at least 2x2 pixels, got {height}x{width}")
        keep_blas_to_one_thread()
        self.shape = (int(height), int(width))
        tree = dissect(*self.shape, _divide, smallest_own_pixels=True)
        own, ring = np.diff(tree.own_at), np.diff(tree.ring_at)
        self._plan = _Plan(*tree[1:], begins(own * (ring + 1)))
        even, odd = stack_sizes(tree, ring * (ring + 1), range(len(ring)))
        self._stacks: Stacks = (np.empty(even), np.empty(odd))
        self._factors = np.empty(self._plan.factor_at[-1])
        self._place = np.full(height * width, -1, np.int32)

    def solve(self, hold: FloatImage, coupling: FloatImage, rhs: FloatImage, threads: int = 1) -> FloatImage:
        """The solution x, (H, W).

        Args:
            hold: (H, W): each row's diagonal less the sum of its couplings.
            coupling: (H, W, 8), one weight per neighbour in the order of `NEIGHBOURS`; 0 outside the image.
            rhs: (H, W).
            threads: One is all it uses.
        """
        x = np.empty(self.shape)
        diagonal = hold + coupling.sum(axis=-1)
        _eliminate(self._plan, diagonal, coupling, rhs, self._stacks, self._factors, self._place)
        _substitute(self._plan, self._factors, x.ravel())
        return x


def _divide(rows: int, columns: int) -> tuple[int, int]:
    """The longer side's middle, down to the smallest boxes."""
    if rows * columns <= _SMALLEST_BOX:
        return -1, -1
    return (-1, columns // 2) if columns >= rows else (rows // 2, -1)


@njit(nogil=True, cache=True)
def _eliminate(plan, diagonal, coupling, rhs, stacks, factors, place):  # type: ignore[no-untyped-def]
    """Eliminate all pixels from the smallest boxes to the root.

    A front reads [own x own, own x ring | rhs; ring x own, ring x ring | rhs]. The factors kept are
    own⁻¹ [own x ring | rhs]; the Schur complement of the ring, with its right-hand side as last column, goes on the
    stack of the depth's parity, so that a node reads its children's from the one and writes its own on the other.
    """
    tops = np.zeros(2, np.int64)
    for k in range(len(plan.children)):
        own_pixels = plan.own[plan.own_at[k] : plan.own_at[k + 1]]
        ring_pixels = plan.ring[plan.ring_at[k] : plan.ring_at[k + 1]]
        n_own, n_ring = len(own_pixels), len(ring_pixels)
        own_own = np.zeros((n_own, n_own))
        ring_own = np.zeros((n_ring, n_own))
        own_ring = factors[plan.factor_at[k] : plan.factor_at[k + 1]].reshape(n_own, n_ring + 1)
        own_ring[:] = 0.0
        for i in range(n_own):
            place[own_pixels[i]] = i
        for i in range(n_ring):
            place[ring_pixels[i]] = n_own + i

        _add_pixels(own_pixels, place, diagonal, coupling, rhs, own_own, own_ring, ring_own)
        parity = plan.depth[k] % 2
        below, top = stacks[1 - parity], tops[1 - parity]
        if plan.children[k, 0] >= 0:
            for side in range(1, -1, -1):
                child = plan.children[k, side]
                child_ring = plan.ring[plan.ring_at[child] : plan.ring_at[child + 1]]
                n = len(child_ring)
                top -= n * (n + 1)
                schur = below[top : top + n * (n + 1)].reshape(n, n + 1)
                _add_to_own(schur, child_ring, place, own_own, own_ring, ring_own)

        end = tops[parity] + n_ring * (n_ring + 1)
        ring_ring = stacks[parity][tops[parity] : end].reshape(n_ring, n_ring + 1)
        if n_own <= _FEW_PIXELS:
            _solve_few(own_own, own_ring)
        else:
            own_ring[:] = np.linalg.solve(own_own, own_ring)
        if n_ring > 0:
            np.negative(ring_own, ring_own)
            np.dot(ring_own, own_ring, ring_ring)

        if plan.children[k, 0] >= 0:
            top = tops[1 - parity]
            for side in range(1, -1, -1):
                child = plan.children[k, side]
                child_ring = plan.ring[plan.ring_at[child] : plan.ring_at[child + 1]]
                n = len(child_ring)
                top -= n * (n + 1)
                schur = below[top : top + n * (n + 1)].reshape(n, n + 1)
                _add_to_ring(schur, child_ring, place, n_own, ring_ring)
        tops[parity], tops[1 - parity] = end, top
        for i in range(n_own):
            place[own_pixels[i]] = -1
        for i in range(n_ring):
            place[ring_pixels[i]] = -1


@njit(nogil=True, cache=True)
def _add_pixels(own_pixels, place, diagonal, coupling, rhs, own_own, own_ring, ring_own):  # type: ignore[no-untyped-def]
    """Add the system's own rows and columns; those of pixels eliminated below came up with them (place -1)."""
    height, width = diagonal.shape
    n_own, last = len(own_pixels), own_ring.shape[1] - 1
    for i in range(n_own):
        row, column = divmod(own_pixels[i], width)
        own_own[i, i] += diagonal[row, column]
        own_ring[i, last] += rhs[row, column]
        for q in range(8):
            r, c = row + NEIGHBOURS[q][0], column + NEIGHBOURS[q][1]
            if 0 <= r < height and 0 <= c < width:
                at = place[r * width + c]
                if at >= n_own:
                    own_ring[i, at - n_own] -= coupling[row, column, q]
                    ring_own[at - n_own, i] -= coupling[r, c, 7 - q]
                elif at >= 0:
                    own_own[i, at] -= coupling[row, column, q]


@njit(nogil=True, cache=True)
def _add_to_own(schur, child_ring, place, own_own, own_ring, ring_own):  # type: ignore[no-untyped-def]
    """Add the part of a child's Schur complement that touches the node's own pixels."""
    n, n_own = len(child_ring), len(own_own)
    last = own_ring.shape[1] - 1
    for i in range(n):
        row = place[child_ring[i]]
        if row < n_own:
            for j in range(n):
                column = place[child_ring[j]]
                if column < n_own:
                    own_own[row, column] += schur[i, j]
                else:
                    own_ring[row, column - n_own] += schur[i, j]
            own_ring[row, last] += schur[i, n]
        else:
            for j in range(n):
                column = place[child_ring[j]]
                if column < n_own:
                    ring_own[row - n_own, column] += schur[i, j]


@njit(nogil=True, cache=True)
def _add_to_ring(schur, child_ring, place, n_own, ring_ring):  # type: ignore[no-untyped-def]
    """Add the part of a child's Schur complement between ring pixels, in runs that lie side by side in both."""
    n, last = len(child_ring), ring_ring.shape[1] - 1
    begin = 0
    while begin < n:
        column = place[child_ring[begin]] - n_own
        end = begin + 1
        if column >= 0:
            while end < n and place[child_ring[end]] - n_own == column + end - begin:
                end += 1
            for i in range(n):
                row = place[child_ring[i]] - n_own
                if row >= 0:
                    for j in range(end - begin):
                        ring_ring[row, column + j] += schur[i, begin + j]
        begin = end
    for i in range(n):
        row = place[child_ring[i]] - n_own
        if row >= 0:
            ring_ring[row, last] += schur[i, n]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _solve_few(own_own, own_ring):  # type: ignore[no-untyped-def]
    """Gauss-Jordan without pivoting: own_ring becomes own⁻¹ own_ring; own_own is spent."""
    # Rows as views: subscripts from a range that does not begin at 0 would keep the loops from being vectorised.
    for k in range(len(own_own)):
        pivot_row, pivot_ring = own_own[k, k + 1 :], own_ring[k]
        inverse = 1.0 / own_own[k, k]
        for j in range(len(pivot_row)):
            pivot_row[j] *= inverse
        for j in range(len(pivot_ring)):
            pivot_ring[j] *= inverse
        for i in range(len(own_own)):
            factor = own_own[i, k]
            if i != k and factor != 0.0:
                row, ring = own_own[i, k + 1 :], own_ring[i]
                for j in range(len(row)):
                    row[j] -= factor * pivot_row[j]
                for j in range(len(ring)):
                    ring[j] -= factor * pivot_ring[j]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _substitute(plan, factors, x):  # type: ignore[no-untyped-def]
    """From the root down: x_own = own⁻¹ rhs − own⁻¹ [own x ring] x_ring."""
    around = np.empty(len(x))
    for k in range(len(plan.children) - 1, -1, -1):
        own_pixels = plan.own[plan.own_at[k] : plan.own_at[k + 1]]
        ring_pixels = plan.ring[plan.ring_at[k] : plan.ring_at[k + 1]]
        n_own, n_ring = len(own_pixels), len(ring_pixels)
        own_ring = factors[plan.factor_at[k] : plan.factor_at[k + 1]].reshape(n_own, n_ring + 1)
        for j in range(n_ring):
            around[j] = x[ring_pixels[j]]
        for i in range(n_own):
            total = 0.0
            for j in range(n_ring):
                total += own_ring[i, j] * around[j]
            x[own_pixels[i]] = own_ring[i, n_ring] - total
