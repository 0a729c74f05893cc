"""Frames for the colorization benchmark: pictures with a sweep, with ground truth where they are simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dfd_ros.data.kitti import KittiFrame, KittiFrames
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.lidar.projection import project
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file
from dfd_ros.sim.spinning_lidar import LidarSettings, beams
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of

KITTI = Path(__file__).resolve().parents[2] / "shared/data/kitti"
# Beams of the HDL-64E, a 32-beam sensor of 40 degrees and a 16-beam one of 30.
LIDARS = {
    64: LidarSettings(),
    32: LidarSettings(beams=32, highest=10.67, lowest=-30.67, step=0.2),
    16: LidarSettings(beams=16, highest=15.0, lowest=-15.0, step=0.2),
}
WIDE = Camera(640, 480, 600.0, 600.0, 319.5, 239.5)  # 56 degrees, as KITTI's pixels are spaced in angle
MOUNTING = load_extrinsics(config_file("vehicle_extrinsics.yaml")).camera_from_lidar


@dataclass(frozen=True)
class Frame:
    """Grey in [0, 1] and depths in metres, (H, W) each: sparse as it is and with hidden returns culled, and the truth."""

    group: str
    grey: NDArray[np.float32]
    raw: NDArray[np.float32]
    sparse: NDArray[np.float32]
    truth: NDArray[np.float32]


def streets(seeds: range, lidars: tuple[int, ...] = (64, 32, 16)) -> Iterator[Frame]:
    """The simulated vehicle's frames, with its own camera of 20 degrees and with a wide one."""
    lens = load_lens(config_file("lenses/street.yaml"))
    for seed in seeds:
        for count in lidars:
            for name, camera in (("narrow", camera_of(lens)), ("wide", WIDE)):
                settings = SimSettings(seed=seed, lidar=LIDARS[count])
                vehicle = SimulatedVehicle(settings, lens, camera, MOUNTING)
                vehicle.prepare()
                image = vehicle.photograph(0.0, settings.reference_exposure / lens.f_number_ratio**2, (0.0, 1.0))
                sweep = vehicle.sweep(0.0)
                points = np.stack([sweep[axis] for axis in "xyz"], axis=1)
                group = f"street, {count} beams, {name}"
                yield _frame(group, _grey(image), points, MOUNTING, camera, vehicle.ground_truth(0.0))


def rooms(seeds: range, lidars: tuple[int, ...] = (64, 32, 16), scale: int = 1) -> Iterator[Frame]:
    """Boxes in a room, alternately flat and busy: painted plainly, and with textures and noise."""
    camera = Camera(640 * scale, 480 * scale, 520.0 * scale, 520.0 * scale, 320.0 * scale - 0.5, 240.0 * scale - 0.5)
    for seed in seeds:
        for count in lidars:
            busy = bool(seed % 2)
            rng = np.random.default_rng((seed, count))
            boxes = _furniture(rng)
            rays = camera.rays().reshape(-1, 3).astype(np.float64)
            depth, face = (values.reshape(camera.shape) for values in _cast(boxes, np.zeros(3), rays))
            grey = _paint(rng, depth, face, busy)
            pattern = beams(LIDARS[count]).directions @ MOUNTING.rotation.T
            distance, _ = _cast(boxes, MOUNTING.translation, pattern)
            distance += rng.normal(0.0, LIDARS[count].range_noise, len(distance))
            points = MOUNTING.translation + pattern * distance[:, None]
            kept = rng.random(len(points)) > LIDARS[count].dropout
            name = f"room, {count} beams, {'busy' if busy else 'flat'}"
            yield _frame(name, grey, points[kept].astype(np.float32), Transform(), camera, depth.astype(np.float32))


@lru_cache(maxsize=1)
def kitti() -> tuple[KittiFrame, ...]:
    """KITTI's frames beside the checkout; none where they are missing."""
    if not KITTI.is_dir():
        return ()
    frames = KittiFrames(KITTI)
    return tuple(frames.load(index) for index in range(len(frames)))


def kitti_grey(frame: KittiFrame) -> NDArray[np.float32]:
    return _grey(frame.image)


def scan_lines(points: NDArray[np.float32]) -> NDArray[np.intp]:
    """The beam of each KITTI point (N,): they come beam by beam, each one round from azimuth 0."""
    left = np.arctan2(points[:, 1], points[:, 0]) >= 0.0
    begins = np.flatnonzero(~left[:-1] & left[1:]) + 1
    return np.searchsorted(begins, np.arange(len(points)), side="right")


def _frame(
    group: str,
    grey: NDArray[np.float32],
    points: NDArray[np.float32],
    camera_from_lidar: Transform,
    camera: Camera,
    truth: NDArray[np.float32],
) -> Frame:
    raw = project(points, camera_from_lidar, camera, cull=False).depth
    return Frame(group, grey, raw, project(points, camera_from_lidar, camera).depth, truth)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


Boxes = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def _furniture(rng: np.random.Generator) -> Boxes:
    """A room, seen from inside, and boxes on its floor and walls: their corners in the camera's frame, metres."""
    boxes = [(np.array([-4.0, -1.5, -1.0]), np.array([4.0, 1.3, rng.uniform(5.0, 9.0)]))]
    for _ in range(rng.integers(6, 20)):
        half = rng.uniform(0.1, 0.9, 3)
        centre = np.array([rng.uniform(-3.0, 3.0), 1.3 - half[1] * rng.uniform(1.0, 2.5), rng.uniform(2.0, 6.0)])
        boxes.append((centre - half, centre + half))
    return boxes


def _cast(
    boxes: Boxes, origin: NDArray[np.float64], rays: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """How far along each ray (N, 3) the first surface lies, and which: 3 x box + axis."""
    nearest, face = np.full(len(rays), np.inf), np.zeros(len(rays), np.intp)
    with np.errstate(divide="ignore"):
        inverse = 1.0 / rays
    for index, (low, high) in enumerate(boxes):
        a, b = (low - origin) * inverse, (high - origin) * inverse
        enter, leave = np.minimum(a, b), np.maximum(a, b)
        if index == 0:  # the room, from inside
            distance, axis = leave.min(axis=1), leave.argmin(axis=1)
        else:
            distance, axis = enter.max(axis=1), enter.argmax(axis=1)
            distance = np.where((distance < leave.min(axis=1)) & (distance > 0.0), distance, np.inf)
        nearer = distance < nearest
        nearest[nearer], face[nearer] = distance[nearer], 3 * index + axis[nearer]
    return nearest, face


def _paint(
    rng: np.random.Generator, depth: NDArray[np.float64], face: NDArray[np.intp], busy: bool
) -> NDArray[np.float32]:
    """8-bit grey of faces of random albedo, darker with distance."""
    count = int(face.max()) + 1
    albedo = rng.uniform(0.15, 0.9, count)[face]
    if busy:
        textures = [gaussian_filter(rng.normal(size=depth.shape), sigma) for sigma in (1, 3, 10)]
        kind = rng.integers(len(textures), size=count)[face]
        albedo *= 1.0 + 0.15 * np.choose(kind, [texture / texture.std() for texture in textures])
    light = gaussian_filter(albedo * (0.6 + 0.4 * np.exp(-depth / 5.0)), 0.6)
    light += rng.normal(0.0, 0.01 if busy else 0.002, depth.shape)
    return (np.round(255 * np.clip(light, 0.0, 1.0)) / 255).astype(np.float32)
