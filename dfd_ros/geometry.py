"""Camera and rigid-transform geometry: what LiDAR projection and the simulator both need.

Frames are optical frames (REP 103): x right, y down, z forward, metres. Pixel (u, v) counts columns and rows from
the centre of the top left pixel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

FloatArray = NDArray[np.floating]
# Files write rotations with some four digits, and products of them are rounded a few times over.
_ROTATION_TOLERANCE = 5e-3


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

    def cropped(self, column: int, row: int, width: int, height: int) -> Camera:
        """The camera of a part of its images (a region of interest): `column`, `row` is the part's top left pixel.

        Raises:
            InputError: The part does not lie in the image.
        """
        if not (0 <= column and 0 <= row and column + width <= self.width and row + height <= self.height):
            raise InputError(
                f"camera: expected a region of interest within {self.width}x{self.height}, "
                f"got {width}x{height} at ({column}, {row})"
            )
        return replace(self, width=width, height=height, cx=self.cx - column, cy=self.cy - row)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of its images resized, or binned, to width x height; distortion stays, it is of rays.

        The image's edges stay where they are, so pixel centres go from u to (u + 1/2) · width / self.width - 1/2, as
        in cv2.resize and where a sensor adds up the light of neighbouring pixels.
        """
        return self._scaled(width / self.width, height / self.height, width, height)

    def binned(self, columns: int, rows: int) -> Camera:
        """The camera of its images with columns x rows pixels made one; what is left over at the right and below goes.

        Raises:
            InputError: Less than one pixel is binned, or less than one is left.
        """
        if columns < 1 or rows < 1:
            raise InputError(f"camera: expected binning of 1 pixel or more, got {columns}x{rows}")
        return self._scaled(1.0 / columns, 1.0 / rows, self.width // columns, self.height // rows)

    def for_image(
        self, shape: tuple[int, int], roi: tuple[int, int, int, int] | None = None, binning: tuple[int, int] = (1, 1)
    ) -> Camera:
        """The camera of an image of `shape` (height, width) that this one took.

        This camera is the sensor's at full resolution, as ROS's CameraInfo describes it; the image is a region of
        interest of it (before binning; column, row, width, height; None: all), then binned (columns, rows). Where the
        image is not of the size that this gives, it must be an exact rescale of it.

        Raises:
            InputError: It is none of these.
        """
        taken = (self.cropped(*roi) if roi else self).binned(*binning)
        height, width = shape
        if taken.shape == (height, width):
            return taken
        if height > 0 and width * taken.height == height * taken.width:
            return taken.resized(width, height)
        described = f"{self.width}x{self.height}"
        if taken.shape != self.shape:
            described += f", cropped and binned {taken.width}x{taken.height},"
        raise InputError(f"camera: expected an image of {described} or an exact rescale of it, got {width}x{height}")

    def _scaled(self, across: float, down: float, width: int, height: int) -> Camera:
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=(self.cx + 0.5) * across - 0.5,
            cy=(self.cy + 0.5) * down - 0.5,
        )

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
    """A rigid transform `target_from_source`: x_target = rotation @ x_source + translation (metres).

    Raises:
        InputError: The shapes are others, a number is not finite, or `rotation` is not a rotation.
    """

    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    translation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        if self.rotation.shape != (3, 3) or self.translation.shape != (3,):
            raise InputError(
                f"a transform needs a 3x3 rotation and a 3-vector, got {self.rotation.shape} and {self.translation.shape}"
            )
        if not np.isfinite(self.translation).all():
            raise InputError(f"a transform's translation must be finite, got {self.translation.tolist()}")
        off = np.abs(self.rotation @ self.rotation.T - np.eye(3)).max()
        if not (off <= _ROTATION_TOLERANCE and np.linalg.det(self.rotation) > 0.0):
            raise InputError(
                f"a transform's rotation must be orthonormal and right-handed, got {self.rotation.tolist()}"
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


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`, pixels.

    Raises:
        InputError: It is not of that form.
    """
    match = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text, re.ASCII)
    if match is None:
        raise InputError(f"size: expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(match[1]), int(match[2])
