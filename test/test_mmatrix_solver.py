"""The subtraction-free solver against a general sparse LU in double precision, where that is right, and closed forms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from dfd_ros.errors import InputError
from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.mmatrix_solver import MMatrixSolver
from dfd_ros.lidar.weights import write_weights

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]

# Shapes around the smallest boxes, 15 pixels with a line after each; tall, wide and square.
SHAPES = [(2, 2), (2, 40), (40, 2), (15, 15), (16, 16), (17, 16), (31, 33), (32, 31), (33, 90), (64, 48), (150, 75)]
RTOL = 3e-4  # a row of shares is right to 1.2e-4, and there are a few levels


def inside(shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 8): whether the neighbour lies in the image."""
    rows, columns = np.indices(shape)
    return np.stack(
        [
            (0 <= rows + r) & (rows + r < shape[0]) & (0 <= columns + c) & (columns + c < shape[1])
            for r, c in NEIGHBOURS
        ],
        axis=-1,
    )


def problem(shape: tuple[int, int], seed: int, known: float, strength: float = 1.0, decades: float = 3.0) -> Problem:
    """Hold at some pixels, at least one; couplings spread over decades and different each way; right-hand side."""
    rng = np.random.default_rng(seed)
    coupling = (10.0 ** rng.uniform(-decades, 0, (*shape, 8)) * inside(shape)).astype(np.float32)
    hold = (strength * (rng.random(shape) < known)).astype(np.float32)
    hold.flat[rng.integers(hold.size)] = strength
    return hold, coupling, (hold * rng.uniform(2, 60, shape)).astype(np.float32)


def solve_by_lu(hold: np.ndarray, coupling: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    width = hold.shape[1]
    rows, columns = np.indices(hold.shape)
    pixel = rows * width + columns
    coupling = coupling.astype(np.float64)
    entries = [((hold + coupling.sum(-1)).ravel(), pixel.ravel(), pixel.ravel())]
    for q, (r, c) in enumerate(NEIGHBOURS):
        here = inside(hold.shape)[..., q]
        entries.append((-coupling[..., q][here], pixel[here], (pixel + r * width + c)[here]))
    values, i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
    return spsolve(coo_matrix((values, (i, j))).tocsc(), rhs.ravel().astype(np.float64)).reshape(hold.shape)


_SOLVE_A_FILE = """
import sys
import numpy as np
from dfd_ros.lidar.mmatrix_solver import MMatrixSolver
with np.load(sys.argv[1]) as system:
    x = MMatrixSolver(system["hold"].shape).solve(system["hold"], system["coupling"], system["rhs"])
np.save(sys.argv[2], x)
"""


def test_no_memory_is_read_before_it_is_written_or_after_it_is_freed(tmp_path: Path) -> None:
    hold, coupling, rhs = problem((150, 75), 2, 0.05)
    np.savez(tmp_path / "system.npz", hold=hold, coupling=coupling, rhs=rhs)
    files = [str(tmp_path / "system.npz"), str(tmp_path / "x.npy")]
    # glibc fills what it allocates with one byte and what is freed with another: as numbers 3.4e38 and -1.2e-38.
    environment = {**os.environ, "MALLOC_PERTURB_": "128"}
    subprocess.run([sys.executable, "-c", _SOLVE_A_FILE, *files], check=True, env=environment)
    x = MMatrixSolver(hold.shape).solve(hold, coupling, rhs)
    np.testing.assert_allclose(np.load(files[1]), x, rtol=1e-6)  # BLAS rounds by where its numbers lie


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_is_that_of_a_general_lu(shape: tuple[int, int]) -> None:
    solver = MMatrixSolver(shape)
    for seed, known in enumerate((0.0, 0.05, 0.5)):
        system = problem(shape, seed, known)
        np.testing.assert_allclose(solver.solve(*system), solve_by_lu(*system), rtol=RTOL)


def solve_without_subtractions(hold: np.ndarray, coupling: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Dense, in double precision, pixel by pixel in their order: right where a general LU loses all its digits."""
    (height, width), size = hold.shape, hold.size
    matrix, excess, right = np.zeros((size, size)), hold.ravel().astype(np.float64), rhs.ravel().astype(np.float64)
    for row, column, q in np.argwhere(inside(hold.shape)):
        there = (row + NEIGHBOURS[q][0]) * width + column + NEIGHBOURS[q][1]
        matrix[row * width + column, there] = coupling[row, column, q]
    for k in range(size):
        pivot = excess[k] + matrix[k, k + 1 :].sum()
        for what in (matrix[k, k + 1 :], excess[k : k + 1], right[k : k + 1]):
            what /= pivot
        factor = matrix[k + 1 :, k]
        matrix[k + 1 :, k + 1 :] += np.outer(factor, matrix[k, k + 1 :])
        excess[k + 1 :] += factor * excess[k]
        right[k + 1 :] += factor * right[k]
    for k in range(size - 1, -1, -1):
        right[k] += matrix[k, k + 1 :] @ right[k + 1 :]
    return right.reshape(height, width)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(2, 20),
    st.booleans(),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.sampled_from([1e-6, 1e-2, 1.0, 1e6]),
)
def test_any_shape_and_any_hold_gives_the_right_answer(
    long: int, short: int, tall: bool, seed: int, known: float, strength: float
) -> None:
    shape = (long, short) if tall else (short, long)
    system = problem(shape, seed, known, strength)
    x = MMatrixSolver(shape).solve(*system, threads=1 + seed % 2)
    np.testing.assert_allclose(x, solve_without_subtractions(*system), rtol=RTOL)


def test_the_mean_error_is_that_of_single_precision() -> None:
    shape = (130, 180)
    system = problem(shape, 3, 0.03)
    expected = solve_by_lu(*system)
    assert (abs(MMatrixSolver(shape).solve(*system) - expected) / expected).mean() < 3e-6


def test_two_threads_give_the_same_numbers_as_one() -> None:
    solver, system = MMatrixSolver((75, 131)), problem((75, 131), 0, 0.05)
    np.testing.assert_array_equal(solver.solve(*system, threads=2), solver.solve(*system))


def test_a_solver_keeps_nothing_from_the_system_before() -> None:
    shape = (70, 60)
    kept = MMatrixSolver(shape)
    for seed in range(3):
        system = problem(shape, seed, 0.01 * seed)
        np.testing.assert_array_equal(kept.solve(*system), MMatrixSolver(shape).solve(*system))


@pytest.mark.parametrize("strength", [1e-12, 1e-6, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("shape", [(2, 2), (50, 61), (3, 200)])
def test_one_known_pixel_decides_everything(shape: tuple[int, int], strength: float) -> None:
    """However weakly it holds and the others hang together: where LU in double precision has no digit left."""
    hold, coupling, _ = problem(shape, 1, 0.0, strength, decades=7.0)
    x = MMatrixSolver(shape).solve(hold, coupling, np.float32(7) * hold)
    np.testing.assert_allclose(x, 7.0, rtol=1e-5)


def test_flat_couplings_interpolate_linearly_between_two_walls() -> None:
    """A strip that holds to 0 before its first column and to W - 1 after its last one."""
    shape = (20, 50)
    coupling = np.zeros((*shape, 8), np.float32)
    for q, (r, c) in enumerate(NEIGHBOURS):
        coupling[..., q] = inside(shape)[..., q] * (r == 0 or c == 0)
    hold, rhs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    hold[:, [0, -1]] = 1e7
    rhs[:, -1] = 1e7 * (shape[1] - 1)
    x = MMatrixSolver(shape).solve(hold, coupling, rhs)
    np.testing.assert_allclose(x, np.broadcast_to(np.arange(shape[1]), shape), rtol=RTOL, atol=1e-5)


def test_an_island_that_leaks_one_part_in_a_hundred_million_is_right() -> None:
    """Its depth is the mean of what its two leaks lead to, weighted by them: here one third of the way."""
    shape = (48, 80)
    rows, columns = np.indices(shape)
    island = (rows > 8) & (rows < 40) & (columns > 20) & (columns < 60)
    coupling = np.zeros((*shape, 8), np.float32)
    for q, (r, c) in enumerate(NEIGHBOURS):
        same = np.roll(island, (-r, -c), (0, 1)) == island
        coupling[..., q] = np.where(same & island, 0.125, 0.0) * inside(shape)[..., q]
    coupling[20, 21, 3], coupling[30, 59, 4] = 2e-8, 1e-8
    hold = (~island).astype(np.float32)
    rhs = np.where(columns < 40, hold * 3, hold * 9).astype(np.float32)
    x = MMatrixSolver(shape).solve(hold, coupling, rhs)
    np.testing.assert_allclose(x[island], 5.0, rtol=1e-4)


def test_an_outlier_that_follows_the_sky_does_not_lead_it() -> None:
    """Couplings that are strong one way and weak the other: a pixel copies the region around it, which ignores it."""
    shape = (40, 60)
    hold, coupling, rhs = problem(shape, 0, 0.0)
    coupling[:] = 0.125 * inside(shape)
    for q, (r, c) in enumerate(NEIGHBOURS):
        coupling[20 - r, 30 - c, q] = 1e-9  # towards the outlier
    hold[:], rhs[:] = 0, 0
    hold[0, 0], rhs[0, 0] = 1e-3, 4e-3
    hold[20, 30], rhs[20, 30] = 1e-3, 9e-2  # would have 90
    x = MMatrixSolver(shape).solve(hold, coupling, rhs)
    np.testing.assert_allclose(x, solve_by_lu(hold, coupling, rhs), rtol=RTOL)
    assert abs(np.delete(x.ravel(), 20 * 60 + 30) - 4.0).max() < 0.01


def test_colorizations_weights_sum_to_one_and_can_be_written_in_strips() -> None:
    grey = np.random.default_rng(0).random((20, 30), np.float32)
    whole, strips, double = (np.zeros((20, 30, 8), kind) for kind in (np.float32, np.float32, np.float64))
    write_weights(grey, whole, 0, 20)
    write_weights(grey, strips, 0, 7)
    write_weights(grey, strips, 7, 20)
    write_weights(grey.astype(np.float64), double, 0, 20)
    np.testing.assert_array_equal(strips, whole)
    np.testing.assert_allclose(whole.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(whole, double, rtol=3e-5)
    assert not whole[~inside((20, 30))].any()


def test_memory_is_below_a_hundred_and_fifty_bytes_a_pixel() -> None:
    assert MMatrixSolver((480, 640)).nbytes < 150 * 480 * 640


def test_bad_input_is_named() -> None:
    solver = MMatrixSolver((20, 30))
    hold, coupling, rhs = problem((20, 30), 0, 0.1)
    with pytest.raises(InputError, match="at least 2x2"):
        MMatrixSolver((1, 30))
    with pytest.raises(InputError, match="coupling must be float32"):
        solver.solve(hold, coupling.astype(np.float64), rhs)
    with pytest.raises(InputError, match="rhs must be float32 of shape"):
        solver.solve(hold, coupling, rhs.T)
    with pytest.raises(InputError, match="singular"):
        solver.solve(0 * hold, coupling, rhs)
    for value in (-1.0, np.inf, np.nan):
        wrong = hold.copy()
        wrong[3, 4] = value
        with pytest.raises(InputError, match="hold must lie in"):
            solver.solve(wrong, coupling, rhs)
        with pytest.raises(InputError, match="rhs must lie in"):
            solver.solve(hold, coupling, wrong)
    coupling[5, 6] = np.nan
    with pytest.raises(InputError, match="couplings must be finite"):
        solver.solve(hold, coupling, rhs)
