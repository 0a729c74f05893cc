"""The surfaces of made-up scenes: photographs that ship inside scikit-image's wheel, and patterns made here.

All lie in one array with their mip maps (Williams, SIGGRAPH 1983), as the square root of reflectance in 8 bits: the bank
takes 70 MB, is made once a process in a second, and is shared by forked workers. A texture repeats by reflection, so that no
photograph has a seam. What makes every surface its own is how it is cut, turned, scaled and coloured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

SIDE = 512
"""Side of every texture, texels."""
LEVELS = 10
"""Mip levels: 512 texels down to 1."""
# Photographs in the wheel itself; scikit-image downloads others on demand.
COLOUR_PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "color.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
GREY_PHOTOGRAPHS = (
    "brick.png",
    "camera.png",
    "cell.png",
    "clock_motion.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "text.png",
)
_SEED = 20_000  # of the patterns: the bank is the same everywhere
_GAMMA = 2.2  # of the photographs
_NOISE_SLOPES = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0)  # of 1/f^slope; natural pictures have about 1 (Field, JOSA A 1987)

Pattern = NDArray[np.float32]


@dataclass(frozen=True)
class TextureBank:
    """All textures.

    Attributes:
        texels: (n, 4) uint8, square root of reflectance, RGB and nothing.
        first: (textures, LEVELS) int64, where each mip level begins in `texels`; level k has SIDE >> k texels a side.
        colour, grey, pattern, noise: Which textures are colour photographs, grey ones, patterns of a mean near 1/2, and
            noise of mean 1/2.
    """

    texels: NDArray[np.uint8]
    first: NDArray[np.int64]
    colour: range
    grey: range
    pattern: range
    noise: range


@cache
def texture_bank() -> TextureBank:
    """The bank, made at the first call.

    Raises:
        InputError: scikit-image, or a photograph of it, is not there.
    """
    rng = np.random.default_rng(_SEED)
    colour = [_photograph(name) for name in COLOUR_PHOTOGRAPHS]
    grey = [_photograph(name) for name in GREY_PHOTOGRAPHS]
    patterns = [make(rng) for make in _PATTERNS]
    noises = [np.clip(0.5 + 0.2 * _noise(rng, slope), 0.0, 1.0) for slope in _NOISE_SLOPES]
    pictures = [*colour, *grey, *patterns, *noises]
    levels = [level for picture in pictures for level in _mip_maps(picture)]
    starts = np.cumsum([0] + [len(level) for level in levels[:-1]]).reshape(-1, LEVELS)
    ends = np.cumsum([len(group) for group in (colour, grey, patterns, noises)]).tolist()
    return TextureBank(
        np.concatenate(levels),
        starts,
        range(0, ends[0]),
        range(ends[0], ends[1]),
        range(ends[1], ends[2]),
        range(ends[2], ends[3]),
    )


def _mip_maps(picture: Pattern) -> list[NDArray[np.uint8]]:
    """All levels of a square picture, each (n, 4)."""
    colour = picture if picture.ndim == 3 else cv2.merge([picture] * 3)
    levels = []
    for level in range(LEVELS):
        if level:
            side = SIDE >> level
            colour = cv2.resize(colour, (side, side), interpolation=cv2.INTER_AREA)
        roots = np.full((colour.shape[0] * colour.shape[1], 4), 255, np.uint8)
        roots[:, :3] = np.rint(255.0 * np.sqrt(np.clip(colour, 0.0, 1.0))).reshape(-1, 3)
        levels.append(roots)
    return levels


def _photograph(name: str) -> Pattern:
    """A photograph of scikit-image's wheel as a square, (SIDE, SIDE, 3) linear."""
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise InputError("made-up scenes need the photographs in scikit-image: pip install scikit-image")
    path = Path(package.submodule_search_locations[0]) / "data" / name
    encoded = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if encoded is None:
        raise InputError(f"texture {path}: expected a photograph of scikit-image's wheel, found none that can be read")
    table = ((np.arange(256) / 255.0) ** _GAMMA).astype(np.float32)
    shrinks = min(encoded.shape[:2]) > SIDE
    square = cv2.resize(encoded, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return table[square[..., ::-1]]


def _noise(rng: np.random.Generator, slope: float) -> Pattern:
    """Noise of amplitude spectrum 1/f^slope, mean 0, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * frequency**-slope, s=(SIDE, SIDE))
    return (field / field.std()).astype(np.float32)


def _stripes(rng: np.random.Generator) -> Pattern:
    """Straight or wavy stripes, soft or hard."""
    y = np.arange(SIDE)[:, None] / SIDE
    wave = np.sin(2.0 * np.pi * rng.integers(8, 40) * y + rng.choice([0.0, 0.7]) * _noise(rng, 1.8))
    return np.clip(0.5 + rng.uniform(0.5, 4.0) * wave, 0.0, 1.0).astype(np.float32)


def _bars(rng: np.random.Generator) -> Pattern:
    """Bars of random widths and shades: curtains, blinds, barcodes."""
    edges = np.sort(rng.choice(np.arange(1, SIDE), rng.integers(20, 90), replace=False))
    shades = rng.random(len(edges) + 1, np.float32)
    return np.broadcast_to(shades[np.searchsorted(edges, np.arange(SIDE), "right")][:, None], (SIDE, SIDE)).copy()


def _checks(rng: np.random.Generator) -> Pattern:
    """A board of two shades."""
    cells = 2 ** int(rng.integers(3, 6))
    board = np.indices((cells, cells)).sum(axis=0) % 2
    return cv2.resize(board.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


def _mosaic(rng: np.random.Generator) -> Pattern:
    """A board of many shades."""
    cells = 2 ** int(rng.integers(3, 7))
    return cv2.resize(rng.random((cells, cells), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


def _tiles(rng: np.random.Generator) -> Pattern:
    """Tiles with joints, in rows that are shifted or not: bricks, parquet, bathroom walls."""
    rows, joint = 2 ** int(rng.integers(2, 5)), rng.uniform(0.03, 0.12)
    y, x = np.indices((SIDE, SIDE)) / SIDE * rows
    x = x / 2 + rng.choice([0.0, 0.5]) * (np.floor(y) % 2)
    gap = (np.mod(y, 1) < joint) | (np.mod(x, 1) < joint / 2)
    shade = rng.random((rows, rows + 1))[np.floor(y).astype(int), np.floor(x).astype(int) % (rows + 1)]
    grain = 0.05 * _noise(rng, 1.0)
    return np.where(gap, rng.choice([0.05, 0.95]), 0.3 + 0.4 * shade + grain).astype(np.float32)


def _dots(rng: np.random.Generator) -> Pattern:
    """Discs, leaves or pebbles, one upon another."""
    canvas = np.full((SIDE, SIDE), rng.uniform(0.0, 0.4), np.float32)
    squash = rng.uniform(0.3, 1.0)
    for _ in range(int(rng.integers(60, 900))):
        radius = rng.uniform(3.0, 26.0)
        axes = (max(1, int(radius)), max(1, int(radius * squash)))
        place = tuple(int(p) for p in rng.integers(0, SIDE, 2))
        cv2.ellipse(canvas, place, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.random()), -1, cv2.LINE_AA)
    return canvas


def _writing(rng: np.random.Generator) -> Pattern:
    """Lines of letters in several sizes, dark on light or light on dark."""
    canvas = np.full((SIDE, SIDE), 0.92, np.float32)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.-:    "))
    y = 0
    while y < SIDE:
        size = float(rng.choice([0.4, 0.5, 0.6, 0.8, 1.2, 2.0], p=[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]))
        y += int(34 * size)
        text = "".join(rng.choice(letters, int(34 / size)))
        font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_DUPLEX]))
        start = int(rng.integers(0, 40))
        cv2.putText(canvas, text, (start, y), font, size, float(rng.uniform(0.02, 0.4)), 1 + int(size), cv2.LINE_AA)
        y += int(rng.integers(2, 14))
    return canvas if rng.random() < 0.7 else 1.0 - canvas


def _wood(rng: np.random.Generator) -> Pattern:
    """Grain along one axis."""
    coarse = cv2.resize(_noise(rng, 1.2)[:, :32], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    rings = np.sin(rng.uniform(6.0, 14.0) * coarse)
    return np.clip(0.5 + 0.2 * rings + 0.08 * coarse + 0.06 * _noise(rng, 0.7), 0.0, 1.0).astype(np.float32)


def _cells(rng: np.random.Generator) -> Pattern:
    """The Voronoi cells of random points, shaded: stones, leather, cracks."""
    points = np.ones((SIDE, SIDE), np.uint8)
    places = rng.integers(0, SIDE, (int(rng.integers(60, 1200)), 2))
    points[places[:, 0], places[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.uniform(0.25, 1.0, int(labels.max()) + 1).astype(np.float32)
    return shades[labels] * (1.0 - 0.7 * np.minimum(distance / np.quantile(distance, 0.99), 1.0)).astype(np.float32)


# Each is made several times, with other numbers.
_PATTERNS: tuple[Callable[[np.random.Generator], Pattern], ...] = (
    *(3 * (_stripes, _bars, _checks, _mosaic, _tiles, _dots, _writing, _wood, _cells)),
)
