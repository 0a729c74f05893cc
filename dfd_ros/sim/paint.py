"""What is painted on things: the textures of vehicles' faces, facades, wheels and signs, drawn over photographs.

Every function returns a `Picture` (linear reflectance). Coordinates in the drawings are fractions of the face, x from
its left edge and y down from its top; a vehicle's side has the front at the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.sim.textures import TILE, Picture, noise, photograph, surface

Colour = tuple[float, float, float]

GLASS: Colour = (0.030, 0.036, 0.040)
BLACK: Colour = (0.018, 0.018, 0.020)
CHROME: Colour = (0.55, 0.55, 0.56)
_DUST: Colour = (0.16, 0.14, 0.12)
WHITE: Colour = (0.75, 0.75, 0.73)


def lacquer(colour: Colour, shape: tuple[int, int], rng: np.random.Generator, dirt: float = 0.10) -> Picture:
    """Painted sheet metal: what it mirrors (a photograph, stretched), dust, and dirt that gathers at the bottom."""
    height, width = shape
    scenery = _scenery()
    top = int(rng.integers(0, scenery.shape[0] // 2))
    mirrored = cv2.resize(scenery[top : top + scenery.shape[0] // 2], (width, height), interpolation=cv2.INTER_LINEAR)
    shine = 1.0 + 0.5 * mirrored + dirt * noise(shape, rng, 0.9)
    grime = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None] ** 3 * (0.35 + 0.15 * noise(shape, rng, 1.2))
    grime = np.clip(grime, 0.0, 0.8)
    shine = np.maximum(shine, 0.3) * (1.0 - grime)
    channels = [hue * shine + dust * grime for hue, dust in zip(colour, _DUST, strict=True)]
    return np.clip(cv2.merge(channels), 0.004, 0.92)


@cache
def _scenery() -> NDArray[np.float32]:
    """What sheet metal mirrors: the finer half of a photograph's brightness, (H, W), mean 0."""
    grey = cv2.resize(photograph("motorcycle_left").mean(axis=2), (512, 256), interpolation=cv2.INTER_AREA)
    return grey - cv2.blur(grey, (171, 171))


def car_side(colour: Colour, rng: np.random.Generator, wheels: Sequence[float] = (0.19, 0.81)) -> Picture:
    """A car's flank below the windows: doors, handles, sill, wheel arches centred at the fractions `wheels`."""
    picture = lacquer(colour, (256, 1024), rng)
    dark = _scaled(colour, 0.25)
    for x in (0.34, 0.53, 0.72):
        _line(picture, (x, 0.0), (x - 0.01, 0.82), dark, 3)
    for x in (0.37, 0.56):
        _fill(picture, [(x, 0.16), (x + 0.05, 0.15), (x + 0.05, 0.21), (x, 0.22)], _scaled(colour, 0.5))
    _line(picture, (0.05, 0.32), (0.95, 0.36), _scaled(colour, 1.35), 4)
    _line(picture, (0.05, 0.345), (0.95, 0.385), _scaled(colour, 0.55), 4)
    _fill(picture, [(0.0, 0.86), (1.0, 0.88), (1.0, 1.0), (0.0, 1.0)], BLACK)
    _fill(picture, [(0.955, 0.25), (1.0, 0.3), (1.0, 0.48), (0.965, 0.42)], CHROME)
    _fill(picture, [(0.0, 0.2), (0.04, 0.2), (0.03, 0.42), (0.0, 0.44)], (0.35, 0.02, 0.02))
    for x in wheels:
        centre = (int(x * 1024), 256)
        cv2.ellipse(picture, centre, (98, 190), 0.0, 180.0, 360.0, BLACK, -1, cv2.LINE_AA)
    return picture


def car_windows(colour: Colour, rng: np.random.Generator) -> Picture:
    """A car's side windows: the cabin's trapezoid fills the picture."""
    picture = lacquer(colour, (256, 512), rng)
    glass = glazing((256, 512), rng)
    mask = np.zeros((256, 512), np.float32)
    for window in (
        [(0.13, 0.95), (0.28, 0.16), (0.47, 0.14), (0.47, 0.95)],
        [(0.50, 0.95), (0.50, 0.14), (0.71, 0.16), (0.88, 0.95)],
    ):
        _fill(mask, window, (1.0,))
    return picture * (1.0 - mask[..., None]) + glass * mask[..., None]


def glazing(shape: tuple[int, int], rng: np.random.Generator) -> Picture:
    """Dark glass with a dim interior and what it mirrors."""
    interior = cv2.resize(photograph("motorcycle_left")[60:460], (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    smear = 1.0 + 0.25 * noise(shape, rng, 1.0)
    return np.clip((np.asarray(GLASS, np.float32) + 0.10 * interior) * smear[..., None], 0.004, 0.9)


def windscreen(rng: np.random.Generator) -> Picture:
    """A windscreen: pillars, headrests, steering wheel, a sticker, wipers."""
    picture = glazing((256, 512), rng)
    for x in (0.28, 0.72):
        _fill(picture, [(x - 0.07, 0.95), (x - 0.06, 0.42), (x + 0.06, 0.42), (x + 0.07, 0.95)], (0.05, 0.05, 0.05))
        cv2.ellipse(picture, (int(x * 512), 100), (26, 22), 0.0, 0.0, 360.0, (0.06, 0.06, 0.06), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (145, 236), (48, 34), 0.0, 0.0, 360.0, BLACK, 7, cv2.LINE_AA)
    _fill(picture, [(0.47, 0.02), (0.53, 0.02), (0.52, 0.12), (0.48, 0.12)], BLACK)
    _fill(picture, [(0.86, 0.72), (0.92, 0.72), (0.92, 0.84), (0.86, 0.84)], WHITE)
    _line(picture, (0.1, 0.99), (0.5, 0.9), BLACK, 5)
    _line(picture, (0.5, 0.99), (0.9, 0.9), BLACK, 5)
    for x in (0.0, 1.0):
        _line(picture, (x, 0.0), (x, 1.0), BLACK, 18)
    return picture


def car_nose(colour: Colour, rng: np.random.Generator) -> Picture:
    """Headlights, grille and badge."""
    picture = lacquer(colour, (128, 512), rng)
    _fill(picture, [(0.24, 0.25), (0.76, 0.25), (0.72, 0.9), (0.28, 0.9)], BLACK)
    for y in np.linspace(0.34, 0.82, 5):
        _line(picture, (0.26, y), (0.74, y), (0.16, 0.16, 0.16), 4)
    cv2.ellipse(picture, (256, 72), (24, 18), 0.0, 0.0, 360.0, CHROME, -1, cv2.LINE_AA)
    for flip in (0.0, 1.0):
        lamp = [(0.02, 0.2), (0.20, 0.3), (0.19, 0.8), (0.03, 0.7)]
        _fill(picture, [(abs(flip - x), y) for x, y in lamp], (0.62, 0.63, 0.66))
        cv2.circle(picture, (int(512 * abs(flip - 0.10)), 64), 18, (0.12, 0.13, 0.14), -1, cv2.LINE_AA)
        cv2.circle(picture, (int(512 * abs(flip - 0.10)), 64), 11, (0.88, 0.88, 0.88), -1, cv2.LINE_AA)
    return picture


def bumper(colour: Colour, rng: np.random.Generator) -> Picture:
    """A bumper with a number plate and an air intake."""
    picture = lacquer(colour, (128, 512), rng)
    _fill(picture, [(0.12, 0.62), (0.88, 0.62), (0.82, 0.95), (0.18, 0.95)], BLACK)
    _plate(picture, (0.36, 0.12), (0.64, 0.52), rng)
    return picture


def car_tail(colour: Colour, rng: np.random.Generator) -> Picture:
    """A car's rear: lamps, boot lid, number plate, bumper."""
    picture = lacquer(colour, (256, 512), rng)
    for flip in (0.0, 1.0):
        lamp = [(0.01, 0.08), (0.22, 0.12), (0.20, 0.36), (0.01, 0.42)]
        _fill(picture, [(abs(flip - x), y) for x, y in lamp], (0.42, 0.02, 0.02))
        _fill(picture, [(abs(flip - x), 0.1 + 0.4 * y) for x, y in lamp], (0.60, 0.10, 0.05))
    for line in (((0.23, 0.0), (0.25, 0.55)), ((0.25, 0.55), (0.75, 0.55)), ((0.75, 0.55), (0.77, 0.0))):
        _line(picture, *line, _scaled(colour, 0.25), 3)
    _plate(picture, (0.36, 0.24), (0.64, 0.46), rng)
    _fill(picture, [(0.0, 0.86), (1.0, 0.86), (1.0, 1.0), (0.0, 1.0)], BLACK)
    return picture


def van_side(colour: Colour, rng: np.random.Generator) -> Picture:
    """The upper half of a van's flank: a cab window, sliding-door rails, lettering."""
    picture = lacquer(colour, (256, 1024), rng)
    glass = glazing((256, 1024), rng)
    mask = np.zeros((256, 1024), np.float32)
    _fill(mask, [(0.70, 0.75), (0.70, 0.18), (0.82, 0.18), (0.93, 0.75)], (1.0,))
    if rng.random() < 0.5:
        _fill(mask, [(0.42, 0.7), (0.42, 0.18), (0.67, 0.18), (0.67, 0.7)], (1.0,))
        _fill(mask, [(0.06, 0.7), (0.06, 0.18), (0.39, 0.18), (0.39, 0.7)], (1.0,))
    else:
        ink = (0.03, 0.10, 0.30) if sum(colour) > 1.0 else WHITE
        cv2.putText(picture, _word(rng), (90, 150), cv2.FONT_HERSHEY_DUPLEX, 3.2, ink, 9, cv2.LINE_AA)
        _fill(picture, [(0.08, 0.68), (0.62, 0.68), (0.62, 0.74), (0.08, 0.74)], ink)
    picture = picture * (1.0 - mask[..., None]) + glass * mask[..., None]
    for x in (0.405, 0.685):
        _line(picture, (x, 0.05), (x, 1.0), _scaled(colour, 0.25), 3)
    return picture


def van_back(colour: Colour, rng: np.random.Generator) -> Picture:
    """Two rear doors with windows."""
    picture = lacquer(colour, (256, 512), rng)
    for left in (0.08, 0.54):
        _fill(picture, [(left, 0.15), (left + 0.38, 0.15), (left + 0.38, 0.6), (left, 0.6)], GLASS)
    _line(picture, (0.5, 0.0), (0.5, 1.0), BLACK, 5)
    return picture


def cargo(colour: Colour, rng: np.random.Generator, livery: str = "") -> Picture:
    """A cargo box's wall: ribs, rivets, and a photograph as the livery."""
    picture = lacquer(colour, (512, 1024), rng, dirt=0.08)
    if livery:
        photo = cv2.resize(photograph(livery), (576, 384), interpolation=cv2.INTER_AREA)
        picture[64:448, 224:800] = 0.15 * picture[64:448, 224:800] + 0.80 * photo
    for x in np.arange(16, 1024, 64):
        picture[:, x : x + 6] *= 0.72
        picture[:, x + 6 : x + 10] *= 1.15
    for y in (12, 484):
        picture[y : y + 16] = (0.30, 0.30, 0.30)
    return np.clip(picture, 0.004, 0.92)


def wheel(rng: np.random.Generator) -> Picture:
    """A tyre and its rim with spokes, seen from the side."""
    picture = np.full((256, 256, 3), 0.02, np.float32) * (1.0 + 0.3 * noise((256, 256), rng))[..., None]
    cv2.circle(picture, (128, 128), 84, (0.36, 0.36, 0.37), -1, cv2.LINE_AA)
    for spoke in range(5):
        angle = 2.0 * np.pi * (spoke + 0.5) / 5.0
        centre = (int(128 + 48 * np.cos(angle)), int(128 + 48 * np.sin(angle)))
        cv2.ellipse(picture, centre, (30, 17), float(np.degrees(angle)), 0.0, 360.0, BLACK, -1, cv2.LINE_AA)
    cv2.circle(picture, (128, 128), 14, (0.12, 0.12, 0.12), -1, cv2.LINE_AA)
    return picture


def facade(wall: Picture, rng: np.random.Generator, columns: int = 2, rows: int = 2) -> Picture:
    """A wall with a grid of windows; repeats like the wall does."""
    picture = wall.copy()
    wide, high = TILE // columns, TILE // rows
    for row in range(rows):
        for column in range(columns):
            left, top = column * wide + int(0.22 * wide), row * high + int(0.2 * high)
            right, bottom = left + int(0.56 * wide), top + int(0.55 * high)
            picture[top - 14 : bottom + 14, left - 14 : right + 14] = (0.52, 0.51, 0.48)
            pane = glazing((bottom - top, right - left), rng)
            curtain = int(rng.integers(0, (right - left) // 3))
            folds = 0.30 + 0.10 * np.sin(np.arange(curtain) * 0.35)[None, :, None]
            pane[:, :curtain] = 0.3 * pane[:, :curtain] + folds
            picture[top:bottom, left:right] = pane
            middle = (left + right) // 2
            picture[top:bottom, middle - 7 : middle + 7] = (0.5, 0.5, 0.47)
            picture[top + (bottom - top) // 3 :, left:right][:12] = (0.5, 0.5, 0.47)
            picture[bottom + 14 : bottom + 40, left - 24 : right + 24] = (0.36, 0.35, 0.33)
            picture[bottom + 40 : bottom + 52, left - 24 : right + 24] *= 0.55
    return picture


def cloth(rng: np.random.Generator, plain: bool = False) -> Picture:
    """A garment: woven, with checks, stripes or plain, mid-tone (tinted by the coat)."""
    picture = surface((0.55, 0.55, 0.55), rng, photo="gravel", contrast=0.18, scales=(4,), grain=0.18, size=256)
    style = 0 if plain else rng.integers(3)
    if style != 0:
        picture[(np.arange(256) // 16) % 2 == 0] *= 0.45
    if style == 2:
        picture[:, (np.arange(256) // 16) % 2 == 0] *= 0.55
    return picture


def sign(rng: np.random.Generator) -> Picture:
    """The face of a parking meter or a sign."""
    picture = lacquer((0.04, 0.11, 0.36), (256, 256), rng, dirt=0.12)
    cv2.putText(picture, "P", (60, 150), cv2.FONT_HERSHEY_DUPLEX, 5.0, WHITE, 16, cv2.LINE_AA)
    for y in (185, 205, 225):
        _line(picture, (0.15, y / 256), (0.85 - 0.2 * rng.random(), y / 256), WHITE, 6)
    _line(picture, (0.02, 0.02), (0.98, 0.02), WHITE, 8)
    _line(picture, (0.02, 0.98), (0.98, 0.98), WHITE, 8)
    return picture


def _plate(picture: Picture, low: tuple[float, float], high: tuple[float, float], rng: np.random.Generator) -> None:
    _fill(picture, [low, (high[0], low[1]), high, (low[0], high[1])], WHITE)
    height, width = picture.shape[:2]
    text = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVXYZ0123456789"), 7))
    size = (high[1] - low[1]) * height / 34.0
    at = (int((low[0] + 0.02) * width), int((high[1] - 0.06) * height))
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_DUPLEX, size * 0.62, BLACK, 3, cv2.LINE_AA)


def _word(rng: np.random.Generator) -> str:
    return str(rng.choice(["BAKERY", "FLOWERS", "EXPRESS", "PAINTER", "LAUNDRY", "COFFEE"]))


def _scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(c * factor, 0.9) for c in colour)
    return r, g, b


def _points(picture: NDArray[np.float32], corners: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
    height, width = picture.shape[:2]
    return np.rint(np.asarray(corners) * (width - 1, height - 1)).astype(np.int32)


def _fill(picture: NDArray[np.float32], corners: Sequence[tuple[float, float]], colour: Sequence[float]) -> None:
    cv2.fillPoly(picture, [_points(picture, corners)], tuple(colour), cv2.LINE_AA)


def _line(
    picture: NDArray[np.float32], start: tuple[float, float], end: tuple[float, float], colour: Colour, width: int
) -> None:
    a, b = _points(picture, [start, end])
    cv2.line(picture, tuple(map(int, a)), tuple(map(int, b)), colour, width, cv2.LINE_AA)
