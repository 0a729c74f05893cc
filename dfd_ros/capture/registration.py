"""Bringing a shallow and a deep image of one scene to the same brightness and the same pixels.

Depth from defocus compares the two images pixel by pixel, so their gain has to agree to about 2 % and their position to
a quarter of a pixel. `measure_gain` compares local means, which neither blur nor a few pixels of motion changes.
`register_pair` measures a similarity motion: a coarse shift by phase correlation (Kuglin & Hines, 1975) of the whole
image, then the phase slope of small tiles (Stone et al., IEEE TGRS 39(10), 2001) and a robust fit over the tiles. The
PSFs of both apertures are symmetric: their transfer functions are real, so defocus leaves the phase, and with it the
measured motion, alone. `warp` resamples one image onto the other.

Images are (H, W) float32 in linear light with white at 1, unless said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dfd_ros.errors import InputError

Image = NDArray[np.float32]
Complex = NDArray[np.complex64]

SATURATION = 0.95
"""Linear-light value from which a pixel counts as clipped."""
DARKNESS = 0.01
"""Linear-light value below which a local mean is mostly offset and noise."""
GAIN_CELL = 16
"""Side of the cells whose means give the gain, pixels: wider than any CoC."""

TILE = 128
"""Side of the tiles whose shifts are measured, pixels."""
BAND = (0.015, 0.1)
"""Frequencies used, cycles per pixel: above lighting and vignetting, below where the shallow image has lost contrast."""
BAND_LIMIT = 0.25
"""Spectra of tiles are cut off here, cycles per pixel."""
COARSE_SCALE = 2
"""The coarse search runs on images reduced by this factor."""
MIN_COHERENCE = 0.25
"""Tiles whose spectra agree in phase less than this (0 random, 1 perfect) are left out of the fit."""
MIN_CONTRAST = 2e-3
"""Tiles with less standard deviation than this fraction of white show nothing but noise."""
RESIDUAL_SCALE = 0.3
"""Tile residual, pixels, at which the robust fit starts to doubt a tile (parallax, moving objects)."""

_UNMOVED = 1e6


@dataclass(frozen=True)
class Motion:
    """A similarity about the image centre: the shallow image shows at `centre + s·R(rotation)·(x − centre) + (dx, dy)`
    what the deep image shows at x.

    Attributes:
        dx, dy: Shift at the image centre, pixels.
        scale: Magnification, shallow over deep.
        rotation: Radians, positive turns x towards y (clockwise as seen, y pointing down).
        residual: Median distance between the tiles' shifts and this motion, pixels; inf where nothing was measured.
        quality: In [0, 1]: the mean phase coherence of the tiles that agree, times their share of all tiles. Low where
            the scene is flat or the images differ; below about 0.1 the motion should not be relied on.
    """

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    rotation: float = 0.0
    residual: float = math.inf
    quality: float = 0.0

    def matrix(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """The 2x3 matrix that maps pixels (x, y) of the deep image of `shape` (H, W) to the shallow image."""
        centre = 0.5 * np.array([shape[1] - 1.0, shape[0] - 1.0])
        linear = self.linear()
        return np.column_stack([linear, centre - linear @ centre + (self.dx, self.dy)])

    def linear(self) -> NDArray[np.float64]:
        """s·R(rotation), 2x2."""
        cosine, sine = self.scale * math.cos(self.rotation), self.scale * math.sin(self.rotation)
        return np.array([[cosine, -sine], [sine, cosine]])

    def largest_shift(self, shape: tuple[int, int]) -> float:
        """The largest displacement of any pixel of an image of `shape` (H, W), pixels."""
        corners = np.array([[x, y, 1.0] for x in (0, shape[1] - 1) for y in (0, shape[0] - 1)])
        return float(np.linalg.norm(corners @ self.matrix(shape).T - corners[:, :2], axis=1).max())


def measure_gain(shallow: Image, deep: Image) -> float:
    """The factor that brings the shallow image to the brightness of the deep one.

    The median ratio of the means of cells that are neither clipped nor dark in either image: good to 2 % while half of
    the picture is so.

    Raises:
        InputError: The images differ in size, or no cell is usable.
    """
    _check_pair(shallow, deep)
    usable = (np.maximum(shallow, deep) < SATURATION).astype(np.float32)
    size = (max(1, shallow.shape[1] // GAIN_CELL), max(1, shallow.shape[0] // GAIN_CELL))
    share = cv2.resize(usable, size, interpolation=cv2.INTER_AREA)
    bright = cv2.resize(shallow, size, interpolation=cv2.INTER_AREA)
    dark = cv2.resize(deep, size, interpolation=cv2.INTER_AREA)
    # A cell with clipped pixels is left out whole: masking pixels would pick different parts of a blurred highlight.
    good = (share > 1.0 - 1e-4) & (np.minimum(bright, dark) > DARKNESS)
    if not good.any():
        raise InputError("gain: expected image parts neither clipped nor black in both images, got none")
    return float(np.exp(np.median(np.log(dark[good] / bright[good]))))


def register_pair(shallow: Image, deep: Image, scale: float | None = None) -> Motion:
    """Measure the motion between the two images of a pair; the brightness need not agree.

    With `scale` given that is the motion's, and shift and rotation alone are measured.

    Good to better than a quarter pixel on textured scenes whatever the defocus, and for shifts up to a quarter of the
    image's smaller side, rotations up to 1.5 degrees and scales within 3 %. A scene with nothing to hold on to gives
    the identity with quality 0.

    Raises:
        InputError: The images differ in size, or are smaller than one tile.
    """
    _check_pair(shallow, deep)
    height, width = deep.shape
    if min(height, width) < TILE:
        raise InputError(f"registration: expected images of at least {TILE}x{TILE} pixels, got {width}x{height}")
    x_shift, y_shift = _coarse_shift(shallow, deep)
    # Pictures hardly larger than a tile leave less than one in common where the coarse shift is large.
    x_shift = min(max(x_shift, TILE - width), width - TILE)
    y_shift = min(max(y_shift, TILE - height), height - TILE)
    centres, shifts, coherence = _tile_shifts(shallow, deep, x_shift, y_shift)
    return _fit_similarity(centres, shifts, coherence, deep.shape, scale)


def warp(image: NDArray[Any], motion: Motion, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Resample the shallow `image` (H, W) or (H, W, C) onto the deep image's pixels; borders repeat.

    `out`, of the same shape and dtype, is written to and returned where given.
    """
    height, width = image.shape[:2]
    matrix = motion.matrix((height, width))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _check_pair(shallow: Image, deep: Image) -> None:
    if shallow.shape != deep.shape or shallow.ndim != 2:
        raise InputError(f"pair: expected two grey images of one size, got {shallow.shape} and {deep.shape}")
    if shallow.dtype != np.float32 or deep.dtype != np.float32:
        raise InputError(f"pair: expected float32 images in linear light, got {shallow.dtype} and {deep.dtype}")


@lru_cache(maxsize=8)
def _band_weight(height: int, width: int, low: float, high: float) -> Image:
    """Smooth weight of the band over the frequencies of a real transform, (H, W//2+1)."""
    fy = scipy.fft.fftfreq(height)[:, None]
    fx = scipy.fft.rfftfreq(width)[None]
    radius_sq = fx**2 + fy**2
    return (np.exp(-radius_sq / (2 * high**2)) * -np.expm1(-radius_sq / (2 * low**2))).astype(np.float32)


@lru_cache(maxsize=1)
def _tile_band() -> tuple[NDArray[np.intp], Image, Image, Image]:
    """Of a tile's spectrum: the rows below BAND_LIMIT, their fy, the fx below it, and the band's weight there."""
    fy, fx = scipy.fft.fftfreq(TILE), scipy.fft.rfftfreq(TILE)
    rows, columns = np.flatnonzero(np.abs(fy) < BAND_LIMIT), int(BAND_LIMIT * TILE)
    weight = _band_weight(TILE, TILE, *BAND)[rows][:, :columns]
    return rows, fy[rows].astype(np.float32)[:, None], fx[:columns].astype(np.float32)[None], weight


@lru_cache(maxsize=8)
def _window(height: int, width: int) -> Image:
    return cv2.createHanningWindow((width, height), cv2.CV_32F)


def _coarse_shift(shallow: Image, deep: Image) -> tuple[int, int]:
    """Whole-pixel shift (x, y) of the shallow image against the deep one."""
    size = (deep.shape[1] // COARSE_SCALE, deep.shape[0] // COARSE_SCALE)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (shallow, deep)]
    window = _window(size[1], size[0])
    spectra = [scipy.fft.rfft2((image - image.mean()) * window) for image in small]
    weight = _band_weight(size[1], size[0], COARSE_SCALE * BAND[0], COARSE_SCALE * BAND[1])
    cross = spectra[0] * spectra[1].conj()
    cross *= weight / (np.abs(cross) + np.float32(1e-12))
    correlation = scipy.fft.irfft2(cross, s=(size[1], size[0]))
    reach_y, reach_x = size[1] // 4, size[0] // 4
    correlation[reach_y + 1 : size[1] - reach_y] = -np.inf
    correlation[:, reach_x + 1 : size[0] - reach_x] = -np.inf
    y, x = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    y, x = (int(y) + reach_y) % size[1] - reach_y, (int(x) + reach_x) % size[0] - reach_x
    return COARSE_SCALE * x, COARSE_SCALE * y


def _tile_shifts(
    shallow: Image, deep: Image, x_shift: int, y_shift: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 2) in the deep image, shifts (n, 2) as (x, y) and phase coherence (n,) of all tiles."""
    height, width = deep.shape
    # Tiles spread evenly over the part that both images show, overlapping a little.
    top, left = max(0, -y_shift), max(0, -x_shift)
    bottom, right = min(height, height - y_shift) - TILE, min(width, width - x_shift) - TILE
    rows = np.unique(np.linspace(top, bottom, 1 + math.ceil((bottom - top) / TILE)).astype(int))
    columns = np.unique(np.linspace(left, right, 1 + math.ceil((right - left) / TILE)).astype(int))
    corners = [(y, x) for y in rows for x in columns]
    window = _window(TILE, TILE)
    deep_tiles = np.stack([deep[y : y + TILE, x : x + TILE] for y, x in corners])
    shallow_tiles = np.stack(
        [shallow[y + y_shift : y + y_shift + TILE, x + x_shift : x + x_shift + TILE] for y, x in corners]
    )
    for tiles in (deep_tiles, shallow_tiles):
        tiles -= tiles.mean(axis=(1, 2), keepdims=True)
    contrast = np.minimum(deep_tiles.std(axis=(1, 2)), shallow_tiles.std(axis=(1, 2)))
    rows_used, fy, fx, weight = _tile_band()
    # Transforming along x first, most of the second transform can be left out.
    spectra = []
    for tiles in (shallow_tiles, deep_tiles):
        tiles *= window
        along_x = scipy.fft.rfft(tiles, axis=2)[:, :, : fx.shape[1]]
        spectra.append(scipy.fft.fft(along_x, axis=1)[:, rows_used])
    cross: Complex = spectra[0] * spectra[1].conj()
    # Amplitude to the half: between phase correlation (trusts noise) and cross correlation (trusts one strong edge).
    cross *= weight / np.sqrt(np.abs(cross) + np.float32(1e-12))
    strength = np.abs(cross)
    total = strength.sum(axis=(1, 2)) + 1e-12
    # The band's own inverse transform is the correlation in steps of 1 / (2 BAND_LIMIT) pixels.
    height_b, width_b = len(rows_used) + 1, 2 * fx.shape[1]
    padded = np.insert(cross, len(rows_used) // 2 + 1, 0.0, axis=1)
    correlation = scipy.fft.irfft2(padded, s=(height_b, width_b))
    peaks = correlation.reshape(len(corners), -1).argmax(axis=1)
    start = np.stack(np.divmod(peaks, width_b)[::-1], axis=1).astype(np.float64)
    size_b = np.array([width_b, height_b])
    shift = np.where(start > size_b / 2, start - size_b, start) * (TILE / size_b)
    a, b, c = (np.einsum("nyx,yx->n", strength, q) for q in (fx * fx + 0 * fy, fx * fy, fy * fy + 0 * fx))
    determinant = a * c - b * b + 1e-20
    for _ in range(2):
        turned = cross * _phase_turn(shift, fy, fx)
        # Weighted least squares of phase = −2π f·d; random phases average out.
        pull = strength * np.angle(turned)
        p = pull.sum(axis=1) @ fx[0] / (-2 * np.pi)
        q = pull.sum(axis=2) @ fy[:, 0] / (-2 * np.pi)
        shift[:, 0] += (c * p - b * q) / determinant
        shift[:, 1] += (a * q - b * p) / determinant
    turn = _phase_turn(shift, fy, fx)
    coherence = np.clip(np.sum((cross * turn).real, axis=(1, 2)) / total, 0.0, 1.0)
    coherence[contrast < MIN_CONTRAST] = 0.0
    centres = np.array([(x + 0.5 * (TILE - 1), y + 0.5 * (TILE - 1)) for y, x in corners])
    return centres, shift + np.array([x_shift, y_shift]), coherence.astype(np.float64)


def _phase_turn(shift: NDArray[np.float64], fy: Image, fx: Image) -> Complex:
    """exp(2πi f·d) for each tile's shift (n, 2), (n, len(fy), len(fx)); separable, so cheap."""
    along_x = np.exp(2j * np.pi * shift[:, :1] * fx)[:, None, :]
    along_y = np.exp(2j * np.pi * shift[:, 1:] * fy[:, 0])[:, :, None]
    return (along_y * along_x).astype(np.complex64)


def _fit_similarity(
    centres: NDArray[np.float64],
    shifts: NDArray[np.float64],
    coherence: NDArray[np.float64],
    shape: tuple[int, int],
    scale: float | None,
) -> Motion:
    """Iteratively reweighted least squares (Cauchy weights) of a similarity on the tiles' shifts."""
    used = coherence > MIN_COHERENCE
    if not used.any():
        return Motion()
    x, y = (centres[used] - 0.5 * np.array([shape[1] - 1.0, shape[0] - 1.0])).T
    d, trust = shifts[used], coherence[used] ** 2
    one, zero = np.ones_like(x), np.zeros_like(x)
    # Displacement = (dx, dy) + a·(x, y) + b·(−y, x), a and b small: a = s·cos − 1, b = s·sin.
    design = np.concatenate([np.column_stack([one, zero, x, -y]), np.column_stack([zero, one, y, x])])
    target = np.concatenate([d[:, 0], d[:, 1]])
    # A weak pull to pure translation (1 px at the border per unit of trust) keeps one or two tiles from inventing a turn.
    pull = 0.02 * (0.5 * max(shape)) ** 2
    # A known scale is one that nothing measured moves.
    ridge = np.diag([0.0, 0.0, pull if scale is None else _UNMOVED * pull, pull])
    known = np.array([0.0, 0.0, 0.0 if scale is None else scale - 1.0, 0.0])
    solution = np.array([np.median(d[:, 0]), np.median(d[:, 1]), 0.0, 0.0])
    for _ in range(12):
        error = np.linalg.norm((target - design @ solution).reshape(2, -1), axis=0)
        weight = trust / (1.0 + (error / RESIDUAL_SCALE) ** 2)
        weighted = design.T * np.concatenate([weight, weight])
        force = ridge * weight.max()
        solution = np.linalg.solve(weighted @ design + force, weighted @ target + force @ known)
    error = np.linalg.norm((target - design @ solution).reshape(2, -1), axis=0)
    agree = error < 3.0 * RESIDUAL_SCALE
    if not agree.any():
        return Motion()
    dx, dy, a, b = solution
    return Motion(
        dx=float(dx),
        dy=float(dy),
        scale=math.hypot(1.0 + a, b),
        rotation=math.atan2(b, 1.0 + a),
        residual=float(np.median(error[agree])),
        quality=float(coherence[used][agree].sum() / len(coherence)),
    )
