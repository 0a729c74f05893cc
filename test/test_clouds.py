"""Point cloud messages of every layout become points, and malformed ones an error that says why."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros.errors import InputError
from dfd_ros.nodes.clouds import cloud_message, points_array, timed_points

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


def test_points_that_are_not_finite_are_left_out_and_a_cloud_of_only_such_is_an_error() -> None:
    cloud = cloud_of(FLOATS, y=np.where(np.arange(24) % 3 == 0, np.nan, XYZ[:, 1]))
    np.testing.assert_array_equal(points_array(cloud), XYZ[np.arange(24) % 3 != 0])
    with pytest.raises(InputError, match="24 of which none is finite"):
        points_array(cloud_of(FLOATS, x=np.full(24, np.inf)))


def test_times_come_from_the_field_there_is_and_keep_step_with_the_points() -> None:
    y = np.where(np.arange(24) == 3, np.nan, XYZ[:, 1])
    for name, kind, unit in (("t", "u4", 1_000_000), ("time", "f4", 1e-3), ("offset_time", "u4", 1_000_000)):
        dtype = np.dtype([*FLOATS.descr, (name, kind)])
        points, times = timed_points(cloud_of(dtype, y=y, **{name: np.arange(24) * unit}))
        assert len(points) == len(times) == 24
        np.testing.assert_allclose(times, np.arange(24) * 1e-3, rtol=1e-6)
    stamped = cloud_of(np.dtype([*FLOATS.descr, ("timestamp", "f8")]), timestamp=1.7e9 + np.arange(24) * 1e-3)
    np.testing.assert_allclose(timed_points(stamped)[1], np.arange(24) * 1e-3, atol=1e-6)
    assert timed_points(cloud_of(FLOATS))[1] is None


def test_ten_million_points_are_read() -> None:
    points = np.zeros(10_000_000, FLOATS)
    points["x"] = 1.0
    assert points_array(cloud_message(points, Header())).shape == (10_000_000, 3)


def broken(**changes: object) -> PointCloud2:
    cloud = cloud_of(FLOATS)
    for name, value in changes.items():
        setattr(cloud, name, value)
    return cloud


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (broken(fields=[]), "expected fields x, y, z, got none"),
        (broken(fields=broken().fields[:2]), "expected fields x, y, z, got x, y"),
        (broken(width=25, row_step=400), "points: "),
        (broken(fields=[PointField(name=n, offset=0, datatype=9, count=1) for n in "xyz"]), "points: "),
        (broken(width=0, height=0, data=[]), "got 0 of which none is finite"),
    ],
    ids=["no fields", "no z", "short", "unknown type", "empty"],
)
def test_a_malformed_cloud_is_an_error_of_the_input(cloud: PointCloud2, message: str) -> None:
    with pytest.raises(InputError, match=message):
        points_array(cloud)
