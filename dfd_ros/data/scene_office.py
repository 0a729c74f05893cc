"""Made-up offices and corridors as a level camera at eye height sees them.

What makes them harder than rooms: pale walls with hardly any texture, dark plastic, and things close to the camera.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dfd_ros.data.scene_caster import Light
from dfd_ros.data.scene_furniture import board, cupboard, lamp, pile, plant, shelf
from dfd_ros.data.scene_layout import ROOM_RANGE, Layout, Scene, Vector, about_y, fit_room, nearly_level, tint
from dfd_ros.data.scene_office_furniture import cabinet, chair_on_castors, desk
from dfd_ros.data.scene_office_walls import THICKEST, Room, build

Piece = Callable[[Layout, Vector, float, float], None]

_CORRIDORS = 0.3  # share of the scenes
_CLOSE = 0.25  # share of the offices with something close to the camera
_TRIES = 6  # places tried for a piece before it is left out

_WHOLE: tuple[Piece, ...] = (desk, chair_on_castors, cabinet)
"""Pieces that see for themselves to it that they are within the range of depth as a whole."""
# Pieces beside desks and chairs, and how far they reach from their middle, metres at the scale of a room.
_OTHERS: tuple[tuple[Piece, float], ...] = (
    (shelf, 1.0),
    (shelf, 1.0),
    (cupboard, 1.1),
    (cabinet, 0.45),
    (pile, 0.5),
    (plant, 0.8),
    (lamp, 0.8),
    (board, 0.9),
)


def office(layout: Layout) -> Scene:
    """An office with furniture, or a corridor with none."""
    rng, view = layout.rng, layout.view
    unit = view.farthest / ROOM_RANGE
    layout.tilt = nearly_level(rng, -3.0, 5.0, 1.5)
    corridor = rng.random() < _CORRIDORS
    room = _room(layout, unit, corridor)
    build(layout, room, unit)
    if not corridor:
        _furnish(layout, room, unit)
    return layout.scene(_lighting(layout, room, unit))


def _room(layout: Layout, unit: float, corridor: bool) -> Room:
    """The walls: of a corridor along the view, or of an office seen straight or aslant."""
    rng = layout.rng
    eye, ceiling = rng.uniform(1.0, 1.5), rng.uniform(2.3, 3.0)
    if corridor:
        width, side = rng.uniform(1.3, 2.6), rng.uniform(0.25, 0.75)
        left, right, back = side * width, (1.0 - side) * width, rng.uniform(3.0, 9.0)
        yaw = rng.normal(0.0, 16.0)
    else:
        left, right = rng.uniform(0.7, 2.5, 2)
        back = math.exp(rng.uniform(math.log(0.8), math.log(4.6)))
        yaw = rng.uniform(-45.0, 45.0) if rng.random() < 0.6 else rng.normal(0.0, 5.0)
    low, high = unit * np.array([-left, eye - ceiling, -1.0]), unit * np.array([right, eye, back])
    turn = about_y(yaw)
    # What lies flat on a wall that enters the picture at the nearest depth is beyond that depth too.
    view = layout.view
    spare = unit * THICKEST / min(view.half_width, view.half_height, 1.0)
    low, high = fit_room(low, high, turn, layout.tilt, replace(view, nearest=view.nearest + spare))
    return Room(low, high, turn)


def _furnish(layout: Layout, room: Room, unit: float) -> None:
    """Desks, chairs, other pieces, and sometimes things close to the camera."""
    rng = layout.rng
    taken: list[tuple[Vector, float]] = []
    for _ in range(int(rng.integers(0, 4))):
        _put(layout, room, desk, 0.8 * unit, unit, taken)
    for _ in range(int(rng.integers(0, 4))):
        _put(layout, room, chair_on_castors, 0.3 * unit, unit, taken)
    for _ in range(int(rng.integers(0, 4))):
        piece, reach = _OTHERS[rng.integers(len(_OTHERS))]
        _put(layout, room, piece, reach * unit, unit, taken)
    if rng.random() < _CLOSE:
        for _ in range(int(rng.integers(1, 3))):
            z = layout.view.nearest * rng.uniform(1.05, 2.2)
            foot = room.within(np.array([layout.column(z, 0.9), room.floor, z]), 0.0)
            piece = (desk, desk, chair_on_castors, cabinet, cabinet)[rng.integers(5)]
            piece(layout, foot, unit, room.yaw + rng.choice([0.0, 90.0, 180.0]) + rng.normal(0.0, 20.0))


def _put(
    layout: Layout, room: Room, piece: Piece, reach: float, unit: float, taken: list[tuple[Vector, float]]
) -> None:
    """Stand a piece on the floor somewhere in view, parallel to the walls, where no other is."""
    rng, view = layout.rng, layout.view
    nearest = view.nearest + (0.3 if piece in _WHOLE else 1.0) * reach
    for _ in range(_TRIES):
        z = layout.distance(nearest, max(nearest, 0.95 * float(room.high[2])))
        # Half of the reach from the wall: most pieces are flat, and what goes into the wall is not seen.
        foot = room.within(np.array([layout.column(z), room.floor, z]), 0.5 * reach)
        free = all(np.hypot(*(foot - other)[[0, 2]]) > 0.7 * (reach + other_reach) for other, other_reach in taken)
        # What is not stood as a whole is put only where it is whole.
        if free and (piece in _WHOLE or nearest <= foot[2] <= view.farthest - reach):
            taken.append((foot, reach))
            yaw = rng.uniform(0.0, 360.0) if piece is chair_on_castors else room.yaw + 90.0 * int(rng.integers(4))
            piece(layout, foot, unit * rng.uniform(0.9, 1.1), yaw + rng.normal(0.0, 6.0))
            return


def _lighting(layout: Layout, room: Room, unit: float) -> Light:
    """A lamp below the ceiling, and what the walls scatter."""
    rng, depth = layout.rng, float(room.high[2])
    spot = np.array([layout.column(0.5 * depth), 0.9 * room.low[1], rng.uniform(-0.2, 0.8) * depth])
    reach = rng.uniform(0.4, 1.0) * depth if rng.random() < 0.7 else 0.0  # 0: as bright at any distance
    return Light(
        position=room.within(spot, 0.1 * unit).astype(np.float32),
        colour=tint(rng) * np.float32(rng.uniform(0.2, 1.0)),
        size=np.float32(unit * rng.uniform(0.2, 0.8)),
        reach=np.float32(reach),
        ambient=tint(rng) * np.float32(rng.uniform(0.15, 0.6)),
        frontal=np.float32(rng.uniform(0.0, 0.1)),
        horizon=np.zeros(3, np.float32),
        zenith=np.zeros(3, np.float32),
    )
