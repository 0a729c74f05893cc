"""What the returns around a pixel say of it: their depth, how well they agree, and how much of them there is.

Normalised convolution (Knutsson and Westin, CVPR 1993) of the returns with the recursive filter of the domain
transform (Gastal and Oliveira, SIGGRAPH 2011, section 5): a return counts exp(−√2 d / σ), with d the distance along
the image in which a step of grey counts as a detour,

    d(r, s) = Σ over the pixels between of 1 + (σ_s / σ_r) |Δg|,

first along the rows, then along the columns, twice, the second time with half the σ. With k the share of each return
in a pixel and v = 1 / z its value, a line is fitted over the rows y,

    minimise Σ k (v − a − b (y − y_0))² + ρ E b²,     E = Σ k,

whose b is shrunk by the share of the values' variance that it explains (R²: returns of several objects are no slope),
whose a is the pixel's value, and whose root mean square residual is the pixel's deviation. Inverse depth is linear on planes,
and beams lie far apart in y: on a road, which recedes upwards, a mean would step from beam to beam. E is 1 where flat
grey has returns at their mean spacing all around.

All this is done on a grid of half the image's resolution, which costs less than the returns' own spacing blurs, and
once more on one of an eighth, whose answer counts as a very weak return at every pixel: it reaches where no return is
near.
About 2 ms on one thread at 640x480.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.lidar.field import REACH, field_rows

NEAREST, FARTHEST = 1e-3, 1e6
"""Metres: what lies outside is no depth."""

_SIGMA_R = 0.1  # a step of grey that counts as σ_s pixels: the domain transform's usual range for smoothing
_MIN_SIGMA, _MAX_SIGMA = 0.7, 32.0  # σ_s, half-resolution pixels
_COARSER = 4  # half-resolution pixels in a coarse one, along a side
_MIN_COARSE_SIGMA = 2.0  # coarse pixels
_COARSE_SIGMA = 4.0  # of the coarse grid, in spacings of returns
_BACKGROUND = 1e-3  # what the coarse answer counts, of a return
_PRIOR = 1e-9  # what the mean of all returns counts in it: keeps every pixel defined, and floats from going subnormal
# Of n = 2 iterations: σ_i = σ_s √3 2^(n−i) / √(4^n − 1) (Gastal and Oliveira, equation 14).
_FIRST_SIGMA = 2.0 * math.sqrt(3.0 / 15.0)
_STEPS = 1024  # of the table of exp over |Δg|
_RIDGE = 0.02  # ρ in squared spacings of returns: rows closer than a seventh of a spacing tell no slope
_ROUNDING = 1e-6  # variance, of the mean squared, that float32 may make up
_REACH = 2.0  # a line may leave the mean of its returns by this factor, no farther
_MOMENTS = 6  # k, k v, k v², k y, k y², k v y
_GROUP = 3  # moments filtered side by side: their recursions hide each other's latency

FloatImage = NDArray[np.float32]


class Evidence:
    """The evidence in images of one shape; keeps its buffers from frame to frame.

    Attributes:
        shape: (H, W) of the images.
        guide: (h, w) grey at half resolution, h = ⌈H / 2⌉.
        sums: (3, h, w) E, E a and E (a² + deviation²), in 1/m and 1/m² where they are no pure numbers.
        spacing: Mean distance between neighbouring returns in the LiDAR's field, pixels.
        rows: First and last half-resolution row of the LiDAR's field by column, (w,) each.
        brightness: Mean grey where there are returns.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        height, width = shape
        self.shape = (height, width)
        h, w = -(-height // 2), -(-width // 2)
        self.guide = np.empty((h, w), np.float32)
        self._moments = np.empty((_MOMENTS, h, w), np.float32)
        self.sums = self._moments[:3]
        self.spacing = self.brightness = math.nan
        self.rows = np.full(w, h), np.full(w, -1)
        self._shares = np.zeros((2, h, w), np.float32)
        coarse = -(-h // _COARSER), -(-w // _COARSER)
        self._coarse_guide = np.empty(coarse, np.float32)
        self._coarse_moments = np.empty((_MOMENTS, *coarse), np.float32)
        self._coarse_shares = np.zeros((2, *coarse), np.float32)
        self._wide = np.empty((_MOMENTS, coarse[0], w), np.float32)

    def gather(self, grey: FloatImage, sparse: FloatImage, weights: FloatImage) -> int:
        """Gather the evidence of a frame; returns the number of known pixels. Where that is 0 nothing else is defined.

        Args:
            grey: (H, W) in [0, 1].
            sparse: (H, W) metres; unknown where not between `NEAREST` and `FARTHEST`.
            weights: (H, W) how much each return counts, in [0, 1].
        """
        h, w = self.guide.shape
        top, bottom = np.full(w, h), np.full(w, -1)
        known, light = _collect(grey, sparse, weights, self.guide, self._moments, top, bottom)
        if not known:
            return 0
        self.brightness = light / known
        first, last = field_rows(top, bottom, REACH // 2)
        # Returns may lie farther apart than that.
        self.spacing = math.sqrt(4.0 * float(np.maximum(last - first + 1, 0).sum()) / known)
        self.rows = field_rows(top, bottom, max(REACH // 2, math.ceil(self.spacing)))

        sigma = min(max(0.5 * self.spacing, _MIN_SIGMA), _MAX_SIGMA)
        coarse_sigma = max(_COARSE_SIGMA * sigma / _COARSER, _MIN_COARSE_SIGMA)
        coarse = self._coarse_moments
        _coarsen(self.guide, self._moments, self._coarse_guide, coarse)
        totals = coarse.sum(axis=(1, 2))
        coarse += (np.float32(_PRIOR) * totals / totals[0])[:, None, None]
        _spread(self._coarse_guide, coarse_sigma, self._coarse_shares, coarse)
        density = 4.0 / self.spacing**2  # returns in a half-resolution pixel
        _add_background(coarse, np.float32(_BACKGROUND * density), self._wide, self._moments)
        _spread(self.guide, sigma, self._shares, self._moments)
        scale = 1.0 / (density * _flat_gain(sigma))
        _fit_lines(self._moments, np.float32(scale), np.float32(_RIDGE * (0.5 * self.spacing) ** 2))
        return int(known)

    def write_depth(self, depth: FloatImage) -> None:
        """Write 1 / a, metres, (H, W)."""
        _write_depth(self.sums, depth)


def _spread(guide: FloatImage, sigma: float, shares: FloatImage, moments: FloatImage) -> None:
    """Filter `moments` (6, h, w) along `guide` in place; `shares` (2, h, w) is room for what neighbours hand on."""
    difference = np.linspace(0.0, 1.0, _STEPS)
    exponent = -math.sqrt(2.0) / (_FIRST_SIGMA * sigma)
    table = np.exp(exponent * (1.0 + sigma / _SIGMA_R * difference)).astype(np.float32)
    _write_shares(guide, table, shares)
    for iteration in range(2):
        if iteration:
            shares *= shares  # half the σ
        _filter(shares[0], shares[1], moments)


def _flat_gain(sigma: float) -> float:
    """The sum of the filter's kernel over flat grey: each pass along a line, there and back, sums to (1 − a)⁻²."""
    share = math.exp(-math.sqrt(2.0) / (_FIRST_SIGMA * sigma))
    return ((1.0 - share) * (1.0 - share**2)) ** -4


@njit(nogil=True, cache=True, error_model="numpy")
def _collect(grey, sparse, weights, guide, moments, top, bottom):  # type: ignore[no-untyped-def]
    """Halve the grey and sum the returns in each 2x2 pixels; returns how many there are, and their grey's sum."""
    height, width = grey.shape
    h, w = guide.shape
    known, light = 0, 0.0
    quarter = np.float32(0.25)
    for i in range(h):
        above, below, out = grey[2 * i], grey[min(2 * i + 1, height - 1)], guide[i]
        for j in range(width // 2):
            out[j] = quarter * (above[2 * j] + above[2 * j + 1] + below[2 * j] + below[2 * j + 1])
        if width % 2:
            out[w - 1] = np.float32(0.5) * (above[width - 1] + below[width - 1])
    moments[:] = 0.0
    for row in range(height):
        i, y = row // 2, np.float32(0.5 * row - 0.25 - h // 2)  # as half-resolution pixels count
        for column in range(width):
            depth = sparse[row, column]
            if NEAREST <= depth <= FARTHEST:
                j = column // 2
                share, inverse = weights[row, column], np.float32(1.0) / depth
                moments[0, i, j] += share
                moments[1, i, j] += share * inverse
                moments[2, i, j] += share * inverse * inverse
                moments[3, i, j] += share * y
                moments[4, i, j] += share * y * y
                moments[5, i, j] += share * inverse * y
                known += 1
                light += grey[row, column]
                top[j] = min(top[j], i)
                bottom[j] = i
    return known, light


@njit(nogil=True, cache=True, error_model="numpy")
def _coarsen(guide, moments, coarse_guide, coarse):  # type: ignore[no-untyped-def]
    """Average the grey and sum the moments of `_COARSER` x `_COARSER` pixels."""
    h, w = guide.shape
    coarse_guide[:] = 0.0
    coarse[:] = 0.0
    for i in range(h):
        for j in range(w):
            coarse_guide[i // _COARSER, j // _COARSER] += guide[i, j]
            if moments[0, i, j] > 0.0:
                for moment in range(_MOMENTS):
                    coarse[moment, i // _COARSER, j // _COARSER] += moments[moment, i, j]
    for i in range(coarse_guide.shape[0]):
        for j in range(coarse_guide.shape[1]):
            rows, columns = min(_COARSER, h - _COARSER * i), min(_COARSER, w - _COARSER * j)
            coarse_guide[i, j] /= rows * columns


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _add_background(coarse, amount, wide, moments):  # type: ignore[no-untyped-def]
    """Add `amount` of a return with the coarse grid's means, bilinear between its pixels, to every pixel.

    `wide` (6, coarse rows, w) is room for the means, stretched along the rows.
    """
    _, rows, columns = coarse.shape
    _, h, w = moments.shape
    for i in range(rows):
        for j in range(w):
            left, right, share = _between(j, columns)
            weight_left, weight_right = amount * (1 - share) / coarse[0, i, left], amount * share / coarse[0, i, right]
            wide[0, i, j] = amount
            for moment in range(1, _MOMENTS):
                wide[moment, i, j] = weight_left * coarse[moment, i, left] + weight_right * coarse[moment, i, right]
    for moment in range(_MOMENTS):
        for i in range(h):
            above, below, share = _between(i, rows)
            rest = np.float32(1.0) - share
            a, b, out = wide[moment, above], wide[moment, below], moments[moment, i]
            for j in range(w):
                out[j] += rest * a[j] + share * b[j]


@njit(nogil=True, cache=True)
def _between(fine, count):  # type: ignore[no-untyped-def]
    """The two of `count` coarse pixels between whose centres a fine pixel's lies, and the second's share."""
    place = max((fine + 0.5) / _COARSER - 0.5, 0.0)
    first = min(int(place), count - 1)
    return first, min(first + 1, count - 1), np.float32(place - first)


@njit(nogil=True, cache=True, error_model="numpy")
def _write_shares(guide, table, shares):  # type: ignore[no-untyped-def]
    """What each pixel takes over from its left (0) and its upper (1) neighbour."""
    h, w = guide.shape
    scale = np.float32(len(table) - 1)
    for i in range(h):
        for j in range(w):
            here = guide[i, j]
            if j > 0:
                shares[0, i, j] = table[int(abs(here - guide[i, j - 1]) * scale)]
            if i > 0:
                shares[1, i, j] = table[int(abs(here - guide[i - 1, j]) * scale)]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _filter(across, down, moments):  # type: ignore[no-untyped-def]
    """There and back along the rows, then along the columns."""
    _, h, w = moments.shape
    for i in range(h):
        for group in range(0, _MOMENTS, _GROUP):
            x, y, z, share = moments[group, i], moments[group + 1, i], moments[group + 2, i], across[i]
            p, q, r = x[0], y[0], z[0]
            for j in range(1, w):
                a = share[j]
                p, q, r = x[j] + a * p, y[j] + a * q, z[j] + a * r
                x[j], y[j], z[j] = p, q, r
            for j in range(w - 2, -1, -1):
                a = share[j + 1]
                p, q, r = x[j] + a * p, y[j] + a * q, z[j] + a * r
                x[j], y[j], z[j] = p, q, r
    for moment in range(_MOMENTS):
        sums = moments[moment]
        for i in range(1, h):
            for j in range(w):
                sums[i, j] += down[i, j] * sums[i - 1, j]
        for i in range(h - 2, -1, -1):
            for j in range(w):
                sums[i, j] += down[i + 1, j] * sums[i + 1, j]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _fit_lines(moments, scale, ridge):  # type: ignore[no-untyped-def]
    """Replace the first three moments by E (times `scale`), E a and E (a² + deviation²) of each pixel's line."""
    _, h, w = moments.shape
    for i in range(h):
        row = np.float32(i - h // 2)
        for j in range(w):
            share = np.float32(1.0) / moments[0, i, j]
            mean, centre = share * moments[1, i, j], share * moments[3, i, j]
            variance = max(share * moments[2, i, j] - mean * mean, np.float32(0.0))
            extent = max(share * moments[4, i, j] - centre * centre, np.float32(0.0))
            covariance = share * moments[5, i, j] - mean * centre
            slope = covariance / (extent + ridge)
            slope *= min(slope * covariance / max(variance, np.float32(_ROUNDING) * mean * mean), np.float32(1.0))
            value = mean + slope * (row - centre)
            value = min(max(value, mean / np.float32(_REACH)), mean * np.float32(_REACH))
            residual = max(variance - slope * (covariance + covariance - slope * extent), np.float32(0.0))
            evidence = scale * moments[0, i, j]
            moments[0, i, j] = evidence
            moments[1, i, j] = evidence * value
            moments[2, i, j] = evidence * (value * value + residual)


@njit(nogil=True, cache=True, inline="always")
def finer_row(image, row, between, out):  # type: ignore[no-untyped-def]
    """Write a full-resolution row, bilinear between the pixels of a half-resolution image (h, w): `out` (2 w,).

    `between` (w,) is room for the row before it is stretched.
    """
    h, w = image.shape
    near = row // 2
    far = min(max(near + (1 if row % 2 else -1), 0), h - 1)
    a, b = image[near], image[far]
    most, least = np.float32(0.75), np.float32(0.25)
    for j in range(w):
        between[j] = most * a[j] + least * b[j]
    out[0], out[2 * w - 1] = between[0], between[w - 1]
    for j in range(w - 1):
        out[2 * j + 1] = most * between[j] + least * between[j + 1]
        out[2 * j + 2] = least * between[j] + most * between[j + 1]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _write_depth(sums, depth):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    w = sums.shape[2]
    weight, first, between = np.empty(2 * w, np.float32), np.empty(2 * w, np.float32), np.empty(w, np.float32)
    for row in range(height):
        finer_row(sums[0], row, between, weight)
        finer_row(sums[1], row, between, first)
        for column in range(width):
            depth[row, column] = weight[column] / first[column]
