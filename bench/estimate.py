"""The learning-free estimator on made-up rooms: time, accuracy, and whether its confidence keeps its word.

The baseline is whitened projection written down plainly: one full-size inverse transform a hypothesis, a box window,
the least energy with a parabola through it and its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from rooms import KINDS, ROOM_LENS, SHAPE, photograph_room
from table import Row, report

from dfd_ros.optics.estimate import WhitenedProjectionEstimator
from dfd_ros.optics.transfer import transfer_function
from dfd_ros.scoring.reliability import Reliability, ReliabilityAccumulator, plot_reliability
from dfd_ros.tone import linear_grey

ROOMS = 8  # of each kind
HYPOTHESES = 16
REPEATS = 15
LONGEST = 40.0  # ms
LARGEST_REL = {"photographic": 0.09, "procedural": 0.15}
LARGEST_CONFIDENT_REL = 0.05
SAID, KEPT = 0.9, (0.85, 0.95)
BORDER, WINDOW = 16, 15  # of the baseline, pixels

Image = NDArray[np.float32]


class Plain:
    """The baseline."""

    def __init__(self) -> None:
        lens = ROOM_LENS
        self.cocs = np.linspace(0.0, float(lens.coc(lens.max_depth)), HYPOTHESES)
        self._size = tuple(n + 2 * BORDER for n in SHAPE)
        frequency = np.hypot(scipy.fft.fftfreq(self._size[0])[:, None], scipy.fft.rfftfreq(self._size[1]))
        self._filters = []
        for coc in self.cocs:
            shallow, deep = (transfer_function(c, frequency) for c in (coc, coc * lens.f_number_ratio))
            norm = 1.0 / np.sqrt(shallow**2 + deep**2 + 1e-3)
            self._filters.append([(f * norm).astype(np.float32) for f in (deep, shallow)])

    def energies(self, shallow: Image, deep: Image) -> Image:
        """(n, H, W)."""
        spectra = [scipy.fft.rfft2(np.pad(image, BORDER, mode="reflect")) for image in (shallow, deep)]
        inside = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        out = np.empty((HYPOTHESES, *SHAPE), np.float32)
        for energy, (a, b) in zip(out, self._filters, strict=True):
            residual = scipy.fft.irfft2(a * spectra[0] - b * spectra[1], s=self._size)[inside]
            cv2.boxFilter(residual * residual, -1, (WINDOW, WINDOW), dst=energy, borderType=cv2.BORDER_REFLECT)
        return out

    def depth(self, energies: Image) -> Image:
        best = np.clip(energies.argmin(axis=0), 1, HYPOTHESES - 2)
        a, b, c = (np.take_along_axis(energies, (best + i)[None], axis=0)[0] for i in (-1, 0, 1))
        offset = np.clip(0.5 * (a - c) / np.maximum(a - 2 * b + c, 1e-12), -1, 1)
        depth = ROOM_LENS.depth(np.interp(best + offset, np.arange(HYPOTHESES), self.cocs))
        return np.clip(depth, ROOM_LENS.min_depth, ROOM_LENS.max_depth)


def milliseconds(*works: Callable[[], object]) -> list[float]:
    """The least processor time of each, taken in turn."""
    for work in works:
        work()
    best = [np.inf] * len(works)
    for _ in range(REPEATS):
        for index, work in enumerate(works):
            start = time.process_time()
            work()
            best[index] = min(best[index], 1e3 * (time.process_time() - start))
    return best


class Bench:
    def __init__(self) -> None:
        self._curves: dict[str, Reliability] = {}

    def measure(self) -> list[Row]:
        cv2.setNumThreads(1)
        plain, estimator = Plain(), WhitenedProjectionEstimator(ROOM_LENS, SHAPE)
        rows: list[Row] = []
        for kind in KINDS:
            rel, plain_rel, halves = [], [], []
            reliability = ReliabilityAccumulator()
            for seed in range(ROOMS):
                room = photograph_room(kind, seed)
                shallow, deep = linear_grey(room.shallow, 1.0), linear_grey(room.deep, 1.0)
                found = estimator.estimate(shallow, deep)
                error = np.abs(found.depth - room.depth) / room.depth
                rel.append(float(error.mean()))
                halves.append(np.stack([found.confidence.ravel(), error.ravel()]))
                naive = plain.depth(plain.energies(shallow, deep))
                plain_rel.append(float((np.abs(naive - room.depth) / room.depth).mean()))
                reliability.add(found.depth, room.depth, found.confidence)
            if not rows:
                rows.append(self._time(plain, estimator, shallow, deep))
            baseline, limit = float(np.mean(plain_rel)), LARGEST_REL[kind]
            rows.append(_at_most(f"{kind}: rel", float(np.mean(rel)), "relative", baseline, limit))
            confidence, error = np.concatenate(halves, axis=1)
            half = error[np.argsort(-confidence, kind="stable")[: len(error) // 2]]
            name = f"{kind}: rel, the confident half"
            rows.append(_at_most(name, float(half.mean()), "relative", baseline, LARGEST_CONFIDENT_REL))
            right, share = reliability.right_when_said(SAID)
            met = KEPT[0] <= right <= KEPT[1]
            name = f"{kind}: right to 10 % where {SAID:g} is said ({share:.0%} of pixels)"
            rows.append(Row(name, right, "share", SAID, right / SAID, f"{KEPT[0]:g} to {KEPT[1]:g}", met))
            self._curves[kind] = reliability.curve
            rows.append(Row(f"{kind}: calibration error", reliability.curve.calibration_error, "share"))
        return rows

    def draw(self, path: str) -> None:
        plot_reliability(self._curves, path)

    def _time(self, plain: Plain, estimator: WhitenedProjectionEstimator, shallow: Image, deep: Image) -> Row:
        ours, volume = milliseconds(lambda: estimator.estimate(shallow, deep), lambda: plain.energies(shallow, deep))
        name = f"{SHAPE[1]}x{SHAPE[0]}, {HYPOTHESES} hypotheses, one thread (baseline: energies alone)"
        return _at_most(name, ours, "ms", volume, LONGEST)


def _at_most(name: str, value: float, unit: str, baseline: float, limit: float) -> Row:
    return Row(name, value, unit, baseline, value / baseline, f"{limit:g} or less", value <= limit)


if __name__ == "__main__":
    bench = Bench()
    title = "Depth and confidence of made-up rooms (baseline: whitened projection written down plainly)"
    report(title, bench.measure, bench.draw)
