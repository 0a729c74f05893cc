"""Colorization against the toolbox's system, written out pixel by pixel and solved by a general sparse LU."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from dfd_ros.errors import InputError
from dfd_ros.lidar.colorize import Colorizer, colorize
from dfd_ros.lidar.grid_solver import NEIGHBOURS, GridSolver


def toolbox(grey: np.ndarray, sparse: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """`fill_depth_colorization` of the NYU Depth V2 toolbox, as it reads."""
    height, width = grey.shape
    grey = grey.astype(np.float64)
    matrix = lil_matrix((grey.size, grey.size))
    rhs = np.zeros(grey.size)
    largest = np.nanmax(sparse)
    for row in range(height):
        for column in range(width):
            r = row * width + column
            window = [
                (i, j)
                for i in range(max(0, row - 1), min(height, row + 2))
                for j in range(max(0, column - 1), min(width, column + 2))
                if (i, j) != (row, column)
            ]
            values = np.array([grey[s] for s in window])
            everything = np.append(values, grey[row, column])
            c = 0.6 * np.mean((everything - everything.mean()) ** 2)
            c = max(c, -np.min((values - grey[row, column]) ** 2) / math.log(0.01), 2e-6)
            weights = np.exp(-((values - grey[row, column]) ** 2) / c)
            weights /= weights.sum()
            known = sparse[row, column] > 0
            matrix[r, r] = 1.0 + alpha * known
            rhs[r] = alpha * sparse[row, column] / largest if known else 0.0
            for (i, j), weight in zip(window, weights, strict=True):
                matrix[r, i * width + j] = -weight
    return (spsolve(matrix.tocsc(), rhs) * largest).reshape(grey.shape)


def picture(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Grey patches with noise, 8-bit values as a camera gives them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    patches = rng.integers(40, 220, (8, 8))[(rows // 9) % 8, (columns // 7) % 8]
    return (np.clip(patches + rng.normal(0, 2, shape), 0, 255).astype(np.uint8) / 255).astype(np.float32)


def returns(shape: tuple[int, int], seed: int, share: float = 0.06) -> np.ndarray:
    """Depths from 2 to 60 m at a share of the pixels, at least one; NaN elsewhere."""
    rng = np.random.default_rng(seed)
    sparse = np.where(rng.random(shape) < share, rng.uniform(2, 60, shape), np.nan).astype(np.float32)
    sparse[shape[0] // 2, shape[1] // 2] = 7.0
    return sparse


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 10.0]))
def test_any_shape_gives_the_toolboxs_answer(height: int, width: int, seed: int, alpha: float) -> None:
    grey, sparse = picture((height, width), seed), returns((height, width), seed)
    np.testing.assert_allclose(colorize(grey, sparse, alpha), toolbox(grey, sparse, alpha), rtol=1e-5)


@pytest.mark.parametrize("shape", [(90, 120), (37, 211), (200, 33)])
def test_larger_pictures_give_the_toolboxs_answer(shape: tuple[int, int]) -> None:
    grey, sparse = picture(shape, 3), returns(shape, 4)
    np.testing.assert_allclose(colorize(grey, sparse), toolbox(grey, sparse), rtol=1e-5)


def test_large_fronts_give_the_answer_of_a_general_solver() -> None:
    """Random diagonally dominant nine-point systems, large enough for every kind of front."""
    height, width = shape = (150, 170)
    rng = np.random.default_rng(1)
    coupling = rng.random((*shape, 8))
    diagonal = coupling.sum(axis=-1) + 0.01
    x = rng.normal(size=shape)
    padded = np.pad(x, 1)
    rhs = diagonal * x
    for q, (row, column) in enumerate(NEIGHBOURS):
        rhs -= coupling[..., q] * padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
    np.testing.assert_allclose(GridSolver(shape).solve(diagonal, coupling, rhs), x, rtol=1e-9, atol=1e-9)


def test_one_known_pixel_makes_everything_as_deep() -> None:
    sparse = np.full((40, 50), np.nan, np.float32)
    sparse[11, 17] = 4.2
    np.testing.assert_allclose(colorize(picture((40, 50), 0), sparse), 4.2, rtol=1e-5)


def test_dense_depth_stays_within_the_measured_depths() -> None:
    grey, sparse = picture((60, 80), 5), returns((60, 80), 6)
    dense = colorize(grey, sparse)
    assert np.nanmin(sparse) * (1 - 1e-6) <= dense.min() <= dense.max() <= np.nanmax(sparse) * (1 + 1e-6)


def test_dense_depth_scales_with_the_measured_depths() -> None:
    grey, sparse = picture((40, 50), 7), returns((40, 50), 8)
    np.testing.assert_allclose(colorize(grey, 3 * sparse), 3 * colorize(grey, sparse), rtol=1e-5)


def test_depth_steps_where_grey_steps() -> None:
    grey = np.full((40, 60), 0.2, np.float32)
    grey[:, 30:] = 0.8
    sparse = np.full((40, 60), np.nan, np.float32)
    sparse[20, 5], sparse[20, 55] = 3.0, 9.0
    dense = colorize(grey, sparse)
    np.testing.assert_allclose(dense[:, :29], 3.0, atol=0.3)
    np.testing.assert_allclose(dense[:, 31:], 9.0, atol=0.3)


def test_unknown_is_nan_zero_or_infinite() -> None:
    grey, sparse = picture((30, 40), 9), returns((30, 40), 10)
    expected = colorize(grey, sparse)
    for value in (0.0, -1.0, np.inf):
        np.testing.assert_array_equal(colorize(grey, np.where(np.isnan(sparse), value, sparse)), expected)


def test_frames_do_not_leave_traces_in_the_next() -> None:
    shape = (60, 80)
    kept = Colorizer(shape)
    for seed in range(3):
        grey, sparse = picture(shape, seed), returns(shape, seed + 20)
        np.testing.assert_array_equal(kept.solve(grey, sparse), colorize(grey, sparse))


def test_two_threads_with_a_colorizer_each_do_not_disturb_each_other() -> None:
    shape = (120, 160)
    frames = [(picture(shape, seed), returns(shape, seed)) for seed in range(4)]
    expected = [colorize(*frame) for frame in frames]
    with ThreadPoolExecutor(2) as pool:
        for dense, reference in zip(pool.map(lambda frame: colorize(*frame), frames), expected, strict=True):
            np.testing.assert_array_equal(dense, reference)


def test_unusable_input_is_named() -> None:
    grey, sparse = picture((30, 40), 0), returns((30, 40), 0)
    solver = Colorizer((30, 40))
    with pytest.raises(InputError, match="at least one known depth"):
        solver.solve(grey, np.full_like(sparse, np.nan))
    with pytest.raises(InputError, match=r"sparse depth must have shape \(30, 40\), got \(30, 39\)"):
        solver.solve(grey, sparse[:, 1:])
    with pytest.raises(InputError, match="grey image must be floating point, got uint8"):
        solver.solve((255 * grey).astype(np.uint8), sparse)
    with pytest.raises(InputError, match=r"in \[0, 1\], got .* to 2"):
        solver.solve(np.where(grey == grey.max(), 2.0, grey), sparse)
    with pytest.raises(InputError, match="finite"):
        solver.solve(np.full_like(grey, np.nan), sparse)
    with pytest.raises(InputError, match="alpha must be a positive number, got 0"):
        Colorizer((30, 40), alpha=0)
    with pytest.raises(InputError, match="at least 2x2 pixels, got 1x40"):
        Colorizer((1, 40))
    with pytest.raises(InputError, match=r"\(height, width\), got \(30, 40, 3\)"):
        colorize(np.zeros((30, 40, 3), np.float32), sparse)
