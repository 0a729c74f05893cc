"""What the returns around a pixel say of it: their depth, how well they agree, and how much of them there is.

Normalised convolution (Knutsson and Westin, CVPR 1993) of the returns with the recursive filter of the domain
transform (Gastal and Oliveira, SIGGRAPH 2011, section 5): a return counts exp(−√2 d / σ), with d the distance along
the image in which a step of grey counts as a detour,

    d(r, s) = Σ over the pixels between of 1 + (σ_s / σ_r) |Δg|,

first along the rows, then along the columns, twice, the second time with half the σ. Before that, a first look (one
filtering) finds rough depth, whose steps count as a detour as those of grey do: the returns behind an object's edge are
far even where the picture hardly shows it (static and dynamic guidance: Ham, Cho and Ponce, TPAMI 2018). With k the
share of each return in a pixel and v = 1 / z its value, a line is fitted over the rows y,

    minimise Σ k (v − a − b (y − y_0))² + ρ E b²,     E = Σ k,

whose b is shrunk by the share of the values' variance that it explains (R²: returns of several objects are no slope),
whose a is the pixel's value, and whose root mean square residual is the pixel's deviation. Inverse depth is linear on
planes, and beams lie far apart in y: on a road, which recedes upwards, a mean would step from beam to beam. E is 1 where flat
grey has returns at their mean spacing all around.

All this is done on a grid of half the image's resolution, which costs less than the returns' own spacing blurs, and
once more on one of an eighth, whose answer counts as a very weak return at every pixel: it reaches where no return is
near. A pixel of the image takes its depth from those of its half-resolution neighbours that are as bright as itself
(joint bilateral upsampling: Kopf et al., SIGGRAPH 2007).
About 3 ms on one thread at 640x480.
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
_SIGMA_D = 0.2  # a step of inverse depth that does, of the nearer side's: at half of it KITTI's lost beams suffer
_LIKE = np.float32(0.05)  # difference of grey at which a half-resolution neighbour counts a quarter
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

FloatImage = NDArray[np.float32]


class Evidence:
    """The evidence in images of one shape; keeps its buffers from frame to frame.

    Attributes:
        shape: (H, W) of the images.
        guide: (h, w) grey at half resolution, h = ⌈H / 2⌉.
        sums: (3, h, w) E, E a and E (a² + deviation²), in 1/m and 1/m² where they are no pure numbers.
        surface: (2, h, w) a and b: inverse depth and how much it grows from row to row, 1/m.
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
        self._grey = self.guide  # the picture, once there is one
        self._rough = np.empty_like(self._moments)
        self.surface = np.empty((2, h, w), np.float32)
        self._shares = np.zeros((2, h, w), np.float32)
        coarse = -(-h // _COARSER), -(-w // _COARSER)
        self._coarse_guide = np.empty(coarse, np.float32)
        self._coarse_moments = np.empty((_MOMENTS, *coarse), np.float32)
        self._coarse_surface = _flat_surface(np.empty((2, *coarse), np.float32))
        self._coarse_shares = np.zeros((2, *coarse), np.float32)
        self._wide = np.empty((_MOMENTS, coarse[0], w), np.float32)

    def gather(self, grey: FloatImage, sparse: FloatImage, weights: FloatImage) -> int:
        """Gather the evidence of a frame; returns the number of known pixels. Where that is 0 nothing else is defined.

        Args:
            grey: (H, W) in [0, 1].
            sparse: (H, W) metres; unknown where not between `NEAREST` and `FARTHEST`.
            weights: (H, W) how much each return counts, in [0, 1].
        """
        self._grey = grey
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
        _spread(self._coarse_guide, self._coarse_surface, coarse_sigma, self._coarse_shares, coarse)
        density = 4.0 / self.spacing**2  # returns in a half-resolution pixel
        _add_background(coarse, np.float32(_BACKGROUND * density), self._wide, self._moments)
        ridge = np.float32(_RIDGE * (0.5 * self.spacing) ** 2)
        np.copyto(self._rough, self._moments)
        _spread(self.guide, _flat_surface(self.surface), sigma, self._shares, self._rough, iterations=1)
        _fit_surface(self._rough, ridge, self.surface)
        _spread(self.guide, self.surface, sigma, self._shares, self._moments)
        scale = 1.0 / (density * _flat_gain(sigma))
        _fit_lines(self._moments, np.float32(scale), ridge, self.surface)
        return int(known)

    def write_depth(self, depth: FloatImage) -> None:
        """Write 1 / a, metres, (H, W)."""
        _write_depth(self.sums, self.guide, self._grey, depth)


def _flat_surface(surface: FloatImage) -> FloatImage:
    """A surface without steps, written into `surface` (2, h, w)."""
    surface[0], surface[1] = 1.0, 0.0
    return surface


def _spread(
    guide: FloatImage, surface: FloatImage, sigma: float, shares: FloatImage, moments: FloatImage, iterations: int = 2
) -> None:
    """Filter `moments` (6, h, w) along `guide` and `surface` in place; `shares` (2, h, w) is room for what neighbours
    hand on."""
    difference = np.linspace(0.0, 1.0, _STEPS)
    exponent = -math.sqrt(2.0) / (_FIRST_SIGMA * sigma)
    table = np.exp(exponent * (1.0 + sigma / _SIGMA_R * difference)).astype(np.float32)
    _write_shares(guide, surface, table, shares)
    for iteration in range(iterations):
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
def _write_shares(guide, surface, table, shares):  # type: ignore[no-untyped-def]
    """What each pixel takes over from its left (0) and its upper (1) neighbour."""
    h, w = guide.shape
    scale, half, one = np.float32(len(table) - 1), np.float32(0.5), np.float32(1.0)
    depth_as_grey = np.float32(_SIGMA_R / _SIGMA_D)
    detour = np.empty(w, np.float32)
    for i in range(h):
        grey, value, growth = guide[i], surface[0, i], surface[1, i]
        for j in range(1, w):
            step = abs(value[j] - value[j - 1]) / max(value[j], value[j - 1])
            detour[j] = scale * min(abs(grey[j] - grey[j - 1]) + depth_as_grey * step, one)
        for j in range(1, w):
            shares[0, i, j] = table[np.int32(detour[j])]
        if i == 0:
            continue
        grey_above, value_above, growth_above = guide[i - 1], surface[0, i - 1], surface[1, i - 1]
        for j in range(w):
            expected = half * (growth[j] + growth_above[j])
            step = abs(value[j] - value_above[j] - expected) / max(value[j], value_above[j])
            detour[j] = scale * min(abs(grey[j] - grey_above[j]) + depth_as_grey * step, one)
        for j in range(w):
            shares[1, i, j] = table[np.int32(detour[j])]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _filter(across, down, moments):  # type: ignore[no-untyped-def]
    """There and back along the rows, then along the columns."""
    _, h, w = moments.shape
    for i in range(h):  # all six side by side: their recursions hide each other's latency
        share = across[i]
        k, kv, kvv = moments[0, i], moments[1, i], moments[2, i]
        ky, kyy, kvy = moments[3, i], moments[4, i], moments[5, i]
        p, q, r, s, t, u = k[0], kv[0], kvv[0], ky[0], kyy[0], kvy[0]
        for j in range(1, w):
            a = share[j]
            p, q, r = k[j] + a * p, kv[j] + a * q, kvv[j] + a * r
            s, t, u = ky[j] + a * s, kyy[j] + a * t, kvy[j] + a * u
            k[j], kv[j], kvv[j], ky[j], kyy[j], kvy[j] = p, q, r, s, t, u
        for j in range(w - 2, -1, -1):
            a = share[j + 1]
            p, q, r = k[j] + a * p, kv[j] + a * q, kvv[j] + a * r
            s, t, u = ky[j] + a * s, kyy[j] + a * t, kvy[j] + a * u
            k[j], kv[j], kvv[j], ky[j], kyy[j], kvy[j] = p, q, r, s, t, u
    for moment in range(_MOMENTS):
        sums = moments[moment]
        for i in range(1, h):
            for j in range(w):
                sums[i, j] += down[i, j] * sums[i - 1, j]
        for i in range(h - 2, -1, -1):
            for j in range(w):
                sums[i, j] += down[i + 1, j] * sums[i + 1, j]


@njit(nogil=True, cache=True, error_model="numpy", inline="always", fastmath={"contract"})
def _line(row, ridge, k, kv, kvv, ky, kyy, kvy):  # type: ignore[no-untyped-def]
    """The line through returns of these moments: its value in the row, its slope, and the variance that it leaves."""
    share = np.float32(1.0) / k
    mean, centre = share * kv, share * ky
    variance = max(share * kvv - mean * mean, np.float32(0.0))
    extent = max(share * kyy - centre * centre, np.float32(0.0))
    covariance = share * kvy - mean * centre
    slope = covariance / (extent + ridge)
    slope *= min(slope * covariance / max(variance, np.float32(_ROUNDING) * mean * mean), np.float32(1.0))
    value = mean + slope * (row - centre)
    value = min(max(value, mean / np.float32(_REACH)), mean * np.float32(_REACH))
    residual = max(variance - slope * (covariance + covariance - slope * extent), np.float32(0.0))
    return value, slope, residual


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _fit_surface(moments, ridge, surface):  # type: ignore[no-untyped-def]
    """Write each pixel's line into `surface`: value and slope."""
    _, h, w = moments.shape
    for i in range(h):
        row = np.float32(i - h // 2)
        k, kv, kvv, ky, kyy, kvy = (
            moments[0, i],
            moments[1, i],
            moments[2, i],
            moments[3, i],
            moments[4, i],
            moments[5, i],
        )
        for j in range(w):
            value, slope, _ = _line(row, ridge, k[j], kv[j], kvv[j], ky[j], kyy[j], kvy[j])
            surface[0, i, j] = value
            surface[1, i, j] = slope


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _fit_lines(moments, scale, ridge, surface):  # type: ignore[no-untyped-def]
    """Write each pixel's line into `surface`, and replace the first three moments by its E (times `scale`), E a and
    E (a² + deviation²)."""
    _, h, w = moments.shape
    for i in range(h):
        row = np.float32(i - h // 2)
        k, kv, kvv, ky, kyy, kvy = (
            moments[0, i],
            moments[1, i],
            moments[2, i],
            moments[3, i],
            moments[4, i],
            moments[5, i],
        )
        for j in range(w):
            value, slope, residual = _line(row, ridge, k[j], kv[j], kvv[j], ky[j], kyy[j], kvy[j])
            surface[0, i, j] = value
            surface[1, i, j] = slope
            evidence = scale * k[j]
            k[j] = evidence
            kv[j] = evidence * value
            kvv[j] = evidence * (value * value + residual)


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
def _write_depth(sums, guide, grey, depth):  # type: ignore[no-untyped-def]
    """1 / a, from the four nearest half-resolution pixels: bilinear, times how much they are like the pixel itself."""
    height, width = depth.shape
    h, w = guide.shape
    # Both rows, with a pixel more at either end; E and E a with their share along the column.
    light, evidence, first = (
        np.empty((2, w + 2), np.float32),
        np.empty((2, w + 2), np.float32),
        np.empty((2, w + 2), np.float32),
    )
    for row in range(height):
        rows = row // 2, min(max(row // 2 + (1 if row % 2 else -1), 0), h - 1)
        for k in range(2):
            share = np.float32(0.25 if k else 0.75)
            for j in range(w):
                light[k, j + 1] = guide[rows[k], j]
                evidence[k, j + 1] = share * sums[0, rows[k], j]
                first[k, j + 1] = share * sums[1, rows[k], j]
            for end, j in ((0, 1), (w + 1, w)):
                light[k, end], evidence[k, end], first[k, end] = light[k, j], evidence[k, j], first[k, j]
        for j in range(w):
            depth[row, 2 * j] = _blend(grey[row, 2 * j], light, evidence, first, j + 1, j)
        for j in range(width // 2):
            depth[row, 2 * j + 1] = _blend(grey[row, 2 * j + 1], light, evidence, first, j + 1, j + 2)


@njit(nogil=True, cache=True, error_model="numpy", inline="always", fastmath={"contract"})
def _blend(grey, light, evidence, first, near, far):  # type: ignore[no-untyped-def]
    """Depth of a pixel of this grey from the columns near and far of two rows."""
    a, b = np.float32(0.75) * _likeness(light[0, near] - grey), np.float32(0.25) * _likeness(light[0, far] - grey)
    c, d = np.float32(0.75) * _likeness(light[1, near] - grey), np.float32(0.25) * _likeness(light[1, far] - grey)
    weight = a * evidence[0, near] + b * evidence[0, far] + c * evidence[1, near] + d * evidence[1, far]
    return weight / (a * first[0, near] + b * first[0, far] + c * first[1, near] + d * first[1, far])


@njit(nogil=True, cache=True, error_model="numpy", inline="always", fastmath={"contract"})
def _likeness(difference):  # type: ignore[no-untyped-def]
    """How much a neighbour of another grey counts (the weight of Geman and McClure)."""
    x = difference * (np.float32(1.0) / _LIKE)
    like = np.float32(1.0) / (np.float32(1.0) + x * x)
    return like * like
