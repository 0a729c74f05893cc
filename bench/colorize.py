"""Dense depth from LiDAR: every method's time, its difference from the toolbox's answer, and its accuracy.

Frames are simulated streets and rooms, with 16, 32 and 64 beams and with 1 to 20 % of the pixels known, and KITTI's where
they are at hand. The toolbox's answer is that of `exact`, which is held against SciPy's general sparse LU (`spsolve`) on
one frame. Times are held against that and, where it is installed, UMFPACK, behind MATLAB's backslash.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle

import cv2
import numpy as np
import umfpack
from lidar_frames import Frame, kitti, kitti_grey, rooms, scan_lines, streets
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import spsolve
from table import Row, report

from dfd_ros.lidar.colorize import METHODS, Colorizer, ColorizeSettings
from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.field import lidar_field
from dfd_ros.lidar.projection import project
from dfd_ros.lidar.weights import write_weights
from dfd_ros.metrics import CONFIDENCE_THRESHOLD

SHAPE = (480, 640)
REPEATS = 9
# "The same answer": mean and largest relative difference to the baseline's.
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 1e-3, 1e-2
HIDDEN = 0.2  # share of KITTI's returns that are hidden and predicted
# Promised: seconds a frame, ratio to spsolve, bytes a pixel, growth to four times the pixels.
TIME = {"fast": 5e-3, "nyu": 60e-3}
ONE_THREAD = 1.7  # of the time of two
SPEED = {"exact": 0.35, "nyu": 1 / 60}
UMFPACK_RATIO = 1 / 25
EVERYDAY = "street, 64 beams, wide"
MEMORY = {"nyu": 200.0}
GROWTH = {"nyu": 5.0, "fast": 5.0}
ZONE_ERROR, CONFIDENT_ERROR, CONFIDENT_SHARE = 0.015, 0.02, 0.85
ALL = "all of 64 beams"
OPTIONS = {"inverse_depth": True, "robust": True, "depth_edges": True}
FARTHEST_MORPHOLOGY = 100.0  # metres

Depth = NDArray[np.floating]
Predict = Callable[[Depth, Depth], Depth]


def measure() -> list[Row]:
    frames = [*streets(range(4)), *rooms(range(6))]
    varied = [*frames, *sampled(frames)]
    return [
        *speed(varied),
        *growth(),
        *same_answer(varied),
        *simulated(frames),
        *left_out(),
    ]


def sampled(frames: list[Frame]) -> list[Frame]:
    """One frame of each group with its true depth known at 1 % to 20 % of the pixels."""
    rng = np.random.default_rng(0)
    groups = {frame.group: frame for frame in frames}
    return [
        replace(frame, group=f"{group}, sampled", sparse=np.where(rng.random(SHAPE) < share, frame.truth, np.nan))
        for (group, frame), share in zip(groups.items(), cycle((0.01, 0.05, 0.2)), strict=False)
    ]


def speed(frames: list[Frame]) -> list[Row]:
    """Times of a frame, weights, set-up and confidence included, each method's plan kept; medians over all frames."""
    everyday = next(frame for frame in frames if frame.group == EVERYDAY)
    matrix, rhs = system(everyday.grey, everyday.sparse)
    answers: list[NDArray[np.float64]] = []
    baseline = seconds(lambda: answers.append(spsolve(matrix, rhs)))
    colorizers = {
        "exact": Colorizer(SHAPE, ColorizeSettings(method="exact")),
        "nyu": Colorizer(SHAPE, ColorizeSettings(method="nyu", threads=2)),
        "nyu, one thread": Colorizer(SHAPE, ColorizeSettings(method="nyu", threads=1)),
        "fast": Colorizer(SHAPE, ColorizeSettings(method="fast")),
        "fast, robust": Colorizer(SHAPE, ColorizeSettings(method="fast", robust=True)),
    }
    times = medians(frames, colorizers)
    rows = [Row(f"spsolve {SHAPE[1]}x{SHAPE[0]}", baseline, "s")]
    for name, median in times.items():
        limits = []
        if name in TIME:
            limits.append((f"{TIME[name] * 1e3:g} ms or less", median <= TIME[name]))
        if name in SPEED:
            limits.append((f"ratio {SPEED[name]:.3g} or less", median <= SPEED[name] * baseline))
        promise, met = ", ".join(text for text, _ in limits), all(kept for _, kept in limits)
        rows.append(Row(f"{name}, median", median, "s", baseline, median / baseline, promise, met))
    rows.append(row("nyu, one thread against two", times["nyu, one thread"], "s", times["nyu"], ONE_THREAD))
    try:
        library = umfpack.load()
        columns = matrix.tocsc()
        theirs = statistics.median(seconds(lambda: umfpack.solve(library, columns, rhs)) for _ in range(3))
        rows.append(row("nyu against UMFPACK", times["nyu"], "s", theirs, UMFPACK_RATIO))
    except umfpack.MissingError as missing:
        rows.append(Row(f"nyu against UMFPACK: not measured; {missing}", times["nyu"], "s"))
    dense = colorizers["exact"].solve(everyday.grey, everyday.sparse).depth
    reference = answers[0].reshape(SHAPE)
    return [*rows, *busy(everyday), *differences("exact against spsolve", [relative(dense, reference)])]


def medians(frames: list[Frame], colorizers: dict[str, Colorizer]) -> dict[str, float]:
    """Median seconds over the frames, interleaved: what else the machine does hits all alike."""
    times: dict[str, list[float]] = defaultdict(list)
    for frame in frames:
        for name, colorizer in colorizers.items():
            work = partial(colorizer.solve, frame.grey, frame.sparse)
            if "exact" not in name:
                work()  # the one before has emptied the caches
            times[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in times.items()}


def busy(frame: Frame) -> list[Row]:
    """`nyu` with two threads against one while other programs keep one core, and all cores, busy."""
    colorizers = {threads: Colorizer(SHAPE, ColorizeSettings(method="nyu", threads=threads)) for threads in (1, 2)}
    rows = []
    for others in (1, os.cpu_count() or 1):
        spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
        try:
            times: dict[int, list[float]] = defaultdict(list)
            for _ in range(3 * REPEATS):
                for threads, colorizer in colorizers.items():
                    times[threads].append(seconds(partial(colorizer.solve, frame.grey, frame.sparse)))
        finally:
            for process in spinning:
                process.kill()
                process.wait()
        two, one = statistics.median(times[2]), statistics.median(times[1])
        rows.append(row(f"nyu beside {others} busy programs: two threads against one", two, "s", one, 1.0))
    return rows


def growth() -> list[Row]:
    """Time of 1280x960 against 640x480, and memory: all that a method holds and takes while it solves."""
    rows = []
    small, large = next(rooms(range(1, 2), (64,))), next(rooms(range(1, 2), (64,), scale=2))
    for method in METHODS:
        settings = ColorizeSettings(method=method)
        times = []
        for frame in (small, large):
            tracemalloc.start()
            colorizer = Colorizer(frame.grey.shape, settings)
            colorizer.solve(frame.grey, frame.sparse)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            repeats = 3 if method == "exact" else REPEATS
            work = partial(colorizer.solve, frame.grey, frame.sparse)
            times.append(min(seconds(work) for _ in range(repeats)))
            if frame is small:
                rows.append(row(f"{method}, memory", peak / frame.grey.size, "bytes/pixel", limit=MEMORY.get(method)))
        rows.append(row(f"{method}, 1280x960", times[1], "s", times[0], GROWTH.get(method)))
    return rows


def same_answer(frames: list[Frame]) -> list[Row]:
    """How far each method is from `exact` over all frames; a promise for those that solve the same system."""
    colorizer = Colorizer(SHAPE)
    found: dict[str, list[Depth]] = defaultdict(list)
    for frame in frames:
        colorizer.settings = ColorizeSettings(method="exact")
        reference = colorizer.solve(frame.grey, frame.sparse)
        for method in METHODS:
            if method != reference.method:
                colorizer.settings = ColorizeSettings(method=method)
                found[method].append(relative(colorizer.solve(frame.grey, frame.sparse).depth, reference.depth))
    rows = []
    for method, all_differences in found.items():
        rows += differences(f"{method} against exact, {len(frames)} frames", all_differences, promised=method != "fast")
    return rows


def simulated(frames: list[Frame]) -> list[Row]:
    """Relative error in the LiDAR's zone against the toolbox's, by kind of frame; over all of 64 beams confidence too."""
    toolbox = "toolbox (exact, no culling)"
    ways = {toolbox: (ColorizeSettings(method="exact"), False)}
    for method in METHODS:
        ways[f"{method}, 1/z"] = (ColorizeSettings(method=method, inverse_depth=True), True)
        ways[f"{method}, all options"] = (ColorizeSettings(method=method, **OPTIONS), True)
    colorizer = Colorizer(SHAPE)
    found: dict[str, dict[str, list[Depth]]] = defaultdict(lambda: defaultdict(list))  # (error, confidence) by pixel
    for frame in frames:
        zone = lidar_field(frame.raw) & np.isfinite(frame.truth)
        groups = [ALL, frame.group] if "64 beams" in frame.group else [frame.group]
        for name, (settings, culled) in ways.items():
            colorizer.settings = settings
            dense = colorizer.solve(frame.grey, frame.sparse if culled else frame.raw)
            known = zone & np.isfinite(dense.depth)
            pixels = np.stack([relative(dense.depth, frame.truth)[known], dense.confidence[known]])
            for group in groups:
                found[group][name].append(pixels)
    rows = []
    for group, by_name in found.items():
        plain = float(np.concatenate(by_name[toolbox], axis=1)[0].mean())
        for name, parts in by_name.items():
            if name == toolbox:
                continue
            error, confidence = np.concatenate(parts, axis=1)
            limit = ZONE_ERROR if group == ALL else None
            rows.append(at_most(f"{group}: {name}, zone rel", float(error.mean()), plain, limit))
            if group == ALL:
                sure = confidence >= CONFIDENCE_THRESHOLD
                rows.append(
                    at_most(f"{group}: {name}, confident rel", float(error[sure].mean()), None, CONFIDENT_ERROR)
                )
                share, promise = float(sure.mean()), f"{CONFIDENT_SHARE:g} or more"
                rows.append(
                    Row(f"{group}: {name}, confident", share, "of zone", None, None, promise, share >= CONFIDENT_SHARE)
                )
    return rows


def left_out() -> list[Row]:
    """KITTI: a fifth of the returns hidden, whole beams or single points, and predicted where the camera sees them."""
    ways: dict[str, tuple[ColorizeSettings | Predict, bool]] = {
        "toolbox (exact, no culling)": (ColorizeSettings(method="exact"), False)
    }
    for method in METHODS:
        ways[method] = (ColorizeSettings(method=method), True)
        ways[f"{method}, all options"] = (ColorizeSettings(method=method, **OPTIONS), True)
    ways |= {"nearest": (nearest, True), "morphology": (morphology, True)}
    scores: dict[tuple[str, str], list[tuple[Depth, Depth]]] = defaultdict(list)
    for frame in kitti():
        grey, points, beam = kitti_grey(frame), frame.points[:, :3], scan_lines(frame.points)
        rng = np.random.default_rng(0)
        chosen = rng.choice(beam.max() + 1, round(HIDDEN * (beam.max() + 1)), replace=False)
        colorizer = Colorizer(frame.camera.shape)
        visible = project(points, frame.camera_from_lidar, frame.camera).depth
        for what, hidden in (("beams", np.isin(beam, chosen)), ("points", rng.random(len(points)) < HIDDEN)):
            truth = project(points[hidden], frame.camera_from_lidar, frame.camera, cull=False).depth
            asked = truth == visible
            for name, (way, culled) in ways.items():
                sparse = project(points[~hidden], frame.camera_from_lidar, frame.camera, cull=culled).depth
                if isinstance(way, ColorizeSettings):
                    colorizer.settings = way
                    dense = colorizer.solve(grey, sparse).depth
                else:
                    dense = way(grey, sparse)
                known = asked & np.isfinite(dense)
                scores[what, name].append((np.abs(dense - truth)[known], truth[known]))
    rows = []
    for (what, name), parts in scores.items():
        error, truth = (np.concatenate(values) for values in zip(*parts, strict=True))
        plain = np.concatenate([part[0] for part in scores[what, next(iter(ways))]]).mean()
        rows.append(Row(f"KITTI, hidden {what}: {name}, rel", float((error / truth).mean()), ""))
        limit = 0.9 if "options" in name else None
        rows.append(row(f"KITTI, hidden {what}: {name}, MAE", float(error.mean()), "m", float(plain), limit))
    return rows


def nearest(grey: Depth, sparse: Depth) -> Depth:
    """Each pixel's nearest return."""
    rows, columns = distance_transform_edt(np.isnan(sparse), return_distances=False, return_indices=True)
    return sparse[rows, columns]


def morphology(grey: Depth, sparse: Depth) -> Depth:
    """Dilations and closings of inverted depth, after IP-Basic (Ku, Harakeh and Waslander, CRV 2018)."""
    diamond = cv2.getStructuringElement(cv2.MORPH_CROSS, (5, 5)) | np.pad(np.ones((3, 3), np.uint8), 1)
    inverted = np.where(np.isnan(sparse), 0.0, FARTHEST_MORPHOLOGY - sparse).clip(0.0).astype(np.float32)
    filled = cv2.morphologyEx(cv2.dilate(inverted, diamond), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    for size in (7, 31):
        wider = cv2.dilate(filled, np.ones((size, size), np.uint8))
        filled = np.where(filled > 0.0, filled, wider)
    smooth = cv2.GaussianBlur(cv2.medianBlur(filled, 5), (5, 5), 0)
    return np.where(smooth > 0.0, FARTHEST_MORPHOLOGY - smooth, np.nan)


def system(grey: Depth, sparse: Depth) -> tuple[csr_matrix, NDArray[np.float64]]:
    """The system that the colorizer solves, for the baseline."""
    weights = np.zeros((*SHAPE, 8))
    write_weights(grey.astype(np.float64), weights, 0, len(grey))
    rows, columns = np.indices(SHAPE)
    pixel = rows * SHAPE[1] + columns
    known = np.isfinite(sparse)
    entries = [(1.0 + known.ravel(), pixel.ravel(), pixel.ravel())]
    for q, (row_step, column_step) in enumerate(NEIGHBOURS):
        r, c = rows + row_step, columns + column_step
        inside = (r >= 0) & (r < SHAPE[0]) & (c >= 0) & (c < SHAPE[1])
        entries.append((-weights[..., q][inside], pixel[inside], (r * SHAPE[1] + c)[inside]))
    values, i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
    return coo_matrix((values, (i, j))).tocsr(), np.nan_to_num(sparse).ravel().astype(np.float64)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def relative(depth: Depth, truth: Depth) -> Depth:
    return np.abs(depth - truth) / truth


def differences(name: str, parts: list[Depth], promised: bool = True) -> list[Row]:
    """The worst frame's mean, and the largest difference of all, where both have depth."""
    worst = max(float(np.nanmean(part)) for part in parts)
    largest = max(float(np.nanmax(part)) for part in parts)
    limit = 1.0 if promised else None
    return [
        row(f"{name}, worst mean difference", worst, "relative", MEAN_DIFFERENCE, limit),
        row(f"{name}, largest difference", largest, "relative", LARGEST_DIFFERENCE, limit),
    ]


def row(name: str, value: float, unit: str, baseline: float | None = None, limit: float | None = None) -> Row:
    """A figure whose ratio to the baseline, or itself where there is none, is promised to be at most the limit."""
    ratio = None if baseline is None else value / baseline
    if limit is None:
        return Row(name, value, unit, baseline, ratio)
    what, kept = (
        (f"{limit:g} or less", value <= limit) if ratio is None else (f"ratio {limit:g} or less", ratio <= limit)
    )
    return Row(name, value, unit, baseline, ratio, what, kept)


def at_most(name: str, value: float, baseline: float | None, limit: float | None) -> Row:
    """A figure without unit that is itself promised to be at most the limit, whatever its baseline."""
    ratio = None if baseline is None else value / baseline
    promise = "" if limit is None else f"{limit:g} or less"
    return Row(name, value, "", baseline, ratio, promise, limit is None or value <= limit)


if __name__ == "__main__":
    report(
        "Dense depth from LiDAR at 640x480 (baselines: SciPy's spsolve; the toolbox's method without culling)", measure
    )
