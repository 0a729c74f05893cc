"""Depth from a shallow/deep pair with nothing learned: whitened projection, then the marginals of a Markov field.

1. `WhitenedProjection` gives, for each of a few CoC hypotheses and two bands of frequencies, the energy that the
   hypothesis leaves unexplained in a small window; `LabelLikelihood` makes likelihoods of them.
2. Labels are signed CoCs s = κ (1 − z_f/z), negative nearer than the focus: uniform in 1/z, so that a plane is linear in
   s. Both sides of the focus share the energies at |s|; labels cover the lens's depth range. What tells them apart is
   `SideEvidence`, for lenses with parallax.
3. `CombMarginals` gives each cell's posterior over labels: neighbours mostly agree, jump more readily across edges of the
   deep image, and jump to the depths the lens file's prior expects. Flat areas so take their depth from what holds
   them, near/far ambiguity is settled by where a surface passes through the focus.
4. `readout`: depth is the one with the least expected relative error; confidence is the posterior probability that it is
   right to within `tolerance`, less where there is no evidence nearby and beside depth edges. It is low on flat and
   clipped areas, between two modes, and wherever the lens's own depth error is large. Both are brought to full
   resolution along the edges of the deep image.

Images are (H, W) float32 in linear light with white at 1 (`tone.linear_grey`). Depth is metres, confidence [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.likelihood import LabelLikelihood
from dfd_ros.optics.projection import WhitenedProjection
from dfd_ros.optics.readout import discount_edges, read_out, upsample
from dfd_ros.optics.side import SideEvidence
from dfd_ros.optics.tree import CombMarginals

Image = NDArray[np.float32]

HYPOTHESIS_STRETCH = 12.0
"""CoC at which the spacing of the hypotheses has doubled, pixels: wide blur is only known coarsely."""
LABEL_STEP = 0.25
"""Smallest spacing of labels, pixels of CoC."""
MAX_LABELS = 64
"""Time grows with the labels; where the range needs more the step widens."""
LABEL_MULTIPLE = 8
"""Labels come in whole vectors of the processor."""
MODE_WIDTH = 0.8
"""Half the width of a mode of the posterior, pixels of CoC."""
MAX_DRIFT = 0.3
"""Largest probability of drifting by one label each way: three labels cannot carry more."""
PRIOR_FLOOR = 1e-3
"""Prior density, metres per ln metre, that no label falls below."""


@dataclass(frozen=True)
class EstimatorSettings:
    """Settings of the estimator; the defaults serve simulated streets and real rooms alike.

    Attributes:
        hypotheses: CoC hypotheses; time grows with them.
        window: Standard deviation of the window that pools energies, pixels.
        noise: Standard deviation of the noise at white, as a fraction of white.
        drift: Standard deviation of the CoC's change between neighbouring cells (4 pixels) of one surface, pixels.
        upward: How much likelier (in ln, per pixel of signed CoC) a surface recedes towards the top of the image than
            towards the bottom: cameras stand upright, and floors, roads and desks recede upwards.
        jump: Probability of a depth edge between neighbouring cells where the image shows no edge, and where it does.
        edge_contrast: Difference of the square roots of grey values that makes an image edge.
        tolerance: Relative depth error that confidence vouches for.
        threads: Threads for the Fourier transforms.
    """

    hypotheses: int = 16
    window: float = 2.8
    noise: float = 0.004
    drift: float = 0.3
    upward: float = 0.3
    jump: tuple[float, float] = (0.02, 0.3)
    edge_contrast: float = 0.06
    tolerance: float = 0.1
    threads: int = 1

    def __post_init__(self) -> None:
        if self.hypotheses < 4:
            raise InputError(f"estimator: hypotheses must be at least 4, got {self.hypotheses}")
        for name in ("window", "noise", "drift", "edge_contrast", "tolerance"):
            if not getattr(self, name) > 0:
                raise InputError(f"estimator: {name} must be positive, got {getattr(self, name)!r}")
        if not 0 < self.jump[0] <= self.jump[1] < 1:
            raise InputError(f"estimator: jump must be two rising probabilities in (0, 1), got {self.jump!r}")


@dataclass(frozen=True)
class DepthEstimate:
    """Depth (H, W) float32 metres, and confidence (H, W) float32 in [0, 1]: the probability that depth is right to
    within the settings' tolerance (10 %). Pixels above 0.5 are the ones to use. Some networks give the picture all in
    focus, too: (3, H, W) float32, RGB about [0, 1], encoded as the network has it."""

    depth: Image
    confidence: Image
    all_in_focus: Image | None = None


class WhitenedProjectionEstimator:
    """The estimator for one lens and image size; everything is computed and allocated once.

    Not for use by two threads at a time.
    """

    def __init__(self, lens: Lens, shape: tuple[int, int], settings: EstimatorSettings | None = None) -> None:
        self.lens, self.shape = lens, shape
        self.settings = settings = settings or EstimatorSettings()
        self._kappa = lens.coc_scale / lens.f_number_shallow
        self.labels = _labels(
            *(self._kappa * (1.0 - lens.focus_distance / z) for z in (lens.min_depth, lens.max_depth))
        )
        count = len(self.labels)
        cocs = _hypotheses(LabelLikelihood.largest_coc(lens, self.labels), settings.hypotheses)
        self._projection = projection = WhitenedProjection(
            shape, cocs, lens.f_number_ratio, lens.psf, settings.window, settings.threads
        )
        self._grid = grid = projection.grid
        noise = settings.noise**2 * projection.shares
        self._likelihood = LabelLikelihood(lens, shape, grid, self.labels, cocs, noise)
        self._side = SideEvidence(lens, shape, grid) if lens.parallax else None
        self._marginals = CombMarginals((*grid, count))
        self._prior = self._label_prior(grid[0])
        self._reach = max(1, round(MODE_WIDTH / (self.labels[1] - self.labels[0])))
        self._drift = self._drift_probabilities()
        self._blur = lens.coc_error
        self._signed_coc, self._mode, self._confidence = (np.empty(grid, np.float32) for _ in range(3))

    def estimate(self, shallow: Image, deep: Image, out: DepthEstimate | None = None) -> DepthEstimate:
        """Depth and confidence at every pixel of a registered pair of one brightness.

        Args:
            shallow, deep: (H, W) float32, linear light.
            out: Where to put them; new arrays if None.

        Raises:
            InputError: The images are not float32 of the estimator's shape.
        """
        settings, kappa = self.settings, np.float32(self._kappa)
        likelihood, support = self._likelihood(*self._projection(shallow, deep))
        if self._side is not None:
            likelihood *= np.exp(-self._side(shallow, deep)[..., None] * self.labels.astype(np.float32))
        guide = cv2.sqrt(cv2.resize(deep, self._grid[::-1], interpolation=cv2.INTER_AREA))
        posterior = self._marginals(
            likelihood,
            self._prior,
            self._jump_probability(guide, axis=1),
            self._jump_probability(guide, axis=0),
            *self._drift,
        )
        coc, mode, cells = self._signed_coc, self._mode, self._confidence
        labels, tolerance = self.labels.astype(np.float32), np.float32(settings.tolerance)
        read_out(posterior, labels, kappa, self._reach, np.float32(self._blur), tolerance, coc, mode)
        mode *= support
        discount_edges(coc, mode, kappa, tolerance, cells)
        out = out or DepthEstimate(np.empty(self.shape, np.float32), np.empty(self.shape, np.float32))
        focus, contrast = np.float32(self.lens.focus_distance), np.float32(settings.edge_contrast)
        upsample(coc, cells, guide, deep, contrast, kappa, focus, out.depth, out.confidence)
        return out

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
        depth = lens.focus_distance / (1.0 - self.labels / self._kappa)
        if math.isfinite(lens.prior_depth) and math.isfinite(lens.prior_log_sigma):
            height = 0.5 - (np.arange(rows) + 0.5) / rows
            centre = math.log(lens.prior_depth) + lens.prior_log_slope * height[:, None]
            deviation = (np.log(depth) - centre) / lens.prior_log_sigma
            # A density in ln z, on labels uniform in 1/z, weighs them by z.
            weight = depth * np.exp(-0.5 * deviation**2) + PRIOR_FLOOR
        return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)

    def _drift_probabilities(self) -> tuple[float, float, float]:
        """Of drifting by a label: sideways (each way), and going down a row rising and falling."""
        step = self.labels[1] - self.labels[0]
        spread = min(0.5 * (self.settings.drift / step) ** 2, MAX_DRIFT)
        slope = spread * math.tanh(0.5 * self.settings.upward * step)
        return spread, spread - slope, spread + slope


def _labels(first: float, last: float) -> NDArray[np.float64]:
    """Signed CoCs in equal steps that cover `first` to `last`; where that holds 0, 0 is one of them.

    Both sides of the focus then have labels at the same CoCs, and no side is favoured for fitting them better.
    """
    wanted = math.ceil((last - first) / LABEL_STEP) + 1
    count = min(-(-wanted // LABEL_MULTIPLE) * LABEL_MULTIPLE, MAX_LABELS)
    step = (last - first) / (count - 1)
    if first < 0.0 and last >= step:
        step = last / math.floor(last / step)
    return last - step * np.arange(count - 1.0, -1.0, -1.0)


def _hypotheses(largest: float, count: int) -> NDArray[np.float64]:
    """CoCs from 0 to `largest`, their spacing growing as HYPOTHESIS_STRETCH + c."""
    reach = math.log1p(largest / HYPOTHESIS_STRETCH)
    return HYPOTHESIS_STRETCH * np.expm1(np.linspace(0.0, reach, count))
