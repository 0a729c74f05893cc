"""De-skew: a sweep's points as the LiDAR would have seen them all at one time.

A spinning LiDAR takes 0.05 to 0.2 s for a turn and moves meanwhile. With a constant velocity of its own frame, linear v
and angular w as that frame sees them, the frame at time t stands in the frame at the reference time t0 at the screw
motion exp((t - t0) [w; v]) (Lynch and Park, Modern Robotics, eqs. 3.51 and 3.88), so a point x measured at t is there at

    x + d v + a d w × x + b d² w × (w × x + v) + c d³ w × (w × v),      d = t - t0,  φ = d |w|,
    a = sin φ / φ,  b = (1 - cos φ) / φ²,  c = (φ - sin φ) / φ³.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.geometry import Transform

TIME_FIELDS = ("t", "time", "timestamp", "offset_time")
"""What drivers call a point's time: Ouster, Velodyne, Hesai and RoboSense, Livox."""

_LONGEST_SWEEP = 1e3  # of floats: a sweep takes less than this in seconds, and more in nanoseconds
_LONGEST_OFFSET = 1e8  # seconds: larger ones count from 1970
_NANOSECOND = 1e-9
_SMALL_ANGLE = 0.5  # radians: below, the series to φ⁶ are exact to 1e-9


@dataclass(frozen=True)
class Twist:
    """A constant velocity: `linear` (3,) m/s and `angular` (3,) rad/s of the LiDAR's frame, in that frame.

    Raises:
        InputError: Either is not three finite numbers.
    """

    linear: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    angular: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        for name in ("linear", "angular"):
            velocity = np.asarray(getattr(self, name), np.float64)
            if velocity.shape != (3,) or not np.isfinite(velocity).all():
                raise InputError(f"twist: {name} velocity must be 3 finite numbers, got {getattr(self, name)!r}")
            object.__setattr__(self, name, velocity)


def seen_from(target_from_source: Transform, twist: Twist) -> Twist:
    """The motion of the target frame, rigidly joined to the source frame that moves so (Modern Robotics, eq. 3.83)."""
    rotation, origin = target_from_source.rotation, target_from_source.translation
    angular = rotation @ twist.angular
    return Twist(rotation @ twist.linear + np.cross(origin, angular), angular)


def point_times(values: NDArray[np.number], stamp: int = 0) -> NDArray[np.float64]:
    """Points' times as drivers write them (`TIME_FIELDS`) in seconds after the sweep's stamp.

    Integers are nanoseconds. Floats are seconds, or nanoseconds where they differ by more than any sweep takes in
    seconds. Times that count from 1970 (later than three years after 0) are made relative to the stamp.

    Args:
        values: (N,) of any type of number.
        stamp: The sweep's stamp, integer nanoseconds.

    Raises:
        InputError: Another shape, or not numbers.
    """
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(f"point times must be numbers of shape (N,), got {values.dtype} of shape {values.shape}")
    if values.dtype.kind != "f":
        is_absolute = len(values) > 0 and float(values.max()) * _NANOSECOND > _LONGEST_OFFSET
        # In integers: a double of nanoseconds since 1970 is exact to 256 ns only.
        return _NANOSECOND * (values.astype(np.int64) - (stamp if is_absolute else 0)).astype(np.float64)
    times = values.astype(np.float64)
    known = times[np.isfinite(times) & (times != 0.0)]  # zero: the first point, or no return
    if len(known) == 0:
        return times
    if known.max() - known.min() > _LONGEST_SWEEP:
        times *= _NANOSECOND
        known = known * _NANOSECOND
    return times - stamp * _NANOSECOND if known.max() > _LONGEST_OFFSET else times


def deskew(
    points: NDArray[np.floating], times: NDArray[np.floating], twist: Twist, reference: float = 0.0
) -> NDArray[np.float32]:
    """The points (N, 3), metres, in the LiDAR's frame as it stands at the reference time, (N, 3) float32.

    Points whose time is not finite become NaN. Points of exactly zero ("no return") stay so.

    Args:
        points: (N, 3), each in the LiDAR's frame at its own time.
        times: (N,) seconds, on the clock of `reference`.
        twist: How the LiDAR moves.
        reference: Seconds; for a camera, the middle of its exposure.

    Raises:
        InputError: The shapes do not fit, or the reference is not finite.
    """
    if points.ndim != 2 or points.shape[1] != 3 or times.shape != points.shape[:1]:
        raise InputError(f"deskew: expected points (N, 3) and times (N,), got {points.shape} and {times.shape}")
    if not math.isfinite(reference):
        raise InputError(f"deskew: expected a finite reference time, got {reference!r}")
    moved = np.empty(points.shape, np.float32)
    _move(
        np.ascontiguousarray(points, np.float32),
        np.ascontiguousarray(times, np.float64),
        *(twist.linear, twist.angular, float(reference)),
        moved,
    )
    return moved


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _cross(a, b):  # type: ignore[no-untyped-def]
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(nogil=True, cache=True, error_model="numpy")
def _move(points, times, linear, angular, reference, moved):  # type: ignore[no-untyped-def]
    v = linear[0], linear[1], linear[2]
    w = angular[0], angular[1], angular[2]
    w_w_v = _cross(w, _cross(w, v))
    rate2 = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
    for i in range(len(points)):
        d = times[i] - reference
        x = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        if x[0] == 0.0 and x[1] == 0.0 and x[2] == 0.0:
            moved[i] = np.float32(0.0)
            continue
        phi2 = d * d * rate2
        if phi2 < _SMALL_ANGLE * _SMALL_ANGLE:
            a = 1.0 - phi2 / 6.0 * (1.0 - phi2 / 20.0 * (1.0 - phi2 / 42.0))
            b = 0.5 * (1.0 - phi2 / 12.0 * (1.0 - phi2 / 30.0 * (1.0 - phi2 / 56.0)))
            c = (1.0 - phi2 / 20.0 * (1.0 - phi2 / 42.0 * (1.0 - phi2 / 72.0))) / 6.0
        else:
            phi = math.sqrt(phi2)
            a, b, c = math.sin(phi) / phi, (1.0 - math.cos(phi)) / phi2, (phi - math.sin(phi)) / (phi2 * phi)
        w_x = _cross(w, x)
        second = _cross(w, (w_x[0] + v[0], w_x[1] + v[1], w_x[2] + v[2]))
        for axis in range(3):
            bent = a * w_x[axis] + d * (b * second[axis] + c * d * w_w_v[axis])
            moved[i, axis] = x[axis] + d * (v[axis] + bent)
