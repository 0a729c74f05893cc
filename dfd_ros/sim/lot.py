"""The parking lot: what stands where. The vehicle enters along +x, its camera above the origin.

A narrow one-way lane between two rows of bays, as the camera's 20 degrees see it: vehicles of three kinds, people,
cones; kerb, lawn and trees on the left, a long facade on the right, a truck crossing and houses at the far end.
Something stands in view at every distance from about 2 m to 75 m.
"""

from __future__ import annotations

import math

import numpy as np

from dfd_ros.sim import props
from dfd_ros.sim.props import turned
from dfd_ros.sim.scene import Coat, Light, Scene, SceneObject, compile_scene

BAY_WIDTH = 2.7
_FIRST_BAY, _BAYS = 8.5, 15  # metres to the first bay's near line
_RIGHT_EDGE, _LEFT_EDGE = -2.1, 2.3  # y of the lane's edges, where the parked vehicles' noses are


def parking_lot(seed: int, *, clear: float = 0.0) -> Scene:
    """The lot of this seed.

    Args:
        seed: Any whole number >= 0; it alone decides the scene (with `clear`).
        clear: Keep the lane free this far, metres (for a vehicle that drives); 0: things may stand in it.
    """
    rng = np.random.default_rng(seed)
    atlas = props.common_textures(rng)
    things: list[SceneObject] = []
    things += _ground(rng)
    things += _surroundings(rng)

    # Parked vehicles: one of each kind among the nearest bays, the rest by chance.
    makers = {"car": props.car, "van": props.van, "truck": props.truck}

    def vehicle(kind: str) -> SceneObject:
        colour = props.PAINTS[rng.integers(len(props.PAINTS))]
        return makers[kind](atlas, f"vehicle-{len(things)}", colour, rng)

    for edge, side in ((_RIGHT_EDGE, -1.0), (_LEFT_EDGE, 1.0)):
        wanted = ["car", "van"] if rng.random() < 0.5 else ["van", "car"]
        for bay in range(_BAYS):
            kind = wanted[bay // 2 % 2] if bay < 4 else str(rng.choice(["car", "van"], p=[0.7, 0.3]))
            if rng.random() < (0.15 if bay < 4 else 0.28):
                continue
            length = 4.4 if kind == "car" else 5.0
            nose_in = rng.random() < 0.5
            x = _FIRST_BAY + BAY_WIDTH * (bay + 0.5) + rng.uniform(-0.2, 0.2)
            y = edge + side * (length / 2.0 + rng.uniform(0.0, 0.35))
            heading = side * 90.0 * (1.0 if nose_in else -1.0) + rng.uniform(-3.0, 3.0)
            things.append(turned(vehicle(kind), x, y, heading))

    # In the lane: a car leaving its bay, one ahead, a truck crossing at the far end.
    side = float(rng.choice([-1.0, 1.0]))
    gap = 1.45 if clear else rng.uniform(0.55, 0.85)  # from the axis to its nose
    x = rng.uniform(10.0, 12.5)
    things = [thing for thing in things if not _in_bay(thing, x, side)]
    things.append(turned(vehicle("car"), x, side * (gap + 2.2), -side * 90.0 + rng.uniform(-8.0, 8.0)))
    things.append(
        turned(vehicle("car"), rng.uniform(24.0, 28.0) + clear, rng.uniform(-0.5, 0.5), rng.uniform(-4.0, 4.0))
    )
    things.append(turned(vehicle("truck"), rng.uniform(51.0, 55.0), rng.uniform(-1.5, 1.5), 90.0 * rng.choice([-1, 1])))

    things += _people_and_furniture(rng, atlas, -side, clear)
    azimuth = math.radians(float(rng.uniform(25.0, 60.0) * rng.choice([-1.0, 1.0])))
    elevation = math.radians(float(rng.uniform(32.0, 48.0)))
    # The sun stands behind the camera, to one side: what the camera sees is lit.
    level = math.cos(elevation)
    sun = (-level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation))
    return compile_scene(things, atlas, Light(sun), "clouds")


def _in_bay(thing: SceneObject, x: float, side: float) -> bool:
    """Whether a vehicle is parked where another one leaves its bay."""
    parked = thing.kind in ("car", "van") and thing.position[1] * side > 0.0
    return parked and abs(thing.position[0] - x) < BAY_WIDTH


def _ground(rng: np.random.Generator) -> list[SceneObject]:
    """Asphalt, lawn, kerbs and markings."""
    things = [props.slab("ground", (-40.0, -90.0, -1.0), (190.0, 90.0, 0.0), Coat("asphalt", 3.1))]
    kerb, white = Coat("concrete", 1.0, (1.3, 1.3, 1.25)), Coat("marking", 1.1)
    things.append(props.slab("lawn", (4.0, 8.6, -0.5), (64.0, 40.0, 0.14), Coat("grass", 2.3)))
    things.append(props.slab("kerb", (3.85, 8.4, -0.5), (64.0, 8.6, 0.15), kerb))
    things.append(props.slab("pavement", (4.0, -12.0, -0.5), (64.0, -8.4, 0.14), Coat("concrete", 1.2)))
    things.append(props.slab("pavement", (66.0, -60.0, -0.5), (74.0, 60.0, 0.14), Coat("concrete", 1.5)))
    marking = SceneObject("marking")
    height, half = 0.004, 0.06  # a coat of paint
    for edge, outer in ((_RIGHT_EDGE, -7.6), (_LEFT_EDGE, 7.8)):
        for bay in range(_BAYS + 1):
            x = _FIRST_BAY + BAY_WIDTH * bay
            marking.box((x - half, min(edge, outer), -0.1), (x + half, max(edge, outer), height), white)
    things.append(marking)
    lane = SceneObject("marking")
    for x in np.arange(7.0, 50.0, 6.0):
        lane.box((x, -0.06, -0.1), (x + 2.5, 0.06, height), white)
    lane.box((49.0, -2.0, -0.1), (49.4, 2.2, height), white)
    things.append(lane)
    return things


def _surroundings(rng: np.random.Generator) -> list[SceneObject]:
    """Houses, trees, hedge, lamps."""
    things = []
    y = -34.0
    walls = ["brick-windows", "plaster-windows"]
    pick = int(rng.integers(2))
    while y < 34.0:  # the far end
        length = float(rng.uniform(8.0, 15.0))
        height = float(rng.uniform(5.0, 8.5))
        house = props.building(length, 9.0, height, walls[pick % 2], poster=rng.random() < 0.5)
        things.append(turned(house, rng.uniform(74.0, 79.0), y + length / 2.0))
        y += length + (0.0 if rng.random() < 0.5 else float(rng.uniform(1.5, 4.0)))
        pick += 1
    long = props.building(62.0, 10.0, float(rng.uniform(5.5, 8.0)), walls[int(rng.integers(2))])
    things.append(turned(long, 35.0, -12.0, -90.0))
    for x in np.arange(14.0, 62.0, 6.5):
        things.append(
            turned(props.tree(rng, float(rng.uniform(5.0, 7.5))), x + rng.uniform(-1.5, 1.5), rng.uniform(10.0, 13.0))
        )
    hedge = SceneObject("hedge")
    hedge.box((6.0, 15.0, 0.0), (64.0, 16.0, 1.7), Coat("foliage", 1.2))
    things.append(hedge)
    for y in (rng.uniform(-11.0, -7.0), rng.uniform(5.0, 11.0)):
        things.append(turned(props.tree(rng, float(rng.uniform(5.0, 8.0))), 70.5, y))
    for x in (20.0, 38.0, 56.0):
        things.append(turned(props.lamp_post(), x, 8.9))
        things.append(turned(props.lamp_post(), x + 7.0, -8.8, 180.0))
    return things


def _people_and_furniture(rng: np.random.Generator, atlas: props.Atlas, side: float, clear: float) -> list[SceneObject]:
    """People, cones and what stands close by; `side` (+1 left, −1 right) is where there is room near the camera."""
    near = 1.35 if clear else 0.75
    person = iter(range(100))

    def walker(x: float, y: float) -> SceneObject:
        return turned(props.pedestrian(atlas, f"person-{next(person)}", rng), x, y, rng.uniform(0.0, 360.0))

    things = [
        walker(rng.uniform(6.5, 8.0), side * (near + rng.uniform(0.0, 0.15))),
        walker(rng.uniform(15.0, 19.0), side * rng.uniform(1.3, 1.8)),
        walker(rng.uniform(30.0, 34.0) + clear, -side * rng.uniform(0.6, 1.6)),
        walker(rng.uniform(38.0, 46.0), side * rng.uniform(0.4, 1.8)),
        walker(rng.uniform(60.0, 68.0), rng.uniform(-6.0, 6.0)),
    ]
    for x in (9.3, 13.0):
        things.append(turned(props.cone(), x + rng.uniform(-0.4, 0.4), side * rng.uniform(1.25, 1.5)))
    things.append(turned(props.traffic_sign(), 48.0, 3.2))
    if not clear:
        # Within arm's reach of the view's edges: the nearest things, 2 to 5 m away.
        reach = rng.uniform(2.25, 2.6)
        things.append(turned(props.meter(), reach, -side * 0.176 * reach))
        reach = rng.uniform(3.8, 4.6)
        things.append(turned(props.bush(rng, 1.15), reach, side * 0.18 * reach))
    return things
