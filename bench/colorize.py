"""Colorization of a made-up 640x480 frame with a 64-beam sweep, against SciPy's general sparse LU (`spsolve`)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import spsolve
from table import Row, report

from dfd_ros.lidar.colorize import Colorizer, write_weights
from dfd_ros.lidar.grid_solver import NEIGHBOURS

SHAPE = (480, 640)
REPEATS = 5
# "The same answer": mean and largest relative difference to the baseline's.
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 1e-3, 1e-2


def frame(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Grey (8-bit values) and sparse depth (6 % of pixels, in rows below the horizon) of patches at many depths."""
    rng = np.random.default_rng(seed)
    patch = np.argmax([gaussian_filter(rng.normal(size=SHAPE), 25) for _ in range(12)], axis=0)
    grey = rng.uniform(0.1, 0.9, 12)[patch] + gaussian_filter(rng.normal(0, 0.3, SHAPE), 1.5)
    grey = (255 * np.clip(gaussian_filter(grey, 0.7), 0, 1)).astype(np.uint8) / 255
    depth = rng.uniform(4, 60, 12)[patch] * (1.0 + 0.2 * np.linspace(1, -1, SHAPE[0])[:, None])
    sparse = np.full(SHAPE, np.nan, np.float32)
    sparse[100::5, ::3] = depth[100::5, ::3]
    return grey.astype(np.float32), sparse


def system(grey: NDArray[np.float32], sparse: NDArray[np.float32]) -> tuple[csr_matrix, NDArray[np.float64]]:
    """The system that the colorizer solves, for the baseline."""
    weights = np.zeros((*SHAPE, 8))
    write_weights(grey.astype(np.float64), weights)
    rows, columns = np.indices(SHAPE)
    pixel = rows * SHAPE[1] + columns
    known = np.isfinite(sparse)
    entries = [(1.0 + known.ravel(), pixel.ravel(), pixel.ravel())]
    for q, (row, column) in enumerate(NEIGHBOURS):
        r, c = rows + row, columns + column
        inside = (r >= 0) & (r < SHAPE[0]) & (c >= 0) & (c < SHAPE[1])
        entries.append((-weights[..., q][inside], pixel[inside], (r * SHAPE[1] + c)[inside]))
    values, i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
    return coo_matrix((values, (i, j))).tocsr(), np.nan_to_num(sparse).ravel().astype(np.float64)


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """The median time of `work`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure() -> list[Row]:
    grey, sparse = frame()
    matrix, rhs = system(grey, sparse)
    answers: list[NDArray[np.float64]] = []
    baseline = seconds(lambda: answers.append(spsolve(matrix, rhs)))
    reference = answers[0].reshape(SHAPE)

    colorizer, other = Colorizer(SHAPE), Colorizer(SHAPE)
    dense = colorizer.solve(grey, sparse)  # compiles
    alone = seconds(lambda: colorizer.solve(grey, sparse), REPEATS)
    difference = abs(dense - reference) / reference

    def two_at_once() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: one.solve(grey, sparse), (colorizer, other)))

    height, width = SHAPE
    return [
        row(f"colorize {width}x{height}", alone, "s", baseline, limit=0.35),
        row("plan once a shape", seconds(lambda: Colorizer(SHAPE)), "s", baseline),
        row("two frames in two threads", seconds(two_at_once, 3), "s", 2 * alone),
        row("mean difference to spsolve", float(difference.mean()), "relative", MEAN_DIFFERENCE, limit=1.0),
        row("largest difference to spsolve", float(difference.max()), "relative", LARGEST_DIFFERENCE, limit=1.0),
    ]


def row(name: str, value: float, unit: str, baseline: float, limit: float | None = None) -> Row:
    ratio = value / baseline
    promise = "" if limit is None else f"ratio {limit:g} or less"
    return Row(name, value, unit, baseline, ratio, promise, limit is None or ratio <= limit)


if __name__ == "__main__":
    report("Colorization of a 640x480 frame with a 64-beam sweep (baseline: SciPy's spsolve)", measure)
