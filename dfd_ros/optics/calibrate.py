"""Calibrating a lens whose numbers are not known: fit the CoC curve to pairs with known depth.

Each pair's whitened-projection energies tell the CoC of a patch without any lens model. Patches of like depth are
pooled within each pair, which gives samples (depth, CoC), and the thin lens's curve

    c(z, ρ)² = κ² (1 − z_f / z)² (1 + k ρ²)² + b²

is fitted to all of them by robust least squares (Cauchy loss), on both sides of the focus. κ is the shallow CoC of a
point at infinity, κ N_shallow the lens's `coc_scale`; k is how CoCs change towards the corners (ρ = 1), for which
patches are pooled ring by ring; b is the blur that the wide aperture's aberrations leave at the focus. Uncertainties
come from the bootstrap over pairs (Efron, 1979): samples of one pair share its errors. The depths seen along the way
also make the prior of the lens file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.projection import CELL, WhitenedProjection

Image = NDArray[np.float32]
Pair = tuple[Image, Image, Image]
"""Shallow and deep (H, W) float32 linear light, registered and of one brightness; depth (H, W) metres, NaN or 0 unknown."""

MIN_CONTRAST = 0.7
"""A patch tells its CoC if the best hypothesis leaves this much less energy than the average one (in ln)."""
NOISE_ENERGY = 4e-6
"""Energy that noise alone leaves, (0.002 of white)²."""
MAX_DEPTH_SPREAD = 1.15
"""Largest over smallest depth within a patch: depth edges show two CoCs."""
DEPTH_BIN = 0.08
"""Width of the bins that pool patches of one pair, in ln depth."""
RINGS = 3
"""Rings of equal area about the image centre, each pooled by itself."""
FIELD_SIGMA = 0.2
"""How much CoCs of photographic lenses differ between centre and corners: the prior of k."""
MIN_PATCHES = 12
"""Fewest patches that make a sample."""
MIN_SAMPLES = 8
"""Fewest samples that make a calibration."""
SAMPLE_ERROR = 0.3
"""Error of a sample, pixels, from which the robust fit doubts it."""
FOCUS_REACH = 10.0
"""The focus is looked for within the depths seen, extended by this factor both ways."""
BOOTSTRAPS = 100
DEPTH_MARGIN = 1.25
"""The lens's range reaches this factor beyond the depths seen."""


@dataclass(frozen=True)
class Samples:
    """Measured CoCs, arrays of shape (n,).

    Attributes:
        depth: Metres.
        coc: Pixels.
        weight: Patches pooled.
        field: Mean of ρ² over them, ρ the distance from the image centre over that of the corner.
        pair: The index of the pair.
    """

    depth: NDArray[np.float64]
    coc: NDArray[np.float64]
    weight: NDArray[np.float64]
    field: NDArray[np.float64]
    pair: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.int64]) -> Samples:
        return Samples(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Curve:
    """The fitted curve: κ (pixels), z_f (metres), b (pixels) and k; `array` has them in this order."""

    kappa: float
    focus: float
    blur: float
    field: float

    def array(self) -> NDArray[np.float64]:
        return np.array([self.kappa, self.focus, self.blur, self.field])

    def coc(self, depth: NDArray[np.float64], field: NDArray[np.float64] | float = 0.0) -> NDArray[np.float64]:
        """CoC at `depth` where ρ² is `field`, pixels."""
        return np.hypot(self.kappa * (1.0 - self.focus / depth) * (1.0 + self.field * field), self.blur)


@dataclass(frozen=True)
class Calibration:
    """A fitted lens and how well it is known.

    Attributes:
        lens: The lens, with `coc_uncertainty` set to the residual and the prior to the distribution of the depths.
        kappa, kappa_sigma: Shallow CoC at infinity and its standard deviation, pixels.
        focus_sigma: Standard deviation of the focus distance, metres.
        field_sigma: Standard deviation of the lens's `coc_field`.
        residual_px: Robust standard deviation of the samples about the curve, pixels.
        samples: What was fitted.
        pairs: How many pairs gave samples, of how many.
        parallax_sigma: Standard deviation of the lens's `parallax`, where one was found.
    """

    lens: Lens
    kappa: float
    kappa_sigma: float
    focus_sigma: float
    field_sigma: float
    residual_px: float
    samples: Samples
    pairs: tuple[int, int]
    parallax_sigma: float = 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the fit, in sentences; empty for a good one."""
        faults = []
        if self.kappa_sigma > 0.1 * self.kappa:
            faults.append(f"the CoC scale is known to {self.kappa_sigma / self.kappa:.0%} only, 10 % is needed")
        if self.focus_sigma > 0.1 * self.lens.focus_distance:
            faults.append(f"the focus distance is known to {self.focus_sigma:.2g} m only")
        span = float(np.ptp(self.samples.coc))
        if self.residual_px > 0.2 * span:
            faults.append(f"the samples scatter by {self.residual_px:.2g} px about a curve that spans {span:.2g} px")
        return tuple(faults)

    def describe(self) -> str:
        """The result in a few lines, faults included."""
        lens = self.lens
        lines = [
            f"{lens.name}: CoC {self.kappa:.2f} ± {self.kappa_sigma:.2f} px at infinity (F/{lens.f_number_shallow:g}), "
            f"focus {lens.focus_distance:.3f} ± {self.focus_sigma:.3f} m, "
            f"corners {lens.coc_field:+.0%} ± {self.field_sigma:.0%}",
            f"{len(self.samples.depth)} samples from {self.pairs[0]} of {self.pairs[1]} pairs, "
            f"residual {self.residual_px:.2f} px",
        ]
        if lens.parallax:
            lines.append(
                f"parallax {lens.parallax:+.3f} ± {self.parallax_sigma:.3f} of the CoC in the corners, "
                f"{lens.parallax_aspect:.2f} of it along the horizontal"
            )
        return "\n".join(lines + [f"BAD FIT: {fault}" for fault in self.faults])


def fit_coc_curve(
    pairs: Iterable[Pair],
    f_numbers: tuple[float, float],
    name: str,
    *,
    max_coc: float = 20.0,
    psf: str = "disk",
    seed: int = 0,
) -> Calibration:
    """Fit the CoC curve to pairs with known depth.

    Args:
        pairs: Pairs of one size, see `Pair`.
        f_numbers: Shallow and deep.
        name: Name of the lens.
        max_coc: Largest shallow CoC to look for, pixels.
        psf: `disk` or `gaussian`.
        seed: Of the bootstrap.

    Raises:
        InputError: No pairs, pairs of different sizes, or too few textured patches for a fit.
    """
    if not 0 < f_numbers[0] < f_numbers[1]:
        raise InputError(
            f"calibration: expected f-numbers 0 < shallow < deep, got {f_numbers[0]:g} and {f_numbers[1]:g}"
        )
    projection: WhitenedProjection | None = None
    cocs = np.concatenate([np.arange(0.0, 8.0, 0.5), np.arange(8.0, max_coc + 1.0, 1.0)])
    gathered, depths, count = [], _DepthStatistics(), 0
    for index, (shallow, deep, depth) in enumerate(pairs):
        if projection is None:
            projection = WhitenedProjection(deep.shape, cocs, f_numbers[0] / f_numbers[1], psf)
        if depth.shape != projection.shape:
            raise InputError(f"calibration pair {index}: expected depth of shape {projection.shape}, got {depth.shape}")
        energies, usable = projection(shallow, deep)
        found = _pool(energies.sum(axis=0), usable, depth, cocs)
        gathered.append(np.column_stack([found, np.full(len(found), index)]))
        depths.add(depth)
        count = index + 1
    if not count:
        raise InputError("calibration: expected at least one pair, got none")
    table = np.concatenate(gathered)
    if len(table) < MIN_SAMPLES:
        raise InputError(
            f"calibration: expected at least {MIN_SAMPLES} textured depth bins, got {len(table)} from {count} pairs"
        )
    depth_column, coc_column, weight_column, field_column, pair_column = table.T
    samples = Samples(depth_column, coc_column, weight_column, field_column, pair_column.astype(np.int64))
    curve = _fit(samples, None)
    error = np.abs(samples.coc - curve.coc(samples.depth, samples.field))
    residual = 1.4826 * _weighted_median(error, np.sqrt(samples.weight))
    spread = _bootstrap(samples, curve, np.random.default_rng(seed))
    low, high = depths.range()
    lens = Lens(
        name=name,
        focus_distance=curve.focus,
        f_number_shallow=f_numbers[0],
        f_number_deep=f_numbers[1],
        coc_scale=curve.kappa * f_numbers[0],
        min_depth=low / DEPTH_MARGIN,
        max_depth=high * DEPTH_MARGIN,
        psf=psf,
        coc_uncertainty=round(residual, 4),
        focus_blur=round(curve.blur, 4),
        coc_field=round(curve.field, 4),
        **depths.prior(),
    )
    return Calibration(
        lens=lens,
        kappa=curve.kappa,
        kappa_sigma=float(spread[0]),
        focus_sigma=float(spread[1]),
        field_sigma=float(spread[3]),
        residual_px=residual,
        samples=samples,
        pairs=(len(np.unique(samples.pair)), count),
    )


def plot_calibration(calibration: Calibration, path: str | Path) -> None:
    """Draw samples and curve into a picture file (PNG, PDF, SVG by its suffix)."""
    from matplotlib.figure import Figure

    lens, samples = calibration.lens, calibration.samples
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(samples.depth, samples.coc, s=2.0 * np.sqrt(samples.weight), alpha=0.4, label="measured")
    z = np.geomspace(lens.min_depth, lens.max_depth, 400)
    curve = Curve(calibration.kappa, lens.focus_distance, lens.focus_blur, lens.coc_field)
    axes.plot(z, curve.coc(z), "k", label=f"{calibration.kappa:.2f} px · |1 − {lens.focus_distance:.2f} m / z|")
    axes.plot(z, lens.coc(z, lens.f_number_deep), "k:", label=f"the same at F/{lens.f_number_deep:g}")
    axes.set(xscale="log", xlabel="depth, m", ylabel=f"CoC at F/{lens.f_number_shallow:g}, px", title=lens.name)
    axes.set_ylim(0.0, 1.1 * float(samples.coc.max()))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _pool(energies: Image, usable: Image, depth: Image, cocs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples (depth, CoC, patches, field) of one pair, (n, 4)."""
    grid = usable.shape
    known = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)
    padded = cv2.copyMakeBorder(
        known, 0, grid[0] * CELL - depth.shape[0], 0, grid[1] * CELL - depth.shape[1], cv2.BORDER_REPLICATE
    )
    # Depth has to be one over the window that the energies are pooled in.
    window = np.ones((6 * CELL + 1, 6 * CELL + 1), np.uint8)
    centre = slice(CELL // 2, None, CELL)
    nearest = cv2.erode(padded, window)[centre, centre]
    farthest = cv2.dilate(padded, window)[centre, centre]
    z = padded[centre, centre]
    logs = np.log(energies + np.float32(NOISE_ENERGY))
    contrast = logs.mean(axis=0) - logs.min(axis=0)
    good = (nearest > 0) & (farthest < MAX_DEPTH_SPREAD * nearest) & (contrast > MIN_CONTRAST) & (usable > 0.95)
    field = field_radius(grid) ** 2
    rings = np.searchsorted(np.quantile(field, np.arange(1, RINGS) / RINGS), field[good])
    logs, z, field = logs[:, good], z[good], field[good]
    bins = np.floor(np.log(z) / DEPTH_BIN).astype(int) * RINGS + rings
    found = []
    for number in np.unique(bins):
        members = bins == number
        if members.sum() < MIN_PATCHES:
            continue
        # With the noise unknown, the product of the patches' likelihoods is the sum of their log energies.
        cost = logs[:, members].mean(axis=1)
        best = int(np.argmin(cost))
        if best == len(cocs) - 1:
            continue
        depth_of_bin, field_of_bin = float(np.median(z[members])), float(field[members].mean())
        found.append((depth_of_bin, _vertex(cocs, cost, best), float(members.sum()), field_of_bin))
    return np.array(found, np.float64).reshape(-1, 4)


def _vertex(x: NDArray[np.float64], y: NDArray[np.floating], best: int) -> float:
    """Where the parabola through the minimum of y(x) and its neighbours is least; y is even about x = 0."""
    if best == 0:
        return 0.0
    a, b, _ = np.polyfit(x[best - 1 : best + 2], y[best - 1 : best + 2], 2)
    return float(np.clip(-b / (2.0 * a), x[best - 1], x[best + 1])) if a > 0 else float(x[best])


def _fit(samples: Samples, start: Curve | None) -> Curve:
    """The curve by robust least squares, from `start` or from the best of a range of focus distances."""
    weight = samples.weight**0.25  # samples of a pair share errors: many patches count for little more than few
    scale = SAMPLE_ERROR * float(np.median(weight))

    def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
        curve = Curve(math.exp(p[0]), math.exp(p[1]), p[2], p[3])
        misfit = weight * (samples.coc - curve.coc(samples.depth, samples.field))
        return np.append(misfit, scale * p[3] / FIELD_SIGMA)

    starts = [start] if start else []
    if not starts:
        for focus in np.geomspace(0.5 * samples.depth.min(), 1.5 * samples.depth.max(), 16):
            shape = np.abs(1.0 - focus / samples.depth)
            kappa = float(np.median(samples.coc / np.maximum(shape, 0.05)))
            starts.append(Curve(min(max(kappa, 0.1), 500.0), float(focus), 0.1, 0.0))
    near, far = math.log(samples.depth.min() / FOCUS_REACH), math.log(samples.depth.max() * FOCUS_REACH)
    bounds = ((math.log(1e-3), near, 0.0, -0.9), (math.log(1e3), far, math.inf, 9.0))
    fits = []
    for curve in starts:
        first = (math.log(curve.kappa), math.log(curve.focus), curve.blur, curve.field)
        fits.append(least_squares(residuals, first, bounds=bounds, loss="cauchy", f_scale=scale))
    best = min(fits, key=lambda fit: float(fit.cost)).x
    return Curve(math.exp(best[0]), math.exp(best[1]), float(best[2]), float(best[3]))


def _bootstrap(samples: Samples, start: Curve, random: np.random.Generator) -> NDArray[np.float64]:
    """Standard deviations of the curve's numbers over resamplings of the pairs; inf where there is one pair only."""
    members = [np.flatnonzero(samples.pair == pair) for pair in np.unique(samples.pair)]
    if len(members) < 2:
        return np.full(4, math.inf)
    fits = []
    for _ in range(BOOTSTRAPS):
        chosen = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        fits.append(_fit(samples[chosen], start).array())
    return np.std(fits, axis=0)


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, 0.5 * total[-1])]])


class _DepthStatistics:
    """The distribution of ln depth over images, with its slope from bottom to top."""

    def __init__(self) -> None:
        self._logs: list[NDArray[np.float64]] = []
        self._heights: list[NDArray[np.float64]] = []

    def add(self, depth: Image) -> None:
        thin = depth[CELL // 2 :: 2 * CELL, CELL // 2 :: 2 * CELL].astype(np.float64)
        known = np.isfinite(thin) & (thin > 0)
        height = 0.5 - (np.arange(thin.shape[0]) + 0.5) / thin.shape[0]
        self._logs.append(np.log(thin[known]))
        self._heights.append(np.broadcast_to(height[:, None], thin.shape)[known])

    def range(self) -> tuple[float, float]:
        low, high = np.exp(np.quantile(np.concatenate(self._logs), [0.002, 0.998]))
        return float(low), float(high)

    def prior(self) -> dict[str, float]:
        logs, heights = np.concatenate(self._logs), np.concatenate(self._heights)
        slope, centre = np.polyfit(heights, logs, 1)
        sigma = float(np.std(logs - centre - slope * heights))
        return {
            "prior_depth": round(math.exp(centre), 4),
            "prior_log_sigma": round(max(sigma, 0.05), 4),
            "prior_log_slope": round(float(slope), 4),
        }
