"""From the cells' posterior over signed CoC to depth and confidence at every pixel.

Labels s = κ (1 − z_f / z) are uniform in 1/z, and 1/z = (κ − s) / (κ z_f): what is called reciprocal below is κ − s.
Arrays over cells are (h, w), or (h, w, K) with the K labels; arrays over pixels (H, W). All float32.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from dfd_ros.optics.projection import CELL

NEIGHBOURS = 2
"""Reach of `discount_edges`, cells: where a depth edge runs is known to about that."""
EDGE = np.float32(2.0)
"""Neighbours whose depths differ by more than this many tolerances have a depth edge between them."""


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def read_out(posterior, labels, kappa, reach, blur, tolerance, coc, confidence):  # type: ignore[no-untyped-def]
    """Signed CoC of the depth with the least expected relative error, and the probability that it is within tolerance.

    The expectation of |d − z| / z is least at the median of the posterior weighted by 1/z; depth is the posterior's mean
    within `reach` labels of it. Between a near and a far reading of the same blur it so prefers the near one: taking 1 m
    for 4 m costs four times what the converse does, and a robot more. Those labels count as one normal distribution,
    widened by `blur`, the standard deviation of the CoC itself.
    """
    height, width, count = posterior.shape
    step, one = labels[1] - labels[0], np.float32(1.0)
    for y in range(height):
        for x in range(width):
            p = posterior[y, x]
            half = np.float32(0.0)
            for k in range(count):
                half += np.float32(0.5) * p[k] * (kappa - labels[k])
            best, below = 0, p[0] * (kappa - labels[0])
            while below < half and best < count - 1:
                best += 1
                below += p[best] * (kappa - labels[best])
            mass, mean, square = np.float32(1e-20), np.float32(0.0), np.float32(0.0)
            for j in range(max(0, best - reach), min(count, best + reach + 1)):
                offset = labels[j] - labels[best]
                mass += p[j]
                mean += p[j] * offset
                square += p[j] * offset * offset
            mean /= mass
            # A CoC between two labels shows as both: that much of the variance is the grid's.
            part = mean / step - math.floor(mean / step)
            variance = max(square / mass - mean * mean - part * (one - part) * step * step, np.float32(0.0))
            mean += labels[best]
            coc[y, x] = mean
            # In CoC, depths larger and smaller by the tolerance are these far from the mean.
            reciprocal = kappa - mean
            scale = one / math.sqrt(np.float32(2.0) * (variance + blur * blur))
            above = math.erf(reciprocal * tolerance / (one + tolerance) * scale)
            under = math.erf(reciprocal * tolerance * scale)
            confidence[y, x] = min(mass * np.float32(0.5) * (above + under), one)


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def discount_edges(coc, confidence, kappa, tolerance, out):  # type: ignore[no-untyped-def]
    """Confidence times the share of the neighbouring cells that have no depth edge to this one.

    The pictures at a depth edge show both surfaces, so an edge is found some pixels from where it is: a cell this near
    to one may as well be on its other side.
    """
    height, width = coc.shape
    for y in range(height):
        top, bottom = max(y - NEIGHBOURS, 0), min(y + NEIGHBOURS + 1, height)
        for x in range(width):
            left, right = max(x - NEIGHBOURS, 0), min(x + NEIGHBOURS + 1, width)
            here, allowed = coc[y, x], EDGE * tolerance * (kappa - coc[y, x])
            agree = 0
            for j in range(top, bottom):
                for i in range(left, right):
                    agree += abs(coc[j, i] - here) <= allowed
            out[y, x] = confidence[y, x] * np.float32(agree / ((bottom - top) * (right - left)))


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def upsample(coc, confidence, guide, image, contrast, kappa, focus, depth, confidence_out):  # type: ignore[no-untyped-def]
    """Depth (metres) and confidence of every pixel: joint bilateral upsampling over the four nearest cells.

    After Kopf et al. (SIGGRAPH 2007). A pixel listens to the cells whose `guide`, the square root of grey, is like that
    of its own `image` value, to within `contrast`.
    """
    rows, columns = coc.shape
    height, width = image.shape
    sharpness = np.float32(1.0 / contrast)
    one, least = np.float32(1.0), np.float32(1e-3)
    left, right, share = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.float32)
    for u in range(width):
        fx = max((u + 0.5) / CELL - 0.5, 0.0)
        left[u] = min(int(fx), columns - 1)
        right[u], share[u] = min(left[u] + 1, columns - 1), np.float32(fx - left[u])
    # What the two cells above and the two below say, spread over the pixels between: plain loops over them follow.
    corners, sums, root = (
        np.empty((4, 3, width), np.float32),
        np.empty((3, width), np.float32),
        np.empty(width, np.float32),
    )
    spread = -1
    for v in range(height):
        fy = max((v + 0.5) / CELL - 0.5, 0.0)
        y = min(int(fy), rows - 1)
        down = np.float32(fy - y)
        if y != spread:
            spread = y
            for i in range(2):
                row = min(y + i, rows - 1)
                for u in range(width):
                    a, b = left[u], right[u]
                    corners[2 * i, 0, u], corners[2 * i + 1, 0, u] = guide[row, a], guide[row, b]
                    corners[2 * i, 1, u], corners[2 * i + 1, 1, u] = coc[row, a], coc[row, b]
                    corners[2 * i, 2, u], corners[2 * i + 1, 2, u] = confidence[row, a], confidence[row, b]
        for u in range(width):
            root[u] = np.sqrt(image[v, u])
            sums[0, u] = sums[1, u] = sums[2, u] = np.float32(0.0)
        for i in range(4):
            vertical = down if i >= 2 else one - down
            offset, slope = (np.float32(0.0), one) if i % 2 else (one, -one)
            for u in range(width):
                d = (corners[i, 0, u] - root[u]) * sharpness
                # A Cauchy kernel: cheap, and never zero.
                weight = (vertical * (offset + slope * share[u]) + least) / (one + d * d)
                sums[0, u] += weight
                sums[1, u] += weight * corners[i, 1, u]
                sums[2, u] += weight * corners[i, 2, u]
        for u in range(width):
            # z = z_f κ / (κ − s), s the weighted mean.
            depth[v, u] = focus * kappa * sums[0, u] / (kappa * sums[0, u] - sums[1, u])
            confidence_out[v, u] = sums[2, u] / sums[0, u]
