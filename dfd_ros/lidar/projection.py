"""LiDAR points into the camera: a sparse depth image in which the nearest return wins each pixel.

A point x in the LiDAR frame is p = camera_from_lidar x in the camera's optical frame; `distortion` gives its pixel.
Depth is p's z, not its range. Returns that a nearer surface hides from the camera can be culled (`occlusion`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.distortion import intrinsics_of, pixel_of
from dfd_ros.lidar.occlusion import cull_occluded

# Surfaces that reach into the image are known by returns beside it too, up to this share of its longer side.
_MARGIN = 0.1


@dataclass(frozen=True)
class SparseDepth:
    """One sweep as the camera sees it.

    Attributes:
        depth: (H, W) float32 metres, NaN where there is no return.
        in_view: Points that fell inside the image, including those behind nearer ones.
        occluded: Pixels emptied because a nearer surface hides them from the camera.
    """

    depth: NDArray[np.float32]
    in_view: int
    occluded: int = 0


def project(
    points: NDArray[np.floating], camera_from_lidar: Transform, camera: Camera, *, cull: bool = True
) -> SparseDepth:
    """Project points (N, 3), metres in the LiDAR frame, of any layout in memory; one sweep, in any order.

    Points that are not finite, or exactly zero (how drivers write "no return"), are ignored. Where none is in view, all
    depths are NaN and `in_view` is 0.

    Args:
        points: (N, 3) float32 or float64.
        camera_from_lidar: The extrinsics.
        camera: The intrinsics, with distortion.
        cull: Drop returns that a nearer surface hides from the camera (`occlusion`).

    Raises:
        InputError: The points' shape or the camera's distortion cannot be used.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"LiDAR points must have shape (N, 3), got {points.shape}")
    points = np.ascontiguousarray(points, np.float32)
    depth = np.full(camera.shape, np.nan, np.float32)
    nearby = np.empty((len(points) if cull else 0, 3), np.float32)
    in_view, count = _project(
        points,
        np.ascontiguousarray(camera_from_lidar.rotation, np.float64),
        np.ascontiguousarray(camera_from_lidar.translation, np.float64),
        intrinsics_of(camera),
        _MARGIN * max(camera.shape) if cull else 0.0,
        depth,
        nearby,
    )
    occluded = cull_occluded(depth, nearby[:count], camera_from_lidar, camera) if cull else 0
    return SparseDepth(depth, in_view, occluded)


@njit(nogil=True, cache=True, error_model="numpy")
def _project(points, rotation, translation, lens, margin, depth, nearby):  # type: ignore[no-untyped-def]
    """Write the nearest z into `depth` (NaN where none) and the points in or around the image to `nearby`, if it is long.

    Returns the numbers of points inside the image and in `nearby`.
    """
    height, width = depth.shape
    in_view = count = 0
    for i in range(len(points)):
        px, py, pz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + translation[2]
        if not (0.0 < z < np.inf) or (px == 0.0 and py == 0.0 and pz == 0.0):
            continue
        x = (rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + translation[0]) / z
        y = (rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + translation[1]) / z
        u, v = pixel_of(x, y, lens)
        # Compare before converting to int: far outside, or not finite, has no integer.
        if not (-0.5 - margin <= u < width - 0.5 + margin and -0.5 - margin <= v < height - 0.5 + margin):
            continue
        if len(nearby) > 0:
            nearby[count] = points[i]
            count += 1
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            continue
        in_view += 1
        column, row = math.floor(u + 0.5), math.floor(v + 0.5)
        if not depth[row, column] <= z:  # nearer, or the first here
            depth[row, column] = np.float32(z)
    return in_view, count
