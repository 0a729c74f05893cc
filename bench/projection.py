"""LiDAR projection: time against plain NumPy, de-skew, and what occlusion culling finds and loses.

Culling is measured on the simulated vehicle's lots, with its lens and mounting and 16 to 128 beams. What is hidden is
known exactly: a ray is cast from the camera to each return.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from table import Row, report

from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.deskew import Twist, deskew
from dfd_ros.lidar.projection import project
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.sim import spinning_lidar
from dfd_ros.sim.lot import parking_lot
from dfd_ros.sim.scene import Scene
from dfd_ros.sim.spinning_lidar import LidarSettings
from dfd_ros.sim.trace import trace_beams
from dfd_ros.sim.vehicle import CAMERA_HEIGHT, CAMERA_PITCH, camera_of

LENS = Path(__file__).parents[1] / "config/lenses/street.yaml"
WIDE = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
POINTS = 120_000
REPEATS = 30
LOTS = range(1000, 1016)  # seeds that no constant was chosen by
BEAMS = (16, 32, 64, 128)
FEWEST_BEAMS = 32  # with 16, too much of an edge lies unseen between two beams
CLEARLY = (0.3, 0.03)  # metres and share of the distance that a hidden return lies behind what hides it at least
BARELY = 0.1  # metres: returns less behind than this are seen; those between count as neither
LONGEST = 4.0  # ms
LEAST_RECALL, LEAST_PRECISION = 0.95, 0.6


def world_from_camera() -> Transform:
    """The simulated vehicle's camera at the start of its drive (axes: x forward, y left, z up)."""
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    pitch = Rotation.from_euler("y", -CAMERA_PITCH, degrees=True).as_matrix()
    return Transform(pitch @ optical, np.array([0.0, 0.0, CAMERA_HEIGHT]))


def sweep(scene: Scene, beams: int, sector: float = 120.0) -> NDArray[np.float32]:
    """A sweep's points (N, 3) in the LiDAR's frame."""
    settings = LidarSettings(beams=beams, sector=sector)
    pose = world_from_camera() @ spinning_lidar.default_mounting()
    echoes = spinning_lidar.cast(scene, settings, pose, np.zeros(3, np.float32))
    points = spinning_lidar.measure(echoes, settings, 0.1, np.random.default_rng(beams))
    return np.stack([points[name] for name in "xyz"], axis=1)


def clearance(scene: Scene, points: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each return is hidden from the camera, and whether it is seen, by casting a ray from the camera to it."""
    pose = world_from_camera()
    inside = spinning_lidar.default_mounting().apply(points.astype(np.float64))
    distance = np.linalg.norm(inside, axis=1)
    rays = (inside / distance[:, None] @ pose.rotation.T).astype(np.float32)
    origins = np.tile(pose.translation.astype(np.float32), (len(points), 1))
    hits = [np.zeros(len(points), np.float32) for _ in range(4)]
    trace_beams(scene.arrays, origins, np.ascontiguousarray(rays), math.inf, *hits)
    behind = distance - hits[0]
    return (behind > CLEARLY[0]) & (behind > CLEARLY[1] * distance), behind < BARELY


def culling(camera: Camera, beams: int) -> tuple[float, float]:
    """Recall and precision over the lots, by the returns that win their pixel."""
    found = wrong = missed = 0
    mounting = spinning_lidar.default_mounting()
    for seed in LOTS:
        scene = parking_lot(seed)
        points = sweep(scene, beams)
        everything = project(points, mounting, camera, cull=False).depth
        culled = np.isfinite(everything) & np.isnan(project(points, mounting, camera).depth)
        hidden, seen = (
            project(points[chosen], mounting, camera, cull=False).depth == everything
            for chosen in clearance(scene, points)
        )
        found += np.count_nonzero(culled & hidden)
        wrong += np.count_nonzero(culled & seen)
        missed += np.count_nonzero(~culled & hidden)
    return found / (found + missed), found / (found + wrong)


def project_plainly(points: NDArray[np.float32], transform: Transform, camera: Camera) -> NDArray[np.float32]:
    """The baseline: a pinhole projection and a z-buffer in NumPy."""
    inside = transform.apply(points)
    inside = inside[inside[:, 2] > 0]
    pixels = np.floor(inside @ camera.matrix.T.astype(np.float32) / inside[:, 2:] + 0.5)
    column, row = pixels[:, 0], pixels[:, 1]
    within = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    depth = np.full(camera.shape, np.inf, np.float32)
    np.minimum.at(depth, (row[within].astype(int), column[within].astype(int)), inside[within, 2])
    depth[np.isinf(depth)] = np.nan
    return depth


def fastest(*works: Callable[[], object]) -> list[float]:
    """The least time of each in milliseconds, taken by turns."""
    least = [math.inf] * len(works)
    for _ in range(REPEATS):
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            least[index] = min(least[index], 1e3 * (time.perf_counter() - start))
    return least


def measure() -> list[Row]:
    mounting = spinning_lidar.default_mounting()
    # A whole turn of 64 beams, made up to the number of points of a full one (some return nothing).
    turn = sweep(parking_lot(LOTS[0]), 64, sector=360.0)
    points = turn[np.sort(np.random.default_rng(0).choice(len(turn), POINTS, replace=len(turn) < POINTS))]
    ahead = sweep(parking_lot(LOTS[0]), 128, sector=60.0)
    ahead = ahead[np.random.default_rng(0).choice(len(ahead), POINTS)]
    times, twist = np.linspace(0.0, 0.1, POINTS), Twist(np.array([14.0, 0.2, 0.0]), np.array([0.01, 0.02, 0.4]))

    plain, ours, culled, plain_ahead, ours_ahead, deskewed = fastest(
        lambda: project_plainly(points, mounting, WIDE),
        lambda: project(points, mounting, WIDE, cull=False),
        lambda: project(points, mounting, WIDE),
        lambda: project_plainly(ahead, mounting, WIDE),
        lambda: project(ahead, mounting, WIDE, cull=False),
        lambda: deskew(points, times, twist),
    )
    limit = f"{LONGEST:g} or less"
    rows = [
        Row("project 120 k points, a whole turn", ours, "ms", plain, ours / plain, limit, ours <= LONGEST),
        Row("the same in points a second", POINTS / ours * 1e3, "1/s", POINTS / plain * 1e3, plain / ours),
        Row(
            "project 120 k points, all ahead",
            ours_ahead,
            "ms",
            plain_ahead,
            ours_ahead / plain_ahead,
            limit,
            ours_ahead <= LONGEST,
        ),
        Row("project and cull a whole turn", culled, "ms", plain, culled / plain),
        Row("de-skew 120 k points", deskewed, "ms", plain, deskewed / plain),
    ]
    for name, camera, is_promised in (
        ("the vehicle's lens", camera_of(load_lens(LENS)), True),
        ("a wide lens", WIDE, False),
    ):
        for beams in BEAMS:
            recall, precision = culling(camera, beams)
            promised = is_promised and beams >= FEWEST_BEAMS
            rows += [
                share(f"{name}, {beams} beams: hidden returns found", recall, LEAST_RECALL, promised),
                share(f"{name}, {beams} beams: of those culled, hidden", precision, LEAST_PRECISION, promised),
            ]
    return rows


def share(name: str, value: float, least: float, is_promised: bool) -> Row:
    return Row(
        name,
        value,
        "",
        least,
        value / least,
        f"{least:g} or more" if is_promised else "",
        not is_promised or value >= least,
    )


if __name__ == "__main__":
    report("LiDAR projection (baseline of times: plain NumPy)", measure)
