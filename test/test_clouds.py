"""Point cloud messages of every layout become points, and malformed ones an error that says why."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.intensity import intensity_image
from dfd_ros.lidar.projection import project
from dfd_ros.nodes.clouds import cloud_message, intensity_array, points_array, times_array

XYZ = np.random.default_rng(0).uniform(-50, 50, (24, 3)).round()


def cloud_of(dtype: np.dtype, **columns: np.ndarray) -> PointCloud2:
    points = np.zeros(len(XYZ), dtype)
    for axis, name in enumerate("xyz"):
        points[name] = XYZ[:, axis]
    for name, values in columns.items():
        points[name] = values
    return cloud_message(points, Header(stamp=Time(sec=1_700_000_000)))


FLOATS = np.dtype([("x", "f4"), ("y", "f4"), ("z", "f4"), ("intensity", "f4")])


@pytest.mark.parametrize(
    "dtype",
    [
        FLOATS,
        np.dtype([("x", "f8"), ("y", "f8"), ("z", "f8")]),
        np.dtype([("ring", "u2"), ("z", "f4"), ("x", "f8"), ("y", "f4")]),
        np.dtype({"names": ["x", "y", "z"], "formats": ["f4"] * 3, "offsets": [20, 4, 33], "itemsize": 48}),
    ],
    ids=["floats", "doubles", "mixed, in another order", "padded, not aligned"],
)
def test_fields_may_be_of_any_type_and_place(dtype: np.dtype) -> None:
    points = points_array(cloud_of(dtype))
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, XYZ)


@pytest.mark.parametrize("datatype", [PointField.INT8, PointField.INT16, PointField.INT32], ids=["8", "16", "32"])
def test_whole_numbers_are_metres_too(datatype: int) -> None:
    kind = {PointField.INT8: "i1", PointField.INT16: "i2", PointField.INT32: "i4"}[datatype]
    cloud = PointCloud2(height=1, width=24, point_step=3 * int(kind[1]))
    cloud.row_step = 24 * cloud.point_step
    cloud.fields = [
        PointField(name=n, offset=i * int(kind[1]), datatype=datatype, count=1) for i, n in enumerate("xyz")
    ]
    cloud.data.frombytes(XYZ.astype(kind).tobytes())
    np.testing.assert_array_equal(points_array(cloud), XYZ)


def test_an_organised_cloud_with_padded_rows_comes_row_by_row() -> None:
    cloud = cloud_of(FLOATS)
    rows = np.frombuffer(bytes(cloud.data), np.uint8).reshape(4, 6 * 16)
    cloud.height, cloud.width, cloud.row_step = 4, 6, 6 * 16
    np.testing.assert_array_equal(points_array(cloud), XYZ)
    if "sensor_msgs_py" not in sys.modules:  # which ignores row_step
        padded = np.pad(rows, ((0, 0), (0, 20)), constant_values=255)
        cloud.row_step = padded.shape[1]
        cloud.data = padded.tobytes()
        np.testing.assert_array_equal(points_array(cloud), XYZ)


def test_big_endian_bytes_are_swapped() -> None:
    cloud = cloud_of(FLOATS)
    cloud.data = np.frombuffer(bytes(cloud.data), "<f4").astype(">f4").tobytes()
    cloud.is_bigendian = True
    np.testing.assert_array_equal(points_array(cloud), XYZ)


def test_points_that_are_not_finite_keep_their_place() -> None:
    y = np.where(np.arange(24) % 3 == 0, np.nan, XYZ[:, 1])
    points = points_array(cloud_of(FLOATS, y=y))
    np.testing.assert_array_equal(points, np.stack([XYZ[:, 0], y, XYZ[:, 2]], axis=1))


def test_times_come_from_the_field_there_is() -> None:
    for name, kind, unit in (("t", "u4", 1_000_000), ("time", "f4", 1e-3), ("offset_time", "u4", 1_000_000)):
        dtype = np.dtype([*FLOATS.descr, (name, kind)])
        times = times_array(cloud_of(dtype, **{name: np.arange(24) * unit}))
        np.testing.assert_allclose(times, np.arange(24) * 1e-3, rtol=1e-6)
    stamped = cloud_of(np.dtype([*FLOATS.descr, ("timestamp", "f8")]), timestamp=1.7e9 + np.arange(24) * 1e-3)
    np.testing.assert_allclose(times_array(stamped), np.arange(24) * 1e-3, atol=1e-6)
    assert times_array(cloud_of(FLOATS)) is None


def test_intensity_comes_from_the_field_there_is_the_raw_one_first() -> None:
    for name, kind in (("intensity", "f4"), ("reflectivity", "u2"), ("reflectance", "f8")):
        dtype = np.dtype([*FLOATS.descr[:3], (name, kind), ("ring", "u2")])
        echoes = intensity_array(cloud_of(dtype, **{name: np.arange(24)}))
        assert echoes is not None
        assert echoes.dtype == np.float32
        np.testing.assert_array_equal(echoes, np.arange(24))
    both = cloud_of(np.dtype([("reflectivity", "u1"), *FLOATS.descr]), reflectivity=7, intensity=np.arange(24))
    np.testing.assert_array_equal(intensity_array(both), np.arange(24))
    assert intensity_array(cloud_of(np.dtype(FLOATS.descr[:3]))) is None


def test_the_intensity_image_shows_the_returns_that_the_depth_image_shows() -> None:
    """Each point's intensity is a function of its depth, so that the image can be told from the depth alone."""
    rng = np.random.default_rng(0)
    camera = Camera(40, 30, 30.0, 30.0, 19.5, 14.5, (0.05, -0.02, 0.001, 0.002, 0.0))
    beside = Transform(Rotation.from_euler("xyz", [2, -3, 1], degrees=True).as_matrix(), np.array([0.1, -0.4, 0.2]))
    points = rng.uniform([-20, -20, -5], [20, 20, 40], (20_000, 3)).astype(np.float32)
    points[::50] = np.nan
    depth = project(points, beside, camera).depth
    far = depth > 30.0
    depth[far] = np.nan  # a return that was left out afterwards
    seen = intensity_image(points, 1000.0 - beside.apply(points)[:, 2], beside, camera, depth)
    assert 50 < np.isfinite(depth).sum() < depth.size
    np.testing.assert_array_equal(np.isnan(seen), np.isnan(depth))
    np.testing.assert_allclose(seen, 1000.0 - depth, atol=1e-3)


def test_ten_million_points_are_read() -> None:
    points = np.zeros(10_000_000, FLOATS)
    points["x"] = 1.0
    assert points_array(cloud_message(points, Header())).shape == (10_000_000, 3)


def broken(**changes: object) -> PointCloud2:
    cloud = cloud_of(FLOATS)
    for name, value in changes.items():
        setattr(cloud, name, value)
    return cloud


def test_a_cloud_of_no_points_is_no_error() -> None:
    empty = cloud_of(FLOATS)
    empty.width, empty.row_step, empty.data = 0, 0, []
    assert points_array(empty).shape == (0, 3)


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (broken(fields=[]), "expected fields x, y, z, got none"),
        (broken(fields=broken().fields[:2]), "expected fields x, y, z, got x, y"),
        (broken(width=25, row_step=400), "points: "),
        (broken(fields=[PointField(name=n, offset=0, datatype=9, count=1) for n in "xyz"]), "points: "),
    ],
    ids=["no fields", "no z", "short", "unknown type"],
)
def test_a_malformed_cloud_is_an_error_of_the_input(cloud: PointCloud2, message: str) -> None:
    with pytest.raises(InputError, match=message):
        points_array(cloud)
