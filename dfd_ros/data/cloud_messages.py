"""A LiDAR sweep out of a recorded sensor_msgs/PointCloud2 of any layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.compat.clouds import read_points
from dfd_ros.errors import InputError
from dfd_ros.lidar.deskew import TIME_FIELDS, point_times
from dfd_ros.stamps import nanoseconds

INTENSITY_FIELDS = ("intensity", "reflectivity", "reflectance")
"""What drivers call the strength of a point's echo, the raw one first."""


@dataclass(frozen=True)
class Sweep:
    """
    Attributes:
        stamp: Integer nanoseconds.
        frame_id: The LiDAR's frame.
        points: (N, 3) float32 metres, in the cloud's order; those that are not finite stay so.
        times: (N,) seconds after the stamp; None where the cloud does not tell.
        intensity: (N,) float32 in the driver's unit; None where the cloud does not tell.
    """

    stamp: int
    frame_id: str
    points: NDArray[np.float32]
    times: NDArray[np.float64] | None
    intensity: NDArray[np.float32] | None


def sweep_from_message(cloud: Any) -> Sweep:
    """The sweep of a decoded cloud.

    Raises:
        InputError: The cloud has no x, y, z, is malformed or shorter than it says, or its times are no numbers.
    """
    known = [field.name for field in cloud.fields]
    if not {"x", "y", "z"} <= set(known):
        raise InputError(f"points: expected fields x, y, z, got {', '.join(sorted(known)) or 'none'}")
    wanted = [name for names in (TIME_FIELDS, INTENSITY_FIELDS) if (name := _first(names, known)) is not None]
    try:
        read = read_points(cloud, ["x", "y", "z", *wanted])
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"points: {error}") from error
    time, intensity = _first(TIME_FIELDS, known), _first(INTENSITY_FIELDS, known)
    stamp = nanoseconds(cloud.header.stamp)
    return Sweep(
        stamp,
        cloud.header.frame_id,
        np.stack([read[name].astype(np.float32) for name in "xyz"], axis=1),
        None if time is None else point_times(read[time], stamp),
        None if intensity is None else read[intensity].astype(np.float32),
    )


def _first(names: tuple[str, ...], known: list[str]) -> str | None:
    return next((name for name in names if name in known), None)
