"""Culling of returns that a nearer surface hides from the camera: nothing hidden is kept, nothing seen is lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.projection import project
from dfd_ros.sim import spinning_lidar
from dfd_ros.sim.lot import parking_lot
from dfd_ros.sim.spinning_lidar import LidarSettings
from dfd_ros.sim.trace import trace_beams
from dfd_ros.sim.vehicle import CAMERA_HEIGHT, CAMERA_PITCH

CAMERA = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
TELE = Camera(640, 480, 1850.0, 1850.0, 319.5, 239.5)
AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
ROOF = Transform(AXES, np.array([0.08, -0.55, -0.70]))  # the LiDAR 0.55 m above and 0.70 m behind the camera
BEAMS = (16, 32, 64, 128)

Surface = Callable[[np.ndarray, np.ndarray], np.ndarray]


def directions(beams: int, step: float = 0.17) -> np.ndarray:
    """Unit directions (N, 3) of a spinning LiDAR's beams, from 2 degrees up to 25 down, in its own axes."""
    elevation = np.radians(np.linspace(2.0, -24.9, beams))
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-50, 50, step)), elevation, indexing="ij")
    unit = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    return np.stack(unit, axis=-1).reshape(-1, 3)


def panel(x: float, left: float, right: float, bottom: float, top: float) -> Surface:
    """Ranges of rays from an origin to an upright panel at x ahead, in the LiDAR's axes; infinite where they miss."""

    def hit(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (x - origin[0]) / rays[:, 0]
            y, z = (origin + distance[:, None] * rays).T[1:]
        inside = (distance > 0) & (right < y) & (y < left) & (bottom < z) & (z < top)
        return np.where(inside, distance, np.inf)

    return hit


def ground(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Flat ground 1.95 m below the LiDAR, to 80 m."""
    with np.errstate(divide="ignore"):
        distance = np.where(rays[:, 2] < 0, (-1.95 - origin[2]) / rays[:, 2], np.inf)
    return np.where(distance < 80.0, distance, np.inf)


def sweep(surfaces: list[Surface], rays: np.ndarray, camera_from_lidar: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Points of a sweep (N, 3), and whether the camera's view of them is blocked (N,)."""
    distance = np.min([surface(np.zeros(3), rays) for surface in surfaces], axis=0)
    points = rays[np.isfinite(distance)] * distance[np.isfinite(distance), None]
    eye = camera_from_lidar.inverse().translation
    gaze = points - eye
    far = np.linalg.norm(gaze, axis=1)
    seen = np.min([surface(eye, gaze / far[:, None]) for surface in surfaces], axis=0)
    return points.astype(np.float32), seen < 0.97 * far - 0.1


def culled(points: np.ndarray, camera_from_lidar: Transform, camera: Camera) -> np.ndarray:
    """Pixels (H, W) that lose their return."""
    everything = project(points, camera_from_lidar, camera, cull=False).depth
    sparse = project(points, camera_from_lidar, camera)
    lost = np.isfinite(everything) & np.isnan(sparse.depth)
    assert sparse.occluded == lost.sum()
    np.testing.assert_array_equal(sparse.depth[~lost], everything[~lost])
    return lost


def pixels_of(points: np.ndarray, chosen: np.ndarray, camera_from_lidar: Transform, camera: Camera) -> np.ndarray:
    """Pixels (H, W) whose nearest return is one of those chosen."""
    everything = project(points, camera_from_lidar, camera, cull=False).depth
    return project(points[chosen], camera_from_lidar, camera, cull=False).depth == everything


@pytest.mark.parametrize("beams", BEAMS)
def test_ground_and_walls_alone_lose_nothing(beams: int) -> None:
    rays = directions(beams)
    for surfaces in ([ground], [panel(20.0, 30, -30, -5, 5)], [ground, panel(30.0, 40, -40, -1.95, 9)]):
        points, hidden = sweep(surfaces, rays, ROOF)
        assert not hidden.any()
        assert not culled(points, ROOF, CAMERA).any()


@pytest.mark.parametrize(("beams", "least_recall"), [(16, 0.7), (32, 0.85), (64, 0.9), (128, 0.95)])
def test_what_stands_behind_a_panel_is_culled_and_the_rest_stays(beams: int, least_recall: float) -> None:
    panels = [panel(6.0, 2.0, 1.0, -1.95, -0.4), panel(10.0, -0.5, -3.0, -1.95, -0.3), panel(30.0, 50, -50, -1.95, 9)]
    points, hidden = sweep([ground, *panels], directions(beams), ROOF)
    lost, truth = culled(points, ROOF, CAMERA), pixels_of(points, hidden, ROOF, CAMERA)
    assert truth.sum() > 3 * beams
    assert (lost & truth).sum() > least_recall * truth.sum()
    assert (lost & truth).sum() > 0.75 * lost.sum()


def test_a_pole_one_return_wide_hides_what_is_behind_it() -> None:
    points, hidden = sweep([panel(5.0, 0.01, -0.01, -1.95, 0.5), panel(25.0, 50, -50, -5, 5)], directions(64), ROOF)
    lost, truth = culled(points, ROOF, CAMERA), pixels_of(points, hidden, ROOF, CAMERA)
    assert truth.sum() > 20
    assert (lost & truth).sum() > 0.8 * truth.sum()


def test_lost_returns_open_no_holes() -> None:
    points, hidden = sweep([panel(6.0, 2.0, -2.0, -1.95, -0.3), panel(30.0, 50, -50, -5, 9)], directions(64), ROOF)
    full = culled(points, ROOF, CAMERA) & pixels_of(points, hidden, ROOF, CAMERA)
    kept = hidden | (np.random.default_rng(0).random(len(points)) < 0.7)
    thinned = culled(points[kept], ROOF, CAMERA)
    assert (thinned & full).sum() > 0.98 * full.sum()


def test_the_order_of_the_points_does_not_matter() -> None:
    points, _ = sweep([ground, panel(6.0, 1.0, -1.0, -1.95, -0.3), panel(30.0, 50, -50, -5, 9)], directions(32), ROOF)
    shuffled = np.random.default_rng(0).permutation(points)
    np.testing.assert_array_equal(culled(points, ROOF, CAMERA), culled(shuffled, ROOF, CAMERA))


def test_a_camera_that_looks_back_culls_as_one_that_looks_ahead() -> None:
    points, _ = sweep([ground, panel(6.0, 1.0, -1.0, -1.95, -0.3), panel(30.0, 50, -50, -5, 9)], directions(64), ROOF)
    turn = Transform(Rotation.from_euler("z", np.pi).as_matrix())
    ahead = culled(points, ROOF, CAMERA)
    back = culled(turn.apply(points), ROOF @ turn.inverse(), CAMERA)
    assert ahead.sum() > 100
    assert (ahead != back).sum() < 0.02 * ahead.sum()  # float32 rounds differently


def test_a_lidar_in_the_cameras_place_sees_what_it_sees() -> None:
    surfaces = [ground, panel(6.0, 1.0, -1.0, -1.95, 0.3), panel(30.0, 50, -50, -5, 9)]
    points, hidden = sweep(surfaces, directions(64), Transform(AXES))
    assert not hidden.any()
    assert not culled(points, Transform(AXES), CAMERA).any()
    beside = Transform(AXES, np.array([0.0, -0.002, 0.0]))
    assert culled(points, beside, CAMERA).sum() < 0.005 * len(points)


def test_culling_knows_the_lens() -> None:
    surfaces = [ground, panel(6.0, 1.0, -1.0, -1.95, -0.3), panel(30.0, 50, -50, -5, 9)]
    points, hidden = sweep(surfaces, directions(64), ROOF)
    for lens in (((-0.28, 0.07, 1e-3, -5e-4), "plumb_bob"), ((-0.02, 0.004, -0.002, 3e-4), "equidistant")):
        camera = Camera(640, 480, 420.0, 420.0, 319.5, 239.5, *lens)
        lost, truth = culled(points, ROOF, camera), pixels_of(points, hidden, ROOF, camera)
        assert (lost & truth).sum() > 0.9 * truth.sum()
        assert (lost & truth).sum() > 0.7 * lost.sum()


@pytest.mark.parametrize(
    "points",
    [
        np.tile(np.float32([10, 0, -1]), (60_000, 1)),
        np.random.default_rng(0).uniform([0.72, -0.3, -0.9], [1.1, 0.3, 0], (60_000, 3)).astype(np.float32),
        np.float32(3e38) * np.random.default_rng(0).choice([-1, 1], (60_000, 3)).astype(np.float32),
        (np.random.default_rng(0).normal(size=(60_000, 3)) * np.logspace(-6, 6, 60_000)[:, None]).astype(np.float32),
    ],
    ids=["one place", "before the lens", "as far as floats go", "all scales"],
)
def test_points_that_no_sweep_has_are_no_trouble(points: np.ndarray) -> None:
    sparse = project(points, ROOF, CAMERA)
    assert np.isfinite(sparse.depth).sum() + sparse.occluded <= sparse.in_view


def test_culling_finds_what_ray_casting_finds_on_the_simulated_lot() -> None:
    """Scene and rays of the simulator: a return is hidden where the camera's ray to it hits something before it."""
    mounting, scene = spinning_lidar.default_mounting(), parking_lot(41)
    pitch = Rotation.from_euler("y", -CAMERA_PITCH, degrees=True).as_matrix()
    world_from_camera = Transform(pitch @ AXES.T, np.array([0.0, 0.0, CAMERA_HEIGHT]))
    for beams, least_recall in ((16, 0.85), (64, 0.93), (128, 0.94)):
        settings = LidarSettings(beams=beams)
        echoes = spinning_lidar.cast(scene, settings, world_from_camera @ mounting, np.zeros(3, np.float32))
        structured = spinning_lidar.measure(echoes, settings, 0.1, np.random.default_rng(beams))
        points = np.stack([structured[name] for name in "xyz"], axis=1)
        inside = mounting.apply(points.astype(np.float64))
        far = np.linalg.norm(inside, axis=1)
        rays = (inside / far[:, None] @ world_from_camera.rotation.T).astype(np.float32)
        origins = np.tile(world_from_camera.translation.astype(np.float32), (len(points), 1))
        seen = [np.zeros(len(points), np.float32) for _ in range(4)]
        trace_beams(scene.arrays, origins, np.ascontiguousarray(rays), 1e4, *seen)
        hidden = (far - seen[0] > 0.3) & (seen[0] < 0.97 * far)

        lost, truth = culled(points, mounting, TELE), pixels_of(points, hidden, mounting, TELE)
        assert (lost & truth).sum() > least_recall * truth.sum()
        assert (lost & truth).sum() > 0.6 * lost.sum()
