"""Neighbours that a step of depth parts, though the picture may not show it, are made less alike.

The evidence around two neighbouring pixels tells the step of inverse depth between them, relative to the nearer one and
but for what the surface's own slope makes up. With w_rs the toolbox's weights

    w_rs' ∝ w_rs / (1 + (step / σ)²)²,     Σ_s w_rs' = 1                                  (Geman and McClure 1985)

Grey says where an edge may lie and depth whether there is one (static and dynamic guidance: Ham, Cho and Ponce,
TPAMI 2018).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.evidence import FloatImage, finer_row

_STEP = 0.1
"""σ: the relative step between neighbouring pixels that leaves a quarter of the weight; half of what parts the evidence
(`evidence`), since at full resolution two pixels share a step."""
_ROWS = 3  # in memory at a time: a row, the one before it, the one after it


def weaken_at_steps(surface: FloatImage, weights: NDArray[np.floating]) -> None:
    """Lessen the weights (H, W, 8), in the order of `NEIGHBOURS`, in place, where depth has a step.

    Args:
        surface: (2, h, w) inverse depth and its growth from row to row, at half resolution (`Evidence.surface`).
        weights: Each pixel's sum to 1, 0 outside the image; they still do.
    """
    _weaken(surface, weights)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _weaken(surface, weights):  # type: ignore[no-untyped-def]
    height, width, _ = weights.shape
    padded = 2 * surface.shape[2]
    # With one more column at either end.
    value, growth = np.empty((_ROWS, padded + 2), np.float32), np.empty(padded, np.float32)
    between, total = np.empty(padded // 2, np.float32), np.empty(width, np.float32)
    one, sharpness = np.float32(1.0), np.float32(1.0 / _STEP)
    _write_row(surface[0], 0, between, value[0])
    for row in range(height):
        if row + 1 < height:
            _write_row(surface[0], row + 1, between, value[(row + 1) % _ROWS])
        finer_row(surface[1], row, between, growth)
        here = value[row % _ROWS]
        total[:] = 0.0
        for q in range(len(NEIGHBOURS)):
            down, right = NEIGHBOURS[q]
            there = value[min(max(row + down, 0), height - 1) % _ROWS]
            along = np.float32(0.5) * down  # of a half-resolution row
            for column in range(width):
                a, b = here[column + 1], there[column + 1 + right]
                x = sharpness * (b - a - along * growth[column]) / max(a, b)
                like = one / (one + x * x)
                weight = weights[row, column, q] * (like * like)
                weights[row, column, q] = weight
                total[column] += weight
        for column in range(width):
            scale = one / total[column]
            for q in range(len(NEIGHBOURS)):
                weights[row, column, q] *= scale


@njit(nogil=True, cache=True, inline="always")
def _write_row(image, row, between, out):  # type: ignore[no-untyped-def]
    """A full-resolution row, with its ends once more beyond it."""
    finer_row(image, row, between, out[1:-1])
    out[0], out[-1] = out[1], out[-2]
