"""The things on a parking lot, each built from a few solids: vehicles, people, trees, buildings, street furniture.

A thing stands at the origin of its own frame, x forward, z up; its maker sets `position` and `heading`. Sizes are
those of common makes, in metres.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from dfd_ros.sim import paint
from dfd_ros.sim.paint import Colour
from dfd_ros.sim.scene import Coat, SceneObject
from dfd_ros.sim.textures import Atlas, Picture, noise, photograph, surface

PAINTS: tuple[Colour, ...] = (
    (0.60, 0.60, 0.58),
    (0.34, 0.35, 0.36),
    (0.07, 0.07, 0.08),
    (0.42, 0.04, 0.03),
    (0.05, 0.12, 0.34),
    (0.20, 0.26, 0.22),
    (0.50, 0.36, 0.10),
    (0.14, 0.22, 0.30),
)
CLOTHES: tuple[Colour, ...] = (
    (0.9, 0.25, 0.15),
    (0.20, 0.35, 0.75),
    (0.85, 0.80, 0.70),
    (0.25, 0.5, 0.3),
    (0.9, 0.7, 0.2),
    (0.35, 0.35, 0.4),
)
_GLASS_GLOSS, _LACQUER_GLOSS = 0.9, 0.35

POSTERS = ("coffee", "chelsea", "astronaut")
LIVERIES = (*POSTERS, "motorcycle_right")
"""Photographs on walls and on trucks."""


def common_textures(rng: np.random.Generator) -> Atlas:
    """The atlas with the textures that things share."""
    atlas = Atlas()
    atlas.add(
        "asphalt",
        surface((0.17, 0.17, 0.175), rng, photo="gravel", contrast=0.36, scales=(3, 10), grain=0.22, tint=0.02),
    )
    atlas.add("grass", surface((0.11, 0.17, 0.05), rng, photo="grass", contrast=0.55, scales=(1, 4), grain=0.22))
    atlas.add(
        "foliage", surface((0.07, 0.12, 0.035), rng, photo="grass", contrast=0.75, scales=(1, 3), grain=0.3, size=512)
    )
    concrete = surface((0.36, 0.35, 0.33), rng, photo="gravel", contrast=0.16, scales=(4, 16), grain=0.16)
    concrete[:10] *= 0.5  # joints
    concrete[:, :10] *= 0.5
    atlas.add("concrete", concrete)
    brick = surface((0.30, 0.14, 0.10), rng, photo="brick", contrast=0.36, scales=(4,), grain=0.16, turned=True)
    plaster = surface((0.48, 0.42, 0.33), rng, photo="gravel", contrast=0.12, scales=(8,), grain=0.16)
    atlas.add("brick", brick)
    atlas.add("brick-windows", paint.facade(brick, rng))
    atlas.add("plaster-windows", paint.facade(plaster, rng))
    atlas.add("bark", surface((0.11, 0.085, 0.06), rng, photo="brick", contrast=0.5, scales=(3,), grain=0.35, size=256))
    worn = surface((0.62, 0.62, 0.60), rng, photo="gravel", contrast=0.2, scales=(4,), grain=0.2, size=256)
    worn[noise((256, 256), rng) > 1.1] = (0.2, 0.2, 0.2)
    atlas.add("marking", worn)
    atlas.add("plain", surface((0.6, 0.6, 0.6), rng, photo="gravel", contrast=0.10, scales=(4,), grain=0.14, size=256))
    atlas.add("rubber", surface((0.022, 0.022, 0.023), rng, grain=0.3, size=64))
    atlas.add("skin", surface((0.42, 0.26, 0.19), rng, grain=0.12, size=128))
    atlas.add("hair", surface((0.06, 0.04, 0.025), rng, photo="grass", contrast=0.5, scales=(2,), grain=0.3, size=256))
    atlas.add("wheel", paint.wheel(rng))
    atlas.add("windscreen", paint.windscreen(rng))
    atlas.add("sign", paint.sign(rng))
    atlas.add("poster", np.float32(0.85) * _square(str(rng.choice(POSTERS))))
    clouds = np.clip(0.32 + 0.34 * noise((512, 512), rng, 1.5), 0.0, 1.0)
    atlas.add("clouds", np.repeat(clouds[..., None], 3, axis=2))
    return atlas


def car(atlas: Atlas, name: str, colour: Colour, rng: np.random.Generator) -> SceneObject:
    """A saloon car, 4.4 m long, 1.47 m high."""
    side = Coat(atlas.add(f"{name}-side", paint.car_side(colour, rng)), gloss=_LACQUER_GLOSS)
    windows = Coat(atlas.add(f"{name}-windows", paint.car_windows(colour, rng)), gloss=_LACQUER_GLOSS)
    nose = Coat(atlas.add(f"{name}-nose", paint.car_nose(colour, rng)), gloss=0.2)
    front = Coat(atlas.add(f"{name}-bumper", paint.bumper(colour, rng)), gloss=0.2)
    tail = Coat(atlas.add(f"{name}-tail", paint.car_tail(colour, rng)), gloss=0.2)
    sheet = Coat(atlas.add(f"{name}-sheet", paint.lacquer(colour, (128, 256), rng)), gloss=_LACQUER_GLOSS)
    screen = Coat("windscreen", gloss=_GLASS_GLOSS)
    thing = SceneObject("car")
    estate = rng.random() < 0.4  # a steep tail
    body = [(-2.15, 0.32), (2.1, 0.28), (2.2, 0.55), (2.1, 0.78), (1.0, 0.95), (-1.75, 0.98), (-2.2, 0.85)]
    thing.prism(body, (-0.9, 0.9), sheet, left=side, right=side, edges={1: front, 2: nose, 6: tail})
    back = -2.05 if estate else -1.85
    cabin = [(back, 0.95), (0.95, 0.93), (0.25, 1.45), (-1.85 if estate else -1.2, 1.47)]
    thing.prism(cabin, (-0.88, 0.88), sheet, left=windows, right=windows, edges={1: screen, 3: screen}, lean=0.25)
    for y in (-0.98, 0.98):
        thing.box((0.62, min(y, 0.86 * y), 0.93), (0.76, max(y, 0.86 * y), 1.06), sheet)
    _wheels(thing, (-1.36, 1.36), 0.915, 0.32)
    return thing


def van(atlas: Atlas, name: str, colour: Colour, rng: np.random.Generator) -> SceneObject:
    """A delivery van, 5 m long, 2.1 m high."""
    side = Coat(atlas.add(f"{name}-side", paint.car_side(colour, rng)), gloss=_LACQUER_GLOSS)
    upper = Coat(atlas.add(f"{name}-upper", paint.van_side(colour, rng)), gloss=_LACQUER_GLOSS)
    front = Coat(atlas.add(f"{name}-nose", paint.car_nose(colour, rng)), gloss=0.2)
    tail = Coat(atlas.add(f"{name}-tail", paint.car_tail(colour, rng)), gloss=0.2)
    back = Coat(atlas.add(f"{name}-back", paint.van_back(colour, rng)), gloss=0.4)
    sheet = Coat(atlas.add(f"{name}-sheet", paint.lacquer(colour, (128, 256), rng)), gloss=_LACQUER_GLOSS)
    thing = SceneObject("van")
    lower = [(-2.5, 0.35), (2.45, 0.3), (2.5, 0.95), (1.8, 1.15), (-2.5, 1.15)]
    thing.prism(lower, (-0.98, 0.98), sheet, left=side, right=side, edges={1: front, 4: tail})
    roof = [(-2.5, 1.14), (1.75, 1.14), (1.05, 2.0), (-2.45, 2.1)]
    screen = Coat("windscreen", gloss=_GLASS_GLOSS)
    thing.prism(roof, (-0.98, 0.98), sheet, left=upper, right=upper, edges={1: screen, 3: back}, lean=0.09)
    for y in (-1.12, 1.12):
        thing.box((1.3, min(y, 0.85 * y), 1.16), (1.42, max(y, 0.85 * y), 1.42), Coat("rubber"))
    _wheels(thing, (-1.55, 1.55), 0.995, 0.34)
    return thing


def truck(atlas: Atlas, name: str, colour: Colour, rng: np.random.Generator) -> SceneObject:
    """A rigid truck, 7.8 m long, 3.3 m high, with a photograph for its livery."""
    livery = str(rng.choice(LIVERIES))
    wall = Coat(atlas.add(f"{name}-cargo", paint.cargo((0.60, 0.60, 0.58), rng, livery)))
    doors = Coat(atlas.add(f"{name}-doors", paint.van_back((0.5, 0.5, 0.5), rng)))
    sheet = Coat(atlas.add(f"{name}-sheet", paint.lacquer(colour, (256, 256), rng)), gloss=_LACQUER_GLOSS)
    nose = Coat(atlas.add(f"{name}-nose", paint.car_nose(colour, rng)), gloss=0.2)
    cab_side = Coat(atlas.add(f"{name}-cab", paint.car_windows(colour, rng)), gloss=_LACQUER_GLOSS)
    steel = Coat("plain", 1.0, (0.25, 0.25, 0.26))
    thing = SceneObject("truck")
    thing.box((-4.0, -1.22, 0.95), (1.75, 1.22, 3.3), wall, back=doors)
    thing.box((-3.9, -0.9, 0.55), (3.4, 0.9, 0.95), steel)
    thing.prism([(2.0, 0.45), (3.7, 0.45), (3.75, 1.3), (2.0, 1.3)], (-1.15, 1.15), sheet, edges={1: nose})
    cab = [(2.0, 1.29), (3.74, 1.29), (3.45, 2.55), (2.0, 2.65)]
    screen = Coat("windscreen", gloss=_GLASS_GLOSS)
    thing.prism(cab, (-1.15, 1.15), sheet, left=cab_side, right=cab_side, edges={1: screen}, lean=0.03)
    _wheels(thing, (-2.9, -1.85, 2.75), 1.18, 0.48)
    return thing


def pedestrian(atlas: Atlas, name: str, rng: np.random.Generator) -> SceneObject:
    """A walking person, about 1.75 m tall."""
    shirt = Coat(atlas.add(f"{name}-shirt", paint.cloth(rng)), 0.5, CLOTHES[rng.integers(len(CLOTHES))])
    trousers = Coat(atlas.add(f"{name}-trousers", paint.cloth(rng, plain=True)), 0.4, (0.20, 0.22, 0.30))
    skin, hair, shoe = Coat("skin"), Coat("hair"), Coat("rubber", tint=(2.0, 2.0, 2.0))
    s = float(rng.uniform(0.94, 1.05))
    stride = float(rng.uniform(0.08, 0.24))
    thing = SceneObject("pedestrian")
    for side in (-1.0, 1.0):
        foot = (side * stride * s, side * 0.10 * s, 0.06 * s)
        knee = (side * 0.6 * stride * s + 0.04, side * 0.10 * s, 0.50 * s)
        hip = (0.0, side * 0.09 * s, 0.92 * s)
        thing.cylinder(foot, knee, 0.065 * s, trousers)
        thing.cylinder(knee, hip, 0.085 * s, trousers)
        thing.ellipsoid(knee, (0.082 * s,) * 3, trousers)
        thing.ellipsoid((foot[0] + 0.06, foot[1], 0.05 * s), (0.14 * s, 0.055 * s, 0.05 * s), shoe)
        shoulder = (0.0, side * 0.21 * s, 1.42 * s)
        elbow = (-side * 0.4 * stride * s, side * 0.27 * s, 1.13 * s)
        hand = (-side * 0.8 * stride * s + 0.1, side * 0.25 * s, 0.90 * s)
        thing.cylinder(shoulder, elbow, 0.055 * s, shirt)
        thing.cylinder(elbow, hand, 0.045 * s, shirt)
        thing.ellipsoid(shoulder, (0.064 * s,) * 3, shirt)
        thing.ellipsoid(elbow, (0.055 * s,) * 3, shirt)
        thing.ellipsoid(hand, (0.05 * s, 0.035 * s, 0.08 * s), skin)
    thing.ellipsoid((0.0, 0.0, 1.20 * s), (0.135 * s, 0.20 * s, 0.35 * s), shirt)
    thing.ellipsoid((0.0, 0.0, 1.36 * s), (0.10 * s, 0.21 * s, 0.125 * s), shirt)
    thing.ellipsoid((0.0, 0.0, 0.95 * s), (0.13 * s, 0.18 * s, 0.14 * s), trousers)
    thing.cylinder((0.0, 0.0, 1.45 * s), (0.02, 0.0, 1.58 * s), 0.05 * s, skin)
    thing.ellipsoid((0.02, 0.0, 1.64 * s), (0.095 * s, 0.078 * s, 0.125 * s), skin)
    thing.ellipsoid((0.115 * s, 0.0, 1.625 * s), (0.022 * s, 0.016 * s, 0.03 * s), skin)  # nose
    thing.ellipsoid((0.100 * s, 0.0, 1.57 * s), (0.012 * s, 0.03 * s, 0.008 * s), Coat("skin", tint=(0.7, 0.4, 0.4)))
    for side in (-1.0, 1.0):
        thing.ellipsoid((0.098 * s, side * 0.034 * s, 1.655 * s), (0.014 * s, 0.016 * s, 0.01 * s), hair)
    thing.ellipsoid((-0.012, 0.0, 1.675 * s), (0.10 * s, 0.088 * s, 0.11 * s), hair)
    return thing


def tree(rng: np.random.Generator, height: float) -> SceneObject:
    """A broad-leaved tree: a trunk and clumps of leaves."""
    thing = SceneObject("tree")
    thing.cylinder((0, 0, 0), (0, 0, 0.6 * height), 0.035 * height, Coat("bark", 0.8))
    crown = 0.30 * height
    for _ in range(180):
        direction = rng.standard_normal(3)
        direction *= rng.uniform(0.3, 1.0) ** 0.5 / np.linalg.norm(direction)
        centre = direction * (crown, crown, 0.85 * crown) + (0.0, 0.0, 0.66 * height)
        radius = rng.uniform(0.10, 0.20) * crown
        shade = float(rng.uniform(0.75, 1.35))
        coat = Coat("foliage", 1.3, (shade, shade, 0.9 * shade))
        thing.ellipsoid(centre, (radius, 0.8 * radius, 0.45 * radius), coat, axis=rng.standard_normal(3))
    return thing


def bush(rng: np.random.Generator, size: float) -> SceneObject:
    """A shrub in a tub, `size` metres tall."""
    thing = SceneObject("bush")
    thing.cylinder((0, 0, 0), (0, 0, 0.3 * size), 0.2 * size, Coat("concrete", 0.8))
    for _ in range(320):
        direction = rng.standard_normal(3)
        direction *= float(rng.uniform(0.5, 1.0)) * 0.3 * size / np.linalg.norm(direction)
        radius = float(rng.uniform(0.035, 0.06)) * size
        shade = float(rng.uniform(0.7, 1.6))
        leaf = Coat("foliage", 0.25, (shade, shade, shade))
        centre = direction + np.array([0.0, 0.0, 0.66 * size])
        thing.ellipsoid(centre, (radius, 0.5 * radius, 0.12 * radius), leaf, rng.standard_normal(3))
    return thing


def cone() -> SceneObject:
    """A traffic cone, 0.75 m tall."""
    thing = SceneObject("cone")
    orange, white = Coat("plain", 0.4, (1.25, 0.35, 0.06)), Coat("plain", 0.4, (1.3, 1.3, 1.3))
    thing.box((-0.2, -0.2, 0.0), (0.2, 0.2, 0.04), Coat("rubber", tint=(2.0, 2.0, 2.0)))
    steps = 12
    for i in range(steps):
        low, high = 0.04 + 0.71 * i / steps, 0.04 + 0.71 * (i + 1) / steps
        coat = white if i in (4, 5, 8, 9) else orange
        thing.cylinder((0, 0, low), (0, 0, high), 0.15 - 0.12 * (i + 0.5) / steps, coat)
    return thing


def meter() -> SceneObject:
    """A parking meter, 1.55 m tall, its face towards −x."""
    thing = SceneObject("meter")
    thing.cylinder((0, 0, 0), (0, 0, 1.15), 0.035, Coat("plain", 0.5, (0.5, 0.5, 0.5)))
    thing.box((-0.06, -0.10, 1.12), (0.06, 0.10, 1.5), Coat("plain", 0.4, (0.35, 0.36, 0.38)), back=Coat("sign"))
    thing.ellipsoid((0, 0, 1.5), (0.06, 0.10, 0.07), Coat("plain", 0.3, (0.35, 0.36, 0.38)))
    return thing


def lamp_post(height: float = 6.5) -> SceneObject:
    """A street lamp with its arm towards −y."""
    thing = SceneObject("lamp")
    steel = Coat("plain", 0.6, (0.45, 0.46, 0.47))
    thing.cylinder((0, 0, 0), (0, 0, height), 0.07, steel)
    thing.cylinder((0, 0, 0), (0, 0, 0.8), 0.11, steel)
    thing.cylinder((0, 0, height - 0.1), (0, -1.4, height), 0.04, steel)
    thing.box((-0.13, -1.9, height - 0.06), (0.13, -1.2, height + 0.08), steel)
    return thing


def traffic_sign() -> SceneObject:
    """A parking sign on a post, 2.6 m tall, its face towards −x."""
    thing = SceneObject("sign")
    thing.cylinder((0, 0, 0), (0, 0, 2.6), 0.03, Coat("plain", 0.5, (0.6, 0.6, 0.6)))
    thing.box((-0.05, -0.3, 2.0), (-0.03, 0.3, 2.6), Coat("plain", 0.5), back=Coat("sign"))
    return thing


def building(length: float, depth: float, height: float, wall: str, poster: bool = False) -> SceneObject:
    """A building whose facade is its −x side, in the middle of y: `depth` along x, `length` along y."""
    thing = SceneObject("building")
    tile = 6.0
    low, high = (0.0, -length / 2.0, 0.0), (depth, length / 2.0, height)
    thing.box(low, high, Coat(wall, tile), top=Coat("concrete", 3.0))
    ledge = Coat("concrete", 2.0)
    thing.box((-0.25, -length / 2 - 0.2, height), (depth, length / 2 + 0.2, height + 0.35), ledge)
    thing.box((-0.12, -length / 2 - 0.1, 0.0), (depth, length / 2 + 0.1, 0.6), ledge)
    if poster:
        thing.box((-0.1, -2.2, 1.2), (-0.02, 2.2, 4.6), Coat("plain", 1.0, (0.4, 0.4, 0.4)), back=Coat("poster"))
    return thing


def slab(kind: str, low: tuple[float, float, float], high: tuple[float, float, float], coat: Coat) -> SceneObject:
    """A box that is part of the ground: asphalt, lawn, kerb, marking."""
    thing = SceneObject(kind)
    thing.box(low, high, coat)
    return thing


def _wheels(thing: SceneObject, axles: tuple[float, ...], half_track: float, radius: float) -> None:
    for x in axles:
        for side in (-1.0, 1.0):
            inner, outer = (x, side * (half_track - 0.2), radius), (x, side * half_track, radius)
            thing.cylinder(inner, outer, radius, Coat("rubber"), Coat("wheel"))


def _square(photo: str) -> Picture:
    return cv2.resize(photograph(photo), (512, 512), interpolation=cv2.INTER_AREA)


def turned(thing: SceneObject, x: float, y: float, heading_deg: float = 0.0, z: float = 0.0) -> SceneObject:
    """The thing, put in its place."""
    thing.position, thing.heading = (x, y, z), math.radians(heading_deg)
    return thing
