"""LiDAR projection, the cameras it goes into, extrinsics and the LiDAR's field."""

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


def test_a_point_of_exactly_zero_is_no_return_even_where_the_lidar_is_in_view() -> None:
    ahead = Transform(VELODYNE_AXES, np.array([0.0, 0.0, 2.0]))
    points = np.array([[0, 0, 0], [0.5, 0, 0]], np.float32)
    assert project(points, ahead, PINHOLE).in_view == 1


def test_all_points_on_one_pixel_give_one_depth() -> None:
    sparse = project(np.tile(np.float32([12, 0.3, 0.1]), (50_000, 1)), VEHICLE, PINHOLE)
    assert sparse.in_view == 50_000
    assert np.isfinite(sparse.depth).sum() == 1


def test_doubles_and_views_of_wider_points_project_the_same() -> None:
    points = points_ahead(2000)
    wide = np.zeros((2000, 4), np.float32)
    wide[:, :3] = points
    expected = project(points, VEHICLE, PINHOLE).depth
    np.testing.assert_array_equal(project(points.astype(np.float64), VEHICLE, PINHOLE).depth, expected)
    np.testing.assert_array_equal(project(wide[:, :3], VEHICLE, PINHOLE).depth, expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*3 * [st.floats(width=32)]), max_size=30),
    st.floats(-10, 10),
    st.floats(-3.1, 3.1),
)
def test_whatever_the_points_every_depth_is_positive_or_unknown(points: list, shift: float, turn: float) -> None:
    rotation = Rotation.from_euler("y", turn).as_matrix() @ VELODYNE_AXES
    array = np.array(points, np.float32).reshape(-1, 3)
    sparse = project(array, Transform(rotation, np.array([0.1, shift, -shift])), PINHOLE)
    returns = np.count_nonzero(np.isfinite(sparse.depth))
    assert not (sparse.depth <= 0).any()
    assert returns + sparse.occluded <= sparse.in_view <= len(points)


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


def pixels_of(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixels (N, 2) of points in a pinhole camera's frame, by its matrix."""
    homogeneous = points @ camera.matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def test_a_cropped_camera_sees_what_the_crop_of_the_image_shows() -> None:
    points = points_ahead(20_000)
    whole = project(points, VEHICLE, PINHOLE, cull=False).depth
    part = project(points, VEHICLE, PINHOLE.cropped(100, 50, 300, 200), cull=False).depth
    np.testing.assert_array_equal(part, whole[50:250, 100:400])


def test_a_binned_camera_sees_the_nearest_of_the_pixels_made_one() -> None:
    points = points_ahead(20_000)
    whole = project(points, VEHICLE, PINHOLE, cull=False).depth
    binned = project(points, VEHICLE, PINHOLE.binned(2, 4), cull=False).depth
    blocks = np.where(np.isnan(whole), np.inf, whole).reshape(120, 4, 320, 2).min(axis=(1, 3))
    np.testing.assert_array_equal(np.where(np.isnan(binned), np.inf, binned), blocks)


def test_a_resized_camera_sees_a_spot_where_the_resized_image_shows_it() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-2, -1.5, 6], [2, 1.5, 9], (8, 3))
    for u, v in pixels_of(points, PINHOLE):
        rows, columns = np.mgrid[:480, :640]
        spot = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 6.0**2))
        small = cv2.resize(spot, (320, 160), interpolation=cv2.INTER_AREA)
        rows, columns = np.mgrid[:160, :320]
        centre = [(small * columns).sum() / small.sum(), (small * rows).sum() / small.sum()]
        resized = PINHOLE.resized(320, 160)
        ray = np.array([[(u - PINHOLE.cx) / PINHOLE.fx, (v - PINHOLE.cy) / PINHOLE.fy, 1.0]])
        np.testing.assert_allclose(pixels_of(ray, resized)[0], centre, atol=1e-3)


def test_an_image_may_be_the_region_of_interest_binned_or_an_exact_rescale() -> None:
    roi = (64, 32, 320, 240)
    assert PINHOLE.for_image((480, 640)) == PINHOLE
    assert PINHOLE.for_image((240, 320), roi) == PINHOLE.cropped(*roi)
    assert PINHOLE.for_image((120, 160), roi, (2, 2)) == PINHOLE.cropped(*roi).binned(2, 2)
    assert PINHOLE.for_image((60, 80), roi, (2, 2)) == PINHOLE.cropped(*roi).resized(80, 60)
    assert PINHOLE.for_image((960, 1280)) == PINHOLE.resized(1280, 960)
    distorted = Camera(640, 480, 520, 510, 321, 238, (-0.28, 0.07, 1e-3, -5e-4))
    assert distorted.for_image((240, 320)).distortion == distorted.distortion


def test_an_image_that_fits_neither_is_an_error() -> None:
    with pytest.raises(InputError, match="640x480 or an exact rescale of it, got 640x400"):
        PINHOLE.for_image((400, 640))
    with pytest.raises(InputError, match=r"cropped and binned 160x120.*got 640x400"):
        PINHOLE.for_image((400, 640), (64, 32, 320, 240), (2, 2))
    with pytest.raises(InputError, match=r"within 640x480, got 600x100 at \(64, 32\)"):
        PINHOLE.for_image((100, 600), (64, 32, 600, 100))
    with pytest.raises(InputError, match="binning of 1 pixel or more, got 0x2"):
        PINHOLE.binned(0, 2)


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3)), 1.1 * np.eye(3), np.diag([1.0, 1.0, -1.0]), np.full((3, 3), np.nan), np.eye(3) + np.eye(3, k=1)],
    ids=["zeros", "scaled", "mirror", "nan", "sheared"],
)
def test_extrinsics_that_are_not_a_rotation_are_named(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="rotation must be orthonormal and right-handed"):
        Transform(matrix, np.zeros(3))


def test_extrinsics_with_a_translation_that_is_not_finite_are_named() -> None:
    with pytest.raises(InputError, match=r"translation must be finite, got \[0.0, nan, 0.0\]"):
        Transform(np.eye(3), np.array([0.0, np.nan, 0.0]))


def lattice(rows: slice, columns: slice, depth: float, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Returns of a LiDAR on a flat surface: `depth` at the slices' pixels, NaN elsewhere."""
    image = np.full(shape, np.nan, np.float32)
    image[rows, columns] = depth
    return image


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
