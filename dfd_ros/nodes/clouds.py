"""Between point cloud messages and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros.compat.sensor_msgs_py import read_points
from dfd_ros.data.cloud_messages import INTENSITY_FIELDS
from dfd_ros.errors import InputError
from dfd_ros.lidar.deskew import TIME_FIELDS, point_times
from dfd_ros.stamps import nanoseconds

DATATYPES = {
    np.dtype(np.float32): PointField.FLOAT32,
    np.dtype(np.float64): PointField.FLOAT64,
    np.dtype(np.uint8): PointField.UINT8,
    np.dtype(np.uint16): PointField.UINT16,
    np.dtype(np.uint32): PointField.UINT32,
}

# xyz in metres and 0x00rrggbb as a float's bits, as RViz and PCL read it.
COLOURED_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


def cloud_message(points: NDArray[Any], header: Header) -> PointCloud2:
    """A cloud of a structured array: (N,) points, or (H, W) for an organised cloud."""
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    cloud = PointCloud2(header=header, height=height, width=width)
    for name in points.dtype.names or ():
        dtype, offset = points.dtype.fields[name][:2]  # type: ignore[index]
        cloud.fields.append(PointField(name=name, offset=offset, datatype=DATATYPES[dtype], count=1))
    cloud.point_step, cloud.row_step = points.dtype.itemsize, points.dtype.itemsize * width
    cloud.data.frombytes(np.ascontiguousarray(points).reshape(-1).view(np.uint8))
    return cloud


def points_array(cloud: PointCloud2) -> NDArray[np.float32]:
    """The points of a cloud of any layout, (N, 3) float32 metres, in its order; those that are not finite stay so.

    Raises:
        InputError: The cloud has no x, y, z, is malformed or shorter than it says.
    """
    structured = _read(cloud, "x", "y", "z")
    points = np.empty((len(structured), 3), np.float32)
    for axis, name in enumerate("xyz"):
        points[:, axis] = structured[name]
    return points


def times_array(cloud: PointCloud2) -> NDArray[np.float64] | None:
    """When each point of a cloud was taken, (N,) seconds after its stamp; None where the cloud has none of `TIME_FIELDS`.

    Raises:
        InputError: The cloud is malformed, or its times are no numbers.
    """
    name = _first_field(cloud, TIME_FIELDS)
    return None if name is None else point_times(_read(cloud, name)[name], nanoseconds(cloud.header.stamp))


def intensity_array(cloud: PointCloud2) -> NDArray[np.float32] | None:
    """How bright each point of a cloud came back, (N,) in the driver's unit; None without one of `INTENSITY_FIELDS`.

    Raises:
        InputError: The cloud is malformed.
    """
    name = _first_field(cloud, INTENSITY_FIELDS)
    return None if name is None else _read(cloud, name)[name].astype(np.float32)


def _first_field(cloud: PointCloud2, names: tuple[str, ...]) -> str | None:
    known = {field.name for field in cloud.fields}
    return next((name for name in names if name in known), None)


def _read(cloud: PointCloud2, *names: str) -> NDArray[np.void]:
    known = [field.name for field in cloud.fields]
    if not set(names) <= set(known):
        raise InputError(f"points: expected fields {', '.join(names)}, got {', '.join(sorted(known)) or 'none'}")
    try:
        return read_points(cloud, field_names=names)
    except (AssertionError, TypeError, ValueError) as error:  # what sensor_msgs_py raises on a malformed message
        raise InputError(f"points: {error}") from error


def coloured_cloud(
    depth: NDArray[np.float32], rays: NDArray[np.float32], image: NDArray[np.uint8], encoding: str, header: Header
) -> PointCloud2:
    """The organised cloud of a depth image: depth times the pixel's ray, coloured by the image."""
    height, width = depth.shape
    points = np.empty((height, width), COLOURED_POINT)
    for axis, name in enumerate("xyz"):
        np.multiply(rays[..., axis], depth, out=points[name])
    if image.ndim == 2:
        points["rgb"] = image * np.uint32(0x010101)
    else:
        red, blue = (2, 0) if encoding == "bgr8" else (0, 2)
        shift = {red: 16, 1: 8, blue: 0}
        points["rgb"] = sum(image[..., channel].astype(np.uint32) << bits for channel, bits in shift.items())
    cloud = cloud_message(points, header)
    cloud.fields[3].datatype = PointField.FLOAT32  # the convention for packed colours
    return cloud
