"""Camera and rigid-transform geometry: what LiDAR projection and the simulator both need.

Frames are optical frames (REP 103): x right, y down, z forward, metres. Pixel (u, v) counts columns and rows from
the centre of the top left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with optional plumb_bob or equidistant (fisheye) distortion.

    fx, fy, cx, cy in pixels; `distortion` holds OpenCV's coefficients in OpenCV's order.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    distortion_model: str = "plumb_bob"

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise InputError(f"camera size must be positive, got {self.width}x{self.height}")
        if not (self.fx > 0 and self.fy > 0):
            raise InputError(f"camera focal lengths must be positive, got fx={self.fx}, fy={self.fy}")

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The 3x3 camera matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def rays(self) -> NDArray[np.float32]:
        """Directions through the undistorted pixel centres, (H, W, 3), with z = 1."""
        u = (np.arange(self.width, dtype=np.float32) - self.cx) / self.fx
        v = (np.arange(self.height, dtype=np.float32) - self.cy) / self.fy
        rays = np.empty((self.height, self.width, 3), np.float32)
        rays[..., 0] = u
        rays[..., 1] = v[:, None]
        rays[..., 2] = 1.0
        return rays


@dataclass(frozen=True)
class Transform:
    """A rigid transform `target_from_source`: x_target = rotation @ x_source + translation (metres)."""

    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    translation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        if self.rotation.shape != (3, 3) or self.translation.shape != (3,):
            raise InputError(
                f"a transform needs a 3x3 rotation and a 3-vector, got {self.rotation.shape} and {self.translation.shape}"
            )

    def apply(self, points: FloatArray) -> FloatArray:
        """Transform points (..., 3), keeping their dtype."""
        dtype = points.dtype
        return points @ self.rotation.T.astype(dtype) + self.translation.astype(dtype)

    def inverse(self) -> Transform:
        """The transform `source_from_target`."""
        return Transform(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Transform) -> Transform:
        return Transform(self.rotation @ other.rotation, self.rotation @ other.translation + self.translation)
