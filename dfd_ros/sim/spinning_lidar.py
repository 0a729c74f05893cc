"""A spinning LiDAR of 64 beams, after the Velodyne HDL-64E: what its forward sector sees.

Range noise, and returns that are lost: at random, on dark, grazing or far surfaces (the return falls below the
detector's threshold, power ∝ reflectance · cos / r²: Wagner et al., ISPRS J. 2006), and on glass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.geometry import Transform
from dfd_ros.sim.scene import Scene
from dfd_ros.sim.trace import trace_beams

POINT = np.dtype(
    [
        ("x", np.float32),
        ("y", np.float32),
        ("z", np.float32),
        ("intensity", np.float32),
        ("ring", np.uint16),
        ("time", np.float32),
    ]
)
"""A point: metres in the LiDAR's frame (x forward, y left, z up), intensity in [0, 1], beam, seconds into the sweep."""

_GLASS_GLOSS = 0.5  # gloss from which a surface is glass
_GLASS_LOSS = 0.85  # share of returns lost on glass


@dataclass(frozen=True)
class LidarSettings:
    """Defaults: the HDL-64E's data sheet. Angles in degrees, ranges in metres.

    `weakest` is the reflectance that is still seen head-on at `max_range`.
    """

    beams: int = 64
    highest: float = 2.0
    lowest: float = -24.9
    step: float = 0.17
    sector: float = 120.0
    min_range: float = 0.9
    max_range: float = 120.0
    range_noise: float = 0.02
    dropout: float = 0.02
    weakest: float = 0.25

    def __post_init__(self) -> None:
        if self.beams < 1 or self.step <= 0 or not 0 < self.sector <= 360:
            raise InputError(
                "a LiDAR needs beams >= 1, step > 0 and a sector in (0, 360] degrees, "
                f"got {self.beams}, {self.step:g} and {self.sector:g}"
            )
        if not 0 < self.min_range < self.max_range:
            raise InputError(f"LiDAR ranges must be 0 < min < max, got {self.min_range:g} and {self.max_range:g}")


@dataclass(frozen=True)
class Beams:
    """The beams of one sweep: directions (N, 3) float32 in the LiDAR's frame, ring (N,), share of a turn (N,)."""

    directions: NDArray[np.float32]
    ring: NDArray[np.uint16]
    turn: NDArray[np.float32]


@lru_cache(maxsize=4)
def beams(settings: LidarSettings) -> Beams:
    """The sector's beams in firing order: columns from left to right (clockwise from above), ring 0 the highest."""
    columns = round(settings.sector / settings.step)
    azimuth = np.radians(settings.sector / 2.0 - settings.step * (np.arange(columns) + 0.5))
    elevation = np.radians(np.linspace(settings.highest, settings.lowest, settings.beams))
    directions = np.empty((columns, settings.beams, 3), np.float32)
    directions[..., 0] = np.cos(azimuth)[:, None] * np.cos(elevation)
    directions[..., 1] = np.sin(azimuth)[:, None] * np.cos(elevation)
    directions[..., 2] = np.sin(elevation)
    ring = np.tile(np.arange(settings.beams, dtype=np.uint16), columns)
    turn = np.repeat(np.arange(columns, dtype=np.float32) * np.float32(settings.step / 360.0), settings.beams)
    return Beams(directions.reshape(-1, 3), ring, turn)


@dataclass(frozen=True)
class Echoes:
    """What each beam of a sweep would return without noise: (N,) float32 arrays; distance inf where nothing."""

    distance: NDArray[np.float32]
    albedo: NDArray[np.float32]
    cosine: NDArray[np.float32]
    gloss: NDArray[np.float32]


def cast(
    scene: Scene,
    settings: LidarSettings,
    world_from_lidar: Transform,
    travel: NDArray[np.float32],
) -> Echoes:
    """Cast all beams of a sweep; `travel` (3,): how far (metres, world) the LiDAR moves in one whole turn."""
    pattern = beams(settings)
    rotation = world_from_lidar.rotation.astype(np.float32)
    origins = world_from_lidar.translation.astype(np.float32) + pattern.turn[:, None] * travel
    count = len(pattern.ring)
    echoes = Echoes(*(np.zeros(count, np.float32) for _ in range(4)))
    trace_beams(
        scene.arrays,
        np.ascontiguousarray(origins, np.float32),
        np.ascontiguousarray(pattern.directions @ rotation.T),
        settings.max_range,
        *(echoes.distance, echoes.albedo, echoes.cosine, echoes.gloss),
    )
    return echoes


def measure(echoes: Echoes, settings: LidarSettings, period: float, rng: np.random.Generator) -> NDArray[np.void]:
    """One sweep's points (`POINT`), with noise and lost returns; `period`: seconds per turn."""
    pattern = beams(settings)
    chance = rng.random(len(echoes.distance), np.float32)
    reflected = echoes.albedo * np.maximum(echoes.cosine, 0.0)
    # Seen for sure at twice the threshold, never at zero power, in proportion between.
    threshold = settings.weakest / settings.max_range**2
    power = reflected / np.maximum(echoes.distance, settings.min_range) ** 2
    seen = np.clip(power / (2.0 * threshold), 0.0, 1.0 - settings.dropout)
    seen = np.where(echoes.gloss > _GLASS_GLOSS, seen * (1.0 - _GLASS_LOSS), seen)
    kept = np.flatnonzero(
        (chance < seen) & (echoes.distance > settings.min_range) & (echoes.distance < settings.max_range)
    )
    distance = echoes.distance[kept] + settings.range_noise * rng.standard_normal(len(kept), np.float32)
    points = np.empty(len(kept), POINT)
    where = pattern.directions[kept] * distance[:, None]
    points["x"], points["y"], points["z"] = where.T
    points["intensity"] = np.clip(reflected[kept] + 0.01 * rng.standard_normal(len(kept), np.float32), 0.0, 1.0)
    points["ring"] = pattern.ring[kept]
    points["time"] = pattern.turn[kept] * np.float32(period)
    return points


def default_mounting() -> Transform:
    """camera_from_lidar of the simulated vehicle: 0.55 m above, 0.70 m behind and 8 cm left of the camera.

    The LiDAR is level but for half a degree of yaw and roll; the camera looks 1.5 degrees down.
    """
    yaw, pitch, roll = math.radians(0.6), math.radians(-1.5), math.radians(0.4)
    # Axes of an optical frame (x right, y down, z forward) from those of a body (x forward, y left, z up).
    optical = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    turn_z = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    turn_y = np.array([[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]])
    turn_x = np.array([[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]])
    rotation = optical @ turn_y @ turn_z @ turn_x
    return Transform(rotation, optical @ np.array([-0.70, 0.08, 0.55]))
