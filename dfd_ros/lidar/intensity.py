"""How bright each return that a sparse depth image shows came back."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.distortion import intrinsics_of, pixel_of

_SAME_DEPTH = 1e-6  # relative: a depth rounded to float32


def intensity_image(
    points: NDArray[np.float32],
    intensity: NDArray[np.float32],
    camera_from_lidar: Transform,
    camera: Camera,
    depth: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The intensity of the return that `depth` shows, (H, W) float32, NaN where it shows none.

    Args:
        points: (N, 3) metres in the LiDAR's frame.
        intensity: (N,) in any unit.
        camera_from_lidar: The extrinsics.
        camera: The intrinsics.
        depth: (H, W), what `lidar.projection.project` made of these points.
    """
    image = np.full(depth.shape, np.nan, np.float32)
    rotation = np.ascontiguousarray(camera_from_lidar.rotation, np.float64)
    translation = np.ascontiguousarray(camera_from_lidar.translation, np.float64)
    _write_intensity(points, intensity, rotation, translation, intrinsics_of(camera), depth, image)
    return image


@njit(nogil=True, cache=True, error_model="numpy")
def _write_intensity(points, intensity, rotation, translation, lens, depth, image):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    for i in range(len(points)):
        px, py, pz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + translation[2]
        if not (0.0 < z < np.inf):
            continue
        x = (rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + translation[0]) / z
        y = (rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + translation[1]) / z
        u, v = pixel_of(x, y, lens)
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            continue
        column, row = math.floor(u + 0.5), math.floor(v + 0.5)
        if abs(z - depth[row, column]) <= _SAME_DEPTH * z:
            image[row, column] = intensity[i]
