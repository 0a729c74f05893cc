"""Thin-lens photographs of small made-up scenes by brute force: what the defocus renderer is held against.

Everything is measured in the picture of a pinhole at the lens's centre, pixel coordinates u = (x, y). There a plane has
the inverse depth w(u) = w0 + g · u. The ray through the in-focus point of u_p that leaves the lens at the point a of the
unit disk meets depth 1/w where the pinhole sees (Hecht, Optics, ch. 5)

    u = u_p − a c(w) / 2,    c(w) = K (1 − z_f w),

c being the signed CoC in pixels. For a plane both equations are linear in w, so every hit is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import qmc

from dfd_ros.optics.lens import Lens

Picture = NDArray[np.float32]

SHAPE = (120, 160)
PIXEL_SAMPLES = 8  # a side
_OVERSAMPLING = 4  # texels a pixel: OpenCV interpolates on a grid of 1/32 of them
_LARGEST = 0.35  # deviation of a texture from its mean
_MARGIN = 32  # pixels of texture around the picture: more than any CoC here


@dataclass(frozen=True)
class Plane:
    """A textured plane, opaque, perhaps bounded.

    Attributes:
        inverse_depth: w0, dw/dx, dw/dy: 1/m at the picture's centre, and per pixel.
        seed: Of the texture.
        bounds: Half planes (nx, ny, d), in pixels from the picture's centre: the plane is where all nx x + ny y < d.
        brightness: Mean of the texture.
    """

    inverse_depth: tuple[float, float, float]
    seed: int
    bounds: tuple[tuple[float, float, float], ...] = ()
    brightness: float = 0.5


@dataclass(frozen=True)
class Scene:
    """Planes seen through a lens at one of its apertures."""

    name: str
    planes: tuple[Plane, ...]
    lens: Lens
    f_number: float = 2.0

    @property
    def edges(self) -> bool:
        """Whether something hides something."""
        return any(plane.bounds for plane in self.planes)


def pinhole(scene: Scene, area: bool = True, shape: tuple[int, int] = SHAPE) -> tuple[Picture, Picture]:
    """The all-in-focus picture (H, W, 3), linear in light, and the depth (H, W) at the pixel centres, metres.

    A pixel takes the light of its area, or that of its centre alone.
    """
    samples = PIXEL_SAMPLES if area else 1
    steps = [(i + 0.5) / samples - 0.5 for i in range(samples)]
    x, y = _pixel_centres(shape)
    nowhere = (0.0, 0.0)
    picture = np.mean([_look(scene, x + dx, y + dy, nowhere, 0.0)[0] for dy in steps for dx in steps], axis=0)
    _, inverse_depth = _look(scene, x, y, nowhere, 0.0)
    return picture.astype(np.float32), (1.0 / inverse_depth).astype(np.float32)


def photograph(scene: Scene, samples: int = 512, area: bool = True, shape: tuple[int, int] = SHAPE) -> Picture:
    """The picture (H, W, 3) through the lens: `samples` rays a pixel, spread evenly over the aperture and the pixel."""
    spread = 1.0 if area else 0.0
    x, y = _pixel_centres(shape)
    coc_scale = scene.lens.coc_scale / scene.f_number
    total = np.zeros((*shape, 3))
    for square, turn, dx, dy in qmc.Sobol(4, seed=0).random(samples).tolist():
        radius, angle = math.sqrt(square), 2.0 * math.pi * turn
        aperture = (radius * math.cos(angle), radius * math.sin(angle))
        total += _look(scene, x + spread * (dx - 0.5), y + spread * (dy - 0.5), aperture, coc_scale)[0]
    return (total / samples).astype(np.float32)


def psnr(picture: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio against a peak of 1, dB."""
    return float(-10.0 * np.log10(np.mean((picture.astype(float) - truth) ** 2)))


def _look(
    scene: Scene, x: Picture, y: Picture, aperture: tuple[float, float], coc_scale: float
) -> tuple[Picture, Picture]:
    """What the rays through the in-focus points of (x, y) and one point of the aperture see: colour, inverse depth."""
    ax, ay = aperture
    focus = scene.lens.focus_distance
    nearest = np.zeros(x.shape, np.float32)
    colour = np.zeros((*x.shape, 3), np.float32)
    for plane in scene.planes:
        w0, wx, wy = plane.inverse_depth
        slope = 0.5 * coc_scale * (wx * ax + wy * ay)
        w = (w0 + wx * x + wy * y - slope) / (1.0 - slope * focus)
        radius = 0.5 * coc_scale * (1.0 - focus * w)
        u, v = x - ax * radius, y - ay * radius
        hit = w > nearest
        for nx, ny, limit in plane.bounds:
            hit &= nx * u + ny * v < limit
        if hit.any():
            seen = _texture(plane.seed, x.shape, u, v) + np.float32(plane.brightness)
            nearest = np.where(hit, w, nearest)
            colour = np.where(hit[..., None], seen, colour)
    return colour, nearest


def _pixel_centres(shape: tuple[int, int]) -> tuple[Picture, Picture]:
    y, x = np.indices(shape, dtype=np.float32)
    return x - np.float32(0.5 * (shape[1] - 1)), y - np.float32(0.5 * (shape[0] - 1))


def _texture(seed: int, shape: tuple[int, int], u: Picture, v: Picture) -> Picture:
    """Reflectance about 0 at the points (u, v)."""
    places = (
        (_OVERSAMPLING * (t + (0.5 * n + _MARGIN)) - 0.5).astype(np.float32) for t, n in ((u, shape[1]), (v, shape[0]))
    )
    return cv2.remap(_texels(seed, shape), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@cache
def _texels(seed: int, shape: tuple[int, int]) -> Picture:
    """Noise of many sizes, none finer than a picture can carry: amplitude falls with frequency as in photographs."""
    rng = np.random.default_rng(seed)
    size = tuple(_OVERSAMPLING * (n + 2 * _MARGIN) for n in shape)
    total = np.zeros((*size, 3))
    for sigma in (1.0, 2.0, 4.0, 8.0):  # pixels
        noise = rng.normal(size=(*(n // 2 for n in size), 3))
        noise = gaussian_filter(noise, (sigma * _OVERSAMPLING / 2, sigma * _OVERSAMPLING / 2, 0), mode="wrap")
        total += cv2.resize(noise / noise.std(), size[::-1], interpolation=cv2.INTER_CUBIC)
    tint = rng.uniform(-0.1, 0.1, 3)
    contrast = 0.12 * total / total.std() + tint
    return (_LARGEST * np.tanh(contrast / _LARGEST)).astype(np.float32)  # no light is negative


def scenes() -> Sequence[Scene]:
    """Planes at several depths and slants, focused before, behind, on and between them; CoCs up to 10 pixels."""
    wall, far = Plane((0.1, 0.0, 0.0), 1), Plane((0.05, 0.0, 0.0), 1)
    tilted = Plane((0.25, 0.0022, 0.0012), 2)
    card = Plane((0.5, 0.0, 0.0), 3, ((-1.0, 0.2, 20.0), (1.0, -0.2, 25.0), (0.2, 1.0, 30.0), (-0.2, -1.0, 32.0)), 0.6)
    leaning = Plane((0.45, 0.002, 0.003), 4, ((1.0, 0.3, 5.0),), 0.4)
    bars = tuple(
        Plane((0.5, 0.0, 0.0), 5 + i, ((1.0, 0.1, x + width), (-1.0, -0.1, -x)), brightness)
        for i, (x, width, brightness) in enumerate(
            ((-60.0, 2.5, 0.4), (-25.0, 5.0, 0.7), (10.0, 9.0, 0.4), (50.0, 4.0, 0.7))
        )
    )
    ground = Plane((0.15, 0.0, 0.007), 6)
    backdrop = Plane((0.08, 0.0, 0.0), 7)
    return (
        Scene("wall out of focus", (wall,), _lens(2.0, 8.0)),
        Scene("slanted wall, focus inside", (tilted,), _lens(4.0, 9.0)),
        Scene("ground to a wall, focus near", (ground, backdrop), _lens(1.8, 9.0)),
        Scene("ground to a wall, focus far", (ground, backdrop), _lens(10.0, 2.0)),
        Scene("card before a wall, focus far", (card, wall), _lens(10.0, 2.0)),
        Scene("card before a wall, focus near", (card, wall), _lens(2.0, 8.0)),
        Scene("card before a wall, focus between", (card, far), _lens(4.0, 7.0)),
        Scene("bars before a wall, focus far", (*bars, wall), _lens(10.0, 2.0)),
        Scene("bars before a wall, focus near", (*bars, wall), _lens(2.0, 8.0)),
        Scene("slant before a slant, focus between", (leaning, tilted), _lens(3.0, 8.0)),
        Scene("card, slant and wall, focus inside", (card, leaning, far), _lens(2.4, 7.0)),
    )


def _lens(focus_distance: float, coc_at_infinity: float) -> Lens:
    return Lens("test", focus_distance, 2.0, 8.0, 2.0 * coc_at_infinity, 0.5, 100.0)
