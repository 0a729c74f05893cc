"""Dense depth from sparse depth and a grey picture: colorization as in the NYU Depth V2 toolbox.

Levin, Lischinski and Weiss, "Colorization using optimization", SIGGRAPH 2004, with the weights of
`fill_depth_colorization` in the toolbox of Silberman et al., ECCV 2012: depth is as alike in neighbouring pixels as
their grey values are. For pixel r with its neighbours s in the 3x3 window inside the image,

    d_r − Σ_s w_rs d_s + α [r known] (d_r − measured_r) = 0,     w_rs ∝ exp(−(g_s − g_r)² / c_r),  Σ_s w_rs = 1,

where c_r is 0.6 times the variance of grey in the window, but no less than lets the most alike neighbour weigh 0.01,
and no less than 2e-6. The matrix is not symmetric, and only the solution of this very system is this method's answer;
it is solved directly (`grid_solver`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.lidar.grid_solver import NEIGHBOURS, GridSolver

# The toolbox's constants.
_VARIANCE_SCALE = 0.6
_MIN_WEIGHT_OF_NEAREST = 0.01
_MIN_C = 2e-6


class Colorizer:
    """Colorization for pictures of one shape (H, W); keeps the elimination order and all buffers between frames.

    Args:
        shape: (height, width), at least 2x2.
        alpha: How strongly the measured depths hold, > 0 (the toolbox's default is 1).

    The work runs without the GIL; one object serves one thread at a time.
    """

    def __init__(self, shape: tuple[int, int], alpha: float = 1.0) -> None:
        if not (math.isfinite(alpha) and alpha > 0):
            raise InputError(f"colorization: alpha must be a positive number, got {alpha!r}")
        self.alpha = float(alpha)
        self._solver = GridSolver(shape)
        self.shape = self._solver.shape
        self._weights = np.zeros((*self.shape, len(NEIGHBOURS)))

    def solve(self, grey: NDArray[np.floating], sparse: NDArray[np.floating]) -> NDArray[np.float32]:
        """Dense depth, (H, W) float32 metres.

        Args:
            grey: (H, W) floating point in [0, 1].
            sparse: (H, W) metres; NaN, infinite or not positive where unknown.

        Raises:
            InputError: A shape or the grey values' type or range is wrong, or no pixel is known.
        """
        self._check(grey, sparse)
        known = np.isfinite(sparse) & (sparse > 0)
        if not known.any():
            raise InputError(f"colorization: expected at least one known depth, got none in {sparse.size} pixels")
        hold = self.alpha * known
        write_weights(np.ascontiguousarray(grey, np.float64), self._weights)
        dense = self._solver.solve(1.0 + hold, self._weights, hold * np.where(known, sparse, 0.0))
        return dense.astype(np.float32)

    def _check(self, grey: NDArray[np.floating], sparse: NDArray[np.floating]) -> None:
        for name, image in (("grey image", grey), ("sparse depth", sparse)):
            if image.shape != self.shape:
                raise InputError(f"colorization: {name} must have shape {self.shape}, got {image.shape}")
            if not np.issubdtype(image.dtype, np.floating):
                raise InputError(f"colorization: {name} must be floating point, got {image.dtype}")
        low, high = float(grey.min()), float(grey.max())
        if not (low >= 0.0 and high <= 1.0):
            raise InputError(f"colorization: grey image must be finite and in [0, 1], got {low:g} to {high:g}")


def colorize(grey: NDArray[np.floating], sparse: NDArray[np.floating], alpha: float = 1.0) -> NDArray[np.float32]:
    """Dense depth of one picture; for a stream of pictures keep a `Colorizer`, whose arguments and errors these are."""
    if grey.ndim != 2:
        raise InputError(f"colorization: grey image must have shape (height, width), got {grey.shape}")
    height, width = grey.shape
    return Colorizer((height, width), alpha).solve(grey, sparse)


@njit(nogil=True, cache=True)
def write_weights(grey, weights):  # type: ignore[no-untyped-def]
    """Write w_rs, (H, W, 8) in the order of `NEIGHBOURS`, 0 outside the image."""
    height, width = grey.shape
    log_min_weight = math.log(_MIN_WEIGHT_OF_NEAREST)
    inside = np.empty(8, np.bool_)
    squared = np.empty(8)
    for row in range(height):
        for column in range(width):
            here = grey[row, column]
            count, total, total_squared, nearest = 1, 0.0, 0.0, np.inf
            for q in range(8):
                r, c = row + NEIGHBOURS[q][0], column + NEIGHBOURS[q][1]
                inside[q] = 0 <= r < height and 0 <= c < width
                if inside[q]:
                    difference = grey[r, c] - here
                    squared[q] = difference * difference
                    count += 1
                    total += difference
                    total_squared += squared[q]
                    nearest = min(nearest, squared[q])
            variance = total_squared / count - (total / count) ** 2
            c_r = max(_VARIANCE_SCALE * variance, -nearest / log_min_weight, _MIN_C)
            normaliser = 0.0
            for q in range(8):
                weight = math.exp(-squared[q] / c_r) if inside[q] else 0.0
                weights[row, column, q] = weight
                normaliser += weight
            for q in range(8):
                weights[row, column, q] /= normaliser
