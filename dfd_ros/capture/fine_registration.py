"""The last hundredths of a pixel of a registered pair's shift and rotation.

A lens's parallax displaces the shallow picture's blur by tenths of a pixel, outwards of the image's centre or inwards, and
so tells what is nearer than the focus from what is farther. What registration leaves of the pair's own motion looks the same
in a part of the picture. It is taken out here: windows (`dfd_ros.window_shifts`) are off by some 0.1 pixels, but there are
hundreds. What they show in common along the radius may be parallax at one depth, and is set apart.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dfd_ros.capture.registration import Image, Motion, warp
from dfd_ros.window_shifts import WINDOW, WindowShifts, window_shifts

MIN_WINDOWS = 12
"""Fewest that are believed."""

_DOUBT = 0.15  # pixels off the fit at which a window's weight is halved
_PULL = 0.1  # windows' worth of no motion, so that a few in one corner invent none
_ROUNDS = 10
_PASSES = 2  # windows of blurred pictures tell up to a quarter less than there is,
_NEGLIGIBLE = 0.08  # which does not count where they tell less than this, pixels


def refine_motion(shallow: Image, deep: Image, motion: Motion) -> Motion:
    """The motion with its shift and rotation measured more finely; the scale stays.

    Good to some 0.02 pixels on textured scenes. Where too few windows show anything it is the motion that came.

    Args:
        shallow, deep: (H, W) linear light, of one brightness.
        motion: Between them, good to half a pixel (`register_pair`).
    """
    if min(deep.shape) < WINDOW:
        return motion
    for _ in range(_PASSES):
        found = window_shifts(warp(shallow, motion), deep)
        if np.count_nonzero(found.good) < MIN_WINDOWS:
            break
        dx, dy, rotation = _fit(found)
        # This was measured on the deep image's pixels: the motion that came follows it.
        shift = motion.linear() @ (dx, dy)
        motion = replace(
            motion, dx=motion.dx + float(shift[0]), dy=motion.dy + float(shift[1]), rotation=motion.rotation + rotation
        )
        if math.hypot(dx, dy) + abs(rotation) * found.corner < _NEGLIGIBLE:
            break
    return motion


def _fit(found: WindowShifts) -> tuple[float, float, float]:
    """Shift, pixels, and rotation, radians, by least squares with Cauchy weights."""
    x, y = np.broadcast_to(found.place, found.shift.shape)[found.good].T
    target = found.shift[found.good].T.ravel()
    one, zero, radius = np.ones_like(x), np.zeros_like(x), np.hypot(x, y)
    along_x, along_y = np.column_stack([one, zero, -y, x * radius]), np.column_stack([zero, one, x, y * radius])
    design = np.concatenate([along_x, along_y])
    weight = np.ones_like(target)
    for _ in range(_ROUNDS):
        weighted = design.T * weight
        solution = np.linalg.solve(weighted @ design + _PULL * np.eye(design.shape[1]), weighted @ target)
        error_sq = np.sum((target - design @ solution).reshape(2, -1) ** 2, axis=0)
        weight = np.tile(1.0 / (1.0 + error_sq / _DOUBT**2), 2)
    return float(solution[0]), float(solution[1]), float(solution[2]) / found.corner
