"""The walls of made-up offices and what is on them: posters, boards, doors, windows, boxes, skirting boards."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dfd_ros.data.scene_caster import BOX
from dfd_ros.data.scene_layout import Layout, Look, Vector, about_y
from dfd_ros.data.scene_office_looks import carpet, dark, pale, wood, writing

LEFT, RIGHT, BACK = 0, 1, 2
"""The walls in view."""
THICKEST = 0.04
"""Metres: what is flatter counts as flat on its wall."""


@dataclass(frozen=True)
class Room:
    """A box seen from within: its corners along its own axes, and the turn that brings them to the layout's."""

    low: Vector
    high: Vector
    turn: Vector

    @property
    def floor(self) -> float:
        return float(self.high[1])

    @property
    def yaw(self) -> float:
        """Degrees."""
        return math.degrees(math.atan2(self.turn[0, 2], self.turn[2, 2]))

    def within(self, point: Vector, margin: float) -> Vector:
        """The point of the room nearest to one of the layout, so far from its walls; one as high."""
        low, high = self.low + margin, self.high - margin
        own = np.clip(self.turn.T @ point, np.minimum(low, high), np.maximum(low, high))
        inside = self.turn @ own
        inside[1] = point[1]
        return inside


@dataclass(frozen=True)
class _Hanging:
    """Something on a wall: half its width and height, how high its middle is above the floor, half its thickness; metres."""

    half: tuple[float, float]
    height: float
    thick: float
    front: Look
    frame: Look


def build(layout: Layout, room: Room, unit: float) -> None:
    """Walls, floor, ceiling, and what is on the walls."""
    rng, distance = layout.rng, float(room.high[2])
    paint = pale(layout, distance)

    def wall() -> Look:
        choice = rng.random()
        return paint if choice < 0.6 else pale(layout, distance) if choice < 0.88 else layout.look(distance, 0.4)

    looks = [wall(), wall(), carpet(layout, distance), pale(layout, distance), wall(), wall()]
    layout.add(BOX, room.turn @ (room.low + room.high) / 2, (room.high - room.low) / 2, room.turn, looks, hollow=True)
    for _ in range(int(rng.integers(2, 10))):
        _hang(layout, room, unit)
    if rng.random() < 0.6:
        _skirting(layout, room, unit)


def _hang(layout: Layout, room: Room, unit: float) -> None:
    """Put something on a wall."""
    rng, low, high = layout.rng, room.low, room.high
    kind = (_poster, _board, _door, _window, _box)[rng.choice(5, p=[0.35, 0.2, 0.25, 0.1, 0.1])]
    thing = kind(layout, float(high[2]), unit)
    wall = int(rng.choice([LEFT, RIGHT, BACK], p=[0.35, 0.35, 0.3]))
    along, across = (0, 2) if wall == BACK else (2, 0)
    half = unit * np.array(thing.half)
    half = np.minimum(half, 0.45 * (high - low)[[along, 1]])
    thick = unit * thing.thick
    place = np.empty(3)
    nearest = low[0] if wall == BACK else min(0.8 * unit, 0.6 * high[2])
    place[along] = min(max(rng.uniform(nearest, high[along]), low[along] + half[0]), high[along] - half[0])
    place[1] = min(max(room.floor - unit * thing.height, low[1] + half[1]), room.floor - half[1])
    place[across] = low[0] + thick if wall == LEFT else high[across] - thick
    centre = room.turn @ place
    size = np.array([half[0], half[1], thick])
    # Flat things may be cut by the edge of the picture, where their wall is beyond the nearest depth anyway.
    if layout.is_clear(centre, 0.3 * size if 2.0 * thing.thick < THICKEST else size):
        turn = room.turn if wall == BACK else room.turn @ about_y(90.0)
        frame, front = thing.frame, thing.front
        layout.add(BOX, centre, size, turn, [frame, frame, frame, frame, front, front])


def _frame(layout: Layout, distance: float) -> Look:
    return pale(layout, distance) if layout.rng.random() < 0.6 else dark(layout, distance)


def _flat(layout: Layout) -> float:
    """Half the thickness of a sheet or a frame."""
    return float(layout.rng.uniform(0.003, 0.019))


def _poster(layout: Layout, distance: float, unit: float) -> _Hanging:
    rng = layout.rng
    half = (rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5))
    front = layout.poster(unit * half[0], unit * half[1])
    return _Hanging(half, rng.uniform(1.0, 1.8), _flat(layout), front, _frame(layout, distance))


def _board(layout: Layout, distance: float, unit: float) -> _Hanging:
    rng = layout.rng
    half = (rng.uniform(0.4, 1.0), rng.uniform(0.35, 0.6))
    front = writing(layout, distance) if rng.random() < 0.6 else pale(layout, distance)
    return _Hanging(half, rng.uniform(1.2, 1.7), _flat(layout), front, _frame(layout, distance))


def _door(layout: Layout, distance: float, unit: float) -> _Hanging:
    front = wood(layout, distance) if layout.rng.random() < 0.6 else pale(layout, distance)
    return _Hanging((0.45, 1.02), 1.02, _flat(layout), front, _frame(layout, distance))


def _window(layout: Layout, distance: float, unit: float) -> _Hanging:
    """With the world outside on its pane, brighter than the room."""
    rng = layout.rng
    half = (rng.uniform(0.4, 1.2), rng.uniform(0.4, 0.7))
    front = layout.poster(unit * half[0], unit * half[1], float(rng.uniform(1.0, 5.0)))
    return _Hanging(half, rng.uniform(1.4, 1.8), _flat(layout), front, _frame(layout, distance))


def _box(layout: Layout, distance: float, unit: float) -> _Hanging:
    """A switch, a fuse box, a radiator."""
    rng = layout.rng
    half = (rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3))
    look = layout.look(distance, 0.7)
    return _Hanging(half, rng.uniform(0.1, 2.2), rng.uniform(0.02, 0.15), look, _frame(layout, distance))


def _skirting(layout: Layout, room: Room, unit: float) -> None:
    """A low board along the foot of each wall in view."""
    low, high = room.low, room.high
    distance = float(high[2])
    look = dark(layout, distance) if layout.rng.random() < 0.5 else wood(layout, distance)
    tall, thick = 0.05 * unit, 0.008 * unit
    middle, half = (low + high) / 2, (high - low) / 2
    for x in (low[0] + thick, high[0] - thick):
        centre = np.array([x, room.floor - tall, middle[2]])
        layout.add(BOX, room.turn @ centre, np.array([thick, tall, half[2]]), room.turn, [look])
    centre = np.array([middle[0], room.floor - tall, high[2] - thick])
    layout.add(BOX, room.turn @ centre, np.array([half[0], tall, thick]), room.turn, [look])
