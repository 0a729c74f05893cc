"""Colorization: the toolbox's system, written out pixel by pixel and solved by a general sparse LU; and any input."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from dfd_ros.errors import InputError
from dfd_ros.lidar.colorize import METHODS, Colorizer, ColorizeSettings, colorize, colorize_batch
from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.grid_solver import GridSolver


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


def plain(grey: np.ndarray, sparse: np.ndarray, **settings: object) -> np.ndarray:
    """Dense depth by the toolbox's system, wherever there is one."""
    return colorize(grey, sparse, ColorizeSettings(**settings)).depth


# The methods that give the toolbox's answer, and how closely.
by_the_toolbox = pytest.mark.parametrize(("method", "rtol"), [("exact", 1e-5), ("nyu", 2e-4)])


@by_the_toolbox
@settings(max_examples=25, deadline=None)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 10**6), st.sampled_from([0.3, 1.0, 10.0]))
def test_any_shape_gives_the_toolboxs_answer(
    method: str, rtol: float, height: int, width: int, seed: int, alpha: float
) -> None:
    grey, sparse = picture((height, width), seed), returns((height, width), seed)
    dense = plain(grey, sparse, method=method, alpha=alpha)
    np.testing.assert_allclose(dense, toolbox(grey, sparse, alpha), rtol=rtol)


@by_the_toolbox
@pytest.mark.parametrize("shape", [(90, 120), (37, 211), (200, 33)])
def test_larger_pictures_give_the_toolboxs_answer(method: str, rtol: float, shape: tuple[int, int]) -> None:
    grey, sparse = picture(shape, 3), returns(shape, 4)
    np.testing.assert_allclose(plain(grey, sparse, method=method), toolbox(grey, sparse), rtol=rtol)


@by_the_toolbox
def test_inverse_depth_solves_the_toolboxs_system_for_one_over_depth(method: str, rtol: float) -> None:
    grey, sparse = picture((60, 70), 1), returns((60, 70), 2)
    dense = plain(grey, sparse, method=method, inverse_depth=True)
    np.testing.assert_allclose(dense, 1 / toolbox(grey, 1 / sparse), rtol=rtol)


def unlike_pictures(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Grey values that are hard for a solver, each in its own way."""
    rng = np.random.default_rng(5)
    rows, columns = np.indices(shape)
    smooth = gaussian_filter(rng.normal(size=shape), 6)
    pictures = {
        "flat": np.full(shape, 0.5),
        "noise": rng.random(shape),
        "binary noise": rng.random(shape) > 0.5,
        "stripes a pixel wide": columns % 2,
        "checks": (rows // 8 + columns // 8) % 2,
        "ramp": columns / shape[1],
        "cells with walls": ((rows % 24 == 0) | (columns % 24 == 0)) * 0.9 + 0.05,
        "smooth blobs": (smooth - smooth.min()) / np.ptp(smooth),
        "blobs cut to black and white": smooth > 0,
        "a bright island": ((rows - 80) ** 2 + (columns - 110) ** 2 < 900) * 0.6 + 0.1,
        "patches": picture(shape, 1),
    }
    return {name: (np.round(255 * grey) / 255).astype(np.float32) for name, grey in pictures.items()}


@pytest.mark.parametrize("name", unlike_pictures((2, 2)))
@pytest.mark.parametrize("share", [1e-4, 0.01, 0.2])
def test_nyu_gives_the_exact_answer_on_every_kind_of_picture(name: str, share: float) -> None:
    """To a thousandth in the mean and a hundredth at most is the same answer; it comes much closer."""
    shape = (170, 230)
    grey, sparse = unlike_pictures(shape)[name], returns(shape, 3, share)
    exact, nyu = plain(grey, sparse, method="exact"), plain(grey, sparse, method="nyu")
    np.testing.assert_array_equal(np.isnan(nyu), np.isnan(exact))
    difference = abs(nyu - exact)[~np.isnan(exact)] / exact[~np.isnan(exact)]
    assert difference.mean() < 1e-5
    assert difference.max() < 1e-3


def test_two_threads_give_the_same_numbers_as_one() -> None:
    grey, sparse = picture((120, 170), 1), returns((120, 170), 2)
    np.testing.assert_array_equal(plain(grey, sparse, threads=2), plain(grey, sparse, threads=1))


def test_large_fronts_give_the_answer_of_a_general_solver() -> None:
    """Random diagonally dominant nine-point systems, large enough for every kind of front."""
    height, width = shape = (150, 170)
    rng = np.random.default_rng(1)
    hold, coupling = np.full(shape, 0.01), rng.random((*shape, 8))
    x = rng.normal(size=shape)
    padded = np.pad(x, 1, constant_values=np.nan)
    rhs = hold * x
    for q, (row, column) in enumerate(NEIGHBOURS):
        neighbour = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        coupling[np.isnan(neighbour), q] = 0.0
        rhs += coupling[..., q] * (x - np.nan_to_num(neighbour))
    np.testing.assert_allclose(GridSolver(shape).solve(hold, coupling, rhs), x, rtol=1e-9, atol=1e-9)


any_method = pytest.mark.parametrize("method", METHODS)
every_way = pytest.mark.parametrize(
    "settings",
    [
        ColorizeSettings(method=method, inverse_depth=inverse, robust=robust)
        for method in METHODS
        for inverse, robust in ((False, False), (True, True))
    ],
    ids=lambda s: f"{s.method}{' robust' * s.robust}",
)


@every_way
def test_one_known_pixel_makes_everything_as_deep(settings: ColorizeSettings) -> None:
    sparse = np.full((40, 50), np.nan, np.float32)
    sparse[11, 17] = 4.2
    dense = colorize(picture((40, 50), 0), sparse, settings)
    np.testing.assert_allclose(dense.depth, 4.2, rtol=1e-4)
    assert dense.known == 1
    assert dense.confidence[11, 17] > 0.9 > 0.1 > dense.confidence[39, 49]


@every_way
def test_without_a_known_pixel_nothing_is_known(settings: ColorizeSettings) -> None:
    for unknown in (np.nan, 0.0, -3.0, np.inf, 1e-9):
        dense = colorize(picture((40, 50), 0), np.full((40, 50), unknown, np.float32), settings)
        assert np.isnan(dense.depth).all()
        assert not dense.confidence.any()
        assert dense.known == 0


@every_way
def test_a_picture_without_structure_is_filled_smoothly(settings: ColorizeSettings) -> None:
    sparse = np.full((60, 80), np.nan, np.float32)
    rows, columns = np.mgrid[3:60:6, 3:80:5]
    inverse = 0.1 + 0.001 * rows
    sparse[rows, columns] = 1 / inverse
    dense = colorize(np.full((60, 80), 0.5, np.float32), sparse, settings).depth
    steps = np.abs(np.diff(dense, axis=0)) / dense[1:]
    assert steps.max() < 0.05
    expected = 1 / (0.1 + 0.001 * np.arange(60)[:, None])
    assert np.median(abs(dense - expected)[6:-6] / expected[6:-6]) < 0.02


@every_way
def test_dense_depth_stays_within_the_measured_depths(settings: ColorizeSettings) -> None:
    """`fast` may follow a slope beyond its returns, by no more than a factor of two."""
    grey, sparse = picture((60, 80), 5), returns((60, 80), 6)
    dense = colorize(grey, sparse, settings).depth
    slack = 2.0 if settings.method == "fast" else 1 + 1e-6
    assert np.nanmin(sparse) / slack <= dense.min() <= dense.max() <= np.nanmax(sparse) * slack


@any_method
def test_dense_depth_scales_with_the_measured_depths(method: str) -> None:
    grey, sparse = picture((40, 50), 7), returns((40, 50), 8)
    settings = ColorizeSettings(method=method)
    one, three = colorize(grey, sparse, settings), colorize(grey, 3 * sparse, settings)
    np.testing.assert_allclose(three.depth, 3 * one.depth, rtol=1e-3)
    np.testing.assert_allclose(three.confidence, one.confidence, atol=1e-3)


@every_way
def test_depth_steps_where_grey_steps(settings: ColorizeSettings) -> None:
    grey = np.full((40, 60), 0.2, np.float32)
    grey[:, 33:] = 0.8
    truth = np.where(grey < 0.5, np.float32(3.0), np.float32(9.0))
    sparse = np.full((40, 60), np.nan, np.float32)
    sparse[2::6, 2::6] = truth[2::6, 2::6]
    dense = colorize(grey, sparse, settings)
    beside_edge = np.s_[:, 30:37]
    np.testing.assert_allclose(
        np.delete(dense.depth, beside_edge[1], 1), np.delete(truth, beside_edge[1], 1), rtol=0.02
    )
    assert dense.confidence[beside_edge].min() < 0.5 < np.delete(dense.confidence[2:39], beside_edge[1], 1).min()


@any_method
def test_unknown_is_nan_zero_negative_or_infinite(method: str) -> None:
    grey, sparse = picture((30, 40), 9), returns((30, 40), 10)
    settings = ColorizeSettings(method=method, robust=True)
    expected = colorize(grey, sparse, settings)
    for value in (0.0, -1.0, np.inf, -np.inf):
        dense = colorize(grey, np.where(np.isnan(sparse), np.float32(value), sparse), settings)
        np.testing.assert_array_equal(dense.depth, expected.depth)
        np.testing.assert_array_equal(dense.confidence, expected.confidence)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.integers(0, 10**6),
    st.sampled_from([0.002, 0.05, 0.5, 1.0]),
    st.sampled_from([1e-2, 1.0, 1e4]),
    st.booleans(),
)
def test_wherever_there_is_a_return_fast_depth_is_positive_and_confidence_a_share(
    height: int, width: int, seed: int, share: float, scale: float, robust: bool
) -> None:
    grey, sparse = picture((height, width), seed), np.float32(scale) * returns((height, width), seed, share)
    dense = colorize(grey, sparse, ColorizeSettings(method="fast", robust=robust))
    assert ((dense.confidence >= 0) & (dense.confidence <= 1)).all()
    np.testing.assert_array_equal(np.isfinite(dense.depth), dense.confidence > 0)
    assert not (dense.depth <= 0).any()
    assert np.isfinite(dense.depth[np.isfinite(sparse)]).all()


def test_depth_below_the_confidence_asked_for_is_unknown() -> None:
    grey, sparse = picture((60, 80), 1), returns((60, 80), 2, share=0.01)
    free = colorize(grey, sparse, ColorizeSettings(method="fast"))
    strict = colorize(grey, sparse, ColorizeSettings(method="fast", min_confidence=0.3))
    sure = free.confidence >= 0.3
    assert 0.1 < sure.mean() < 0.9
    np.testing.assert_array_equal(strict.depth, np.where(sure, free.depth, np.nan))
    np.testing.assert_array_equal(strict.confidence, free.confidence)


def test_only_the_methods_that_solve_the_toolboxs_system_say_so() -> None:
    grey, sparse = picture((30, 40), 0), returns((30, 40), 0)
    said = {method: colorize(grey, sparse, ColorizeSettings(method=method)).is_toolbox_system for method in METHODS}
    assert said["exact"]
    assert said["nyu"]
    assert not said["fast"]


@every_way
def test_frames_do_not_leave_traces_in_the_next(settings: ColorizeSettings) -> None:
    shape = (60, 80)
    kept = Colorizer(shape, settings)
    kept.solve(picture(shape, 9), np.full(shape, np.nan, np.float32))
    for seed in range(3):
        grey, sparse = picture(shape, seed), returns(shape, seed + 20)
        dense, fresh = kept.solve(grey, sparse), colorize(grey, sparse, settings)
        np.testing.assert_array_equal(dense.depth, fresh.depth)
        np.testing.assert_array_equal(dense.confidence, fresh.confidence)


def test_the_method_may_change_between_frames() -> None:
    grey, sparse = picture((30, 40), 0), returns((30, 40), 0)
    colorizer = Colorizer((30, 40))
    for method in (*METHODS, *METHODS):
        colorizer.settings = ColorizeSettings(method=method)
        np.testing.assert_array_equal(
            colorizer.solve(grey, sparse).depth, colorize(grey, sparse, colorizer.settings).depth
        )


def test_a_batch_gives_each_frames_answer_in_order() -> None:
    shapes = [(40, 50), (40, 50), (30, 64), (40, 50), (30, 64), (40, 50), (40, 50)]
    frames = [(picture(shape, seed), returns(shape, seed)) for seed, shape in enumerate(shapes)]
    for threads in (1, 3):
        answers = list(colorize_batch(iter(frames), threads=threads))
        assert len(answers) == len(frames)
        for answer, frame in zip(answers, frames, strict=True):
            np.testing.assert_array_equal(answer.depth, colorize(*frame).depth)


def test_a_batch_reads_only_a_few_frames_ahead() -> None:
    frame = (picture((20, 20), 0), returns((20, 20), 0))
    read = []

    def stream() -> object:
        for index in range(1000):
            read.append(index)
            yield frame

    answers = colorize_batch(stream(), ColorizeSettings(method="fast"), threads=2)
    next(answers)
    assert len(read) <= 8
    answers.close()


def test_a_broken_frame_of_a_batch_is_named_when_its_turn_comes() -> None:
    good = (picture((20, 20), 0), returns((20, 20), 0))
    answers = colorize_batch([good, (good[0], good[1][1:])])
    assert next(answers).known
    with pytest.raises(InputError, match=r"sparse depth must have shape \(20, 20\), got \(19, 20\)"):
        next(answers)
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        next(colorize_batch([good], threads=0))


def test_two_threads_with_a_colorizer_each_do_not_disturb_each_other() -> None:
    shape = (120, 160)
    frames = [(picture(shape, seed), returns(shape, seed)) for seed in range(4)]
    expected = [colorize(*frame).depth for frame in frames]
    with ThreadPoolExecutor(2) as pool:
        for dense, reference in zip(pool.map(lambda frame: colorize(*frame), frames), expected, strict=True):
            np.testing.assert_array_equal(dense.depth, reference)


def test_unusable_input_is_named() -> None:
    grey, sparse = picture((30, 40), 0), returns((30, 40), 0)
    solver = Colorizer((30, 40))
    with pytest.raises(InputError, match=r"sparse depth must have shape \(30, 40\), got \(30, 39\)"):
        solver.solve(grey, sparse[:, 1:])
    with pytest.raises(InputError, match=r"intensity must have shape \(30, 40\), got \(30, 39\)"):
        solver.solve(grey, sparse, sparse[:, 1:])
    with pytest.raises(InputError, match="grey image must be floating point, got uint8"):
        solver.solve((255 * grey).astype(np.uint8), sparse)
    with pytest.raises(InputError, match=r"in \[0, 1\], got .* to 2"):
        solver.solve(np.where(grey == grey.max(), np.float32(2.0), grey), sparse)
    with pytest.raises(InputError, match="finite"):
        solver.solve(np.full_like(grey, np.nan), sparse)
    with pytest.raises(InputError, match="at least 2x2 pixels, got 1x40"):
        Colorizer((1, 40))
    with pytest.raises(InputError, match=r"\(height, width\), got \(30, 40, 3\)"):
        colorize(np.zeros((30, 40, 3), np.float32), sparse)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a positive number, .* got 0"),
        ({"alpha": np.inf}, "alpha must be a positive number, .* got inf"),
        ({"method": "best"}, "method must be one of nyu, exact, fast, got 'best'"),
        ({"range_noise": -0.1}, "range_noise must be at least 0 metres, got -0.1"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"min_confidence": 1.5}, r"min_confidence must lie in \[0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ColorizeSettings(**settings)
