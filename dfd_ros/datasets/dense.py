"""A sweep made dense against a pair's deep picture: projection, de-skew and colorization, as the vehicle does it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.cloud_messages import Sweep
from dfd_ros.datasets.scan import TwistSeen
from dfd_ros.datasets.settings import DepthSettings
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.colorize import Colorizer, DenseDepth
from dfd_ros.lidar.deskew import Twist, deskew, seen_from
from dfd_ros.lidar.intensity import intensity_image
from dfd_ros.lidar.projection import project
from dfd_ros.stamps import NANOSECONDS

LONGEST_SWEEP = 2.0
"""Seconds: points' times further from the stamp are of another clock."""


@dataclass(frozen=True)
class SweepDepth:
    """Dense depth, the number of pixels with a return, and whether the sweep was brought to the picture's time."""

    dense: DenseDepth
    returns: int
    deskewed: bool


class SweepDensifier:
    """Makes sweeps dense; keeps the solver of one picture size."""

    def __init__(self, settings: DepthSettings, camera_from_lidar: Transform) -> None:
        self._settings = settings
        self._camera_from_lidar = camera_from_lidar
        self._colorizer: Colorizer | None = None

    def solve(
        self, picture: NDArray[np.uint8], camera: Camera, sweep: Sweep, stamp: int, twist: TwistSeen | None
    ) -> SweepDepth:
        """Dense depth of a picture (H, W) or (H, W, 3), red first, that `camera` took at `stamp`, nanoseconds.

        Raises:
            InputError: The camera's distortion is of a kind that is not known.
        """
        settings, pose = self._settings, self._camera_from_lidar
        motion = self._lidar_twist(twist, sweep)
        points = sweep.points
        if motion is not None and sweep.times is not None:
            points = deskew(points, sweep.times, motion, (stamp - sweep.stamp) / NANOSECONDS)
        sparse = project(points, pose, camera).depth
        sparse[sparse > settings.max_depth] = np.nan
        intensity = None
        if sweep.intensity is not None and not settings.plain:
            intensity = intensity_image(points, sweep.intensity, pose, camera, sparse)
        if self._colorizer is None or self._colorizer.shape != camera.shape:
            self._colorizer = Colorizer(camera.shape, settings.colorization())
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        dense = self._colorizer.solve(grey.astype(np.float32) * np.float32(1.0 / 255.0), sparse, intensity)
        return SweepDepth(dense, dense.known, motion is not None)

    def _lidar_twist(self, twist: TwistSeen | None, sweep: Sweep) -> Twist | None:
        """The LiDAR's motion, where twist and the points' times can be used; other frames than the two are unknown."""
        if twist is None or sweep.times is None:
            return None
        known = sweep.times[np.isfinite(sweep.times)]
        if not len(known) or abs(float(np.median(known))) > LONGEST_SWEEP:
            return None
        motion = Twist(np.array(twist.linear), np.array(twist.angular))
        return motion if twist.frame_id == sweep.frame_id else seen_from(self._camera_from_lidar.inverse(), motion)
