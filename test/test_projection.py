"""LiDAR projection, occlusion culling, extrinsics and the LiDAR's field."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.calibration import Extrinsics, load_extrinsics, save_extrinsics, transform_from_quaternion
from dfd_ros.lidar.field import lidar_field, return_spacing
from dfd_ros.lidar.occlusion import cull_occluded
from dfd_ros.lidar.projection import project

PINHOLE = Camera(640, 480, 520.0, 510.0, 321.0, 238.0)
VELODYNE_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
VEHICLE = Transform(VELODYNE_AXES, np.array([-0.05, -0.35, -0.25]))
VEHICLE_FILE = Path(__file__).parents[1] / "config/vehicle_extrinsics.yaml"


def points_ahead(n: int, seed: int = 0) -> np.ndarray:
    """Points (n, 3) in LiDAR axes, some of them beside and behind the camera."""
    rng = np.random.default_rng(seed)
    return rng.uniform([-20, -30, -8], [60, 30, 8], (n, 3)).astype(np.float32)


def opencv_depth(points: np.ndarray, transform: Transform, camera: Camera) -> np.ndarray:
    """Projection and z-buffer by OpenCV and a sort, of points within 45 degrees of the axis."""
    inside = transform.apply(points.astype(np.float64))
    inside = inside[inside[:, 2] > np.hypot(inside[:, 0], inside[:, 1])]
    arguments = (inside[:, None], np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))
    if camera.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(*arguments)
    else:
        pixels, _ = cv2.projectPoints(*arguments)
    column, row = np.floor(pixels.reshape(-1, 2).T + 0.5).astype(int)
    seen = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    depth = np.full(camera.shape, np.nan, np.float32)
    far_to_near = np.argsort(-inside[seen, 2], kind="stable")
    depth[row[seen][far_to_near], column[seen][far_to_near]] = inside[seen, 2][far_to_near]
    return depth


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("plumb_bob", ()),
        ("plumb_bob", (-0.28, 0.07, 1e-3, -5e-4)),
        ("plumb_bob", (-0.2, 0.05, 1e-3, -5e-4, 0.003)),
        ("rational_polynomial", (0.4, 0.1, 1e-3, -5e-4, 0.01, 0.7, 0.2, 0.02)),
        ("equidistant", (-0.02, 0.004, -0.002, 3e-4)),
    ],
)
def test_projection_agrees_with_opencv(model: str, distortion: tuple[float, ...]) -> None:
    camera = Camera(640, 480, 520.0, 510.0, 321.0, 238.0, distortion, model)
    points = points_ahead(5000)
    inside = VEHICLE.apply(points.astype(np.float64))
    points = points[inside[:, 2] > np.hypot(inside[:, 0], inside[:, 1])]
    ours = project(points, VEHICLE, camera, cull=False).depth
    theirs = opencv_depth(points, VEHICLE, camera)
    assert np.isfinite(theirs).sum() > 500
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_point_on_the_axis_lands_on_the_principal_point_at_its_depth() -> None:
    sparse = project(np.array([[7.0, 0.0, 0.0]], np.float32), Transform(VELODYNE_AXES), PINHOLE)
    assert np.argwhere(np.isfinite(sparse.depth)).tolist() == [[238, 321]]
    assert sparse.depth[238, 321] == pytest.approx(7.0)


def test_the_nearest_return_wins_a_pixel_and_every_one_in_view_is_counted() -> None:
    points = np.array([[9, 0, 0], [5, 0, 0], [30, 0, 0]], np.float32)
    sparse = project(points, Transform(VELODYNE_AXES), PINHOLE)
    assert np.nanmin(sparse.depth) == np.nanmax(sparse.depth) == 5.0
    assert sparse.in_view == 3


def test_points_behind_the_camera_or_not_finite_are_ignored() -> None:
    points = np.array([[-5, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [5, -np.inf, 0], [0, 0, 0]], np.float32)
    sparse = project(points, Transform(VELODYNE_AXES), PINHOLE)
    assert sparse.in_view == 0
    assert np.isnan(sparse.depth).all()


def test_no_points_give_an_empty_image() -> None:
    sparse = project(np.empty((0, 3), np.float32), VEHICLE, PINHOLE)
    assert sparse.depth.shape == (480, 640)
    assert np.isnan(sparse.depth).all()


def test_points_far_outside_the_view_do_not_fold_back_into_the_picture() -> None:
    # r (1 - 0.3 r²) falls again beyond r = 1.054: at r = 1.8 it is 0.05, the middle of the picture.
    camera = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, (-0.3, 0.0, 0.0, 0.0))
    beside = np.array([[1.0, -1.8, 0.0]], np.float32)
    assert project(beside, Transform(VELODYNE_AXES), camera).in_view == 0


def test_unusable_input_is_named() -> None:
    with pytest.raises(InputError, match=r"\(N, 3\).*\(4, 4\)"):
        project(np.zeros((4, 4), np.float32), VEHICLE, PINHOLE)
    with pytest.raises(InputError, match="distortion model"):
        project(points_ahead(3), VEHICLE, Camera(8, 8, 1, 1, 4, 4, (), "thin_prism"))
    with pytest.raises(InputError, match="plumb_bob takes 0 or 4 or 5"):
        project(points_ahead(3), VEHICLE, Camera(8, 8, 1, 1, 4, 4, (0.1,)))


def lattice(rows: slice, columns: slice, depth: float, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Returns of a LiDAR on a flat surface: `depth` at the slices' pixels, NaN elsewhere."""
    image = np.full(shape, np.nan, np.float32)
    image[rows, columns] = depth
    return image


def test_a_background_return_among_a_nearer_surface_is_culled() -> None:
    depth = lattice(slice(0, 120, 5), slice(0, 160, 2), 5.0)
    depth[62, 81] = 30.0
    visible = cull_occluded(depth)
    assert np.isnan(visible[62, 81])
    depth[62, 81] = np.nan
    np.testing.assert_array_equal(visible, depth)


def test_returns_beside_the_edge_of_a_nearer_surface_stay() -> None:
    depth = lattice(slice(0, 120, 5), slice(0, 80, 2), 5.0)
    depth[::5, 80::2] = 30.0
    np.testing.assert_array_equal(cull_occluded(depth), depth)


def test_slanted_ground_stays() -> None:
    rows = np.arange(30, 120, 5)
    depth = lattice(slice(30, 120, 5), slice(0, 160, 2), 1.0)
    depth[30::5, ::2] = (1.7 * 150.0 / (rows - 25.0))[:, None]  # a camera 1.7 m above flat ground, horizon at row 25
    np.testing.assert_array_equal(cull_occluded(depth), depth)


def test_culling_an_empty_image_changes_nothing() -> None:
    assert np.isnan(cull_occluded(np.full((20, 30), np.nan, np.float32))).all()


def test_culling_a_ray_cast_street_drops_hidden_returns_and_next_to_no_others() -> None:
    """A wall at 30 m behind posts and panels, seen by 64 beams 0.35 m above the camera; truth by ray casting."""
    panels = np.array([[-3.0, -1.0, 8.0, 1.6], [0.5, 0.0, 6.0, 1.8], [2.0, -0.6, 12.0, 3.0], [-6.0, 0.2, 15.0, 2.5]])
    elevation, azimuth = np.meshgrid(
        np.deg2rad(np.linspace(-15, 5, 64)), np.deg2rad(np.arange(-35, 35, 0.2)), indexing="ij"
    )
    directions = np.stack([-np.tan(azimuth), -np.tan(elevation) / np.cos(azimuth), np.ones_like(azimuth)], -1)

    def depth_of_hit(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        depth = np.full(rays.shape[:-1], 30.0)
        for left, top, z, width in panels:
            hit = origin + rays * (z - origin[2])
            on = (abs(hit[..., 0] - left - width / 2) < width / 2) & (abs(hit[..., 1] - top - 1.0) < 1.0)
            depth = np.where(on & (z < depth), z, depth)
        return depth

    origin = VEHICLE.translation
    points = (origin + directions * (depth_of_hit(origin, directions) - origin[2])[..., None]).reshape(-1, 3)
    hidden = depth_of_hit(np.zeros(3), points / points[:, 2:]) < points[:, 2] - 0.5
    in_lidar = VEHICLE.inverse().apply(points).astype(np.float32)
    everything = project(in_lidar, VEHICLE, PINHOLE, cull=False).depth
    only_hidden = project(in_lidar[hidden], VEHICLE, PINHOLE, cull=False).depth
    truth = np.isfinite(everything) & (everything == only_hidden)
    sparse = project(in_lidar, VEHICLE, PINHOLE)
    culled = np.isfinite(everything) & np.isnan(sparse.depth)
    assert truth.sum() > 200
    assert culled.sum() == sparse.occluded
    assert (culled & truth).sum() > 0.7 * truth.sum()
    assert (culled & ~truth).sum() < 0.002 * np.isfinite(everything).sum()


def test_the_lidar_field_lies_between_the_outermost_returns() -> None:
    sparse = lattice(slice(20, 101, 5), slice(0, 160, 2), 9.0)
    field = lidar_field(sparse)
    assert field[20:101].all()
    assert not field[:20].any()
    assert not field[101:].any()
    assert return_spacing(sparse) == pytest.approx(np.sqrt(5 * 2), rel=0.05)


def test_no_returns_no_field() -> None:
    empty = np.full((20, 30), np.nan, np.float32)
    assert not lidar_field(empty).any()
    assert np.isnan(return_spacing(empty))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.integers(0, 2**31))
def test_extrinsics_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, t: list[float], seed: int) -> None:
    transform = Transform(Rotation.from_quat(np.random.default_rng(seed).normal(size=4)).as_matrix(), np.array(t))
    path = tmp_path_factory.mktemp("extrinsics") / "extrinsics.yaml"
    save_extrinsics(Extrinsics(transform, "camera", "velodyne"), path)
    loaded = load_extrinsics(path)
    np.testing.assert_allclose(loaded.camera_from_lidar.rotation, transform.rotation, atol=1e-12)
    np.testing.assert_array_equal(loaded.camera_from_lidar.translation, transform.translation)
    assert (loaded.camera_frame, loaded.lidar_frame) == ("camera", "velodyne")


def test_the_vehicles_lidar_looks_ahead_from_above_and_behind_the_camera() -> None:
    transform = load_extrinsics(VEHICLE_FILE).camera_from_lidar
    np.testing.assert_allclose(transform.translation, [-0.05, -0.35, -0.25])
    turn = Rotation.from_matrix(transform.rotation @ VELODYNE_AXES.T)
    np.testing.assert_allclose(abs(turn.as_euler("xyz", degrees=True)), 0.5, atol=0.01)


GOOD = "camera_frame: c\nlidar_frame: l\ncamera_from_lidar: {translation: [0, 0, 0], quaternion: [0, 0, 0, 1]}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "expected YAML"),
        ("- 1\n", "mapping"),
        (GOOD.replace("camera_frame: c\n", ""), "no camera_frame"),
        (GOOD.replace("translation", "shift"), "no translation"),
        (GOOD + "colour: red\n", "unknown 'colour'"),
        (GOOD.replace("lidar_frame: l", "lidar_frame: 3"), "lidar_frame must be a frame's name, got 3"),
        (GOOD.replace("[0, 0, 0, 1]", "[0, 0, 0, 2]"), "unit length, got length 2"),
        (GOOD.replace("[0, 0, 0, 1]", "[0, 0, 1]"), "quaternion must be 4 finite numbers"),
        (GOOD.replace("[0, 0, 0]", "[0, .nan, 0]"), "translation must be 3 finite numbers"),
        (GOOD.replace("[0, 0, 0]", "[0, y, 0]"), "translation must be 3 finite numbers"),
    ],
)
def test_a_broken_extrinsics_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "extrinsics.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_extrinsics(path)
    assert str(path) in str(caught.value)


def test_a_missing_extrinsics_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_extrinsics(tmp_path / "none.yaml")


def test_a_quaternion_turns_as_it_should() -> None:
    quarter = transform_from_quaternion((1.0, 2.0, 3.0), (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)))
    np.testing.assert_allclose(quarter.apply(np.array([1.0, 0.0, 0.0])), [1.0, 3.0, 3.0], atol=1e-12)
