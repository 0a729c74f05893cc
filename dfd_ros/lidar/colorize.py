"""Dense depth from sparse depth and a grey picture: colorization as in the NYU Depth V2 toolbox.

Levin, Lischinski and Weiss, "Colorization using optimization", SIGGRAPH 2004, with the weights of
`fill_depth_colorization` in the toolbox of Silberman et al., ECCV 2012 (`weights`): depth is as alike in neighbouring
pixels as their grey values are. For pixel r with its neighbours s in the 3x3 window inside the image,

    d_r − Σ_s w_rs d_s + α_r [r known] (d_r − measured_r) = 0.

The matrix is not symmetric, and only the solution of this very system is the toolbox's answer. Methods:

- `nyu`: this system, solved directly in single precision without a subtraction (`mmatrix_solver`). There is nothing to
  iterate, so no rule when to stop and no cap: the work is the same for every picture, and so is the bound on the error,
  1e-3 of the answer (in the mean it is below 1e-6).
- `exact`: this system, solved directly in double precision (`grid_solver`): the reference.
- `fast`: NOT this system, and not the toolbox's answer: on simulated streets 5 to 16 % of the pixels in the LiDAR's
  zone (with 16 beams 21 to 45 %), and more outside it, differ from that by over 10 %. It is a line fitted to the nearby
  returns' inverse depth along the picture's edges (`evidence`), in a tenth of the time, and no less accurate where that
  can be told.

Any method's answer comes with a confidence (`confidence`), and with NaN where nothing supports a value: nowhere a
return, or in the sky (`sky`).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.lidar.confidence import write_confidence
from dfd_ros.lidar.dissection import NEIGHBOURS
from dfd_ros.lidar.evidence import FARTHEST, NEAREST, Evidence
from dfd_ros.lidar.grid_solver import GridSolver
from dfd_ros.lidar.halves import Halves
from dfd_ros.lidar.mmatrix_solver import MMatrixSolver
from dfd_ros.lidar.robust import odds, write_robust_weights
from dfd_ros.lidar.sky import find_sky
from dfd_ros.lidar.steps import weaken_at_steps
from dfd_ros.lidar.weights import write_weights

FloatImage = NDArray[np.floating]
Frame = tuple[FloatImage, FloatImage]


class Solver(Protocol):
    """Solves (hold_r + Σ_s weights_rs) x_r − Σ_s weights_rs x_s = rhs_r for pictures of one shape (H, W).

    hold and rhs are (H, W), weights (H, W, 8), all of type `dtype`.
    """

    dtype: type[np.floating]

    def solve(self, hold: FloatImage, coupling: FloatImage, rhs: FloatImage, threads: int) -> FloatImage: ...


# The methods that solve the toolbox's system.
_SOLVERS: dict[str, Callable[[tuple[int, int]], Solver]] = {"nyu": MMatrixSolver, "exact": GridSolver}
FAST = "fast"
METHODS = (*_SOLVERS, FAST)

_ALPHA = (1e-12, 1e12)  # the least and the greatest: single precision's numbers end not far beyond

_SKY_MARGIN = 2.0  # spacings of returns above the LiDAR's field where there is no sky: a beam may have missed


@dataclass(frozen=True)
class ColorizeSettings:
    """How dense depth is found. As they stand, depth is the toolbox's.

    Attributes:
        method: One of `METHODS`.
        alpha: How strongly the returns hold, 1e-12 to 1e12 (the toolbox's default is 1); `fast` does not use it.
        inverse_depth: Solve for 1 / z, which is linear on planes, in place of z; `fast` always does.
        robust: Let returns that lie behind their surroundings, or are noisy, count less (`robust`).
        depth_edges: Let steps of depth, too, part neighbours, where the picture may show none (`steps`); `fast` always
            does.
        range_noise: Standard deviation of a return's range, metres, at least 0; used if `robust`.
        min_confidence: Depth below this confidence is NaN, in [0, 1]; at 0 only depth of no confidence at all.
        threads: How many threads `nyu` may use; more than two are of no use to it.
    """

    method: str = "nyu"
    alpha: float = 1.0
    inverse_depth: bool = False
    robust: bool = False
    depth_edges: bool = False
    range_noise: float = 0.02
    min_confidence: float = 0.0
    threads: int = 2

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"colorization: method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not _ALPHA[0] <= self.alpha <= _ALPHA[1]:
            raise InputError(
                f"colorization: alpha must be a positive number, {_ALPHA[0]:g} to {_ALPHA[1]:g}, got {self.alpha!r}"
            )
        if not (math.isfinite(self.range_noise) and self.range_noise >= 0):
            raise InputError(f"colorization: range_noise must be at least 0 metres, got {self.range_noise!r}")
        if not 0.0 <= self.min_confidence <= 1.0:
            raise InputError(f"colorization: min_confidence must lie in [0, 1], got {self.min_confidence!r}")
        if self.threads < 1:
            raise InputError(f"colorization: threads must be at least 1, got {self.threads!r}")


@dataclass(frozen=True)
class DenseDepth:
    """Dense depth of one picture.

    Attributes:
        depth: (H, W) float32 metres, NaN where nothing supports a value.
        confidence: (H, W) float32 in [0, 1], 0 exactly where depth is NaN for want of support.
        known: Pixels of the sparse depth that were known.
        method: What found it.
        is_toolbox_system: Whether depth solves the toolbox's system (in 1 / z, with returns that count less, or with
            neighbours parted, where the settings say so); False for a method that approximates depth in another way.
    """

    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    known: int
    method: str

    @property
    def is_toolbox_system(self) -> bool:
        return self.method in _SOLVERS


class Colorizer:
    """Colorization for pictures of one shape (H, W); keeps the solver's plan and all buffers between frames.

    Args:
        shape: (height, width), at least 2x2.
        settings: May be exchanged between frames (`settings` is a plain attribute).

    The work runs without the GIL; one object serves one thread at a time. From the first solution of the system on, BLAS
    uses one thread in this process (`keep_blas_to_one_thread`).
    """

    def __init__(self, shape: tuple[int, int], settings: ColorizeSettings | None = None) -> None:
        height, width = shape
        if height < 2 or width < 2:
            raise InputError(f"colorization: expected a shape of at least 2x2 pixels, got {height}x{width}")
        self.shape = (int(height), int(width))
        self.settings = settings or ColorizeSettings()
        self._evidence = Evidence(self.shape)
        self._counts = np.ones(self.shape, np.float32)  # how much each return counts
        self._sky = np.zeros(self._evidence.guide.shape, np.bool_)
        self._solvers: dict[str, Solver] = {}
        self._weights: FloatImage | None = None
        self._halves = Halves()

    def solve(self, grey: FloatImage, sparse: FloatImage, intensity: FloatImage | None = None) -> DenseDepth:
        """Dense depth of a frame.

        Args:
            grey: (H, W) floating point in [0, 1].
            sparse: (H, W) metres; unknown where not from a millimetre to a thousand kilometres (NaN, 0, ...).
            intensity: (H, W) of the returns, at least 0, in any unit; used if `robust`.

        Raises:
            InputError: A shape or the grey values' type or range is wrong.
        """
        self._check(grey, sparse, intensity)
        settings, evidence, counts = self.settings, self._evidence, self._counts
        grey, sparse = np.ascontiguousarray(grey, np.float32), np.ascontiguousarray(sparse, np.float32)
        counts.fill(1.0)
        known = evidence.gather(grey, sparse, counts)
        if not known:
            nothing = np.full(self.shape, np.nan, np.float32)
            return DenseDepth(nothing, np.zeros(self.shape, np.float32), 0, settings.method)
        if settings.robust:
            faint = None if intensity is None else np.ascontiguousarray(intensity, np.float32)
            write_robust_weights(evidence, sparse, settings.range_noise, faint, counts)
            evidence.gather(grey, sparse, counts)

        if settings.method == FAST:
            depth = np.empty(self.shape, np.float32)
            evidence.write_depth(depth)
        else:
            depth = self._solve_system(grey, sparse)
        confidence = np.empty(self.shape, np.float32)
        write_confidence(evidence, depth, self._find_sky(), settings.min_confidence, confidence)
        return DenseDepth(depth, confidence, known, settings.method)

    def _solve_system(self, grey: NDArray[np.float32], sparse: NDArray[np.float32]) -> NDArray[np.float32]:
        method = self.settings.method
        if method not in self._solvers:
            self._solvers[method] = _SOLVERS[method](self.shape)
        solver = self._solvers[method]
        if self._weights is None or self._weights.dtype != solver.dtype:
            self._weights = np.zeros((*self.shape, len(NEIGHBOURS)), solver.dtype)
        weights, fine_grey, middle = self._weights, grey.astype(solver.dtype, copy=False), self.shape[0] // 2
        rows = ((0, middle), (middle, self.shape[0]))
        self._halves.run(lambda half: write_weights(fine_grey, weights, *rows[half]), self.settings.threads)
        if self.settings.depth_edges:
            weaken_at_steps(self._evidence.surface, weights)
        strength = odds(self._counts) if self.settings.robust else self._counts
        hold, rhs = np.empty(self.shape, solver.dtype), np.empty(self.shape, solver.dtype)
        _write_returns(sparse, strength, self.settings.alpha, self.settings.inverse_depth, hold, rhs)
        solution = solver.solve(hold, weights, rhs, self.settings.threads)
        if self.settings.inverse_depth:
            np.divide(1.0, solution, out=solution)
        return solution.astype(np.float32, copy=False)

    def _find_sky(self) -> NDArray[np.bool_]:
        evidence = self._evidence
        first, last = evidence.rows
        columns = np.flatnonzero(last >= first)  # the others take the nearest one's
        top = np.interp(np.arange(len(first)), columns, first[columns])
        limit = np.floor(top - 0.5 * _SKY_MARGIN * evidence.spacing).astype(np.int64)
        return find_sky(evidence.guide, limit, evidence.brightness, self._sky)

    def _check(self, grey: FloatImage, sparse: FloatImage, intensity: FloatImage | None) -> None:
        for name, image in (("grey image", grey), ("sparse depth", sparse), ("intensity", intensity)):
            if image is None:
                continue
            if image.shape != self.shape:
                raise InputError(f"colorization: {name} must have shape {self.shape}, got {image.shape}")
            if not np.issubdtype(image.dtype, np.floating):
                raise InputError(f"colorization: {name} must be floating point, got {image.dtype}")
        low, high = float(grey.min()), float(grey.max())
        if not (low >= 0.0 and high <= 1.0):
            raise InputError(f"colorization: grey image must be finite and in [0, 1], got {low:g} to {high:g}")


@njit(nogil=True, cache=True)
def _write_returns(sparse, strength, alpha, inverse_depth, hold, rhs):  # type: ignore[no-untyped-def]
    """Write α_r and α_r times what was measured, depth or 1 / depth; 0 where nothing was. All (H, W)."""
    for row in range(sparse.shape[0]):
        for column in range(sparse.shape[1]):
            value = sparse[row, column]
            known = NEAREST <= value <= FARTHEST
            alpha_r = alpha * strength[row, column] if known else 0.0
            hold[row, column] = alpha_r
            rhs[row, column] = (alpha_r / value if inverse_depth else alpha_r * value) if known else 0.0


def colorize(
    grey: FloatImage,
    sparse: FloatImage,
    settings: ColorizeSettings | None = None,
    intensity: FloatImage | None = None,
) -> DenseDepth:
    """Dense depth of one picture; for a stream of pictures keep a `Colorizer`, whose arguments and errors these are."""
    return Colorizer(_shape_of(grey), settings).solve(grey, sparse, intensity)


def colorize_batch(
    frames: Iterable[Frame], settings: ColorizeSettings | None = None, threads: int = 2
) -> Iterator[DenseDepth]:
    """Dense depth of many frames (grey, sparse) of any shapes, in their order, `threads` at a time.

    `frames` is read as answers are taken, a few ahead, so it may be longer than memory holds.

    Raises:
        InputError: As `Colorizer`, when the frame's turn comes; or `threads` is not positive.
    """
    if threads < 1:
        raise InputError(f"colorization: threads must be at least 1, got {threads}")
    own = threading.local()
    alone = replace(settings or ColorizeSettings(), threads=1)  # the frames are what runs side by side

    def solve(frame: Frame) -> DenseDepth:
        grey, sparse = frame
        shape = _shape_of(grey)
        if getattr(own, "colorizer", None) is None or own.colorizer.shape != shape:
            own.colorizer = Colorizer(shape, alone)
        return own.colorizer.solve(grey, sparse)

    with ThreadPoolExecutor(threads, "colorize") as pool:
        waiting: deque[Future[DenseDepth]] = deque()
        for frame in frames:
            waiting.append(pool.submit(solve, frame))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _shape_of(grey: FloatImage) -> tuple[int, int]:
    if grey.ndim != 2:
        raise InputError(f"colorization: grey image must have shape (height, width), got {grey.shape}")
    height, width = grey.shape
    return height, width
