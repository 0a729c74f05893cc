"""LiDAR points into the camera: a sparse depth image in which the nearest return wins each pixel.

A point x in the LiDAR frame is p = camera_from_lidar x in the camera's optical frame; its pixel follows from the
pinhole model with OpenCV's distortion: `plumb_bob` and `rational_polynomial` (Brown, Photogrammetric Engineering 1971)
or `equidistant` (Kannala and Brandt, PAMI 2006). Depth is p's z, not its range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.occlusion import cull_occluded

# Coefficients each distortion model may come with (ROS REP 104, OpenCV).
_COEFFICIENTS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8), "equidistant": (0, 4)}
_RADII = np.linspace(0.0, 10.0, 10_001)  # tangents of the angle to the optical axis, to 84 degrees


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
    points: NDArray[np.float32], camera_from_lidar: Transform, camera: Camera, *, cull: bool = True
) -> SparseDepth:
    """Project points (N, 3), metres in the LiDAR frame; those that are not finite are ignored.

    Args:
        points: (N, 3) float32.
        camera_from_lidar: The extrinsics.
        camera: The intrinsics, with distortion.
        cull: Drop returns that a nearer surface hides from the camera (`occlusion`).

    Raises:
        InputError: The points' shape or the camera's distortion cannot be used.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"LiDAR points must have shape (N, 3), got {points.shape}")
    depth = np.full(camera.shape, np.inf, np.float32)
    in_view = _project(
        np.ascontiguousarray(points, np.float32),
        np.ascontiguousarray(camera_from_lidar.rotation, np.float64),
        np.ascontiguousarray(camera_from_lidar.translation, np.float64),
        np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        _coefficients(camera),
        camera.distortion_model == "equidistant",
        _valid_radius(camera) ** 2,
        depth,
    )
    depth[np.isinf(depth)] = np.nan
    if not cull:
        return SparseDepth(depth, int(in_view))
    visible = cull_occluded(depth)
    occluded = np.count_nonzero(np.isfinite(depth)) - np.count_nonzero(np.isfinite(visible))
    return SparseDepth(visible, int(in_view), int(occluded))


def _coefficients(camera: Camera) -> NDArray[np.float64]:
    """The camera's coefficients, padded with zeros to k1 k2 p1 p2 k3 k4 k5 k6 (equidistant: k1 k2 k3 k4)."""
    model = camera.distortion_model
    if model not in _COEFFICIENTS:
        raise InputError(f"camera: distortion model must be one of {', '.join(_COEFFICIENTS)}, got {model!r}")
    if len(camera.distortion) not in _COEFFICIENTS[model]:
        expected = " or ".join(map(str, _COEFFICIENTS[model]))
        raise InputError(f"camera: {model} takes {expected} distortion coefficients, got {len(camera.distortion)}")
    padded = np.zeros(8)
    padded[: len(camera.distortion)] = camera.distortion
    return padded


@lru_cache(maxsize=16)
def _valid_radius(camera: Camera) -> float:
    """The undistorted radius (tangent of the angle to the axis) up to which distortion grows with it.

    Beyond it the polynomial folds back, and points far outside the view would land inside the picture.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = _coefficients(camera)
    r2 = _RADII**2
    if camera.distortion_model == "equidistant":
        theta2 = np.arctan(_RADII) ** 2
        distorted = np.arctan(_RADII) * (1 + theta2 * (k1 + theta2 * (k2 + theta2 * (p1 + theta2 * p2))))
    else:
        numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        distorted = _RADII * numerator / denominator
    folds = np.flatnonzero(np.diff(distorted) <= 0)
    return float(_RADII[folds[0]]) if len(folds) else math.inf


@njit(nogil=True, cache=True, error_model="numpy")
def _project(points, rotation, translation, intrinsics, k, is_equidistant, max_r2, depth):  # type: ignore[no-untyped-def]
    """Write the nearest z into `depth` (inf where none); returns the number of points inside the image."""
    height, width = depth.shape
    fx, fy, cx, cy = intrinsics
    in_view = 0
    for i in range(len(points)):
        px, py, pz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + translation[2]
        if not (0.0 < z < np.inf):
            continue
        x = (rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + translation[0]) / z
        y = (rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + translation[1]) / z
        r2 = x * x + y * y
        if not r2 <= max_r2:
            continue
        if is_equidistant:
            r = math.sqrt(r2)
            theta = math.atan(r)
            t2 = theta * theta
            scale = 1.0 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))
            if r > 0.0:
                scale *= theta / r
            u, v = fx * x * scale + cx, fy * y * scale + cy
        else:
            radial = (1.0 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1.0 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
            u = fx * (x * radial + 2.0 * k[2] * x * y + k[3] * (r2 + 2.0 * x * x)) + cx
            v = fy * (y * radial + k[2] * (r2 + 2.0 * y * y) + 2.0 * k[3] * x * y) + cy
        # Compare before converting to int: far outside, or not finite, has no integer.
        if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
            continue
        in_view += 1
        column, row = math.floor(u + 0.5), math.floor(v + 0.5)
        depth[row, column] = min(depth[row, column], np.float32(z))
    return in_view
