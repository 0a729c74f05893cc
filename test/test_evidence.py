"""What returns say of the pixels around them: the filter against matrices, planes, confidence, sky, hidden returns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dfd_ros.lidar import evidence as evidence_module
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.lidar.colorize import Colorizer, ColorizeSettings, colorize
from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.evidence import Evidence
from dfd_ros.lidar.field import lidar_field
from dfd_ros.lidar.projection import project
from dfd_ros.lidar.robust import odds, write_robust_weights
from dfd_ros.lidar.steps import weaken_at_steps
from dfd_ros.lidar.weights import write_weights
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle
from dfd_ros.tone import linear_grey

PROJECT = Path(__file__).parents[1]
FAST = ColorizeSettings(method="fast")
SHAPE = (96, 128)


def grid(depth: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns at every so many rows and columns."""
    sparse = np.full(depth.shape, np.nan, np.float32)
    sparse[rows // 2 :: rows, columns // 2 :: columns] = depth[rows // 2 :: rows, columns // 2 :: columns]
    return sparse


def flat(shape: tuple[int, int] = SHAPE, grey: float = 0.5) -> np.ndarray:
    return np.full(shape, grey, np.float32)


def gathered(grey: np.ndarray, sparse: np.ndarray) -> Evidence:
    evidence = Evidence(sparse.shape)
    evidence.gather(grey, sparse, np.ones(sparse.shape, np.float32))
    return evidence


@pytest.mark.parametrize("is_stepped", [False, True])
def test_the_recursive_filter_is_the_product_of_its_matrices(is_stepped: bool) -> None:
    """There and back along a line is L⁻ᵀ L⁻¹, L with 1 on the diagonal and minus the shares below it."""
    rng = np.random.default_rng(0)
    guide = rng.random((7, 9)).astype(np.float32)
    surface = np.stack([np.ones((7, 9)), np.zeros((7, 9))]).astype(np.float32)
    if is_stepped:
        surface[0] += 0.2 * rng.random((7, 9)).astype(np.float32)
        surface[1] = 0.1 * rng.random((7, 9)).astype(np.float32)
    moments = rng.random((6, 7, 9)).astype(np.float32)
    sigma, range_sigma, step_sigma = 2.5, 0.1, 0.2

    def along(line: np.ndarray, value: np.ndarray, growth: np.ndarray, sigma_i: float) -> np.ndarray:
        step = np.diff(value) - 0.5 * (growth[1:] + growth[:-1])
        detour = np.abs(np.diff(line)) / range_sigma + np.abs(step) / np.maximum(value[1:], value[:-1]) / step_sigma
        forth = np.linalg.inv(np.eye(len(line)) - np.diag(np.exp(-math.sqrt(2) / sigma_i * (1 + sigma * detour)), -1))
        return forth.T @ forth

    expected = moments.astype(np.float64)
    for iteration in (1, 2):
        sigma_i = sigma * math.sqrt(3) * 2 ** (2 - iteration) / math.sqrt(4**2 - 1)
        for row in range(7):  # a surface's own growth is known from row to row only
            matrix = along(guide[row], surface[0, row], np.zeros(9), sigma_i)
            expected[:, row] = expected[:, row] @ matrix.T
        for column in range(9):
            matrix = along(guide[:, column], surface[0, :, column], surface[1, :, column], sigma_i)
            expected[:, :, column] = expected[:, :, column] @ matrix.T
    evidence_module._spread(guide, surface, sigma, np.zeros((2, 7, 9), np.float32), moments)
    np.testing.assert_allclose(moments, expected, rtol=0.02)  # exp is tabulated


def test_evidence_is_one_where_flat_grey_has_returns_at_their_spacing() -> None:
    evidence = gathered(flat((240, 320)), grid(np.full((240, 320), 5.0), 6, 6))
    assert evidence.spacing == pytest.approx(6.0, rel=0.05)
    assert evidence.sums[0, 40:80, 50:110].mean() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("rows", [4, 12])
def test_a_road_is_filled_without_steps_from_beam_to_beam(rows: int) -> None:
    """1 / z of a plane is linear in the row; the beams lie far apart."""
    depth = np.repeat(1.5 * 100 / np.arange(10.0, 10.0 + SHAPE[0])[:, None], SHAPE[1], axis=1)
    dense = colorize(flat(), grid(depth, rows, 3), FAST).depth
    inside = np.s_[rows:-rows]
    assert np.abs(dense / depth - 1)[inside].max() < 0.05
    nearest = depth[rows // 2 :: rows][(np.arange(SHAPE[0]) // rows).clip(0, SHAPE[0] // rows - 1)]
    assert np.abs(dense / depth - 1)[inside].mean() < 0.25 * np.abs(nearest / depth - 1)[inside].mean()


def test_confidence_falls_with_the_distance_to_the_returns() -> None:
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    sparse[:, 40:] = np.nan
    confidence = colorize(flat(), sparse, FAST).confidence[40]
    assert (np.diff(confidence[40:100]) <= 1e-4).all()
    assert confidence[20] > 0.9 > 0.5 > confidence[60] > confidence[90]


def test_an_edge_of_the_picture_is_far_for_the_returns_behind_it() -> None:
    grey = flat()
    grey[:, 42:] = 0.9
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    sparse[:, 40:] = np.nan
    with_edge, without = colorize(grey, sparse, FAST).confidence, colorize(flat(), sparse, FAST).confidence
    assert with_edge[40, 46] < 0.5 * without[40, 46]


def test_an_edge_that_the_picture_hides_is_found_between_the_returns_of_its_two_sides() -> None:
    depth = np.full(SHAPE, 5.0)
    depth[:, 64:] = 12.0
    dense = colorize(flat(), grid(depth, 4, 4), FAST)
    inside = np.s_[8:-8]
    wrong = np.abs(dense.depth / depth - 1)[inside] > 0.1
    assert not wrong[:, :63].any()  # returns lie in columns 62 and 66
    assert not wrong[:, 67:].any()
    assert dense.confidence[inside][wrong].max() < 0.5 < 0.9 < dense.confidence[inside][:, 16:60].min()


def test_a_plane_has_no_steps() -> None:
    """Far ground changes as much from row to row as objects do from the ground behind them."""
    rows = np.arange(SHAPE[0])[:, None] + np.zeros(SHAPE)
    depth = 100.0 / (10.0 + rows)
    evidence = gathered(flat(), grid(depth, 8, 4))
    inverse, growth = evidence.surface[:, 6:-6, 6:-6]
    np.testing.assert_allclose(growth, 2.0 / 100.0, rtol=0.2)
    step = np.diff(inverse, axis=0) - 0.5 * (growth[1:] + growth[:-1])
    assert np.abs(step / inverse[1:]).max() < 0.02 < (np.diff(inverse, axis=0) / inverse[1:]).max()


def test_a_pixel_takes_after_the_side_that_it_looks_like() -> None:
    """An edge within a pixel of the half-resolution grid."""
    grey, depth = flat(grey=0.2), np.full(SHAPE, 5.0)
    grey[:, 65:], depth[:, 65:] = 0.8, 12.0
    dense = colorize(grey, grid(depth, 4, 4), FAST).depth[16:-16]
    assert np.abs(dense / depth[16:-16] - 1).max() < 0.1


def test_confidence_falls_where_the_answer_is_not_what_the_returns_say() -> None:
    grey, sparse = flat(), grid(np.full(SHAPE, 5.0), 4, 4)
    colorizer = Colorizer(SHAPE, ColorizeSettings(alpha=1e-4))  # hardly held by its returns
    sparse[40:44, 60:64] = 9.0
    assert colorizer.solve(grey, sparse).confidence[41:43, 61:63].max() < 0.5


def test_outside_the_lidars_field_depth_is_never_trusted() -> None:
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    sparse[:40] = np.nan
    dense = colorize(flat(), sparse, FAST)
    assert dense.confidence[:38].max() <= 0.5
    assert dense.confidence[44:92].min() > 0.9
    assert np.isfinite(dense.depth).all()


def test_the_sky_has_no_depth() -> None:
    rows = np.arange(SHAPE[0])[:, None]
    grey = np.where(rows < 40, 0.8 + 0.001 * rows, 0.3).astype(np.float32) + np.zeros(SHAPE, np.float32)
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    sparse[:48] = np.nan
    dense = colorize(grey, sparse, FAST)
    assert np.isnan(dense.depth[:38]).all()
    assert not dense.confidence[:38].any()
    assert np.isfinite(dense.depth[42:]).all()
    # A dark ceiling is not the sky, nor is what has returns.
    assert np.isfinite(colorize(1 - grey, sparse, FAST).depth).all()
    assert np.isfinite(colorize(grey, grid(np.full(SHAPE, 5.0), 4, 4), FAST).depth).all()


def robust_weights(
    sparse: np.ndarray, noise: float = 0.0, intensity: np.ndarray | None = None, grey: np.ndarray | None = None
) -> np.ndarray:
    weights = np.ones(sparse.shape, np.float32)
    evidence = gathered(flat(sparse.shape) if grey is None else grey, sparse)
    write_robust_weights(evidence, sparse, noise, intensity, weights)
    return weights


def test_a_return_behind_its_surroundings_hardly_counts_and_one_before_them_does() -> None:
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    sparse[42, 62], sparse[50, 30] = 15.0, 2.0
    weights = robust_weights(sparse)
    assert weights[42, 62] < 0.02
    assert weights[50, 30] == 1.0
    others = sparse == 5.0
    others[18:74, 6:86] = False
    assert weights[others].min() > 0.99


@pytest.mark.parametrize("method", ["exact", "fast"])
def test_a_hidden_return_does_not_reach_through_the_surface_before_it(method: str) -> None:
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    sparse[42:60:8, 62] = 15.0
    plain = colorize(flat(), sparse, ColorizeSettings(method=method, inverse_depth=True)).depth
    robust = colorize(flat(), sparse, ColorizeSettings(method=method, inverse_depth=True, robust=True)).depth
    assert np.abs(robust / 5.0 - 1)[40:60, 50:75].max() < 0.05
    assert np.abs(plain / 5.0 - 1)[40:60, 50:75].max() > 0.2


def test_noisy_and_faint_returns_count_less() -> None:
    sparse = grid(np.full(SHAPE, 5.0), 4, 4)
    known = np.isfinite(sparse)
    # s² / (s² + (σ / z)²) with s = 0.02: half at σ = 0.1 m from 5 m away.
    np.testing.assert_allclose(robust_weights(sparse, noise=0.1)[known], 0.5, rtol=1e-3)
    intensity = np.where(np.indices(SHAPE)[1] < 64, np.float32(20.0), np.float32(5.0))
    weights = robust_weights(sparse, 0.1, intensity)
    mean = intensity[known].mean()
    for half, light in ((np.s_[:, :64], 20.0), (np.s_[:, 64:], 5.0)):
        np.testing.assert_allclose(weights[half][known[half]], 1 / (1 + mean / light), rtol=1e-3)
    # Without light nothing is known of the noise: all alike.
    np.testing.assert_array_equal(robust_weights(sparse, 0.1, np.zeros_like(sparse)), robust_weights(sparse, 0.1))


def test_a_return_holds_by_the_odds_of_its_share() -> None:
    weights = np.array([[1e-6, 0.2, 0.5, 0.8, 1.0]], np.float32)
    strength = odds(weights)
    np.testing.assert_allclose(strength / (1 + strength), weights, atol=0.011)
    assert strength[0, -1] == pytest.approx(100.0, rel=1e-3)


def plain_weights() -> np.ndarray:
    weights = np.zeros((*SHAPE, 8))
    write_weights(np.full(SHAPE, 0.5), weights, 0, SHAPE[0])
    return weights


def test_steps_of_depth_part_neighbours_and_slopes_do_not() -> None:
    rows = np.arange(48)[:, None] + np.zeros((48, 64))
    road, growth = 0.05 + 0.02 * rows, np.full((48, 64), 0.02)
    plain, weights = plain_weights(), plain_weights()
    weaken_at_steps(np.stack([road, growth]).astype(np.float32), weights)
    np.testing.assert_allclose(weights[2:-2], plain[2:-2], atol=1e-3)
    wall = road.copy()
    wall[:, 32:] = 5.0  # nearer than the road, flat
    growth[:, 32:] = 0.0
    weaken_at_steps(np.stack([wall, growth]).astype(np.float32), weights)
    np.testing.assert_allclose(weights.sum(axis=2), 1.0, atol=1e-5)
    to_the_right = [q for q, (_, right) in enumerate(NEIGHBOURS) if right > 0]
    assert weights[10:-10, 63][:, to_the_right].sum(axis=1).max() < 0.02
    np.testing.assert_allclose(weights[2:-2, 70:-2], plain[2:-2, 70:-2], atol=1e-3)


@pytest.mark.parametrize("method", ["exact", "nyu"])
def test_depth_edges_part_what_the_picture_does_not(method: str) -> None:
    depth = np.full(SHAPE, 5.0)
    depth[:, 64:] = 12.0
    sparse, inside = grid(depth, 4, 4), np.s_[8:-8]

    def error(depth_edges: bool) -> float:
        settings = ColorizeSettings(method=method, inverse_depth=True, robust=True, depth_edges=depth_edges)
        return float(np.abs(colorize(flat(), sparse, settings).depth / depth - 1)[inside].mean())

    assert error(True) < 0.7 * error(False)


def street(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey, sparse depth and ground truth of the simulated vehicle."""
    lens = load_lens(PROJECT / "config/lenses/street.yaml")
    mounting = load_extrinsics(PROJECT / "config/vehicle_extrinsics.yaml").camera_from_lidar
    vehicle = SimulatedVehicle(SimSettings(seed=seed), lens, camera_from_lidar=mounting)
    vehicle.prepare()
    image = vehicle.photograph(0.0, 1e-3 / lens.f_number_ratio**2, (0.0, 1.0))
    points = vehicle.sweep(0.0)
    points = np.stack([points[axis] for axis in "xyz"], axis=1)
    return linear_grey(image, 1.0), project(points, mounting, vehicle.camera).depth, vehicle.ground_truth(0.0)


def test_on_simulated_streets_confident_depth_is_right_and_covers_the_field() -> None:
    errors, confidences = [], []
    for seed in (1, 2):
        grey, sparse, truth = street(seed)
        dense = colorize(grey, sparse, FAST)
        zone = lidar_field(sparse) & np.isfinite(truth)
        errors.append(np.abs(dense.depth - truth)[zone] / truth[zone])
        confidences.append(dense.confidence[zone])
        sky = np.isnan(truth)
        assert np.isnan(dense.depth[sky]).mean() > 0.85
        assert np.isnan(dense.depth[~sky]).mean() < 0.01
    error, confidence = np.concatenate(errors), np.concatenate(confidences)
    assert error[confidence >= 0.5].mean() < 0.02
    assert (confidence >= 0.5).mean() > 0.82
    # Confidence ranks: each tenth of the pixels, less sure, is less right than the one three before.
    tenths = [part.mean() for part in np.array_split(error[np.argsort(-confidence)], 10)]
    assert all(later > earlier for earlier, later in zip(tenths, tenths[3:], strict=False))
