"""Depth from a shallow/deep pair with nothing learned: whitened projection, then the marginals of a Markov field.

1. `WhitenedProjection` gives, for each of a few CoC hypotheses, the energy e that the hypothesis leaves unexplained in
   a small window. With the noise level unknown, the likelihood of the CoC is (e + σ²)^(−n/2), n the independent samples.
2. Labels are signed CoCs s = κ (1 − z_f/z), negative nearer than the focus: uniform in 1/z, so that a plane is linear in
   s. Both sides of the focus share the energies at |s|; labels cover the lens's depth range.
3. `CombMarginals` gives each cell's posterior over labels: neighbours mostly agree, jump more readily across edges of the
   deep image, and jump to the depths the lens file's prior expects. Flat areas so take their depth from what holds
   them, near/far ambiguity is settled by where a surface passes through the focus.
4. Depth is the one with the least expected relative error; confidence is the posterior probability that the depth is right to
   within `tolerance`, less where there is no evidence nearby: it is low on flat and clipped areas, between two modes,
   and wherever the lens's own depth error is large. Both are brought to full resolution along the edges of the deep image.

Images are (H, W) float32 in linear light with white at 1 (`tone.linear_grey`). Depth is metres, confidence [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.projection import CELL, WhitenedProjection
from dfd_ros.optics.tree import CombMarginals

Image = NDArray[np.float32]

HYPOTHESIS_STRETCH = 12.0
"""CoC at which the spacing of the hypotheses has doubled, pixels: wide blur is only known coarsely."""
LABEL_STEP = 0.25
"""Smallest spacing of labels, pixels of CoC."""
MAX_LABELS = 56
"""Time grows with the labels; where the range needs more the step widens."""
MODE_WIDTH = 0.8
"""Half the width of a mode of the posterior, pixels of CoC."""
MAX_DRIFT = 0.3
"""Largest probability of drifting by one label each way: three labels cannot carry more."""
COC_ERROR = 0.1
"""Error of a CoC measured on good texture, pixels (standard deviation)."""
PRIOR_FLOOR = 1e-3
"""Prior density, metres per ln metre, that no label falls below."""
SUPPORT_RANGE = 6.0
"""How far evidence vouches for its neighbourhood, cells (standard deviation)."""
SUPPORT = 0.1
"""Evidence, ln of the best over the mean label's likelihood per cell, that halves confidence: noise alone gives 0.03."""
OUTLIER_FLOOR = 1e-4
"""Likelihood that no label falls below, against what the model does not know (occlusion, highlights, motion)."""


@dataclass(frozen=True)
class EstimatorSettings:
    """Settings of the estimator; the defaults serve simulated streets and real rooms alike.

    Attributes:
        hypotheses: CoC hypotheses; time grows with them.
        window: Standard deviation of the window that pools energies, pixels.
        noise: Standard deviation of the noise at white, as a fraction of white.
        evidence: Independent samples per pixel: below 1, since neighbours' residuals and model errors go together.
        drift: Standard deviation of the CoC's change between neighbouring cells (4 pixels) of one surface, pixels.
        upward: How much likelier (in ln, per pixel of signed CoC) a surface recedes towards the top of the image than
            towards the bottom: cameras stand upright, and floors, roads and desks recede upwards.
        jump: Probability of a depth edge between neighbouring cells where the image shows no edge, and where it does.
        edge_contrast: Difference of the square roots of grey values that makes an image edge.
        tolerance: Relative depth error that confidence vouches for.
        threads: Threads for the Fourier transforms.
    """

    hypotheses: int = 16
    window: float = 4.0
    noise: float = 0.004
    evidence: float = 0.1
    drift: float = 0.3
    upward: float = 0.3
    jump: tuple[float, float] = (0.03, 0.2)
    edge_contrast: float = 0.06
    tolerance: float = 0.1
    threads: int = 1

    def __post_init__(self) -> None:
        if self.hypotheses < 4:
            raise InputError(f"estimator: hypotheses must be at least 4, got {self.hypotheses}")
        for name in ("window", "noise", "evidence", "drift", "edge_contrast", "tolerance"):
            if not getattr(self, name) > 0:
                raise InputError(f"estimator: {name} must be positive, got {getattr(self, name)!r}")
        if not 0 < self.jump[0] <= self.jump[1] < 1:
            raise InputError(f"estimator: jump must be two rising probabilities in (0, 1), got {self.jump!r}")


@dataclass(frozen=True)
class DepthEstimate:
    """Depth (H, W) float32 metres, and confidence (H, W) float32 in [0, 1]: the probability that depth is right to
    within the settings' tolerance (10 %). Pixels above 0.5 are the ones to use."""

    depth: Image
    confidence: Image


class WhitenedProjectionEstimator:
    """The estimator for one lens and image size; everything is computed and allocated once.

    Not for use by two threads at a time.
    """

    def __init__(self, lens: Lens, shape: tuple[int, int], settings: EstimatorSettings | None = None) -> None:
        self.lens, self.shape = lens, shape
        self.settings = settings = settings or EstimatorSettings()
        self._kappa = lens.coc_scale / lens.f_number_shallow
        # Labels: signed CoC over the depth range.
        first, last = (self._kappa * (1.0 - lens.focus_distance / z) for z in (lens.min_depth, lens.max_depth))
        count = int(np.clip(math.ceil((last - first) / LABEL_STEP), 3, MAX_LABELS - 1)) + 1
        self.labels = np.linspace(first, last, count)
        self._label_depth = lens.focus_distance / (1.0 - self.labels / self._kappa)
        label_cocs = np.hypot(self.labels, lens.focus_blur)
        cocs = _hypotheses(float(label_cocs.max()), settings.hypotheses)
        self._projection = WhitenedProjection(
            shape, cocs, lens.f_number_ratio, lens.psf, settings.window, settings.threads
        )
        # Log likelihoods are smooth in the CoC: labels take theirs by cubic splines, one matrix for all cells.
        self._to_labels = CubicSpline(cocs, np.eye(len(cocs)))(label_cocs).astype(np.float32)
        grid = self._projection.grid
        self._evidence = np.empty((*grid, count), np.float32)
        self._marginals = CombMarginals((*grid, count))
        self._prior = self._label_prior(grid[0])
        self._reach = max(1, round(MODE_WIDTH / (self.labels[1] - self.labels[0])))
        self._drift = self._drift_probabilities()
        self._blur = math.hypot(lens.coc_uncertainty, COC_ERROR)
        self._support = np.empty(grid, np.float32)
        self._signed_coc, self._cell_confidence = np.empty(grid, np.float32), np.empty(grid, np.float32)

    def estimate(self, shallow: Image, deep: Image) -> DepthEstimate:
        """Depth and confidence at every pixel of a registered pair of one brightness.

        Raises:
            InputError: The images are not float32 of the estimator's shape.
        """
        settings = self.settings
        energies, usable = self._projection(shallow, deep)
        self._likelihoods(energies, usable)
        guide = cv2.sqrt(cv2.resize(deep, self._evidence.shape[1::-1], interpolation=cv2.INTER_AREA))
        posterior = self._marginals(
            self._evidence,
            self._prior,
            self._jump_probability(guide, axis=1),
            self._jump_probability(guide, axis=0),
            *self._drift,
        )
        _read_out(
            posterior,
            self.labels.astype(np.float32),
            (1.0 / self._label_depth).astype(np.float32),
            self._reach,
            self._kappa,
            self._blur,
            settings.tolerance,
            self._signed_coc,
            self._cell_confidence,
        )
        self._cell_confidence *= self._support
        coc, confidence = np.empty(self.shape, np.float32), np.empty(self.shape, np.float32)
        _upsample(
            self._signed_coc, self._cell_confidence, guide, cv2.sqrt(deep), settings.edge_contrast, coc, confidence
        )
        np.subtract(1.0, coc / np.float32(self._kappa), out=coc)
        np.divide(np.float32(self.lens.focus_distance), coc, out=coc)
        return DepthEstimate(coc, confidence)

    def _likelihoods(self, energies: Image, usable: Image) -> None:
        count = len(energies)
        logs = np.log(energies.reshape(count, -1) + np.float32(self.settings.noise**2))
        logs *= (-0.5 * self.settings.evidence * CELL**2) * usable.reshape(1, -1)
        evidence = self._evidence.reshape(-1, len(self.labels))
        np.matmul(logs.T, self._to_labels.T, out=evidence)
        evidence -= evidence.max(axis=1, keepdims=True)
        support = -evidence.mean(axis=1).reshape(usable.shape)
        support = cv2.GaussianBlur(support, (0, 0), SUPPORT_RANGE, borderType=cv2.BORDER_REFLECT)
        np.divide(support, support + np.float32(SUPPORT), out=self._support)
        np.exp(evidence, out=evidence)
        np.maximum(evidence, np.float32(OUTLIER_FLOOR), out=evidence)

    def _jump_probability(self, guide: Image, axis: int) -> Image:
        """Jump probability between each cell and its next along `axis`, (H, W); the last one has no meaning."""
        low, high = self.settings.jump
        contrast = np.zeros_like(guide)
        if axis == 0:
            contrast[:-1] = guide[1:] - guide[:-1]
        else:
            contrast[:, :-1] = guide[:, 1:] - guide[:, :-1]
        return low + (high - low) * -np.expm1(-0.5 * (contrast / np.float32(self.settings.edge_contrast)) ** 2)

    def _label_prior(self, rows: int) -> Image:
        """Prior of each label in each row of the grid, (rows, K): the lens file's log-normal, else uniform in 1/z."""
        lens = self.lens
        weight = np.ones((rows, len(self.labels)))
        if math.isfinite(lens.prior_depth) and math.isfinite(lens.prior_log_sigma):
            height = 0.5 - (np.arange(rows) + 0.5) / rows
            centre = math.log(lens.prior_depth) + lens.prior_log_slope * height[:, None]
            deviation = (np.log(self._label_depth) - centre) / lens.prior_log_sigma
            # A density in ln z, on labels uniform in 1/z, weighs them by z.
            weight = self._label_depth * np.exp(-0.5 * deviation**2) + PRIOR_FLOOR
        return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)

    def _drift_probabilities(self) -> tuple[float, float, float]:
        """Of drifting by a label: sideways (each way), and going down a row rising and falling."""
        step = self.labels[1] - self.labels[0]
        spread = min(0.5 * (self.settings.drift / step) ** 2, MAX_DRIFT)
        slope = spread * math.tanh(0.5 * self.settings.upward * step)
        return spread, spread - slope, spread + slope


def _hypotheses(largest: float, count: int) -> NDArray[np.float64]:
    """CoCs from 0 to `largest`, their spacing growing as HYPOTHESIS_STRETCH + c."""
    reach = math.log1p(largest / HYPOTHESIS_STRETCH)
    return HYPOTHESIS_STRETCH * np.expm1(np.linspace(0.0, reach, count))


@nb.njit(cache=True, fastmath=True, nogil=True)
def _read_out(posterior, labels, inverse_depth, reach, kappa, blur, tolerance, coc, confidence):  # type: ignore[no-untyped-def]
    """Signed CoC of the depth with the least expected relative error, and the probability that it is within tolerance.

    The expectation of |d − z| / z is least at the median of the posterior weighted by 1/z; depth is the posterior's mean
    within `reach` labels of it. Between a near and a far reading of the same blur it so prefers the near one: taking 1 m
    for 4 m costs four times what the converse does, and a robot more. Those labels count as one normal distribution.
    """
    height, width, count = posterior.shape
    step = labels[1] - labels[0]
    for y in range(height):
        for x in range(width):
            p = posterior[y, x]
            half = np.float32(0.0)
            for k in range(count):
                half += np.float32(0.5) * p[k] * inverse_depth[k]
            best, below = 0, p[0] * inverse_depth[0]
            while below < half and best < count - 1:
                best += 1
                below += p[best] * inverse_depth[best]
            mass, mean, square = np.float32(1e-20), np.float32(0.0), np.float32(0.0)
            for j in range(max(0, best - reach), min(count, best + reach + 1)):
                offset = labels[j] - labels[best]
                mass += p[j]
                mean += p[j] * offset
                square += p[j] * offset * offset
            mean /= mass
            # A CoC between two labels shows as both: that much of the variance is the grid's.
            part = mean / step - math.floor(mean / step)
            variance = max(square / mass - mean * mean - part * (1.0 - part) * step * step, 0.0)
            mean += labels[best]
            coc[y, x] = mean
            # In CoC, depths larger and smaller by the tolerance are these far from the mean.
            reciprocal = kappa - mean
            scale = 1.0 / math.sqrt(2.0 * (variance + blur * blur))
            above = math.erf(reciprocal * tolerance / (1.0 + tolerance) * scale)
            under = math.erf(reciprocal * tolerance * scale)
            confidence[y, x] = min(mass * 0.5 * (above + under), 1.0)


@nb.njit(cache=True, fastmath=True, nogil=True)
def _upsample(coc, confidence, guide, full_guide, contrast, coc_out, confidence_out):  # type: ignore[no-untyped-def]
    """Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) over the four nearest cells."""
    rows, columns = coc.shape
    height, width = full_guide.shape
    sharpness = np.float32(1.0 / contrast)
    for v in range(height):
        fy = max((v + 0.5) / CELL - 0.5, 0.0)
        y = min(int(fy), rows - 1)
        y2, wy = min(y + 1, rows - 1), np.float32(fy - y)
        for u in range(width):
            fx = max((u + 0.5) / CELL - 0.5, 0.0)
            x = min(int(fx), columns - 1)
            x2, wx = min(x + 1, columns - 1), np.float32(fx - x)
            g = full_guide[v, u]
            total, mean, trust = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for i in range(4):
                yy = y2 if i & 2 else y
                xx = x2 if i & 1 else x
                w = (wy if i & 2 else np.float32(1.0) - wy) * (wx if i & 1 else np.float32(1.0) - wx)
                d = (guide[yy, xx] - g) * sharpness
                # A Cauchy kernel: cheap, and never zero.
                w = (w + np.float32(1e-3)) / (np.float32(1.0) + d * d)
                total += w
                mean += w * coc[yy, xx]
                trust += w * confidence[yy, xx]
            coc_out[v, u] = mean / total
            confidence_out[v, u] = trust / total
