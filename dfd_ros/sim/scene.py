"""A scene of boxes and other convex solids, cylinders and ellipsoids, as flat arrays for the ray caster.

World frame (REP 103): x forward, y left, z up, metres. An object has its own such frame, placed in the world by a
position and a heading; its parts are laid out in the object's frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfd_ros.sim.shadow import ShadowGrid, shadow_grid
from dfd_ros.sim.textures import Atlas

CONVEX, CYLINDER, ELLIPSOID = 0, 1, 2
_CUBE = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T  # corners of the cube from −1 to 1, (8, 3)


class Solids(NamedTuple):
    """The parts' shapes, in float32 and int32.

    kind (P,); local_from_world (P, 3, 4); first_face (P + 1).
    plane (F, 4): outward normal n and offset d, inside is n·x <= d, in the part's frame. A cylinder has unit radius
    and runs from z = −1 to 1, its faces are side, top and bottom; an ellipsoid is the unit sphere.
    """

    kind: NDArray[np.int32]
    local_from_world: NDArray[np.float32]
    first_face: NDArray[np.int32]
    plane: NDArray[np.float32]


class Textures(NamedTuple):
    """texels (n,), layout (t, 2) and levels (l, 3): see `Atlas`."""

    texels: NDArray[np.uint32]
    layout: NDArray[np.int64]
    levels: NDArray[np.int64]


class SceneArrays(NamedTuple):
    """What the compiled ray caster reads; all float arrays float32. (A kernel is handed no more of it than it needs:
    each array that goes into a call costs time.)

    bounds (O, 6): world bounding box of each object (minimum, maximum). first_part (O + 1): parts by object.
    ball (P, 4): world centre and squared radius of each part's bounding ball. corners (P, 8, 3): of a world bounding
    box, not always an upright one. part_object (P,). shadow: the parts as the sun sees them.
    face_part (F,); texture (F,); uv (F, 2, 4): affine texture coordinates (1 = one tile); tint (F, 3);
    gloss (F,) in [0, 1]. sun (3,): direction to the sun. sun_light, sky_light (3,). clouds: the texture of the sky.
    """

    solids: Solids
    bounds: NDArray[np.float32]
    first_part: NDArray[np.int32]
    ball: NDArray[np.float32]
    corners: NDArray[np.float32]
    part_object: NDArray[np.int32]
    shadow: ShadowGrid
    face_part: NDArray[np.int32]
    texture: NDArray[np.int32]
    uv: NDArray[np.float32]
    tint: NDArray[np.float32]
    gloss: NDArray[np.float32]
    textures: Textures
    sun: NDArray[np.float32]
    sun_light: NDArray[np.float32]
    sky_light: NDArray[np.float32]
    clouds: int


@dataclass(frozen=True)
class Coat:
    """What a face looks like.

    Attributes:
        texture: Name in the atlas.
        tile: Side of one repeat, metres; 0 stretches the texture once over the face.
        tint: Colour factor.
        gloss: Mirror reflectance of the sky seen straight on, [0, 1]; above 0.05 the LiDAR mostly misses it.
    """

    texture: str
    tile: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gloss: float = 0.0


@dataclass
class Part:
    """One convex solid in its object's frame."""

    kind: int
    object_from_local: NDArray[np.float64]  # (3, 4)
    planes: list[tuple[float, float, float, float]]
    uv: list[NDArray[np.float64]]  # (2, 4) per face, local coordinates
    coats: list[Coat]
    corners: NDArray[np.float64]  # (n, 3) in the object's frame, their hull holds the part


@dataclass
class SceneObject:
    """A thing in the scene: its kind, where it stands, and its parts."""

    kind: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    heading: float = 0.0
    parts: list[Part] = field(default_factory=list)

    def box(self, low: Sequence[float], high: Sequence[float], coat: Coat, **faces: Coat) -> None:
        """A box from corner to corner; `front`, `back`, `left`, `right`, `top`, `bottom` may have their own coats."""
        profile = [(low[0], low[2]), (high[0], low[2]), (high[0], high[2]), (low[0], high[2])]
        edges = {0: "bottom", 1: "front", 2: "top", 3: "back"}
        self.prism(
            profile,
            (low[1], high[1]),
            coat,
            left=faces.get("left"),
            right=faces.get("right"),
            edges={i: faces[name] for i, name in edges.items() if name in faces},
        )

    def prism(
        self,
        profile: Sequence[tuple[float, float]],
        sides: tuple[float, float],
        coat: Coat,
        *,
        left: Coat | None = None,
        right: Coat | None = None,
        edges: dict[int, Coat] | None = None,
        lean: float = 0.0,
    ) -> None:
        """A convex profile of (x, z) corners, counter-clockwise seen from the right (x forward, z up), between two y.

        `lean` tilts the sides inwards by that angle (radians) about the bottom. Edge i runs from corner i to i + 1.
        """
        points = np.asarray(profile, np.float64)
        (x0, z0), (x1, z1) = points.min(axis=0), points.max(axis=0)
        planes, uv, coats = [], [], []
        width = sides[1] - sides[0]
        for i, (a, b) in enumerate(zip(points, np.roll(points, -1, axis=0), strict=True)):
            along = (b - a) / np.hypot(*(b - a))
            normal = (along[1], 0.0, -along[0])
            planes.append((*normal, float(normal[0] * a[0] + normal[2] * a[1])))
            face = (edges or {}).get(i, coat)
            # u from left to right seen from outside, v downwards (against the direction of the profile).
            length = float(np.hypot(*(b - a)))
            scale = (1.0 / face.tile, 1.0 / face.tile) if face.tile else (1.0 / width, 1.0 / length)
            sign = 1.0 if normal[0] >= 0 else -1.0
            u = np.array([0.0, sign * scale[0], 0.0, -scale[0] * (sides[0] if sign > 0 else -sides[1])])
            rise = 1.0 if along[1] >= 0 else -1.0
            low = a if along[1] >= 0 else b
            v = np.array([-rise * along[0], 0.0, -rise * along[1], rise * (along @ low)]) * scale[1]
            v[3] += 0.0 if face.tile else 1.0
            uv.append(np.stack([u, v]))
            coats.append(face)
        cosine, sine = math.cos(lean), math.sin(lean)
        for sign, side in ((1.0, left), (-1.0, right)):
            y = sides[1] if sign > 0 else sides[0]
            planes.append((0.0, sign * cosine, sine, sign * cosine * y + sine * z0))
            face = side or coat
            scale = (1.0 / face.tile, 1.0 / face.tile) if face.tile else (1.0 / (x1 - x0), 1.0 / (z1 - z0))
            uv.append(np.array([[scale[0], 0, 0, -scale[0] * x0], [0, 0, -scale[1], scale[1] * z1]]))
            coats.append(face)
        corners = np.array([(x, y, z) for x, z in profile for y in sides])
        self.parts.append(Part(CONVEX, np.eye(3, 4), planes, uv, coats, corners))

    def cylinder(
        self,
        start: Sequence[float],
        end: Sequence[float],
        radius: float,
        coat: Coat,
        cap: Coat | None = None,
    ) -> None:
        """A cylinder between two points."""
        a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
        axis = (b - a) / 2.0
        frame = _frame(axis / np.linalg.norm(axis))
        self._round(CYLINDER, np.column_stack([frame[:, 0] * radius, frame[:, 1] * radius, axis, (a + b) / 2.0]), coat)
        part = self.parts[-1]
        disk = cap or coat
        around = np.array([[0.5, 0, 0, 0.5], [0, -0.5, 0, 0.5]]) * (2.0 * radius / disk.tile if disk.tile else 1.0)
        part.uv += [around, around]
        part.coats += [disk, disk]
        part.planes += [(0.0, 0.0, 1.0, 1.0), (0.0, 0.0, -1.0, 1.0)]

    def ellipsoid(
        self, centre: ArrayLike, radii: Sequence[float], coat: Coat, axis: ArrayLike = (0.0, 0.0, 1.0)
    ) -> None:
        """An ellipsoid whose third radius lies along `axis`."""
        direction = np.asarray(axis, np.float64)
        frame = _frame(direction / np.linalg.norm(direction))
        self._round(ELLIPSOID, np.column_stack([frame * np.asarray(radii), np.asarray(centre)]), coat)

    def _round(self, kind: int, object_from_local: NDArray[np.float64], coat: Coat) -> None:
        """A part textured around its z axis: u once (or in whole tiles) around, v along."""
        half = np.linalg.norm(object_from_local[:, :3], axis=0)
        around = max(1.0, round(2.0 * math.pi * half[0] / coat.tile)) if coat.tile else 1.0
        along = 2.0 * half[2] / coat.tile if coat.tile else 1.0
        uv = np.array([[around, 0, 0, 0], [0, 0, -0.5 * along, 0.5 * along]])
        corners = _CUBE @ object_from_local[:, :3].T + object_from_local[:, 3]
        self.parts.append(Part(kind, object_from_local, [(0.0, 0.0, 0.0, 0.0)], [uv], [coat], corners))


@dataclass(frozen=True)
class Light:
    """Sunlight from `direction` (world, unit) and the sky's light: linear RGB on a white surface facing it."""

    direction: tuple[float, float, float]
    sun: tuple[float, float, float] = (1.0, 0.94, 0.84)
    sky: tuple[float, float, float] = (0.28, 0.32, 0.39)


@dataclass(frozen=True)
class Scene:
    """A scene ready for the ray caster.

    Attributes:
        arrays: The flat arrays.
        kinds: Kind of each object, in the arrays' order.
        ids: Number of each object in the order it was added.
        centres: (O, 3) world centres of the objects' bounding boxes.
    """

    arrays: SceneArrays
    kinds: tuple[str, ...]
    ids: NDArray[np.int32]
    centres: NDArray[np.float32]


def compile_scene(objects: Sequence[SceneObject], atlas: Atlas, light: Light, clouds: str) -> Scene:
    """Flatten objects, nearest to the origin first (rays then stop early)."""
    boxes = [_world_corners(thing) for thing in objects]
    bounds = np.array([np.r_[box.min(axis=0), box.max(axis=0)] for box in boxes])
    nearest = np.clip(np.zeros(3), bounds[:, :3], bounds[:, 3:])
    order = np.argsort(np.linalg.norm(nearest, axis=1), kind="stable")
    parts = [(number, objects[index], part) for number, index in enumerate(order) for part in objects[index].parts]
    local_from_world = np.empty((len(parts), 3, 4))
    ball, corners = np.empty((len(parts), 4)), np.empty((len(parts), 8, 3))
    for i, (_, thing, part) in enumerate(parts):
        world_from_local = np.eye(4)
        world_from_local[:3] = part.object_from_local
        inverse = np.linalg.inv(_placement(thing) @ world_from_local)
        local_from_world[i] = inverse[:3]
        ball[i] = _bounding_ball(thing, part)
        corners[i] = _bounding_box(thing, part)
    faces = [face for *_, part in parts for face in zip(part.planes, part.uv, part.coats, strict=True)]
    counts = [len(objects[index].parts) for index in order]
    sides = [len(part.planes) for *_, part in parts]
    solids = Solids(
        kind=np.array([part.kind for *_, part in parts], np.int32),
        local_from_world=local_from_world.astype(np.float32),
        first_face=np.cumsum([0, *sides]).astype(np.int32),
        plane=np.array([plane for plane, _, _ in faces], np.float32),
    )
    arrays = SceneArrays(
        solids=solids,
        bounds=bounds[order].astype(np.float32),
        first_part=np.cumsum([0, *counts]).astype(np.int32),
        ball=ball.astype(np.float32),
        corners=corners.astype(np.float32),
        part_object=np.array([number for number, *_ in parts], np.int32),
        shadow=shadow_grid(corners, _frame(np.asarray(light.direction, np.float64)).T),
        face_part=np.repeat(np.arange(len(parts), dtype=np.int32), sides),
        texture=np.array([atlas.names[coat.texture] for *_, coat in faces], np.int32),
        uv=np.array([uv for _, uv, _ in faces], np.float32),
        tint=np.array([coat.tint for *_, coat in faces], np.float32),
        gloss=np.array([coat.gloss for *_, coat in faces], np.float32),
        textures=Textures(atlas.texels(), atlas.layout(), atlas.levels()),
        sun=np.array(light.direction, np.float32),
        sun_light=np.array(light.sun, np.float32),
        sky_light=np.array(light.sky, np.float32),
        clouds=atlas.names[clouds],
    )
    centres = (bounds[order, :3] + bounds[order, 3:]) / 2.0
    return Scene(arrays, tuple(objects[i].kind for i in order), order.astype(np.int32), centres.astype(np.float32))


def _placement(thing: SceneObject) -> NDArray[np.float64]:
    """4x4 world from object."""
    cosine, sine = math.cos(thing.heading), math.sin(thing.heading)
    matrix = np.eye(4)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, 3] = thing.position
    return matrix


def _world_corners(thing: SceneObject) -> NDArray[np.float64]:
    corners = np.concatenate([part.corners for part in thing.parts])
    matrix = _placement(thing)
    return corners @ matrix[:3, :3].T + matrix[:3, 3]


def _bounding_ball(thing: SceneObject, part: Part) -> NDArray[np.float64]:
    """World centre and squared radius of a ball around a part."""
    low, high = part.corners.min(axis=0), part.corners.max(axis=0)
    centre = part.object_from_local[:, 3] if part.kind != CONVEX else (low + high) / 2.0
    if part.kind == ELLIPSOID:
        radius = np.linalg.norm(part.object_from_local[:, :3], axis=0).max()
    else:
        radius = np.linalg.norm(part.corners - centre, axis=1).max()
    matrix = _placement(thing)
    return np.r_[matrix[:3, :3] @ centre + matrix[:3, 3], (1.001 * radius) ** 2]


def _bounding_box(thing: SceneObject, part: Part) -> NDArray[np.float64]:
    """World corners (8, 3) of a box around a part: an upright one for an ellipsoid, else along the part's axes."""
    matrix = _placement(thing)
    turn = matrix[:3, :3]
    if part.kind == ELLIPSOID:
        centre = turn @ part.object_from_local[:, 3] + matrix[:3, 3]
        reach = np.linalg.norm(turn @ part.object_from_local[:, :3], axis=1)
        return centre + _CUBE * reach
    if part.kind == CYLINDER:
        return part.corners @ turn.T + matrix[:3, 3]
    low, high = part.corners.min(axis=0), part.corners.max(axis=0)
    return ((low + high) / 2.0 + _CUBE * (high - low) / 2.0) @ turn.T + matrix[:3, 3]


def _frame(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """A rotation matrix whose third column is `axis`."""
    helper = np.array([1.0, 0.0, 0.0]) if abs(axis[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    first = helper - axis * (helper @ axis)
    first /= np.linalg.norm(first)
    return np.column_stack([first, np.cross(axis, first), axis])
