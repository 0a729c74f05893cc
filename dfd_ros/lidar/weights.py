"""The weights of the NYU Depth V2 toolbox's colorization: how alike a pixel and its neighbours are to be.

For pixel r with its neighbours s in the 3x3 window inside the image

    w_rs ∝ exp(−(g_s − g_r)² / c_r),     Σ_s w_rs = 1,

where c_r is 0.6 times the variance of grey in the window, but no less than lets the most alike neighbour weigh 0.01,
and no less than 2e-6: `fill_depth_colorization` in the toolbox of Silberman et al., ECCV 2012.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dfd_ros.lidar.grid_solver import NEIGHBOURS

# The toolbox's constants.
_VARIANCE_SCALE = 0.6
_MIN_WEIGHT_OF_NEAREST = 0.01
_MIN_C = 2e-6


@njit(nogil=True, cache=True)
def write_weights(grey, weights):  # type: ignore[no-untyped-def]
    """Write w_rs, (H, W, 8) in the order of `NEIGHBOURS`, 0 outside the image; grey (H, W) in [0, 1]."""
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
