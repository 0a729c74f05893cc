"""A fast direct solver for nine-point M-matrix systems on a regular grid, in float32 without subtractions.

The system couples each pixel r of an H x W grid with its (up to 8) neighbours s,

    (hold_r + Σ_s coupling_rs) x_r − Σ_s coupling_rs x_s = rhs_r,      coupling, hold >= 0,

as colorization does: a weakly diagonally dominant M-matrix that need not be symmetric. Elimination keeps the couplings
and each row's excess (`hold`) instead of the diagonal. Eliminating pixel k then only adds nonnegative numbers,

    d = hold_k + Σ_j coupling_kj;   coupling_ij += coupling_ik coupling_kj / d,   hold_i += coupling_ik hold_k / d,

(Grassmann, Taksar and Heyman, Operations Research 1985), so that every number is right to a small multiple of float32's
rounding however nearly isolated parts of the grid are (O'Cinneide, Numerische Mathematik 1993; Alfa, Xue and Ye, Math.
Comp. 2002). The answer needs neither iteration, nor a stopping rule, nor refinement. (Parts that hang together by less
than about 1e-12 of their couplings are where `box_elimination.TINY` begins to matter.)

The order is nested `dissection`, with dividing lines 16 pixels apart at the finest. The 15x15 pixels between them are
eliminated in SIMD lanes, many boxes at once (`box_elimination`); the lines with sgemm (`front_elimination`). The two
halves of the first division can be worked on by two threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.blas import keep_blas_to_one_thread
from dfd_ros.errors import InputError
from dfd_ros.lidar.box_elimination import INNER, solve_boxes
from dfd_ros.lidar.dissection import NEIGHBOURS, dissect
from dfd_ros.lidar.front_elimination import (
    eliminate,
    eliminate_front,
    front_work,
    plan_fronts,
    room_for_factors,
    substitute,
)
from dfd_ros.lidar.halves import Halves

FloatImage = NDArray[np.float32]
System = tuple[FloatImage, FloatImage, FloatImage]  # coupling, hold, rhs

# Far from where float32's numbers end: products of a few of these must not.
_LARGEST_HOLD, _LARGEST_RHS = 1e15, 1e25


class MMatrixSolver:
    """Solves systems of one shape; keeps the pattern and all buffers between calls.

    The work runs without the GIL; one object serves one thread at a time.

    Raises:
        InputError: The shape is smaller than 2x2.
    """

    dtype: type[np.floating] = np.float32

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = shape
        if height < 2 or width < 2:
            raise InputError(f"M-matrix solver: expected a shape of at least 2x2 pixels, got {height}x{width}")
        keep_blas_to_one_thread()
        self.shape = (int(height), int(width))
        tree = dissect(*self.shape, _divide, smallest_own_pixels=False)
        self._plan = plan_fronts(tree, *self.shape)
        self._root = len(tree.children) - 1
        # The root's subtrees: two, or one where the root has one child or is all there is.
        ends = [int(child) + 1 for child in tree.children[self._root] if child >= 0] or [1]
        self._parts = [range(begin, end) for begin, end in pairwise([0, *ends])]
        self._works = [front_work(self._plan, tree, part, also=self._root) for part in self._parts]
        self._factors = room_for_factors(self._plan)
        self._halves = Halves()

    def solve(self, hold: FloatImage, coupling: FloatImage, rhs: FloatImage, threads: int = 1) -> FloatImage:
        """The solution x, (H, W) float32.

        Args:
            hold: (H, W) float32, 0 or 1e-15 to 1e15, somewhere positive: each row's diagonal less its couplings' sum.
            coupling: (H, W, 8) float32 >= 0, of order 1, one per neighbour in the order of `NEIGHBOURS`; 0 outside.
            rhs: (H, W) float32 >= 0.
            threads: 1, or more for two.

        Raises:
            InputError: An array's shape or type is wrong, `hold` or `rhs` is out of range, or `hold` nowhere positive;
                or x is not finite, as only couplings that are not could make it.
        """
        self._check(hold, coupling, rhs)
        system = (np.ascontiguousarray(coupling), np.ascontiguousarray(hold), np.ascontiguousarray(rhs))
        x = np.empty(self.shape, np.float32)
        if self._root > 0:
            self._solve_root(system, self._on_parts(lambda part: self._eliminate(part, system), threads), x)
        self._on_parts(lambda part: self._substitute(part, system, x), threads)
        if not np.isfinite(x).all():
            raise InputError(
                "M-matrix solver: couplings must be finite and at least 0, and connect every pixel to a hold"
            )
        return x

    def _check(self, hold: FloatImage, coupling: FloatImage, rhs: FloatImage) -> None:
        shapes = {"hold": self.shape, "coupling": (*self.shape, len(NEIGHBOURS)), "rhs": self.shape}
        for (name, shape), array in zip(shapes.items(), (hold, coupling, rhs), strict=True):
            if array.shape != shape or array.dtype != self.dtype:
                raise InputError(
                    f"M-matrix solver: {name} must be float32 of shape {shape}, got {array.dtype} of {array.shape}"
                )
        low, high = float(hold.min()), float(hold.max())
        if not (low >= 0.0 and high <= _LARGEST_HOLD):
            raise InputError(f"M-matrix solver: hold must lie in [0, {_LARGEST_HOLD:g}], got {low:g} to {high:g}")
        if high == 0.0:
            raise InputError("M-matrix solver: hold must be positive somewhere, got zeros: the matrix is singular")
        low, high = float(rhs.min()), float(rhs.max())
        if not (low >= 0.0 and high <= _LARGEST_RHS):
            raise InputError(f"M-matrix solver: rhs must lie in [0, {_LARGEST_RHS:g}], got {low:g} to {high:g}")

    def _on_parts(self, work: Callable[[int], int], threads: int) -> tuple[int, ...]:
        return self._halves.run(work, threads) if len(self._parts) == 2 else (work(0),)

    def _eliminate(self, part: int, system: System) -> int:
        nodes = self._parts[part]
        return int(eliminate(self._plan, nodes.start, nodes.stop, system, self._works[part], self._factors))

    def _solve_root(self, system: System, left: tuple[int, ...], x: FloatImage) -> None:
        root, work = self._root, self._works[0]
        nothing = np.empty((0, 2), np.float32)
        eliminate_front(self._plan, root, left[0], left[-1], system, work, nothing, self._factors)
        substitute(self._plan, root, root + 1, self._factors, work.around, x.reshape(-1))

    def _substitute(self, part: int, system: System, x: FloatImage) -> int:
        nodes, work = self._parts[part], self._works[part]
        _substitute(self._plan, nodes.start, nodes.stop, system, work, self._factors, x)
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of all that it keeps."""
        return _nbytes([self._plan, self._works, self._factors])


def _divide(rows: int, columns: int) -> tuple[int, int]:
    """Across the longer side, so that lines lie a multiple of a box and a line apart."""
    length = max(rows, columns)
    if length <= INNER:
        return -1, -1
    boxes = (length + 1) // (INNER + 1)
    line = (INNER + 1) * max(boxes // 2, 1) - 1
    return (-1, line) if columns >= rows else (line, -1)


@njit(nogil=True, cache=True)
def _substitute(plan, begin, end, system, work, factors, x):  # type: ignore[no-untyped-def]
    """Write the solution at all pixels of nodes `begin` to `end` - 1."""
    substitute(plan, begin, end, factors, work.around, x.reshape(x.size))
    boxes = 0
    for k in range(begin, end):
        boxes += plan.children[k, 0] < 0
    for batch in range(len(work.corners)):
        count = min(len(work.corners[batch]), boxes - batch * len(work.corners[batch]))
        solve_boxes(*system, work.corners[batch], count, work.box, x)


def _nbytes(thing: object) -> int:
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    return sum(_nbytes(part) for part in thing) if isinstance(thing, list | tuple) else 0
