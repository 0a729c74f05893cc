"""Depth from two apertures by the S-transform: no search, a few small filters.

Subbarao & Surya, "Depth from Defocus: A Spatial Domain Approach" (International Journal of Computer Vision 13(3), 1994). Where
the sharp picture is a cubic polynomial over the reach of the blur, a blurred one g is, with σ² the second moment of the PSF
over the plane (σ² = ∬ (x² + y²) h), g = f + σ²/4 ∇²f, and its inverse, the S-transform, f = g − σ²/4 ∇²g. Two pictures of the
same f have the same Laplacian, so

    G = σ_s² − σ_d² = 4 (g_s − g_d) / ∇²g,    ∇²g = (∇²g_s + ∇²g_d) / 2,

which is solved by least squares over a window, Σ 4 (g_s − g_d) ∇²g / Σ (∇²g)²: it keeps the sign. Both pictures are
smoothed before, which changes nothing in the equations but keeps the Laplacian from the noise. The paper turns G into
distance through a lens's table; here σ² = c²/8 of a CoC of c pixels (disk or Gaussian), so c_s² = 8 G / (1 − (N_s/N_d)²).
Flat areas, which the paper leaves out, borrow from larger windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.estimate import DepthEstimate
from dfd_ros.optics.lens import Lens, field_radius

Image = NDArray[np.float32]

SMOOTHING = 1.0
"""Standard deviation of the smoothing before differences are taken, pixels."""
WINDOW = 9
"""Edge of the window of the least squares, pixels, from the paper."""
COARSER_WINDOWS = (33, 129)
"""Those that flat areas borrow from, pixels."""
NOISE = 0.004
"""Standard deviation of the noise to expect, as a fraction of white."""
DOUBT = 20.0
"""Energy, over that of the noise, at which a window's own word counts as much as that of the next larger one. The noise of
a flat window then moves G by about 2/DOUBT square pixels."""
MOMENT = 8.0
"""CoC squared over the PSF's second moment: c²/8 for a disk, and for a Gaussian of its variance."""


@dataclass(frozen=True)
class BlurDifference:
    """How much more the shallow picture is blurred than the deep one.

    Attributes:
        moments: G = σ_s² − σ_d², square pixels, (H, W) float32; negative where the shallow one is the sharper.
        evidence: Share of the Laplacian's energy in the window that is not noise, (H, W) float32 in [0, 1].
    """

    moments: Image
    evidence: Image


def s_transform(
    shallow: Image, deep: Image, *, smoothing: float = SMOOTHING, window: int = WINDOW, noise: float = NOISE
) -> BlurDifference:
    """The difference of blur at every pixel.

    Args:
        shallow, deep: A registered pair of one brightness, (H, W) float32, linear in light with white at 1.
        smoothing: Standard deviation of the smoothing before, pixels.
        window: Edge of the window of the least squares, pixels.
        noise: Standard deviation of the noise, as a fraction of white.

    Raises:
        InputError: Pictures that are not of one shape and float32, or a setting that is not positive.
    """
    _check(shallow, deep)
    if not (smoothing > 0 and window > 0 and noise > 0):
        raise InputError(f"smoothing, window and noise must be positive, got {smoothing}, {window} and {noise}")
    shallow, deep = (cv2.GaussianBlur(image, (0, 0), smoothing) for image in (shallow, deep))
    laplacian = cv2.Laplacian(0.5 * (shallow + deep), cv2.CV_32F)
    product, energy = 4.0 * (shallow - deep) * laplacian, laplacian * laplacian
    # Energy of the noise behind smoothing and Laplacian: the integral of n²/2 k⁴ exp(−s² k²), n²/2 that of the mean of two.
    floor = np.float32(noise**2 / (4.0 * math.pi * smoothing**6))
    energy, doubt = energy - floor, np.float32(DOUBT) * floor
    moments = np.full_like(product, product.mean() / max(energy.mean(), floor))
    for edge in (*COARSER_WINDOWS[::-1], window):
        products, energies = (cv2.blur(image, (edge, edge)) for image in (product, energy))
        energies = np.maximum(energies, np.float32(0.0))
        moments = (products + doubt * moments) / (energies + doubt)
    return BlurDifference(moments, energies / (energies + doubt))


class STransformEstimator:
    """Depth from a pair by the S-transform, for one lens that focuses at or nearer than the nearest thing.

    Its confidence is the S-transform's evidence: it ranks pixels, but is not a calibrated probability.
    """

    def __init__(self, lens: Lens) -> None:
        self.lens = lens

    def estimate(self, shallow: Image, deep: Image) -> DepthEstimate:
        """Depth within the lens's range, and confidence, at every pixel; arguments and errors as for `s_transform`."""
        difference, lens = s_transform(shallow, deep), self.lens
        squares = (MOMENT * difference.moments - lens.focus_blur**2) / (1.0 - lens.f_number_ratio**2)
        depth = lens.depth(np.sqrt(np.maximum(squares, 0.0)), field=field_radius(shallow.shape))
        depth = np.clip(depth, lens.min_depth, lens.max_depth).astype(np.float32)
        return DepthEstimate(depth, difference.evidence)


def _check(shallow: Image, deep: Image) -> None:
    for name, image in (("shallow", shallow), ("deep", deep)):
        if image.ndim != 2 or image.dtype != np.float32 or not image.size:
            raise InputError(f"{name} must be (H, W) float32, got shape {image.shape} of {image.dtype}")
    if shallow.shape != deep.shape:
        raise InputError(f"shallow and deep must be of one shape, got {shallow.shape} and {deep.shape}")
