"""The things of made-up offices: desks with monitors, chairs on castors, cabinets.

A piece is built of parts in a frame of its own, its foot in the origin, y down, its user on the side of -z. It is stood in
the scene as a whole or not at all, so that nothing hangs in the air.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from dfd_ros.data.scene_caster import BALL, BOX, POLE
from dfd_ros.data.scene_furniture import small_thing
from dfd_ros.data.scene_layout import UPRIGHT, Layout, Look, Vector, about_x, about_y
from dfd_ros.data.scene_office_looks import dark, pale, wood

_CLEAR = 1.02  # the nearest point of a piece, over the nearest depth
_MONITOR_ROOM = 0.35  # metres of half a desk's width that a monitor takes


@dataclass(frozen=True)
class Part:
    """A body in the frame of its piece; what `Layout.add` takes."""

    kind: int
    centre: Vector
    half: Vector
    turn: Vector
    looks: list[Look]


def stand(layout: Layout, parts: Iterable[Part], foot: Vector, turn: Vector) -> Vector | None:
    """Stand a piece on its foot, or behind it as far as the nearest depth demands: where it stands.

    None, and nothing is added, where it would reach beyond the farthest depth.
    """
    view, ahead = layout.view, layout.tilt[2]
    placed = [replace(part, centre=foot + turn @ part.centre, turn=turn @ part.turn) for part in parts]
    depth = np.array([ahead @ part.centre for part in placed])
    reach = np.array([np.abs(ahead @ part.turn) @ part.half for part in placed])
    back = max(0.0, _CLEAR * view.nearest - float(np.min(depth - reach)))
    if float(np.max(depth + reach)) + back >= view.farthest:
        return None
    step = np.array([0.0, 0.0, back / ahead[2]])
    for part in placed:
        layout.add(part.kind, part.centre + step, part.half, part.turn, part.looks)
    return foot + step


def desk(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A top on two sides, with monitors and small things on it, and sometimes a chair before it."""
    rng, turn, distance = layout.rng, about_y(yaw), foot[2]
    half = unit * np.array([rng.uniform(0.6, 1.2), 0.015, rng.uniform(0.35, 0.5)])
    height = unit * rng.uniform(0.7, 0.8)
    top = wood(layout, distance) if rng.random() < 0.7 else pale(layout, distance)
    leg = pale(layout, distance) if rng.random() < 0.7 else dark(layout, distance)
    parts = [Part(BOX, np.array([0.0, -height, 0.0]), half, np.eye(3), [top])]
    side = np.array([0.02 * unit, height / 2, 0.9 * half[2]])
    parts += [Part(BOX, np.array([x * half[0], -height / 2, 0.0]), side, np.eye(3), [leg]) for x in (-0.95, 0.95)]
    if rng.random() < 0.5:
        screen = np.array([half[0], 0.25 * height, 0.01 * unit])
        parts.append(Part(BOX, np.array([0.0, -0.7 * height, 0.9 * half[2]]), screen, np.eye(3), [leg]))
    most = int(half[0] / (_MONITOR_ROOM * unit))
    count = min(int(rng.integers(0, 4)), most)
    for k in range(count):
        spot = half * [0.85 * ((2 * k + 1) / count - 1.0), -1.0, rng.uniform(-0.1, 0.6)] - [0.0, height, 0.0]
        parts += [replace(part, centre=part.centre + spot) for part in monitor(layout, distance, unit)]
    stood = stand(layout, parts, foot, turn)
    if stood is None:
        return
    for _ in range(int(rng.integers(1, 14))):
        spot = half * [rng.uniform(-0.9, 0.9), -1.0, rng.uniform(-0.9, 0.9)] - [0.0, height, 0.0]
        small_thing(layout, stood + turn @ spot, unit * rng.uniform(0.4, 1.0))
    if rng.random() < 0.5:
        before = turn @ [rng.uniform(-0.4, 0.4) * half[0], 0.0, -half[2] - unit * rng.uniform(0.0, 0.4)]
        chair_on_castors(layout, stood + before, unit, yaw + 180.0 + rng.normal(0.0, 40.0))


def monitor(layout: Layout, distance: float, unit: float) -> list[Part]:
    """The parts of a screen on a stand; dark, or with a picture."""
    rng = layout.rng
    half = unit * np.array([rng.uniform(0.2, 0.32), rng.uniform(0.13, 0.2), 0.02])
    turn = about_y(rng.normal(0.0, 25.0))
    frame = dark(layout, distance)
    shows = rng.random() < 0.4
    front = layout.poster(half[0], half[1], float(rng.uniform(0.3, 1.5))) if shows else dark(layout, distance)
    gap = 0.1 * unit
    centre = np.array([0.0, -gap - half[1], 0.0])
    lean = turn @ about_x(rng.uniform(-8.0, 8.0))
    neck = unit * np.array([0.03, 0.5 * gap / unit + 0.04, 0.015])
    return [
        Part(BOX, centre, half, lean, [frame, frame, frame, frame, frame, front]),
        Part(BOX, turn @ [0.0, -neck[1], 1.5 * half[2]], neck, turn, [frame]),
        Part(BOX, np.array([0.0, -0.01 * unit, 0.0]), unit * np.array([0.12, 0.01, 0.09]), turn, [frame]),
    ]


def chair_on_castors(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Seat and back on a column with five feet, with arms or without."""
    rng, distance = layout.rng, foot[2]
    cloth = dark(layout, distance) if rng.random() < 0.7 else layout.look(distance, 0.5)
    frame = dark(layout, distance)
    seat = rng.uniform(0.43, 0.52)
    kind = BALL if rng.random() < 0.5 else BOX
    plain = np.eye(3)
    parts = [
        Part(BOX, np.array([0.0, -seat, 0.0]), np.array([0.24, 0.04, 0.23]), plain, [cloth]),
        Part(kind, np.array([0.0, -seat - 0.38, 0.24]), np.array([0.22, 0.28, 0.05]), about_x(8.0), [cloth]),
        Part(BOX, np.array([0.0, -seat - 0.1, 0.24]), np.array([0.03, 0.14, 0.015]), plain, [frame]),
        Part(POLE, np.array([0.0, -seat / 2, 0.0]), np.array([0.03, 0.03, seat / 2 - 0.04]), UPRIGHT, [frame]),
    ]
    for angle in np.arange(5) * 72.0:
        arm = about_y(angle)
        parts.append(Part(BOX, arm @ [0.0, -0.075, 0.15], np.array([0.02, 0.015, 0.15]), arm, [frame]))
        parts.append(Part(BALL, arm @ [0.0, -0.03, 0.28], np.full(3, 0.03), plain, [frame]))
    if rng.random() < 0.5:
        for x in (-0.27, 0.27):
            parts.append(Part(BOX, np.array([x, -seat - 0.2, 0.0]), np.array([0.03, 0.015, 0.14]), plain, [frame]))
            parts.append(Part(BOX, np.array([x, -seat - 0.08, 0.0]), np.array([0.015, 0.12, 0.03]), plain, [frame]))
    sized = [replace(part, centre=unit * part.centre, half=unit * part.half) for part in parts]
    stand(layout, sized, foot, about_y(yaw))


def cabinet(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A box with drawers, from knee to eye height."""
    rng, turn, distance = layout.rng, about_y(yaw), foot[2]
    half = unit * np.array([rng.uniform(0.15, 0.45), rng.uniform(0.3, 0.8), rng.uniform(0.15, 0.3)])
    paints = (pale, dark, wood)
    case = paints[rng.integers(len(paints))](layout, distance)
    front = case if rng.random() < 0.5 else paints[rng.integers(len(paints))](layout, distance)
    handle = dark(layout, distance)
    parts = [Part(BOX, np.array([0.0, -half[1], 0.0]), half, np.eye(3), [case])]
    rows = int(rng.integers(1, 6))
    drawer = np.array([0.96 * half[0], 0.96 * half[1] / rows, 0.006 * unit])
    knob = unit * np.array([0.06, 0.01, 0.015])
    for row in range(rows):
        middle = np.array([0.0, -half[1] * (2 * row + 1) / rows, -half[2]])
        parts.append(Part(BOX, middle, drawer, np.eye(3), [front]))
        parts.append(Part(BOX, middle - [0.0, 0.6 * drawer[1], drawer[2]], knob, np.eye(3), [handle]))
    stood = stand(layout, parts, foot, turn)
    if stood is not None:
        for _ in range(int(rng.integers(0, 4))):
            spot = half * [rng.uniform(-0.7, 0.7), -2.0, rng.uniform(-0.7, 0.7)]
            small_thing(layout, stood + turn @ spot, unit * rng.uniform(0.4, 1.0))
