"""De-skew of a sweep by each point's time and the LiDAR's motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from dfd_ros.errors import InputError
from dfd_ros.lidar.deskew import Twist, deskew, point_times

velocities = st.tuples(*3 * [st.floats(-30, 30)]).map(np.array)


def pose(twist: Twist, seconds: float) -> np.ndarray:
    """The 4x4 pose that a constant twist reaches, by the matrix exponential of SciPy."""
    generator = np.zeros((4, 4))
    x, y, z = twist.angular
    generator[:3, :3] = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
    generator[:3, 3] = twist.linear
    return expm(generator * seconds)


def points_around(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 20.0, (n, 3)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(velocities, velocities, st.floats(-0.2, 0.2))
def test_every_point_moves_by_the_matrix_exponential(linear: np.ndarray, angular: np.ndarray, reference: float) -> None:
    twist, points = Twist(linear, angular), points_around(12)
    times = np.linspace(-0.1, 0.1, 12)
    expected = [(pose(twist, t - reference) @ np.append(p, 1.0))[:3] for p, t in zip(points, times, strict=True)]
    np.testing.assert_allclose(deskew(points, times, twist, reference), expected, atol=2e-5)


def test_driving_straight_ahead_shifts_later_points_forward() -> None:
    points = np.array([[10.0, 0.0, 0.0], [10.0, 0.0, 0.0]], np.float32)
    moved = deskew(points, np.array([0.0, 0.1]), Twist(linear=np.array([15.0, 0.0, 0.0])))
    np.testing.assert_allclose(moved, [[10.0, 0.0, 0.0], [11.5, 0.0, 0.0]], rtol=1e-6)


def test_turning_left_turns_later_points_left() -> None:
    points = np.array([[10.0, 0.0, 0.0]], np.float32)
    moved = deskew(points, np.array([0.5]), Twist(angular=np.array([0.0, 0.0, np.pi])))
    np.testing.assert_allclose(moved, [[0.0, 10.0, 0.0]], atol=1e-5)


def test_a_sweep_of_a_still_room_from_a_moving_lidar_comes_out_still() -> None:
    room, twist = points_around(500), Twist(np.array([8.0, -1.0, 0.3]), np.array([0.1, -0.2, 1.5]))
    times = np.linspace(0.0, 0.1, 500)
    seen = [(np.linalg.inv(pose(twist, t)) @ np.append(p, 1.0))[:3] for p, t in zip(room, times, strict=True)]
    np.testing.assert_allclose(deskew(np.array(seen), times, twist), room, atol=5e-5)


def test_without_motion_or_at_the_reference_nothing_moves() -> None:
    points = points_around(100)
    np.testing.assert_array_equal(deskew(points, np.linspace(0, 0.1, 100), Twist()), points)
    spinning = Twist(np.ones(3), np.ones(3))
    np.testing.assert_array_equal(deskew(points, np.full(100, 0.07), spinning, 0.07), points)


def test_distances_between_points_of_one_time_stay() -> None:
    points = points_around(50)
    moved = deskew(points, np.full(50, 0.1), Twist(np.array([9.0, 0, 0]), np.array([0.5, 2.0, -3.0])))
    turn, error = Rotation.align_vectors(moved - moved.mean(0), points - points.mean(0))
    assert error < 1e-3
    assert turn.magnitude() == pytest.approx(0.1 * np.linalg.norm([0.5, 2.0, -3.0]), rel=1e-4)


def test_no_return_stays_no_return_and_an_unknown_time_gives_an_unknown_point() -> None:
    points = np.array([[0, 0, 0], [5, 0, 0], [np.nan, 1, 1]], np.float32)
    moved = deskew(points, np.array([0.1, np.nan, 0.1]), Twist(linear=np.ones(3)))
    np.testing.assert_array_equal(moved[0], 0.0)
    assert np.isnan(moved[1:]).any(axis=1).all()


START = 1_700_000_000_123_456_789  # nanoseconds since 1970


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 25_000_000, 100_000_000], np.uint32),
        np.array([0.0, 0.025, 0.1], np.float32),
        np.array([0.0, 25e6, 100e6], np.float32),
        START + np.array([0, 25_000_000, 100_000_000], np.int64),
        START + np.array([0, 25_000_000, 100_000_000], np.uint64),
        START * 1e-9 + np.array([0.0, 0.025, 0.1]),
        START + np.array([0.0, 25e6, 100e6]),
    ],
    ids=["t", "time", "float ns", "offset since 1970", "unsigned", "timestamp", "timestamp ns"],
)
def test_all_ways_to_write_a_points_time_mean_the_same(values: np.ndarray) -> None:
    np.testing.assert_allclose(point_times(values, START), [0.0, 0.025, 0.1], atol=1e-6)


def test_times_before_the_stamp_are_negative() -> None:
    np.testing.assert_allclose(point_times(np.array([-100_000_000, 0], np.int32), START), [-0.1, 0.0])
    np.testing.assert_allclose(point_times(np.array([-0.1, 0.0], np.float32), START), [-0.1, 0.0], rtol=1e-6)


def test_zero_times_of_missing_points_do_not_change_the_unit() -> None:
    seconds = np.array([0.0, START * 1e-9, START * 1e-9 + 0.1])
    np.testing.assert_allclose(point_times(seconds, START)[1:], [0.0, 0.1], atol=1e-6)


def test_no_points_no_times() -> None:
    assert point_times(np.empty(0, np.uint32)).shape == point_times(np.empty(0)).shape == (0,)
    assert deskew(np.empty((0, 3), np.float32), np.empty(0), Twist()).shape == (0, 3)


def test_unusable_input_is_named() -> None:
    points = points_around(3)
    with pytest.raises(InputError, match=r"\(3, 3\) and \(2,\)"):
        deskew(points, np.zeros(2), Twist())
    with pytest.raises(InputError, match="finite reference time, got nan"):
        deskew(points, np.zeros(3), Twist(), np.nan)
    with pytest.raises(InputError, match="angular velocity must be 3 finite numbers"):
        Twist(angular=np.array([0.0, np.inf, 0.0]))
    with pytest.raises(InputError, match=r"shape \(N,\), got float64 of shape \(3, 1\)"):
        point_times(np.zeros((3, 1)))
