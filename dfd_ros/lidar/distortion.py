"""Where a ray meets the image: the pinhole model with OpenCV's distortion, compiled.

`plumb_bob` and `rational_polynomial` (Brown, Photogrammetric Engineering 1971) or `equidistant`, for fisheye lenses
(Kannala and Brandt, PAMI 2006). Rays are given as (x, y) at z = 1, pixels (u, v) count from the centre of the top left
one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera

# Coefficients each distortion model may come with (ROS REP 104, OpenCV).
_COEFFICIENTS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8), "equidistant": (0, 4)}
_RADII = np.linspace(0.0, 10.0, 10_001)  # tangents of the angle to the optical axis, to 84 degrees


class Intrinsics(NamedTuple):
    """A camera as compiled code takes it.

    fx, fy, cx, cy in pixels; k: k1 k2 p1 p2 k3 k4 k5 k6 (equidistant: k1 k2 k3 k4), padded with zeros; max_r2: squared
    radius x² + y² of a ray up to which distortion grows with it.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    k: tuple[float, ...]
    is_equidistant: bool
    max_r2: float


@lru_cache(maxsize=16)
def intrinsics_of(camera: Camera) -> Intrinsics:
    """The camera's intrinsics.

    Raises:
        InputError: An unknown distortion model, or a number of coefficients that it does not take.
    """
    model, given = camera.distortion_model, camera.distortion
    if model not in _COEFFICIENTS:
        raise InputError(f"camera: distortion model must be one of {', '.join(_COEFFICIENTS)}, got {model!r}")
    if len(given) not in _COEFFICIENTS[model]:
        expected = " or ".join(map(str, _COEFFICIENTS[model]))
        raise InputError(f"camera: {model} takes {expected} distortion coefficients, got {len(given)}")
    k = np.zeros(8)
    k[: len(given)] = given
    is_equidistant = model == "equidistant"
    return Intrinsics(
        *(float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy)),
        k=tuple(k.tolist()),
        is_equidistant=is_equidistant,
        max_r2=_valid_radius(k, is_equidistant) ** 2,
    )


def _valid_radius(k: NDArray[np.float64], is_equidistant: bool) -> float:
    """The undistorted radius up to which distortion grows with it.

    Beyond it the polynomial folds back, and points far outside the view would land inside the picture.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    r2 = _RADII**2
    if is_equidistant:
        theta2 = np.arctan(_RADII) ** 2
        distorted = np.arctan(_RADII) * (1 + theta2 * (k1 + theta2 * (k2 + theta2 * (p1 + theta2 * p2))))
    else:
        numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        distorted = _RADII * numerator / denominator
    folds = np.flatnonzero(np.diff(distorted) <= 0)
    return float(_RADII[folds[0]]) if len(folds) else math.inf


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def pixel_of(x, y, lens):  # type: ignore[no-untyped-def]
    """The pixel (u, v) of the ray (x, y, 1); NaN beyond the valid radius."""
    k = lens.k
    r2 = x * x + y * y
    if not r2 <= lens.max_r2:
        return np.nan, np.nan
    if lens.is_equidistant:
        r = math.sqrt(r2)
        theta = math.atan(r)
        t2 = theta * theta
        scale = 1.0 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])))
        if r > 0.0:
            scale *= theta / r
        return lens.fx * x * scale + lens.cx, lens.fy * y * scale + lens.cy
    radial = (1.0 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1.0 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
    xd = x * radial + 2.0 * k[2] * x * y + k[3] * (r2 + 2.0 * x * x)
    yd = y * radial + k[2] * (r2 + 2.0 * y * y) + 2.0 * k[3] * x * y
    return lens.fx * xd + lens.cx, lens.fy * yd + lens.cy
