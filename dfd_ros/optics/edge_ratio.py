"""Depth from one defocused picture by how soft its edges are.

Zhuo & Sim, "Defocus map estimation from a single image" (Pattern Recognition 44(9), 2011). An edge is a step of any height,
blurred by a Gaussian of standard deviation σ. Blurred once more by a known Gaussian its gradient falls, at the edge, by
R = √((σ² + σ_0²)/σ²), so that σ = σ_0/√(R² − 1): the height drops out. Against noise the first gradient, too, is one of
a smoothed picture, as in the authors' code: with smoothings σ_1 < σ_2

    R = |∇(g_1)| / |∇(g_2)|,    σ² = (σ_2² − R² σ_1²) / (R² − 1).

The blur at the edges is smoothed by a joint bilateral filter and spread over the picture by the matting Laplacian L of
Levin, Lischinski & Weiss (PAMI 2008): (L + λ D) d = λ D d_edges, D being 1 at edges. L is never built: its product with a
picture is two passes of box filters (He, Sun & Tang, "Fast Matting Using Large Kernel Matting Laplacian Matrices", CVPR
2010); conjugate gradients solve it. The bilateral filter is computed by levels of grey (Yang, Tan & Ahuja, CVPR 2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.estimate import DepthEstimate
from dfd_ros.optics.lens import Lens, field_radius

Image = NDArray[np.float32]
Plane = NDArray[np.float64]

SMOOTHINGS = (1.0, 1.5)
"""σ_1 and σ_2, pixels, from the authors' code."""
EDGE_GRADIENT = (0.008, 0.02)
"""Gradients, white per pixel behind σ_1, that an edge must have to go on and to begin (Canny's two thresholds). Weaker
ones are mostly texture, whose strokes are not steps and look too sharp."""
PIXEL_VARIANCE = 1.0 / 12.0
"""Variance of a pixel's area, square pixels."""
OFF_CENTRE = math.sqrt(1.0 / 12.0)
"""How far (root mean square) the nearest pixel's centre is from an edge, pixels."""
COC_STEP = 0.1
"""Step of the table that turns the blur of edges into CoCs, pixels."""
FIDELITY = 0.005
"""λ, from the paper, for a matting Laplacian of 3x3 windows; brought to the scale of other windows."""
WINDOW_RADIUS = 1
"""Of the matting Laplacian's windows, pixels: the paper's 3x3."""
CONFIDENCE_REACH = 10.0
"""Distance from an edge at which confidence has fallen to 1/e, pixels."""
MATTING_EPSILON = 1e-5
"""Variance of grey (in [0, 1], square roots of light) below which a window of the guide counts as flat: that of noise."""
BILATERAL = (8.0, 0.1)
"""Standard deviations of the joint bilateral filter: pixels, and grey."""
_LEVELS = 11  # of grey in the bilateral filter, a standard deviation apart
_INT16_GRADIENT = 20_000.0  # int16 steps for a gradient of white per pixel
_QUADRATURE = 64  # points of the integrals over a disk's line spread
_TOLERANCE, _MAX_ITERATIONS = 1e-3, 400  # of the conjugate gradients


def edge_blur(image: Image, largest: float = 6.0) -> Image:
    """Standard deviation of the blur of each edge.

    Args:
        image: (H, W) float32, linear in light with white at 1.
        largest: Largest standard deviation to believe, pixels.

    Returns:
        Standard deviations, pixels, (H, W) float32; NaN where there is no edge, or one softer than `largest`.

    Raises:
        InputError: The picture has another form.
    """
    if image.ndim != 2 or image.dtype != np.float32 or not image.size:
        raise InputError(f"image must be (H, W) float32, got shape {image.shape} of {image.dtype}")
    (dx, dy), second = (_gradient(image, sigma) for sigma in SMOOTHINGS)
    low, high = (_INT16_GRADIENT * gradient for gradient in EDGE_GRADIENT)
    steps_x, steps_y = (np.clip(_INT16_GRADIENT * d, -32_000, 32_000).astype(np.int16) for d in (dx, dy))
    edges = cv2.Canny(steps_x, steps_y, low, high, L2gradient=True) > 0
    first_power = (dx * dx + dy * dy)[edges]
    second_power = (second[0] ** 2 + second[1] ** 2)[edges]
    ratio = first_power / np.maximum(second_power, np.finfo(np.float32).tiny)  # R²
    variance = _gaussian_variance(ratio)
    blur = np.full(image.shape, np.nan, np.float32)
    blur[edges] = np.where(variance <= largest**2, np.sqrt(variance), np.nan)
    return blur


def apparent_blur(coc: NDArray[np.float64], psf: str) -> NDArray[np.float64]:
    """What `edge_blur` says of an edge behind a lens.

    It takes every blur for a Gaussian's. The gradient of an edge is the PSF's line spread, and that of a disk has a flatter top
    than a Gaussian of its variance: a disk c wide seems a Gaussian of c/4 where c is small, and of c/2 where it is large. The
    pixel blurs by its own area, and its centre is not quite on the edge.

    Args:
        coc: CoCs, pixels, (n,).
        psf: `disk` or `gaussian` (standard deviation c/4).

    Returns:
        Standard deviations, pixels, (n,), rising with the CoC.
    """
    # The line spread as Gaussians beside each other: of a disk at x it is √(1 − (2 x/c)²).
    angle = (np.arange(_QUADRATURE) + 0.5) * (math.pi / _QUADRATURE)
    disk = psf == "disk"
    place = 0.5 * coc[:, None] * np.cos(angle) * disk - OFF_CENTRE
    own = PIXEL_VARIANCE + (0.0 if disk else 0.0625) * coc[:, None] ** 2
    first, second = (
        np.exp(-0.5 * place**2 / (own + sigma**2)) / np.sqrt(own + sigma**2) @ np.sin(angle) ** 2
        for sigma in SMOOTHINGS
    )
    return np.sqrt(_gaussian_variance((first / second) ** 2))


def smooth_edges(blur: Image, guide: Image) -> Image:
    """The blur of each edge as the mean of those near it whose grey is alike: a joint bilateral filter.

    Args:
        blur: As `edge_blur` gives it.
        guide: Grey, (H, W) float32 in [0, 1].
    """
    reach, deviation = BILATERAL
    edges = np.isfinite(blur)
    known, values = edges.astype(np.float32), np.where(edges, blur, np.float32(0.0))
    position = np.clip(guide, 0.0, 1.0)[edges] * (_LEVELS - 1)
    levels = np.linspace(0.0, 1.0, _LEVELS, dtype=np.float32)
    smooth = np.zeros(position.shape, np.float32)
    for i, level in enumerate(levels):
        share = np.maximum(1.0 - np.abs(position - i), 0.0)
        if not share.any():
            continue
        alike = np.exp(-0.5 * ((guide - level) / np.float32(deviation)) ** 2)
        weight, weighted = (cv2.GaussianBlur(alike * part, (0, 0), reach)[edges] for part in (known, values))
        smooth += share * weighted / np.maximum(weight, np.finfo(np.float32).tiny)
    out = np.full_like(blur, np.nan)
    out[edges] = smooth
    return out


def spread_edges(sparse: Image, guide: Image, radius: int = WINDOW_RADIUS) -> Image:
    """Values known at some pixels, spread to all along what looks alike.

    Args:
        sparse: (H, W) float32, NaN where not known.
        guide: Grey, (H, W) float32 in [0, 1].
        radius: Of the matting Laplacian's windows, pixels.

    Returns:
        (H, W) float32.

    Raises:
        InputError: Nothing is known, or the shapes differ.
    """
    known = np.isfinite(sparse)
    if guide.shape != sparse.shape or not known.any():
        raise InputError(
            f"sparse must have a finite value and guide its shape, got {known.sum()} values in {sparse.shape} "
            f"and a guide of {guide.shape}"
        )
    matting = _MattingLaplacian(guide, radius)
    fidelity = FIDELITY / 9.0 * (2 * radius + 1) ** 2 * known
    dense = _conjugate_gradients(
        lambda x: matting(x) + fidelity * x,
        fidelity * np.where(known, sparse, 0.0),
        matting.count + fidelity,
        _nearby_mean(sparse, known),
    )
    return dense.astype(np.float32)


class EdgeRatioEstimator:
    """Depth from the shallow picture alone, for one lens that focuses at or nearer than the nearest thing.

    Its confidence is 1 at edges and falls with the distance to the next one: it ranks pixels, but is no probability.
    """

    def __init__(self, lens: Lens) -> None:
        self.lens = lens
        widest = 1.5 * max(float(lens.coc(z)) for z in (lens.min_depth, lens.max_depth)) + 1.0
        self._cocs = np.arange(0.0, widest + COC_STEP, COC_STEP)
        self._blurs = apparent_blur(self._cocs, lens.psf)

    def estimate(self, shallow: Image, deep: Image | None = None) -> DepthEstimate:
        """Depth within the lens's range, and confidence, at every pixel; of a picture without edges NaN and 0.

        Args:
            shallow: (H, W) float32, linear in light with white at 1.
            deep: Not looked at.

        Raises:
            InputError: The picture has another form.
        """
        lens, guide = self.lens, np.sqrt(np.clip(shallow, 0.0, 1.0))
        sparse = edge_blur(shallow, float(self._blurs[-1]))
        if not np.isfinite(sparse).any():
            return DepthEstimate(np.full(shallow.shape, np.nan, np.float32), np.zeros(shallow.shape, np.float32))
        sigma = spread_edges(smooth_edges(sparse, guide), guide)
        squares = np.interp(sigma, self._blurs, self._cocs) ** 2 - lens.focus_blur**2
        depth = lens.depth(np.sqrt(np.maximum(squares, 0.0)), field=field_radius(shallow.shape))
        distance = cv2.distanceTransform(np.isnan(sparse).astype(np.uint8), cv2.DIST_L2, 3)
        confidence = np.exp(-distance / np.float32(CONFIDENCE_REACH))
        return DepthEstimate(np.clip(depth, lens.min_depth, lens.max_depth).astype(np.float32), confidence)


class _MattingLaplacian:
    """The product L x for (H, W) float64 pictures, of windows clipped at the border.

    In each window x is fitted by a line in the guide, a I + b; L x is how far x is from the lines of all the windows that a
    pixel is in, summed (He et al.).
    """

    def __init__(self, guide: Image, radius: int) -> None:
        self._guide = guide.astype(np.float64)
        self._size = (2 * radius + 1, 2 * radius + 1)
        self.count = self._sum(np.ones_like(self._guide))
        self._mean = self._sum(self._guide) / self.count
        self._gain = 1.0 / (self._sum(self._guide**2) / self.count - self._mean**2 + MATTING_EPSILON)

    def __call__(self, x: Plane) -> Plane:
        mean = self._sum(x) / self.count
        a = (self._sum(self._guide * x) / self.count - self._mean * mean) * self._gain
        return self.count * x - self._sum(a) * self._guide - self._sum(mean - a * self._mean)

    def _sum(self, x: Plane) -> Plane:
        return cv2.boxFilter(x, cv2.CV_64F, self._size, normalize=False, borderType=cv2.BORDER_CONSTANT)


def _gaussian_variance(ratio: NDArray[Any]) -> NDArray[Any]:
    """σ² of the Gaussian that makes the ratio of the gradients R, from R²; infinite where R is not above 1."""
    a, b = (sigma**2 for sigma in SMOOTHINGS)
    with np.errstate(divide="ignore"):
        return np.where(ratio > 1.0, np.maximum(b - ratio * a, 0.0) / np.maximum(ratio - 1.0, 0.0), np.inf)


def _gradient(image: Image, sigma: float) -> tuple[Image, Image]:
    """Derivatives in x and y of the picture smoothed by a Gaussian."""
    reach = math.ceil(4.0 * sigma)
    offset = np.arange(-reach, reach + 1.0)
    gaussian = np.exp(-0.5 * (offset / sigma) ** 2)
    gaussian /= gaussian.sum()
    derivative = offset * gaussian / np.sum(offset**2 * gaussian)  # 1 on a ramp
    return (
        cv2.sepFilter2D(image, cv2.CV_32F, derivative, gaussian),
        cv2.sepFilter2D(image, cv2.CV_32F, gaussian, derivative),
    )


def _conjugate_gradients(product: Callable[[Plane], Plane], right: Plane, diagonal: Plane, x: Plane) -> Plane:
    """Solve product(x) = right from the start x, with the diagonal as preconditioner.

    Ends at the tolerance or after so many steps, whichever is first: beyond, edges know their blur no better anyway.
    """
    residual = right - product(x)
    direction, power, enough = np.zeros_like(x), 1.0, (_TOLERANCE * np.linalg.norm(right)) ** 2
    for _ in range(_MAX_ITERATIONS):
        if np.vdot(residual, residual) <= enough:
            break
        scaled = residual / diagonal
        before, power = power, float(np.vdot(residual, scaled))
        direction = scaled + (power / before) * direction
        image = product(direction)
        step = power / float(np.vdot(direction, image))
        x = x + step * direction
        residual -= step * image
    return x


def _nearby_mean(sparse: Image, known: NDArray[np.bool_]) -> Plane:
    """Where the conjugate gradients begin: means of the known values around, of ever wider windows."""
    values = np.where(known, sparse, 0.0).astype(np.float64)
    mean = np.full(values.shape, values.sum() / known.sum())
    edge = 2 * max(sparse.shape) + 1
    while edge > 3:
        edge = edge // 3 | 1
        total, count = (cv2.blur(part, (edge, edge), borderType=cv2.BORDER_CONSTANT) for part in (values, known * 1.0))
        mean = (total + mean / edge**2) / (count + 1.0 / edge**2)
    return mean
