"""The weights of the NYU Depth V2 toolbox's colorization: how alike a pixel and its neighbours are to be.

For pixel r with its neighbours s in the 3x3 window inside the image

    w_rs ∝ exp(−(g_s − g_r)² / c_r),     Σ_s w_rs = 1,

where c_r is 0.6 times the variance of grey in the window, but no less than lets the most alike neighbour weigh 0.01,
and no less than 2e-6: `fill_depth_colorization` in the toolbox of Silberman et al., ECCV 2012.

The work goes row by row, in loops over whole rows that compile to vector instructions.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.vector_ops import as_float

# The toolbox's constants.
_VARIANCE_SCALE = 0.6
_MIN_WEIGHT_OF_NEAREST = 0.01
_MIN_C = 2e-6

_NEAREST_SCALE = -1.0 / math.log(_MIN_WEIGHT_OF_NEAREST)
_LOWEST = -80.0  # exponents below (normalised weights of 1e-35) count as this one, so that none becomes denormal
_BEYOND = 4.0  # more than any squared difference of grey


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def write_weights(grey, weights, first, last):  # type: ignore[no-untyped-def]
    """Write w_rs for the pixels r of rows `first` to `last` - 1, all in single or all in double precision.

    Args:
        grey: (H, W) in [0, 1], float32 or float64.
        weights: (H, W, 8) of the same type, written, in the order of `NEIGHBOURS`; 0 outside the image.
    """
    width = grey.shape[1]
    number = grey.dtype.type
    zero, one, beyond = number(0), number(1), number(_BEYOND)
    difference, inside = np.empty((8, width), grey.dtype), np.empty((8, width), grey.dtype)
    total, count = np.empty(width, grey.dtype), np.empty(width, grey.dtype)
    spread, nearest = np.empty(width, grey.dtype), np.empty(width, grey.dtype)
    for row in range(first, last):
        total[:] = zero
        count[:] = one  # the pixel itself
        nearest[:] = beyond
        for q in range(8):
            _write_differences(grey, row, NEIGHBOURS[q][0], NEIGHBOURS[q][1], difference[q], inside[q])
            d, valid = difference[q], inside[q]
            for c in range(width):
                total[c] += d[c]
                count[c] += valid[c]
                nearest[c] = min(nearest[c], d[c] * d[c] if valid[c] > zero else beyond)
        for c in range(width):
            total[c] /= count[c]
            spread[c] = total[c] * total[c]
        for q in range(8):
            d, valid = difference[q], inside[q]
            for c in range(width):
                deviation = d[c] - total[c]
                spread[c] += deviation * deviation * valid[c]
        for c in range(width):
            variance = number(_VARIANCE_SCALE) * spread[c] / count[c]
            spread[c] = one / max(max(variance, nearest[c] * number(_NEAREST_SCALE)), number(_MIN_C))
            total[c] = zero
        for q in range(8):
            d, valid = difference[q], inside[q]
            for c in range(width):
                d[c] = _exp(max(-d[c] * d[c] * spread[c], number(_LOWEST))) * valid[c]
                total[c] += d[c]
        out = weights[row]
        for c in range(width):
            scale = one / total[c]
            for q in range(8):
                out[c, q] = difference[q, c] * scale


@njit(nogil=True, cache=True)
def _write_differences(grey, row, row_step, column_step, difference, inside):  # type: ignore[no-untyped-def]
    """Write g_s − g_r for one neighbour s of each pixel r of a row, and whether s lies in the image: 1, or 0 and 0."""
    height, width = grey.shape
    if not 0 <= row + row_step < height:
        difference[:] = 0
        inside[:] = 0
        return
    begin, end = max(0, -column_step), width - max(0, column_step)
    here, there = grey[row, begin:end], grey[row + row_step, begin + column_step : end + column_step]
    inner = difference[begin:end]
    for c in range(end - begin):
        inner[c] = there[c] - here[c]
    inside[:] = 1
    if column_step:
        edge = 0 if column_step < 0 else width - 1
        difference[edge] = inside[edge] = 0


def _exp(x):  # type: ignore[no-untyped-def]
    """exp of x in [-80, 0]."""
    return math.exp(x)


@overload(_exp, inline="always")
def _compiled_exp(x):  # type: ignore[no-untyped-def]
    """In single precision a polynomial that vector instructions can work out, right to 3e-7."""
    if x != types.float32:
        return lambda x: math.exp(x)
    log2_e, ln_2 = np.float32(1.0 / math.log(2.0)), np.float32(math.log(2.0))
    half, one = np.float32(0.5), np.float32(1.0)
    c3, c4, c5, c6 = (np.float32(1.0 / math.factorial(order)) for order in (3, 4, 5, 6))

    def exp(x):  # type: ignore[no-untyped-def]
        """2^n times Taylor's polynomial within half an octave of 0."""
        octaves = x * log2_e
        n = math.floor(octaves + half)
        r = (octaves - n) * ln_2
        polynomial = one + r * (one + r * (half + r * (c3 + r * (c4 + r * (c5 + r * c6)))))
        return polynomial * as_float((np.int32(n) + np.int32(127)) << np.int32(23))

    return exp
