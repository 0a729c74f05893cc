"""Stand-in for sensor_msgs_py.point_cloud2: point clouds to structured arrays and back, whatever their layout.

Fields with a count above 1 become `name_0`, `name_1`, … and nameless ones `unnamed_field_<index>`. Organised clouds
come out flat, row by row.

sensor_msgs_py itself (as of 5.4) differs where it fails: it ignores `row_step`, swaps the bytes of a big-endian message
in place at every reading, judges the types in `read_points_numpy` against the first field even where that one is not
asked for, and transposes organised clouds (`create_cloud` of a 2-D structured array). So give neither a 2-D array: make
a flat cloud and set its height, width and row_step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from numpy.typing import NDArray

if TYPE_CHECKING:  # what is recorded is read where there is no ROS
    from sensor_msgs.msg import PointCloud2, PointField
    from std_msgs.msg import Header

# PointField's INT8 to FLOAT64.
_DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


class PointCloudError(AssertionError, TypeError):
    """A cloud that cannot be read or made: the two errors that sensor_msgs_py raises, in one."""


def read_points(
    cloud: PointCloud2, field_names: Iterable[str] | None = None, skip_nans: bool = False
) -> NDArray[np.void]:
    """The points of a cloud, (N,) structured, with all fields or those named, in the order named.

    A view of the message (in its layout) where rows are not padded, the byte order is the machine's and no point is
    skipped. `skip_nans` leaves out points with a NaN in a field asked for, unless the cloud says that it is dense.

    Raises:
        PointCloudError: A field asked for is missing, a field is malformed, or the data is shorter than it says.
    """
    if cloud.row_step < cloud.width * cloud.point_step and cloud.height > 1:
        raise PointCloudError(
            f"expected a row_step of {cloud.width * cloud.point_step} bytes or more for {cloud.width} points, "
            f"got {cloud.row_step}"
        )
    # Of the last row only the points have to be there, not the padding.
    size = (cloud.height - 1) * cloud.row_step + cloud.width * cloud.point_step if cloud.height else 0
    if len(cloud.data) < size:
        raise PointCloudError(
            f"expected {cloud.height}x{cloud.width} points of {cloud.point_step} bytes, got {len(cloud.data)} bytes"
        )
    dtype = _dtype(cloud.fields, cloud.point_step, ">" if cloud.is_bigendian else "<")
    if field_names is not None:
        dtype = _only(dtype, list(field_names))
    shape, strides = (cloud.height, cloud.width), (cloud.row_step, cloud.point_step)
    points = np.ndarray(shape, dtype, cloud.data, strides=strides).reshape(-1)
    points = points.astype(dtype.newbyteorder("="), copy=False)
    if skip_nans and not cloud.is_dense:
        known = np.ones(len(points), bool)
        for name in points.dtype.names or ():
            known &= ~np.isnan(points[name])
        points = points[known]
    return points


def read_points_numpy(
    cloud: PointCloud2, field_names: Iterable[str] | None = None, skip_nans: bool = False
) -> NDArray[Any]:
    """As `read_points`, for fields of one type: (N, fields), a view where `read_points` gives one and they lie evenly.

    Raises:
        PointCloudError: As `read_points`, and where the fields are of several types.
    """
    points = read_points(cloud, field_names, skip_nans)
    types = {points.dtype[name] for name in points.dtype.names or ()}
    if len(types) != 1:
        raise PointCloudError(f"expected fields of one type, got {', '.join(sorted(map(str, types))) or 'no fields'}")
    return structured_to_unstructured(points)


def create_cloud(
    header: Header, fields: Sequence[PointField], points: NDArray[Any] | Iterable[Iterable[float]]
) -> PointCloud2:
    """A cloud of height 1 of points: structured (N,) with the fields' very layout, (N, fields), or rows of values.

    Raises:
        PointCloudError: The points' layout is not that of the fields.
    """
    from sensor_msgs.msg import PointCloud2

    dtype = _dtype(fields)
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(point) for point in points], dtype)
    elif points.dtype.names is None:
        types = [dtype[name] for name in dtype.names or ()]
        if points.ndim != 2 or points.shape[1] != len(types) or len(set(types)) != 1:
            raise PointCloudError(
                f"expected points (N, {len(types)}) for fields of one type, got {points.shape} for {dtype}"
            )
        points = unstructured_to_structured(points, dtype)
    elif points.dtype != dtype or points.ndim != 1:
        raise PointCloudError(f"expected points (N,) of {dtype}, got {points.shape} of {points.dtype}")
    cloud = PointCloud2(header=header, height=1, width=len(points), fields=list(fields), point_step=dtype.itemsize)
    cloud.row_step = dtype.itemsize * len(points)
    cloud.is_bigendian = sys.byteorder == "big"
    cloud.data.frombytes(np.ascontiguousarray(points).view(np.uint8))
    return cloud


def _dtype(fields: Iterable[PointField], point_step: int | None = None, order: str = "=") -> np.dtype[np.void]:
    """The structured dtype of a point."""
    names: list[str] = []
    types: list[np.dtype[Any]] = []
    offsets: list[int] = []
    for index, field in enumerate(fields):
        if field.datatype not in _DATATYPES or field.count < 1:
            raise PointCloudError(
                f"field {field.name!r}: expected a datatype of 1 to 8 and a count above 0, "
                f"got datatype {field.datatype} and count {field.count}"
            )
        dtype = np.dtype(order + _DATATYPES[field.datatype])
        name = field.name or f"unnamed_field_{index}"
        names += [name] if field.count == 1 else [f"{name}_{i}" for i in range(field.count)]
        types += [dtype] * field.count
        offsets += [field.offset + i * dtype.itemsize for i in range(field.count)]
    ends = [offset + dtype.itemsize for offset, dtype in zip(offsets, types, strict=True)]
    size = max(ends, default=0) if point_step is None else point_step
    if len(set(names)) < len(names):
        raise PointCloudError(f"expected fields of different names, got {', '.join(names)}")
    if max(ends, default=0) > size:
        raise PointCloudError(f"expected fields within a point_step of {size} bytes, got one that ends at {max(ends)}")
    return np.dtype({"names": names, "formats": types, "offsets": offsets, "itemsize": size})


def _only(dtype: np.dtype[np.void], names: list[str]) -> np.dtype[np.void]:
    """The dtype with just these fields, where they are."""
    known: Mapping[str, Any] = dtype.fields or {}
    missing = [name for name in names if name not in known]
    if missing:
        raise PointCloudError(f"expected field {missing[0]!r} in the cloud, got {', '.join(known)}")
    formats, offsets = [known[name][0] for name in names], [known[name][1] for name in names]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
