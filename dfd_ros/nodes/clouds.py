"""Between point cloud messages and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from dfd_ros.compat.sensor_msgs_py import read_points
from dfd_ros.errors import InputError

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
    """The finite points of a cloud, (N, 3) float32 metres.

    Raises:
        InputError: The cloud has no x, y, z, is shorter than it says, or holds no finite point.
    """
    names = {field.name for field in cloud.fields}
    missing = [name for name in "xyz" if name not in names]
    if missing:
        raise InputError(f"points: expected fields x, y and z, got {', '.join(sorted(names)) or 'none'}")
    size = cloud.row_step * cloud.height
    if len(cloud.data) < size or cloud.row_step < cloud.point_step * cloud.width:
        raise InputError(
            f"points: expected {cloud.height}x{cloud.width} points of {cloud.point_step} bytes, got {len(cloud.data)} bytes"
        )
    structured = read_points(cloud, field_names=["x", "y", "z"])
    points = np.stack([structured[name].astype(np.float32, copy=False).reshape(-1) for name in "xyz"], axis=1)
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        raise InputError(f"points: expected finite points, got {len(points)} of which none is finite")
    return points[finite]


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
