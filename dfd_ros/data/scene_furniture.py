"""The things of made-up scenes: furniture, people, cars, trees, houses, and bodies of no name.

Each function adds one thing that stands on `foot`, sized for a world whose metre is `unit` metres, turned by `yaw` degrees.
"""

from __future__ import annotations

import math

import numpy as np

from dfd_ros.data.scene_caster import BALL, BOX, POLE
from dfd_ros.data.scene_layout import FACES, UPRIGHT, Layout, Look, Vector, about_x, about_y, about_z, along, any_turn


def float_by(layout: Layout, depth: float, size: tuple[float, float] = (0.04, 0.25)) -> None:
    """Something in the air, or standing on what the camera does not see; `size` in halves of the view's width."""
    rng = layout.rng
    z = layout.distance(1.3 * layout.view.nearest, depth)
    half = z * layout.view.half_width * math.exp(rng.uniform(*np.log(size))) * rng.uniform(0.15, 1.0, 3)
    centre = np.array([layout.column(z), layout.row(z), z])
    if layout.is_clear(centre, half):
        kind = int(rng.choice([BOX, BALL, POLE], p=[0.6, 0.2, 0.2]))
        looks = [layout.look(z) for _ in range(FACES[kind] // 2 or 1)]
        layout.add(kind, centre, half, any_turn(rng), [look for look in looks for _ in range(2)])


def body(layout: Layout, kind: int, centre: Vector, half: Vector, turn: Vector, looks: list[Look]) -> None:
    """Add a part of something, unless it is too near or too far."""
    if layout.is_clear(centre, half):
        layout.add(kind, centre, half, turn, looks)


def table(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A board on four legs with things on it."""
    rng, turn = layout.rng, about_y(yaw)
    half = unit * np.array([rng.uniform(0.3, 0.9), 0.025, rng.uniform(0.25, 0.5)])
    height = unit * rng.uniform(0.4, 0.8)
    wood, leg = layout.look(foot[2]), layout.plain(foot[2])
    top = foot - [0.0, height, 0.0]
    body(layout, BOX, top, half, turn, [wood])
    for x in (-0.9, 0.9):
        for z in (-0.9, 0.9):
            corner = top + turn @ (half * [x, 0.0, z]) + [0.0, height / 2, 0.0]
            body(layout, BOX, corner, np.array([0.03 * unit, height / 2, 0.03 * unit]), turn, [leg])
    for _ in range(int(rng.integers(0, 6))):
        spot = top + turn @ (half * [rng.uniform(-0.8, 0.8), -1.0, rng.uniform(-0.8, 0.8)])
        small_thing(layout, spot, unit)


def small_thing(layout: Layout, foot: Vector, unit: float) -> None:
    """A book, box, bottle, cup, ball, screen or lamp."""
    rng = layout.rng
    turn = about_y(rng.uniform(0, 360))
    kind = int(rng.integers(4))
    if kind == 0:
        half = unit * np.array([rng.uniform(0.05, 0.2), rng.uniform(0.02, 0.2), rng.uniform(0.05, 0.2)])
        looks = [layout.look(foot[2]) for _ in range(3)]
        body(layout, BOX, foot - [0, half[1], 0], half, turn, [look for look in looks for _ in range(2)])
    elif kind == 1:
        radius, height = unit * rng.uniform(0.03, 0.08), unit * rng.uniform(0.05, 0.16)
        body(
            layout,
            POLE,
            foot - [0, height, 0],
            np.array([radius, radius, height]),
            turn @ UPRIGHT,
            [layout.look(foot[2]), layout.plain(foot[2])],
        )
    elif kind == 2:
        radius = unit * rng.uniform(0.04, 0.14)
        body(layout, BALL, foot - [0, radius, 0], np.full(3, radius), any_turn(rng), [layout.look(foot[2])])
    else:
        half = unit * np.array([rng.uniform(0.12, 0.35), rng.uniform(0.1, 0.22), 0.015])
        glow = float(rng.uniform(0.5, 2.0)) if rng.random() < 0.5 else 0.0
        frame, front = layout.plain(foot[2]), layout.poster(half[0], half[1], glow)
        lean = turn @ about_x(rng.uniform(-15.0, 15.0))
        body(layout, BOX, foot - [0, half[1], 0], half, lean, [frame, frame, frame, frame, front, front])


def chair(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Seat, back and four legs."""
    rng, turn = layout.rng, about_y(yaw)
    half, height = unit * np.array([0.22, 0.03, 0.22]), unit * 0.45
    cloth, leg = layout.look(foot[2], 0.3), layout.plain(foot[2])
    seat = foot - [0.0, height, 0.0]
    body(layout, BOX, seat, half, turn, [cloth])
    back = unit * np.array([0.2, rng.uniform(0.15, 0.3), 0.02])
    body(layout, BOX, seat + turn @ [0.0, -back[1], half[2]], back, turn @ about_x(8.0), [cloth])
    for x in (-0.85, 0.85):
        for z in (-0.85, 0.85):
            corner = seat + turn @ (half * [x, 0.0, z]) + [0.0, height / 2, 0.0]
            body(layout, POLE, corner, np.array([0.02 * unit, 0.02 * unit, height / 2]), UPRIGHT, [leg])


def shelf(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Boards between two sides, with rows of books."""
    rng, turn = layout.rng, about_y(yaw)
    width, height, depth = unit * rng.uniform(0.25, 0.6), unit * rng.uniform(0.4, 0.95), unit * 0.15
    wood = layout.look(foot[2], 0.4)
    rows = int(rng.integers(2, 5))
    for x in (-width, width):
        body(layout, BOX, foot + turn @ [x, -height, 0], np.array([0.015 * unit, height, depth]), turn, [wood])
    for row in range(rows + 1):
        level = -2.0 * height * row / rows
        body(layout, BOX, foot + turn @ [0, level, 0], np.array([width, 0.015 * unit, depth]), turn, [wood])
        if row == rows:
            break
        x, tall = -width, 2.0 * height / rows
        while x < 0.9 * width and rng.random() < 0.93:
            book = np.array([unit * rng.uniform(0.012, 0.05), tall * rng.uniform(0.25, 0.45), depth * 0.8])
            spine = layout.look(foot[2], 0.4)
            body(layout, BOX, foot + turn @ [x + book[0], level - book[1], 0], book, turn, [spine])
            x += 2.0 * book[0]


def cupboard(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A box as large as a cupboard, sofa or fridge, and things on it."""
    rng, turn = layout.rng, about_y(yaw)
    half = unit * np.array([rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.9), rng.uniform(0.2, 0.4)])
    looks = [layout.look(foot[2], 0.35) for _ in range(3)]
    body(layout, BOX, foot - [0, half[1], 0], half, turn, [look for look in looks for _ in range(2)])
    for _ in range(int(rng.integers(0, 3))):
        small_thing(layout, foot + turn @ (half * [rng.uniform(-0.7, 0.7), -2.0, rng.uniform(-0.7, 0.7)]), unit)


def pile(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Boxes one upon another."""
    rng, level = layout.rng, np.array(foot)
    for _ in range(int(rng.integers(1, 5))):
        half = unit * rng.uniform(0.06, 0.28, 3)
        looks = [layout.look(foot[2]) for _ in range(3)]
        turn = about_y(yaw + rng.normal(0.0, 15.0))
        body(layout, BOX, level - [0, half[1], 0], half, turn, [look for look in looks for _ in range(2)])
        level = level - [0.0, 2.0 * half[1], 0.0]


def lamp(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A thin pole with a bright ball."""
    rng, height = layout.rng, unit * layout.rng.uniform(0.4, 0.8)
    thin, radius = unit * rng.uniform(0.008, 0.03), unit * rng.uniform(0.08, 0.2)
    body(layout, POLE, foot - [0, height, 0], np.array([thin, thin, height]), UPRIGHT, [layout.plain(foot[2])])
    glow = float(rng.uniform(0.5, 5.0))
    body(layout, BALL, foot - [0, 2 * height, 0], np.full(3, radius), np.eye(3), [layout.plain(foot[2], glow)])


def plant(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A pot with stalks and leaves."""
    rng = layout.rng
    pot, height = unit * rng.uniform(0.08, 0.2), unit * rng.uniform(0.3, 0.9)
    body(layout, POLE, foot - [0, pot, 0], np.array([pot, pot, pot]), UPRIGHT, [layout.look(foot[2])])
    leaf = layout.look(foot[2], 0.3)
    for _ in range(int(rng.integers(6, 16))):
        way = rng.normal(size=3) * [0.35, 0.1, 0.35] - [0.0, 0.7, 0.0]
        turn = along(way) @ about_z(rng.uniform(0, 360))
        length = height * rng.uniform(0.5, 1.0)
        tip = foot - [0.0, 2 * pot, 0.0] + turn[:, 2] * length
        body(layout, BALL, tip, np.array([0.12 * length, 0.02 * length, 0.3 * length]), turn, [leaf])
        stalk = np.array([0.01 * unit, 0.01 * unit, 0.5 * length])
        body(layout, POLE, foot - [0.0, 2 * pot, 0.0] + turn[:, 2] * length * 0.5, stalk, turn, [leaf])


def person(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Head, trunk, arms and legs, standing."""
    rng, turn = layout.rng, about_y(yaw)
    shirt, trousers, skin = (layout.look(foot[2], 0.3) for _ in range(3))
    tall = unit * rng.uniform(0.8, 1.05)

    def part(x: float, up: float, half: tuple[float, float, float], look: Look) -> None:
        body(layout, BALL, foot + turn @ [tall * x, -tall * up, 0.0], tall * np.array(half), turn, [look])

    part(0.0, 1.62, (0.085, 0.12, 0.1), skin)
    part(0.0, 1.17, (0.2, 0.34, 0.13), shirt)
    for side in (-1.0, 1.0):
        part(0.24 * side, 1.1, (0.055, 0.36, 0.06), shirt)
        part(0.1 * side, 0.45, (0.085, 0.48, 0.09), trousers)


def board(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A slanted board, as large as a table or a door."""
    rng = layout.rng
    half = unit * np.array([rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.9), 0.015])
    turn = about_y(yaw) @ about_x(rng.uniform(-60.0, 60.0))
    body(layout, BOX, foot - [0, half[1], 0], half, turn, [layout.look(foot[2])])


FURNITURE = (table, table, chair, chair, shelf, cupboard, cupboard, pile, pile, lamp, plant, person, board)


def house(layout: Layout, centre: Vector, half: Vector, turn: Vector) -> None:
    """A house: a box with windows in rows."""
    rng = layout.rng
    nearest = centre[2] - half[2]
    if nearest < layout.view.nearest or centre[2] + half[2] > layout.view.farthest:
        return
    distance = max(nearest, layout.view.nearest)
    looks = [layout.look(distance, 0.2) for _ in range(3)]
    layout.add(BOX, centre, half, turn, [look for look in looks for _ in range(2)])
    if rng.random() < 0.7:
        pane, storey = layout.plain(distance), half[1] * rng.uniform(0.25, 0.5)
        glass = Look(pane.texture, pane.place, 0.3 * pane.base, pane.gain, pane.grain, 0.0, 0.8)
        side = -math.copysign(1.0, centre[0])
        for up in np.arange(-half[1] + storey, half[1], 2.0 * storey):
            for along in np.arange(-half[2] + storey, half[2] - 0.5 * storey, 2.2 * storey):
                place = centre + turn @ [side * half[0], up, along]
                window = np.array([0.02 * storey, 0.5 * storey, 0.5 * storey])
                layout.add(BOX, place, window, turn, [glass])


def car(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Two boxes on four wheels."""
    turn = about_y(yaw)
    paint, glass, tyre = layout.look(foot[2], 0.7), layout.plain(foot[2]), layout.plain(foot[2])
    paint = Look(paint.texture, paint.place, paint.base, paint.gain, paint.grain, 0.0, 1.0)
    body(layout, BOX, foot + turn @ [0, -0.65 * unit, 0], unit * np.array([0.9, 0.35, 2.1]), turn, [paint])
    body(layout, BOX, foot + turn @ [0, -1.2 * unit, 0.2 * unit], unit * np.array([0.75, 0.3, 1.1]), turn, [glass])
    for x in (-0.8, 0.8):
        for z in (-1.35, 1.35):
            wheel = unit * np.array([0.32, 0.32, 0.12])
            body(layout, POLE, foot + turn @ (unit * np.array([x, -0.32, z])), wheel, turn @ about_y(90.0), [tyre])


def mast(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A pole, with a sign or without."""
    rng, height = layout.rng, unit * layout.rng.uniform(1.0, 4.0)
    thin = unit * rng.uniform(0.03, 0.12)
    body(layout, POLE, foot - [0, height, 0], np.array([thin, thin, height]), UPRIGHT, [layout.look(foot[2], 0.5)])
    if rng.random() < 0.6:
        half = unit * np.array([rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.6), 0.02])
        sign = layout.poster(half[0], half[1])
        body(layout, BOX, foot - [0, 2 * height - half[1], 1.1 * thin], half, about_y(yaw), [sign])


def tree(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A trunk under a crown of leaves in clumps."""
    rng, height = layout.rng, unit * layout.rng.uniform(0.8, 2.0)
    trunk = unit * rng.uniform(0.08, 0.25)
    body(layout, POLE, foot - [0, height, 0], np.array([trunk, trunk, height]), UPRIGHT, [layout.look(foot[2])])
    leaves = layout.look(foot[2], 0.0)
    for _ in range(int(rng.integers(5, 14))):
        clump = foot - [0, 2.2 * height, 0] + unit * rng.normal(size=3) * [0.9, 0.7, 0.9]
        body(layout, BALL, clump, unit * rng.uniform(0.3, 1.1, 3), any_turn(rng), [leaves])


def bush(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """Leaves in clumps, from the ground up."""
    rng = layout.rng
    wide, leaves = unit * rng.uniform(0.2, 0.7), layout.look(foot[2], 0.0)
    for _ in range(int(rng.integers(4, 12))):
        clump = wide * rng.uniform(0.3, 0.8, 3)
        body(
            layout,
            BALL,
            foot + wide * rng.normal(size=3) * [0.8, 0.0, 0.5] - [0, clump[1], 0],
            clump,
            any_turn(rng),
            [leaves],
        )


def cabinet(layout: Layout, foot: Vector, unit: float, yaw: float) -> None:
    """A bin, a meter or a kiosk: a box on the ground or on a post, lettered in front."""
    rng = layout.rng
    half = unit * np.array([rng.uniform(0.1, 0.45), rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.35)])
    raised = unit * rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0.0
    paint = layout.look(foot[2], 0.6)
    front = layout.poster(half[0], half[1]) if rng.random() < 0.6 else paint
    body(layout, BOX, foot - [0, raised + half[1], 0], half, about_y(yaw), [paint, paint, paint, paint, front, front])
    if raised:
        post = np.array([0.3 * half[0], 0.3 * half[0], 0.5 * raised])
        body(layout, POLE, foot - [0, 0.5 * raised, 0], post, UPRIGHT, [paint])


STREET_THINGS = (car, car, car, mast, mast, tree, tree, person, person, pile)
PAVEMENT_THINGS = (mast, bush, bush, cabinet, cabinet, person, pile)
"""What may stand close by."""
