"""Made-up rooms for the benchmarks: floor, ceiling, walls and boxes at random, photographed through a made-up lens.

`photographic` rooms are papered with the photographs of scikit-image's wheel, `procedural` ones with noise, stripes,
checks, bricks and dots. As in a real room some parts of the surfaces are plain. Depth lies within 0.9 and 10 m. The blur
is that of a 15 mm lens on 5.6 µm pixels at F/2 and F/14, focused at the nearest object; the field of view is a room's.
A room is a function of its kind and seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus
from dfd_ros.sim.textures import noise, photograph

Picture = NDArray[np.float32]

KINDS = ("photographic", "procedural")
NEAREST, FARTHEST = 0.9, 10.0  # metres
SHAPE = (480, 640)
FIELD_OF_VIEW = 60.0  # degrees, across
NOISE = 0.005  # of white, standard deviation
WHITE_QUANTILE = 0.995  # of the picture's values, exposed to 0.9 of white
PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel")
TILE = 512  # side of a texture, texels
TILE_SIZE = (0.5, 2.5)  # of a texture on a surface, metres
PLAIN_SHARE = 0.4  # of the surfaces have a plain patch
BOXES = (10, 21)

ROOM_LENS = Lens.physical(
    "room",
    focal_length=0.015,
    pixel_pitch=5.6e-6,
    focus_distance=NEAREST,
    f_number_shallow=2.0,
    f_number_deep=14.0,
    min_depth=NEAREST,
    max_depth=FARTHEST,
)


@dataclass(frozen=True)
class Room:
    """Shallow and deep picture (H, W, 3) uint8 of encoded values light^(1/gamma), and depth (H, W) float32 metres."""

    shallow: NDArray[np.uint8]
    deep: NDArray[np.uint8]
    depth: Picture


def photograph_room(
    kind: str, seed: int, lens: Lens = ROOM_LENS, shape: tuple[int, int] = SHAPE, gamma: float = 1.0
) -> Room:
    """Build a room at random and photograph it at both apertures of the lens."""
    rng = np.random.default_rng((KINDS.index(kind), seed))
    picture, depth = _build(kind, rng, shape)
    pictures = render_defocus(picture, depth, lens, (lens.f_number_shallow, lens.f_number_deep))
    shallow, deep = (_expose(one, gamma, rng) for one in pictures)
    return Room(shallow, deep, depth)


def _expose(picture: Picture, gamma: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    light = picture + NOISE * rng.standard_normal(picture.shape, np.float32)
    return np.rint(255.0 * np.clip(light, 0.0, 1.0) ** (1.0 / gamma)).astype(np.uint8)


@dataclass(frozen=True)
class _Slab:
    """A box: its axes (the rows), centre and half sizes; the room itself is one seen from within."""

    axes: NDArray[np.float64]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]

    def distance(self, rays: NDArray[np.float32], within: bool = False) -> tuple[Picture, NDArray[np.int64]]:
        """Depth along each ray (…, 3) from the origin, inf where it misses, and the axis of the face it meets."""
        direction = rays @ self.axes.T.astype(np.float32)
        direction = np.where(np.abs(direction) < 1e-6, np.float32(1e-6), direction)
        origin = (-self.axes @ self.centre).astype(np.float32)
        half = self.half.astype(np.float32)
        first, last = (
            (-np.sign(direction) * half - origin) / direction,
            (np.sign(direction) * half - origin) / direction,
        )
        enter, leave = first.max(axis=-1), last.min(axis=-1)
        if within:
            return leave, last.argmin(axis=-1)
        return np.where((enter < leave) & (enter > 0), enter, np.float32(np.inf)), first.argmax(axis=-1)


def _build(kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Picture, Picture]:
    """All-in-focus picture, linear in light, and depth."""
    height, width = shape
    focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    y, x = np.indices(shape, dtype=np.float32)
    rays = np.stack([(x + 0.5 - width / 2) / focal, (y + 0.5 - height / 2) / focal, np.ones_like(x)], axis=-1)
    while True:  # until nothing is nearer or farther than promised
        slabs = _furnish(rng)
        depth = np.full(shape, np.inf, np.float32)
        owner, face = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for index, slab in enumerate(slabs):
            z, axis = slab.distance(rays, within=index == 0)
            nearer = z < depth
            depth[nearer], owner[nearer], face[nearer] = z[nearer], index, axis[nearer]
        if depth.min() >= NEAREST and depth.max() <= FARTHEST:
            break

    picture = np.empty((*shape, 3), np.float32)
    lamp = rng.normal(size=3) * (1.0, 0.3, 1.0) - (0.0, 2.0, 0.5)
    lamp /= np.linalg.norm(lamp)
    for index, slab in enumerate(slabs):
        for axis in range(3):
            here = (owner == index) & (face == axis)
            for side in (-1, 1):
                seen = here & (side * (depth[..., None] * rays - slab.centre) @ slab.axes[axis] > 0)
                if seen.any():
                    _paint(picture, seen, slab, axis, depth, rays, focal, kind, lamp * side, rng)
    return picture * np.float32(0.9 / np.quantile(picture, WHITE_QUANTILE)), depth


def _furnish(rng: np.random.Generator) -> list[_Slab]:
    """The room, then its boxes; axes x right, y down, z ahead, metres, the camera at the origin."""
    turn = Rotation.from_euler("yx", rng.normal(size=2) * (15.0, 6.0), degrees=True).as_matrix()
    low = np.array([-rng.uniform(1.2, 3.5), -rng.uniform(0.9, 1.6), -2.0])
    high = np.array([rng.uniform(1.2, 3.5), rng.uniform(0.8, 1.6), rng.uniform(5.0, 9.5)])
    slabs = [_Slab(turn, turn.T @ (low + high) / 2, (high - low) / 2)]
    for _ in range(rng.integers(*BOXES)):
        z = math.exp(rng.uniform(math.log(1.1), math.log(8.0)))
        centre = np.array([rng.uniform(-0.5, 0.5) * z, rng.uniform(-0.1, 0.4) * z, z])
        slabs.append(_Slab(Rotation.random(random_state=rng).as_matrix(), centre, rng.uniform(0.03, 0.17, 3) * z))
    return slabs


def _paint(
    picture: Picture,
    seen: NDArray[np.bool_],
    slab: _Slab,
    axis: int,
    depth: Picture,
    rays: Picture,
    focal: float,
    kind: str,
    lamp: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Paint one face of a box, filtered to the size of its pixels."""
    normal, (across, up) = slab.axes[axis], np.delete(slab.axes, axis, axis=0)
    z, ray = depth[seen], rays[seen]
    point = z[:, None] * ray - slab.centre.astype(np.float32)
    texture = _texture(kind, rng)
    per_metre = TILE / rng.uniform(*TILE_SIZE)
    u, v = (per_metre * (point @ axis_.astype(np.float32)) + rng.uniform(0, TILE) for axis_ in (across, up))
    # A pixel covers (z / f)² / cos of the surface.
    cosine = np.abs(ray @ normal.astype(np.float32)) / np.linalg.norm(ray, axis=1)
    level = np.log2(np.maximum(per_metre * z / focal / np.sqrt(np.maximum(cosine, 0.05)), 1.0))
    albedo = _look_up(texture, u, v, level)
    if rng.random() < PLAIN_SHARE:
        corner, size = rng.uniform(-1.0, 0.3, 2), rng.uniform(0.5, 1.2, 2)
        half = np.delete(slab.half, axis)
        place = np.stack([point @ across, point @ up], axis=1) / half
        plain = np.all((place > corner) & (place < corner + size), axis=1)
        albedo[plain] = texture.mean(axis=(0, 1))
    light = 0.35 + 0.65 * max(float(normal @ lamp), 0.0) + 0.15 * (ray @ normal.astype(np.float32)) ** 2
    picture[seen] = albedo * light[:, None].astype(np.float32)


def _look_up(texture: Picture, u: Picture, v: Picture, level: Picture) -> Picture:
    """Trilinear sampling of a repeating texture (Williams, SIGGRAPH 1983), (n, 3)."""
    total = np.zeros((len(u), 3), np.float32)
    for k in range(int(level.max()) + 2):
        weight = np.maximum(1.0 - np.abs(level - k), 0.0).astype(np.float32)
        some = np.flatnonzero(weight)
        if len(some):
            places = (((np.mod(t[some], TILE) / 2**k) - 0.5).astype(np.float32) for t in (u, v))
            sample = _remap(cv2.resize(texture, (TILE >> k, TILE >> k), interpolation=cv2.INTER_AREA), *places)
            total[some] += weight[some, None] * sample
    return total


def _remap(texture: Picture, u: Picture, v: Picture) -> Picture:
    """Bilinear samples at n places, in rows short enough for OpenCV, (n, 3)."""
    row = 4096
    padded = [np.pad(t, (0, -len(u) % row)).reshape(-1, row) for t in (u, v)]
    return cv2.remap(texture, *padded, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).reshape(-1, 3)[: len(u)]


def _texture(kind: str, rng: np.random.Generator) -> Picture:
    """A repeating texture (512, 512, 3), linear reflectance."""
    if kind == "photographic":
        return _mirrored(PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))])
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng)
    low, high = rng.uniform(0.05, 0.45, 3), rng.uniform(0.35, 0.95, 3)
    return (low + (high - low) * pattern[..., None]).astype(np.float32)


@cache
def _mirrored(name: str) -> Picture:
    """A photograph and its mirror images, so that it repeats without a seam."""
    half = cv2.resize(photograph(name), (TILE // 2, TILE // 2), interpolation=cv2.INTER_AREA)
    return np.vstack([np.hstack([half, half[:, ::-1]]), np.hstack([half[::-1], half[::-1, ::-1]])])


def _noise(rng: np.random.Generator) -> Picture:
    return np.clip(0.5 + 0.2 * noise((TILE, TILE), rng, rng.uniform(0.6, 1.4)), 0.0, 1.0)


def _stripes(rng: np.random.Generator) -> Picture:
    across, up = rng.integers(-16, 17), rng.integers(3, 17)
    y, x = np.indices((TILE, TILE)) / TILE
    wave = np.sin(2 * np.pi * (across * x + up * y) + 0.5 * noise((TILE, TILE), rng, 1.5))
    return np.clip(0.5 + rng.uniform(0.5, 5.0) * wave, 0.0, 1.0)


def _checks(rng: np.random.Generator) -> Picture:
    cells = 2 ** int(rng.integers(2, 6))
    board = rng.random((cells, cells)) if rng.random() < 0.5 else np.indices((cells, cells)).sum(axis=0) % 2
    return cv2.resize(board.astype(np.float32), (TILE, TILE), interpolation=cv2.INTER_NEAREST)


def _bricks(rng: np.random.Generator) -> Picture:
    rows, joint = 2 ** int(rng.integers(2, 6)), rng.uniform(0.05, 0.15)
    y, x = np.indices((TILE, TILE)) / TILE * rows
    x = x / 2 + 0.5 * (np.floor(y) % 2)
    mortar = (np.mod(y, 1) < joint) | (np.mod(x, 1) < joint / 2)
    shade = rng.random((rows, rows // 2 + 1))[np.floor(y).astype(int), np.mod(np.floor(x).astype(int), rows // 2)]
    return np.where(mortar, 1.0, 0.3 + 0.4 * shade)


def _dots(rng: np.random.Generator) -> Picture:
    canvas = np.full((TILE, TILE), rng.uniform(0.0, 0.3), np.float32)
    for _ in range(rng.integers(40, 300)):
        x, y = rng.integers(0, TILE, 2)
        radius, shade = int(rng.integers(6, 32)), float(rng.random())
        for shift in ((0, 0), (TILE, 0), (0, TILE), (TILE, TILE)):
            place = (int(x) - shift[0], int(y) - shift[1])
            cv2.circle(canvas, place, radius, shade, -1, cv2.LINE_AA)
    return canvas


PATTERNS: tuple[Callable[[np.random.Generator], Picture], ...] = (_noise, _stripes, _checks, _bricks, _dots)
