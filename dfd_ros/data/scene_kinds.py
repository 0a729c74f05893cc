"""Made-up scenes: rooms with furniture, offices, streets, and clutter before a wall, laid out at random.

Things are put where the camera sees them, at distances spread evenly in log depth, so that any field of view and any range
of depth is filled. Sizes are a room's or a street's, scaled to the range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dfd_ros.data.scene_caster import BOX, POLE, Light
from dfd_ros.data.scene_furniture import FURNITURE, PAVEMENT_THINGS, STREET_THINGS, body, float_by, house
from dfd_ros.data.scene_layout import (
    ROOM_RANGE,
    Layout,
    Scene,
    Vector,
    View,
    about_x,
    about_y,
    about_z,
    along,
    fit_room,
    nearly_level,
    tint,
)
from dfd_ros.data.scene_office import office
from dfd_ros.data.scene_textures import TextureBank

STREET_RANGE = 70.0
"""Metres: sizes in a street are those of a real one where the farthest depth is this; they scale with it."""


def lay_out(kind: str, rng: np.random.Generator, view: View, bank: TextureBank) -> Scene:
    """A scene of the kind: `room`, `office`, `street` or `clutter`."""
    return LAYOUTS[kind](Layout(rng, view, bank))


def _room(layout: Layout) -> Scene:
    rng, view = layout.rng, layout.view
    unit = view.farthest / ROOM_RANGE
    layout.tilt = tilt = nearly_level(rng, 8.0, 9.0, 3.0)
    yaw = about_y(rng.uniform(-40.0, 40.0) if rng.random() < 0.7 else rng.normal(0.0, 5.0))
    depth = min(max(layout.distance(0.25 * view.farthest, view.farthest), 2.5 * view.nearest), view.farthest)
    low = -unit * np.array([rng.uniform(0.8, 4.0), rng.uniform(0.7, 1.7), 1.0])
    high = unit * np.array([rng.uniform(0.8, 4.0), rng.uniform(0.6, 1.6), 1.0])
    high[2] = depth
    low, high = fit_room(low, high, yaw, tilt, view)
    plain = 0.45 if rng.random() < 0.5 else 0.1
    wall, ceiling, floor = (layout.look(depth, share) for share in (plain, 0.7, 0.15))
    walls = [wall if rng.random() < 0.6 else layout.look(depth, plain) for _ in range(4)]
    layout.add(
        BOX,
        yaw @ ((low + high) / 2),
        (high - low) / 2,
        yaw,
        [walls[0], walls[1], floor, ceiling, walls[2], walls[3]],
        hollow=True,
    )
    _decorate(layout, low, high, yaw, unit)
    for _ in range(int(rng.integers(5, 17))):
        _put(layout, FURNITURE[rng.integers(len(FURNITURE))], high[1], unit, 0.9 * depth)
    for _ in range(int(rng.integers(0, 7))):
        float_by(layout, 0.95 * depth)
    lamp = np.array([layout.column(0.5 * depth), 0.9 * low[1], rng.uniform(-0.2, 0.8) * depth])
    light = Light(
        lamp.astype(np.float32),
        tint(rng) * np.float32(rng.uniform(0.4, 1.3)),
        np.float32(unit * rng.uniform(0.05, 0.6)),
        np.float32(rng.uniform(0.4, 1.0) * depth) if rng.random() < 0.7 else np.float32(0.0),
        tint(rng) * np.float32(rng.uniform(0.1, 0.6)),
        np.float32(rng.uniform(0.0, 0.3)),
        np.zeros(3, np.float32),
        np.zeros(3, np.float32),
    )
    return layout.scene(light)


def _decorate(layout: Layout, low: Vector, high: Vector, yaw: Vector, unit: float) -> None:
    """Pictures, windows, doors and shelves on the walls."""
    rng = layout.rng
    for _ in range(int(rng.integers(1, 9))):
        wall = int(rng.choice([0, 1, 2], p=[0.25, 0.25, 0.5]))  # left, right, back
        span = high - low
        half = np.minimum(unit * rng.uniform(0.15, 0.9, 2), 0.4 * span[[1, 1]])
        thick = unit * rng.uniform(0.01, 0.15)
        place = low + span * rng.uniform(0.1, 0.9, 3)
        place[1] = rng.uniform(low[1] + half[1], max(high[1] - half[1], low[1] + half[1] + 1e-3))
        glow = float(rng.uniform(1.0, 4.0)) if rng.random() < 0.12 else 0.0
        picture = layout.poster(half[0], half[1], glow) if rng.random() < 0.6 else layout.look(high[2], 0.3)
        frame = layout.plain(high[2])
        if wall == 2:
            place[2] = high[2] - thick
            turn, size = yaw, np.array([half[0], half[1], thick])
        else:
            place[0] = low[0] + thick if wall == 0 else high[0] - thick
            turn, size = yaw @ about_y(90.0), np.array([half[0], half[1], thick])
        centre = yaw @ place
        if layout.is_clear(centre, size * 0.6):
            layout.add(BOX, centre, size, turn, [frame, frame, frame, frame, picture, picture])


def _put(
    layout: Layout, make: Callable[[Layout, Vector, float, float], None], floor: float, unit: float, depth: float
) -> None:
    """Stand a piece of furniture on the floor somewhere in view."""
    nearest = layout.view.nearest + 0.6 * unit
    if nearest < depth:
        z = layout.distance(nearest, depth)
        make(
            layout,
            np.array([layout.column(z), floor, z]),
            unit * layout.rng.uniform(0.8, 1.2),
            layout.rng.uniform(0, 360),
        )


def _clutter(layout: Layout) -> Scene:
    """Bodies and slanted boards of any kind before a wall and a floor."""
    rng, view = layout.rng, layout.view
    layout.tilt = tilt = nearly_level(rng, 5.0, 15.0, 10.0)
    depth = layout.distance(min(3.0 * view.nearest, view.farthest), view.farthest)
    yaw = about_y(rng.normal(0.0, 20.0)) @ about_x(rng.normal(0.0, 8.0))
    low = -depth * rng.uniform(0.3, 1.5, 3)
    high = np.array([*(depth * rng.uniform(0.3, 1.5, 2)), depth])
    low, high = fit_room(low, high, yaw, tilt, view)
    walls = [layout.look(depth, 0.25) for _ in range(6)]
    layout.add(BOX, yaw @ ((low + high) / 2), (high - low) / 2, yaw, walls, hollow=True)
    for _ in range(int(rng.integers(6, 26))):
        float_by(layout, 0.95 * depth, (0.08, 0.6))
    for _ in range(int(rng.integers(0, 4))):
        z = layout.distance(1.5 * view.nearest, depth) if depth > 1.5 * view.nearest else depth
        half = z * view.half_width * np.array([rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), 0.01])
        turn = about_z(rng.uniform(0, 360)) @ about_x(rng.uniform(-70.0, 70.0))
        body(layout, BOX, np.array([layout.column(z), layout.row(z), z]), half, turn, [layout.look(z)])
    for _ in range(int(rng.integers(0, 5))):  # cables and sticks
        z = layout.distance(1.3 * view.nearest, depth) if depth > 1.3 * view.nearest else depth
        thin = z / float(view.camera.focal) * rng.uniform(0.7, 4.0)
        half = np.array([thin, thin, z * view.half_width * rng.uniform(0.2, 1.0)])
        turn = along(rng.normal(size=3) * [1.0, 1.0, 0.4])
        body(layout, POLE, np.array([layout.column(z), layout.row(z), z]), half, turn, [layout.look(z, 0.4)])
    light = Light(
        (rng.normal(size=3) * depth * [1.0, 0.5, 0.3] - [0.0, 0.5 * depth, 0.0]).astype(np.float32),
        tint(rng) * np.float32(rng.uniform(0.3, 1.2)),
        np.float32(0.1 * depth * rng.random()),
        np.float32(0.0),
        tint(rng) * np.float32(rng.uniform(0.2, 0.8)),
        np.float32(rng.uniform(0.0, 0.4)),
        np.zeros(3, np.float32),
        np.zeros(3, np.float32),
    )
    return layout.scene(light)


def _street(layout: Layout) -> Scene:
    """A road between houses, with cars, trees and people, and signs and bushes close by, under a sky or before a house."""
    rng, view = layout.rng, layout.view
    unit = view.farthest / STREET_RANGE
    layout.tilt = tilt = nearly_level(rng, 1.0, 3.0, 1.5)
    yaw = about_y(rng.normal(0.0, 8.0))
    # The ground in view must begin beyond the nearest depth.
    steepest = np.array([0.0, view.half_height, 1.0]) @ tilt
    height = max(unit * rng.uniform(1.2, 2.2), 1.1 * view.nearest * (steepest[1] + 0.1 * view.half_width))
    road = layout.look(0.3 * view.farthest, 0.25)
    length = 0.9 * view.farthest / (1.0 + 0.3 * view.half_width)
    wide = 2.0 * view.farthest
    layout.add(BOX, np.array([0, height + 1.0, length - wide]), np.array([wide, 1.0, wide]), np.eye(3), [road])
    for side in (-1.0, 1.0):
        z, edge = view.nearest, unit * rng.uniform(4.0, 14.0)
        while z < 0.9 * length:
            half = unit * np.array([rng.uniform(3, 8), rng.uniform(2, 9), rng.uniform(3, 9)])
            x = side * (edge + half[0] + unit * rng.uniform(0, 3))
            centre = yaw @ np.array([x, 0.0, z + half[2]])
            centre[1] = height - half[1]
            if rng.random() < 0.75:
                house(layout, centre, half, yaw)
            z += 2.0 * half[2] * rng.uniform(1.0, 1.6)
    if rng.random() < 0.5:
        half = unit * np.array([rng.uniform(8, 30), rng.uniform(4, 12), 3.0])
        house(layout, np.array([layout.column(length), height - half[1], length - half[2]]), half, yaw)
    for things, nearest, farthest, number in (
        (STREET_THINGS, 3.0, 0.9 * length, (6, 20)),
        (PAVEMENT_THINGS, 0.2, 0.3 * length, (2, 8)),
    ):
        for _ in range(int(rng.integers(*number))):
            z = layout.distance(view.nearest + nearest * unit, farthest)
            foot = np.array([layout.column(z), height, z])
            thing = things[rng.integers(len(things))]
            thing(layout, foot, unit, rng.normal(0.0, 10.0) + rng.choice([0.0, 90.0], p=[0.8, 0.2]))
    for _ in range(int(rng.integers(0, 3))):
        float_by(layout, 0.8 * length)
    sky = rng.uniform(0.5, 1.5) * (0.5 + 0.5 * tint(rng))
    sun = np.array([rng.normal(), -rng.uniform(0.3, 1.5), rng.normal(0.0, 0.7)]) * 20.0 * view.farthest
    light = Light(
        sun.astype(np.float32),
        tint(rng) * np.float32(rng.uniform(0.2, 1.3)),
        np.float32(0.2 * view.farthest),
        np.float32(0.0),
        tint(rng) * np.float32(rng.uniform(0.25, 0.7)),
        np.float32(rng.uniform(0.0, 0.1)),
        sky.astype(np.float32),
        (sky * np.array([0.5, 0.7, 1.0]) ** rng.uniform(0.0, 1.5)).astype(np.float32),
    )
    return layout.scene(light)


LAYOUTS: dict[str, Callable[[Layout], Scene]] = {
    "room": _room,
    "office": office,
    "street": _street,
    "clutter": _clutter,
}
