"""The PSF layer compiled for the CPU: the sums of `reference.py`, in float32, a row at a time.

Both directions and both places of the CoC are made of two primitives, transposes of each other: *gather*, where the
CoC at the centre weighs its neighbours, and *spread*, where the CoC at the centre weighs what it gives them.

                    picture                  gradient to image         gradient to CoC
    source          spread the picture       gather the gradient       gather the gradient
    destination     gather the picture       spread the gradient       gather the picture

A *picture* row holds the planes (I_1 ... I_C, 1), 0 where a pixel lends no light; a *gradient* row (G_1 ... G_C,
−Σ G_c out_c) with G = ∂/∂out over the weight sum, 0 where a pixel is not blurred. The gradient to a CoC is the sum
over planes of one's own times the other's gathered with the slope of the weights.

Weights depend on the distances along x and y only, so (r + 1)² of them serve the whole window: to gather, the rows v
above and v below are added first, then the columns u left and u right; to spread, a row of sums serves both rows. The
centre column counts twice in this way, so its weights are halved. The common factor of all weights of a CoC (one over
the PSF's area) is left out of the sums.

Rows are worked on in tiles of bounded length, so that all buffers stay in the first two caches and lie at distances
known at compile time: where a loop writes to one and reads from others, the compiler sees that they do not overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product

import numpy as np
import torch
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from dfd_ros.optics.kernels.settings import LARGEST_WINDOW, PsfSettings

Tensor = torch.Tensor
Rectangle = tuple[int, int, int, int]  # top, bottom, left, right

_ROWS_PER_JOB = 64  # fewer are not worth a thread
_TILE = 640  # the most columns worked on together
_MARGIN = LARGEST_WINDOW // 2 + 1  # zeros left and right of a row; also the most columns of taps
_SPAN = _TILE + 2 * _MARGIN  # length of a buffer's row
_SLOPES = _MARGIN * _SPAN  # where slopes begin in the buffer of weights
_BLOCK = 4  # columns of taps to either side that are summed in one go

# 2^x on [-1/2, 1/2], to 2e-8.
_EXP2 = tuple(
    np.float32(c) for c in Chebyshev.interpolate(np.exp2, 6, domain=[-0.5, 0.5]).convert(kind=Polynomial).coef
)
_FAINTEST = np.float32(40.0)  # weights below 2^-40 of the centre's are 0: their products would be slow denormals
_GAUSSIAN_REACH = np.float32(np.sqrt(2.0 * np.log(2.0) * 40.0))  # where they are, in standard deviations
_EXPONENT_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)  # of a float32
_HALF_LOG2_E = np.float32(0.5 * np.log2(np.e))
_ZERO, _HALF, _ONE, _TWO = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(2.0)
_RIM_AREA = np.float32(1.0 / 3.0)  # what the ramp along a disk's rim adds to C² (areas in units of π/4)
_NAN = np.float32(np.nan)

# Sums may be reordered and fused, but NaN keeps its meaning.
_compiled = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")


def forward(
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    settings: PsfSettings,
) -> tuple[Tensor, Tensor]:  # (N, C, H, W), (N, 1, H, W) float32
    """Blur `image` by `coc`; also give the sum of weights, 0 where a pixel is passed through or NaN."""
    picture, diameter = _array(image), _array(coc[:, 0])
    out, weight_sum = np.empty_like(picture), np.empty_like(diameter)
    psf = _psf(settings)
    blur = _spread_picture if settings.coc_at == "source" else _gather_picture

    def work(n: int, part: Rectangle) -> None:
        blur(part, *psf, picture[n], diameter[n], out[n], weight_sum[n])

    _share(work, diameter.shape)
    return torch.from_numpy(out).to(image.dtype), torch.from_numpy(weight_sum)[:, None]


def backward(
    grad: Tensor,  # (N, C, H, W)
    image: Tensor,  # (N, C, H, W)
    coc: Tensor,  # (N, 1, H, W)
    out: Tensor,  # (N, C, H, W)
    weight_sum: Tensor,  # (N, 1, H, W)
    settings: PsfSettings,
) -> tuple[Tensor, Tensor]:  # (N, C, H, W), (N, 1, H, W)
    """The gradients to image and CoC, from that to `out` and from what `forward` gave."""
    given = [_array(tensor) for tensor in (grad, image, coc[:, 0], out, weight_sum[:, 0])]
    grad_image, grad_coc = np.empty_like(given[1]), np.empty_like(given[2])
    psf = _psf(settings)
    at_source = settings.coc_at == "source"

    def work(n: int, part: Rectangle) -> None:
        inputs = [array[n] for array in given]
        _gather_gradient(part, *psf, at_source, *inputs, grad_image[n], grad_coc[n])
        if not at_source:
            _spread_gradient(part, *psf, *inputs, grad_image[n])

    _share(work, given[2].shape)
    return torch.from_numpy(grad_image).to(image.dtype), torch.from_numpy(grad_coc)[:, None].to(coc.dtype)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def _psf(settings: PsfSettings) -> tuple[int, bool, np.float32]:
    """What the compiled functions know of the settings: radius, whether a disk, spread."""
    return settings.radius, settings.kind == "disk", np.float32(settings.spread)


def _share(work: Callable[[int, Rectangle], None], shape: tuple[int, ...]) -> None:
    """Cut images (N, H, W) into rectangles and share them among torch's number of threads."""
    images, height, width = shape
    threads = torch.get_num_threads()
    row_parts = max(1, min(-(-threads // images), height // _ROWS_PER_JOB))
    column_parts = -(-width // _TILE)
    rows = pairwise(height * i // row_parts for i in range(row_parts + 1))
    columns = pairwise(width * i // column_parts for i in range(column_parts + 1))
    jobs = [(n, (*row, *column)) for n, row, column in product(range(images), rows, columns)]
    if threads == 1 or len(jobs) == 1:
        for job in jobs:
            work(*job)
        return
    with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
        for done in [pool.submit(work, *job) for job in jobs]:
            done.result()


# A rectangle of one image, _TILE columns at most. Arrays are whole: image, out, grad, grad_image (C, H, W), others (H, W).


@_compiled
def _spread_picture(part, radius, disk, spread, image, coc, out, weight_sum):  # type: ignore[no-untyped-def]
    """The picture, the CoC taken at the source."""
    top, bottom, left, right = part
    channels, height, _ = image.shape
    light, ring, unused = _planes(channels + 1), _ring(radius, channels + 1), _planes(channels + 1)
    diameter, density, powers, weights = _weight_buffers()
    span = right - left
    for y in range(top - radius, bottom + radius):
        if 0 <= y < height:
            _read_picture(image, coc, y, left, right, True, light)
            _measure(coc, y, left, right, radius, disk, diameter, density)
            _scale(light, density)
            _spread_row(light, diameter, y, span, radius, disk, spread, powers, weights, unused, ring)
        done = y - radius
        total = ring[done % len(ring)]
        if done >= top:
            for plane in range(channels):
                _normalise(total[plane], total[channels], image[plane], coc, done, left, right, out[plane])
            for x in range(span):
                blurred = coc[done, left + x] > _ONE
                weight_sum[done, left + x] = total[channels, x] if blurred else _ZERO
        total[:] = _ZERO


@_compiled
def _gather_picture(part, radius, disk, spread, image, coc, out, weight_sum):  # type: ignore[no-untyped-def]
    """The picture, the CoC taken at the destination."""
    top, bottom, left, right = part
    channels = len(image)
    ring, total, line = _ring(radius, channels + 1), _planes(channels + 1), np.empty(_SPAN, np.float32)
    diameter, density, powers, weights = _weight_buffers()
    span = right - left
    for newest in range(top - radius, bottom + radius):
        _read_picture(image, coc, newest, left, right, False, ring[newest % len(ring)])
        y = newest - radius
        if y < top:
            continue
        _measure(coc, y, left, right, radius, disk, diameter, density)
        reach = _begin_weights(diameter[_MARGIN:], span, radius, disk, spread, powers)
        total[:] = _ZERO
        for v in range(reach + 1):
            taps = _weigh(powers, span, v, reach, disk, weights)
            for plane in range(channels + 1):
                _fold(ring, plane, y, v, span, line)
                _gather_taps(line, weights, taps, span, total[plane])
        for plane in range(channels):
            _normalise(total[plane], total[channels], image[plane], coc, y, left, right, out[plane])
        for x in range(span):
            blurred = coc[y, left + x] > _ONE
            weight_sum[y, left + x] = total[channels, x] * density[_MARGIN + x] if blurred else _ZERO


@_compiled
def _gather_gradient(  # type: ignore[no-untyped-def]
    part, radius, disk, spread, at_source, grad, image, coc, out, weight_sum, grad_image, grad_coc
):
    """The gradient to the CoC and, where it is taken at the source, that to the image."""
    top, bottom, left, right = part
    channels = len(image)
    ring, own = _ring(radius, channels + 1), _planes(channels + 1)
    sums, line = np.empty(2 * (channels + 1) * _SPAN, np.float32), np.empty(_SPAN, np.float32)
    diameter, density, powers, weights = _weight_buffers()
    span = right - left
    for newest in range(top - radius, bottom + radius):
        y = newest - radius
        if at_source:
            _read_gradient(grad, out, weight_sum, newest, left, right, ring[newest % len(ring)])
            _read_picture(image, coc, y, left, right, True, own)
        else:
            _read_picture(image, coc, newest, left, right, False, ring[newest % len(ring)])
            _read_gradient(grad, out, weight_sum, y, left, right, own)
        if y < top:
            continue
        _measure(coc, y, left, right, radius, disk, diameter, density)
        reach = _begin_weights(diameter[_MARGIN:], span, radius, disk, spread, powers)
        sums[:] = _ZERO
        for v in range(reach + 1):
            taps = _weigh(powers, span, v, reach, disk, weights)
            _incline(weights, span, v, taps, disk)
            for plane in range(channels + 1):
                total = sums[2 * plane * _SPAN :]
                _fold(ring, plane, y, v, span, line)
                if at_source:
                    _gather_slopes(line, weights, taps, span, total)
                else:
                    _gather_taps(line, weights[_SLOPES:], taps, span, total[_SPAN:])
        if at_source:
            for plane in range(channels):
                total = sums[2 * plane * _SPAN :]
                _pass_gradient(total, density, coc, grad[plane], y, left, right, grad_image[plane])
        _differentiate(sums, own, diameter, density, coc, y, left, right, radius, disk, spread, grad_coc)


@_compiled
def _spread_gradient(  # type: ignore[no-untyped-def]
    part, radius, disk, spread, grad, image, coc, out, weight_sum, grad_image
):
    """The gradient to the image, the CoC taken at the destination."""
    top, bottom, left, right = part
    channels, height, _ = image.shape
    light, ring, unused = _planes(channels + 1), _ring(radius, channels + 1), _planes(channels + 1)
    diameter, density, powers, weights = _weight_buffers()
    span = right - left
    for y in range(top - radius, bottom + radius):
        if 0 <= y < height:
            _read_gradient(grad, out, weight_sum, y, left, right, light)
            _measure(coc, y, left, right, radius, disk, diameter, density)
            _scale(light, density)
            _spread_row(light, diameter, y, span, radius, disk, spread, powers, weights, unused, ring)
        done = y - radius
        total = ring[done % len(ring)]
        if done >= top:
            for plane in range(channels):
                for x in range(span):
                    c = coc[done, left + x]
                    passed = grad[plane, done, left + x] if c <= _ONE else _ZERO
                    grad_image[plane, done, left + x] = total[plane, x] + passed if c == c else _ZERO
        total[:] = _ZERO


# Buffers. Rows of planes start at column left - _MARGIN, sums at column left.


@_compiled
def _planes(count):  # type: ignore[no-untyped-def]
    """Rows, one a plane, zero; an even number of them."""
    return np.zeros((count + count % 2, _SPAN), np.float32)


@_compiled
def _ring(radius, count):  # type: ignore[no-untyped-def]
    """The planes of as many rows as the window has; that of row y is number y modulo their number."""
    return np.zeros((2 * radius + 1, count + count % 2, _SPAN), np.float32)


@_compiled
def _weight_buffers():  # type: ignore[no-untyped-def]
    """A row's diameters and densities, what its weights are made of, its weights for some v, followed by their slopes.

    The last two are rows of _SPAN in one piece, one row for each u, and one to spare.
    """
    powers, weights = np.zeros(_SLOPES + _SPAN, np.float32), np.zeros(2 * _SLOPES, np.float32)
    return np.ones(_SPAN, np.float32), np.ones(_SPAN, np.float32), powers, weights


@_compiled
def _inside(left, right, width):  # type: ignore[no-untyped-def]
    """The columns of the image that a row with margins shows, and the first one's place in that row."""
    first = max(left - _MARGIN, 0)
    return first, min(right + _MARGIN, width), first - left + _MARGIN


@_compiled
def _measure(coc, y, left, right, radius, disk, diameter, density):  # type: ignore[no-untyped-def]
    """The diameters that count, 1 where nothing is blurred, and the factors of their weights, one over the PSF's area."""
    first, last, place = _inside(left, right, coc.shape[1])
    largest, rim = np.float32(2 * radius + 1), _RIM_AREA if disk else _ZERO
    given, counted, inverse = coc[y, first:last], diameter[place:], density[place:]
    for x in range(len(given)):
        c = min(given[x], largest) if given[x] > _ONE else _ONE
        counted[x] = c
        inverse[x] = _ONE / (c * c + rim)


@_compiled
def _read_picture(image, coc, y, left, right, at_source, row):  # type: ignore[no-untyped-def]
    """The picture's row y: (I_1 ... I_C, 1), 0 where a pixel lends no light."""
    channels, height, width = image.shape
    if not 0 <= y < height:
        row[:] = _ZERO
        return
    first, last, place = _inside(left, right, width)
    c, lent = coc[y, first:last], row[channels, place:]
    for x in range(len(c)):
        lends = c[x] > _ONE if at_source else c[x] == c[x]
        lent[x] = _ONE if lends else _ZERO
    for plane in range(channels):
        line, target = image[plane, y, first:last], row[plane, place:]
        for x in range(len(line)):
            target[x] = line[x] if lent[x] > _ZERO else _ZERO


@_compiled
def _read_gradient(grad, out, weight_sum, y, left, right, row):  # type: ignore[no-untyped-def]
    """The gradient's row y: (G_1 ... G_C, −Σ G_c out_c), 0 where a pixel is not blurred."""
    channels, height, width = grad.shape
    if not 0 <= y < height:
        row[:] = _ZERO
        return
    first, last, place = _inside(left, right, width)
    weight, mean = weight_sum[y, first:last], row[channels, place:]
    row[channels] = _ZERO
    for plane in range(channels):
        line, picture, target = grad[plane, y, first:last], out[plane, y, first:last], row[plane, place:]
        for x in range(len(weight)):
            target[x] = line[x] / weight[x] if weight[x] > _ZERO else _ZERO
        for x in range(len(weight)):
            mean[x] -= target[x] * picture[x] if weight[x] > _ZERO else _ZERO


@_compiled
def _scale(row, density):  # type: ignore[no-untyped-def]
    for plane in range(len(row)):
        line = row[plane]
        for x in range(_SPAN):
            line[x] *= density[x]


# Weights. Row u of their buffers, _SPAN long, is for taps u columns away.


@_compiled
def _begin_weights(diameter, span, radius, disk, spread, powers):  # type: ignore[no-untyped-def]
    """What the weights are made of; returns how far (rows or columns) the widest PSF reaches.

    Gaussian: exp(−u² / (2 (spread C)²)) for each u, whose products are the weights. Disk: C/2 + 1/2, to the ramp's end.
    """
    widest = _largest(diameter[:span])
    if disk:
        for x in range(span):
            powers[x] = _HALF * diameter[x] + _HALF
        return min(radius, int(np.ceil(_HALF * widest + _HALF)) - 1)
    reach = min(radius, int(_GAUSSIAN_REACH * spread * widest))
    unit = powers[_SLOPES:]  # the exponent for u = 1
    for x in range(span):
        powers[x] = _ONE
        deviation = spread * diameter[x]
        unit[x] = _HALF_LOG2_E / (deviation * deviation)
    for u in range(1, reach + 1):
        row, square = powers[u * _SPAN :], np.float32(u * u)
        for x in range(span):
            exponent = square * unit[x]
            bounded = min(exponent, _FAINTEST)
            whole = np.floor(_HALF - bounded)
            rest = -bounded - whole
            power = _EXP2[6]
            power = power * rest + _EXP2[5]
            power = power * rest + _EXP2[4]
            power = power * rest + _EXP2[3]
            power = power * rest + _EXP2[2]
            power = power * rest + _EXP2[1]
            power = power * rest + _EXP2[0]
            scale = np.int32((np.int32(whole) + _EXPONENT_BIAS) << _MANTISSA_BITS).view(np.float32)
            row[x] = power * scale if exponent < _FAINTEST else _ZERO
    return reach


@_compiled
def _largest(values):  # type: ignore[no-untyped-def]
    """The largest of positive numbers, which are in the order of their bits: those the compiler can take by vectors."""
    bits = values.view(np.int32)
    largest = bits[0]
    for x in range(len(bits)):
        largest = max(largest, bits[x])
    return np.int32(largest).view(np.float32)


@_compiled
def _weigh(powers, span, v, reach, disk, weights):  # type: ignore[no-untyped-def]
    """The weights of the taps v rows away, but for the area; returns of how many columns, a multiple of _BLOCK.

    The sums take a column left and right of the centre at once, so the weight of the centre is halved.
    """
    taps = reach + 1
    if disk:
        while taps > 1 and (taps - 1) ** 2 + v * v >= (reach + 1) ** 2:
            taps -= 1
    for u in range(taps):
        row, share = weights[u * _SPAN :], _HALF if u == 0 else _ONE
        if disk:
            distance = np.float32(np.sqrt(u * u + v * v))
            for x in range(span):
                row[x] = share * min(max(powers[x] - distance, _ZERO), _ONE)
        else:
            along, across = powers[u * _SPAN :], powers[v * _SPAN :]
            for x in range(span):
                row[x] = share * along[x] * across[x]
    while taps % _BLOCK:
        weights[taps * _SPAN : taps * _SPAN + span] = _ZERO
        taps += 1
    return taps


@_compiled
def _incline(weights, span, v, taps, disk):  # type: ignore[no-untyped-def]
    """The slopes of the weights over C, but for a factor: 1/2 for a disk, 1 / (spread² C³) for a Gaussian."""
    for u in range(taps):
        row, slope, share = weights[u * _SPAN :], weights[_SLOPES + u * _SPAN :], _HALF if u == 0 else _ONE
        square = np.float32(u * u + v * v)
        if disk:
            for x in range(span):
                slope[x] = share if _ZERO < row[x] < share else _ZERO
        else:
            for x in range(span):
                slope[x] = square * row[x]


# Sums.


@_compiled
def _fold(ring, plane, y, v, span, line):  # type: ignore[no-untyped-def]
    """Add up the rows v above and v below, with their margins."""
    above, below = ring[(y - v) % len(ring), plane], ring[(y + v) % len(ring), plane]
    if v == 0:
        for x in range(span + 2 * _MARGIN):
            line[x] = above[x]
    else:
        for x in range(span + 2 * _MARGIN):
            line[x] = above[x] + below[x]


@_compiled
def _gather_taps(line, weights, taps, span, total):  # type: ignore[no-untyped-def]
    """Add to total Σ_u weight_u (line_{x-u} + line_{x+u})."""
    for u in range(0, taps, _BLOCK):
        weight, left, right = weights[u * _SPAN :], line[_MARGIN - u - _BLOCK + 1 :], line[_MARGIN + u :]
        for x in range(span):
            added = _ZERO
            for k in range(_BLOCK):
                added += weight[x + k * _SPAN] * (left[x + _BLOCK - 1 - k] + right[x + k])
            total[x] += added


@_compiled
def _gather_slopes(line, weights, taps, span, total):  # type: ignore[no-untyped-def]
    """The same, and in the row after it Σ_u slope_u (line_{x-u} + line_{x+u})."""
    for u in range(0, taps, _BLOCK):
        weight, left, right = weights[u * _SPAN :], line[_MARGIN - u - _BLOCK + 1 :], line[_MARGIN + u :]
        for x in range(span):
            added, inclined = _ZERO, _ZERO
            for k in range(_BLOCK):
                pair = left[x + _BLOCK - 1 - k] + right[x + k]
                added += weight[x + k * _SPAN] * pair
                inclined += weight[x + k * _SPAN + _SLOPES] * pair
            total[x] += added
            total[x + _SPAN] += inclined


@_compiled
def _spread_row(  # type: ignore[no-untyped-def]
    light, diameter, y, span, radius, disk, spread, powers, weights, unused, ring
):
    """Add to the rows of the ring what row y lends them."""
    padded = span + 2 * _MARGIN
    reach = _begin_weights(diameter, padded, radius, disk, spread, powers)
    for v in range(reach + 1):
        taps = _weigh(powers, padded, v, reach, disk, weights)
        above, below = ring[(y - v) % len(ring)], ring[(y + v) % len(ring)] if v > 0 else unused
        for plane in range(0, len(light), 2):
            pair, to_above, to_below = light[plane:].ravel(), above[plane:].ravel(), below[plane:].ravel()
            for u in range(0, taps, _BLOCK):
                _spread_taps(pair, weights[u * _SPAN :], u, span, to_above, to_below)


@_compiled
def _spread_taps(light, weights, u, span, above, below):  # type: ignore[no-untyped-def]
    """Add Σ_u weight_{x-u} light_{x-u} + weight_{x+u} light_{x+u} to two rows.

    It does so for two planes, one after the other in memory: to read the weights takes as long as to read the light.
    """
    start, end = _MARGIN - u - _BLOCK + 1, _MARGIN + u
    left, right, w, z = light[start:], light[end:], weights[start:], weights[end:]
    for x in range(span):
        w0, w1, w2, w3 = w[x + 3], w[x + _SPAN + 2], w[x + 2 * _SPAN + 1], w[x + 3 * _SPAN]
        z0, z1, z2, z3 = z[x], z[x + _SPAN + 1], z[x + 2 * _SPAN + 2], z[x + 3 * _SPAN + 3]
        near = w0 * left[x + 3] + z0 * right[x] + w1 * left[x + 2] + z1 * right[x + 1]
        far = w2 * left[x + 1] + z2 * right[x + 2] + w3 * left[x] + z3 * right[x + 3]
        above[x] += near + far
        below[x] += near + far
        o = x + _SPAN
        near = w0 * left[o + 3] + z0 * right[o] + w1 * left[o + 2] + z1 * right[o + 1]
        far = w2 * left[o + 1] + z2 * right[o + 2] + w3 * left[o] + z3 * right[o + 3]
        above[o] += near + far
        below[o] += near + far


# Ends of the sums.


@_compiled
def _normalise(total, weight_sum, image, coc, y, left, right, out):  # type: ignore[no-untyped-def]
    """Divide a row by its weights; what is in focus stays as it is, and NaN too."""
    sharp, c, target = image[y, left:right], coc[y, left:right], out[y, left:right]
    for x in range(len(target)):
        kept = sharp[x] if c[x] <= _ONE else _NAN
        target[x] = total[x] / weight_sum[x] if c[x] > _ONE else kept


@_compiled
def _pass_gradient(total, density, coc, grad, y, left, right, grad_image):  # type: ignore[no-untyped-def]
    """A row of the gradient to the image, the CoC taken at the source."""
    given, c, target, inner = grad[y, left:right], coc[y, left:right], grad_image[y, left:right], density[_MARGIN:]
    for x in range(len(target)):
        kept = given[x] if c[x] <= _ONE else _ZERO
        target[x] = total[x] * inner[x] if c[x] > _ONE else kept


@_compiled
def _differentiate(  # type: ignore[no-untyped-def]
    sums, own, diameter, density, coc, y, left, right, radius, disk, spread, grad_coc
):
    """A row of the gradient to the CoC: with weights w = k / a, a the PSF's area, the sum of w' = (k' − k a'/a) / a.

    Where the CoC is taken at the destination, a cancels: the sums of k are 0, and those of k' are left.
    """
    given, target = coc[y, left:right], grad_coc[y, left:right]
    c, inner, largest = diameter[_MARGIN:], density[_MARGIN:], np.float32(2 * radius + 1)
    slope = np.zeros(len(target), np.float32)
    target[:] = _ZERO
    for plane in range(len(sums) // (2 * _SPAN)):
        mine, total = own[plane, _MARGIN:], sums[2 * plane * _SPAN :]
        for x in range(len(target)):
            target[x] += mine[x] * total[x]
        for x in range(len(target)):
            slope[x] += mine[x] * total[x + _SPAN]
    for x in range(len(target)):
        rate = _HALF if disk else _ONE / (spread * spread * c[x] * c[x] * c[x])
        change = (rate * slope[x] - _TWO * c[x] * inner[x] * target[x]) * inner[x]
        target[x] = change if _ONE < given[x] <= largest else _ZERO
