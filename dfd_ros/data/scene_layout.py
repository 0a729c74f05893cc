"""A made-up scene in the making: where things may stand, how surfaces look, and which way things are turned.

A scene is laid out in a frame with its origin in the camera, x right, y down (gravity), z ahead, metres; the camera is
tilted in it a little. `scene_kinds` lays out whole scenes, `scene_furniture` the things in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.scene_caster import BALL, BOX, POLE, Bodies, Light, Pinhole, Surfaces
from dfd_ros.data.scene_textures import SIDE, TextureBank

SHADOWS = 16
"""How many bodies cast shadows: the largest."""
FACES = {BOX: 6, BALL: 1, POLE: 2}
ROOM_RANGE = 8.0
"""Metres: sizes in a room are those of a real one where the farthest depth is this; they scale with it."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What `scene_caster.photograph` takes."""

    bodies: Bodies
    surfaces: Surfaces
    light: Light


@dataclass(frozen=True)
class View:
    """From where a scene is seen: the pinhole, the picture's height and width, nearest and farthest depth in metres."""

    camera: Pinhole
    shape: tuple[int, int]
    nearest: float
    farthest: float

    @property
    def half_width(self) -> float:
        """Tangent of half the field of view across."""
        return 0.5 * self.shape[1] / float(self.camera.focal)

    @property
    def half_height(self) -> float:
        """Tangent of half the field of view up and down."""
        return 0.5 * self.shape[0] / float(self.camera.focal)


class Layout:
    """A scene in the making; the camera is turned in it by `tilt` (camera_from_world)."""

    def __init__(self, rng: np.random.Generator, view: View, bank: TextureBank) -> None:
        self.rng, self.view, self.bank = rng, view, bank
        self.tilt = np.eye(3)
        self._kind: list[int] = []
        self._centre: list[Vector] = []
        self._axes: list[Vector] = []
        self._first: list[int] = []
        self._hollow: list[bool] = []
        self._looks: list[Look] = []

    def add(
        self, kind: int, centre: Vector, half: Vector, turn: Vector, looks: list[Look], hollow: bool = False
    ) -> None:
        """Put a body: half sizes along its own axes, the columns of `turn`; `looks` of its surfaces, repeated to fill."""
        self._kind.append(kind)
        self._centre.append(np.asarray(centre, float))
        self._axes.append(turn.T * np.asarray(half, float)[:, None])
        self._first.append(len(self._looks))
        self._hollow.append(hollow)
        faces = FACES[kind]
        self._looks.extend(looks[k % len(looks)] for k in range(faces))

    def is_clear(self, centre: Vector, half: Vector) -> bool:
        """Whether a body so large is within the depth range, whichever way it is turned."""
        z, reach = float(self.tilt[2] @ centre), float(np.linalg.norm(half))
        return self.view.nearest < z - reach and z + reach < self.view.farthest

    def scene(self, light: Light) -> Scene:
        """The finished scene as the camera sees it; the light's position is still the layout's."""
        centre = np.array(self._centre) @ self.tilt.T
        axes = np.array(self._axes) @ self.tilt.T
        size = np.linalg.norm(axes, axis=2)
        bulk = np.prod(np.sort(size, axis=1)[:, 1:], axis=1)  # the largest face
        hollow = np.array(self._hollow)
        shades = [int(n) for n in np.argsort(-bulk) if not hollow[n]][:SHADOWS]
        bodies = Bodies(
            np.array(self._kind, np.int32),
            centre.astype(np.float32),
            axes.astype(np.float32),
            np.array(self._first, np.int32),
            hollow,
            np.array(shades, np.int32),
        )
        looks = self._looks
        surfaces = Surfaces(
            np.array([look.texture for look in looks], np.int32),
            np.array([look.place for look in looks], np.float32).reshape(-1, 2, 3),
            np.array([look.base for look in looks], np.float32),
            np.array([look.gain for look in looks], np.float32),
            np.array([look.grain for look in looks], np.float32),
            np.array([look.glow for look in looks], np.float32),
            np.array([look.gloss for look in looks], np.float32),
        )
        position = (self.tilt @ np.asarray(light.position, float)).astype(np.float32)
        return Scene(bodies, surfaces, light._replace(position=position))

    # --- looks ---

    def look(self, distance: float, plain: float = 0.15) -> Look:
        """A surface to be seen from `distance` metres; with probability `plain` it is nearly uniform."""
        rng, bank = self.rng, self.bank
        choice = rng.random()
        if choice < plain:
            return self.plain(distance)
        choice = (choice - plain) / (1.0 - plain)
        gloss = float(rng.uniform(0.1, 1.0)) if rng.random() < 0.2 else 0.0
        grain = (float(rng.uniform(0.2, 1.2)), self.texel_density(distance)) if rng.random() < 0.4 else (0.0, 1.0)
        if choice < 0.3:
            texture = self.pick(bank.colour)
            base = np.zeros(3)
            gain = rng.uniform(0.5, 1.1) * np.exp(rng.normal(0.0, 0.15, 3))
        else:
            family = bank.grey if choice < 0.55 else bank.pattern if choice < 0.88 else bank.noise
            texture = self.pick(family)
            base, high = self.colour(0.02, 0.5), self.colour(0.2, 0.95)
            gain = high - base
        return Look((texture, self.pick(bank.noise)), self._place(distance), base, gain, grain, 0.0, gloss)

    def plain(self, distance: float, glow: float = 0.0) -> Look:
        """A painted surface: one colour with a little noise."""
        rng = self.rng
        noise = self.pick(self.bank.noise)
        grain = (float(rng.uniform(0.0, 0.25)), self.texel_density(distance))
        return Look((-1, noise), self._place(distance), self.colour(0.08, 0.9), np.zeros(3), grain, glow, 0.0)

    def poster(self, half_width: float, half_height: float, glow: float = 0.0) -> Look:
        """A photograph or a page that fills a face."""
        rng = self.rng
        texture = self.pick(range(self.bank.colour.start, self.bank.grey.stop))
        place = np.array([[SIDE / 2 / half_width, 0.0, SIDE / 2], [0.0, SIDE / 2 / half_height, SIDE / 2]])
        return Look((texture, 0), place, np.zeros(3), np.full(3, rng.uniform(0.6, 1.0)), (0.0, 1.0), glow, 0.0)

    def pick(self, textures: range) -> int:
        """One of these textures."""
        return textures[int(self.rng.integers(len(textures)))]

    def colour(self, low: float, high: float) -> Vector:
        """A colour, mostly a dull one, of a brightness even in its square root."""
        value = self.rng.uniform(math.sqrt(low), math.sqrt(high)) ** 2
        saturation = self.rng.beta(1.2, 2.5)
        hue = self.rng.random(3)
        return value * (1.0 - saturation * (1.0 - hue / hue.max()))

    def texel_density(self, distance: float) -> float:
        """Texels a metre that make a texel 1/3 to 2 pixels large at a distance."""
        texels_per_pixel = math.exp(self.rng.uniform(math.log(0.5), math.log(3.0)))
        return texels_per_pixel * float(self.view.camera.focal) / distance

    def _place(self, distance: float) -> Vector:
        density = self.texel_density(distance)
        upright = int(self.rng.integers(4)) * math.pi / 2 + self.rng.normal(0.0, 0.03)
        angle = upright if self.rng.random() < 0.75 else self.rng.uniform(0.0, 2.0 * math.pi)
        cosine, sine = density * math.cos(angle), density * math.sin(angle)
        flip = 1.0 if self.rng.random() < 0.5 else -1.0
        offset = self.rng.uniform(0.0, 2.0 * SIDE, 2)
        return np.array([[cosine, -flip * sine, offset[0]], [sine, flip * cosine, offset[1]]])

    # --- places ---

    def distance(self, nearest: float, farthest: float) -> float:
        """A distance even in log depth."""
        return math.exp(self.rng.uniform(math.log(nearest), math.log(farthest)))

    def column(self, z: float, margin: float = 1.05) -> float:
        """Some x in view at depth z."""
        return float(z * self.view.half_width * self.rng.uniform(-margin, margin))

    def row(self, z: float, low: float = -1.0, high: float = 1.0) -> float:
        """Some y in view at depth z; -1 is the upper edge, 1 the lower."""
        return float(z * self.view.half_height * self.rng.uniform(low, high))


@dataclass(frozen=True)
class Look:
    """One surface: a row of `scene_caster.Surfaces`."""

    texture: tuple[int, int]
    place: Vector
    base: Vector
    gain: Vector
    grain: tuple[float, float]
    glow: float
    gloss: float


# --- rooms ---


def fit_room(low: Vector, high: Vector, yaw: Vector, tilt: Vector, view: View) -> tuple[Vector, Vector]:
    """Grow a room until its walls in view are beyond the nearest depth, and shrink it to end before the farthest."""
    corners = np.array(
        [[x, y, 1.0] for x in (-view.half_width, view.half_width) for y in (-view.half_height, view.half_height)]
    )
    inside = 1.02 * view.nearest * corners @ tilt @ yaw  # in the room's axes
    low, high = np.minimum(low, inside.min(axis=0)), np.maximum(high, inside.max(axis=0))
    # The far corners of what is seen: rays through the picture's corners and sides, to the walls.
    steps = np.linspace(-1.0, 1.0, 9)
    rays = np.array([[x * view.half_width, y * view.half_height, 1.0] for x in steps for y in steps]) @ tilt @ yaw
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    seen = np.where(rays > 0, high / rays, low / rays).min(axis=1).max()
    shrink = min(1.0, 0.97 * view.farthest / seen)
    return low * shrink, high * shrink


# --- rotations ---


def about_x(degrees: float) -> Vector:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def about_y(degrees: float) -> Vector:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def about_z(degrees: float) -> Vector:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def along(way: Vector) -> Vector:
    """A turn whose third axis points along `way`."""
    third = way / np.linalg.norm(way)
    helper = np.array([1.0, 0.0, 0.0]) if abs(third[0]) < 0.8 else np.array([0.0, 1.0, 0.0])
    first = np.cross(helper, third)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third], axis=1)


def any_turn(rng: np.random.Generator) -> Vector:
    return about_y(rng.uniform(0, 360)) @ about_x(rng.normal(0.0, 40.0)) @ about_z(rng.normal(0.0, 40.0))


def nearly_level(rng: np.random.Generator, down: float, pitch: float, roll: float) -> Vector:
    """camera_from_world of a camera that looks `down` a little; standard deviations of pitch and roll; degrees."""
    return about_z(rng.normal(0.0, roll)) @ about_x(rng.normal(down, pitch))


def tint(rng: np.random.Generator) -> NDArray[np.float32]:
    """The colour of a light, about white."""
    return np.exp(rng.normal(0.0, 0.12, 3)).astype(np.float32)


UPRIGHT = about_x(90.0)
"""A pole that stands."""
