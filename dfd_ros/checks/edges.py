"""How well a sweep's outlines lie on a picture's edges, for the extrinsics as recorded and shifted.

Where a LiDAR sees one thing before another, a picture mostly has an edge (Levinson and Thrun, Automatic online
calibration of cameras and lasers, RSS 2013): of each return that has a much farther neighbour, the picture's edge
strength at its pixel is summed up, weighted by the root of the step. A small turn of the LiDAR shifts its returns in
the picture, so the same sum for all shifts, which is one correlation, tells which turn would fit better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.distortion import intrinsics_of, pixel_of

NEIGHBOURS = 2.5
"""Returns are neighbours within so many times the median angle to the nearest one."""
LEAST_STEP = (0.5, 0.08)
"""A step of range is an outline from so many metres, and so much of the range, on."""
LARGEST_STEP = 5.0
"""Metres from which a step tells no more."""
SPREAD = 2.5
"""Standard deviation, pixels, that edges are spread by: returns stand some pixels beside the outline that they tell."""
REACH = 0.08
"""Largest shift, of the picture's width."""
MARGIN = 1.3
LEAST_OUTLINES = 40
"""Fewer in the picture tell nothing."""


@dataclass(frozen=True)
class Outlines:
    """Returns on outlines: their places in the camera's frame (N, 3), metres, and weights (N,)."""

    points: NDArray[np.float64]
    weights: NDArray[np.float64]


def outlines(points: NDArray[np.floating], camera_from_lidar: Transform, camera: Camera) -> Outlines:
    """The returns of a sweep (N, 3), metres in the LiDAR's frame, that have a much farther neighbour.

    Of those that `camera` may see: within `MARGIN` times the angle between its axis and its corners.
    """
    points = np.asarray(points, np.float64)
    distance = np.linalg.norm(points, axis=1)
    corner = math.hypot(0.5 * camera.width / camera.fx, 0.5 * camera.height / camera.fy)
    widest = MARGIN * (corner if camera.distortion_model == "equidistant" else math.atan(corner))
    ahead = np.asarray(camera_from_lidar.apply(points))
    off_axis = np.arctan2(np.hypot(ahead[:, 0], ahead[:, 1]), ahead[:, 2])
    seen = np.isfinite(distance) & (distance > 0.0) & (off_axis < widest)
    points, distance = points[seen], distance[seen]
    if len(points) < 2:
        return Outlines(np.empty((0, 3)), np.empty(0))
    directions = points / distance[:, None]
    tree = cKDTree(directions)
    spacing = float(np.median(tree.query(directions, k=2)[0][:, 1]))
    pairs = tree.query_pairs(NEIGHBOURS * spacing, output_type="ndarray")
    near, far = np.where((distance[pairs[:, 0]] < distance[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1]).T
    step = distance[far] - distance[near]
    is_outline = step > np.maximum(LEAST_STEP[0], LEAST_STEP[1] * distance[near])
    near, far, step = near[is_outline], far[is_outline], step[is_outline]
    # The outline is somewhere between the two directions, as far away as the nearer.
    halfway = directions[near] + directions[far]
    halfway *= (distance[near] / np.linalg.norm(halfway, axis=1))[:, None]
    # A return with many farther neighbours is one place of the outline all the same.
    weights = np.sqrt(np.minimum(step, LARGEST_STEP)) / np.bincount(near, minlength=len(points))[near]
    places = np.asarray(camera_from_lidar.apply(halfway), np.float64)
    return Outlines(places, weights)


def edge_strength(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Edges of a picture (H, W) in [0, 1], spread by `SPREAD`: 0 where it is flat, towards 1 on strong ones."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    gradient = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    strength = gradient / (gradient + max(float(np.percentile(gradient, 80.0)), 1e-6))
    return cv2.GaussianBlur(strength, (0, 0), SPREAD)


def pixels_of(points: NDArray[np.float64], camera: Camera) -> NDArray[np.float64]:
    """Pixels (N, 2), column and row, of points (N, 3) in the camera's frame; NaN behind it."""
    lens = intrinsics_of(camera)
    nowhere = (np.nan, np.nan)
    pixels = [pixel_of(x / z, y / z, lens) if z > 0.0 else nowhere for x, y, z in points.tolist()]
    return np.array(pixels, np.float64).reshape(-1, 2)


def score_map(edges: NDArray[np.float32], found: Outlines, camera: Camera) -> NDArray[np.float64] | None:
    """Mean edge strength below the outlines, less the picture's mean, for each shift of them.

    Returns:
        (2R + 1, 2R + 1): shifts in rows and columns from -R to R pixels, R being `REACH` of the width; None where too
        few outlines are in the picture.
    """
    height, width = edges.shape
    reach = max(1, round(REACH * width))
    u, v = pixels_of(found.points, camera).T
    inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    weights = found.weights[inside]
    if len(weights) < LEAST_OUTLINES:
        return None
    placed = np.zeros((height, width))
    np.add.at(placed, (np.rint(v[inside]).astype(int), np.rint(u[inside]).astype(int)), weights)
    size = [scipy.fft.next_fast_len(n + reach, real=True) for n in (height, width)]
    spectra = [scipy.fft.rfft2(image, size) for image in (edges - edges.mean(), placed)]
    correlation = scipy.fft.irfft2(spectra[0] * spectra[1].conj(), size)
    span = np.arange(-reach, reach + 1)
    return np.asarray(correlation[np.ix_(span, span)] / weights.sum())
