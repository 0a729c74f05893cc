"""From the energies of a few blur hypotheses to the likelihood of every signed CoC in every cell of the grid.

With the noise level of a band unknown, the likelihood of a CoC that leaves energy e of n independent samples is
(e + σ²)^(−n/2), σ² the least noise there can be (a Student t; the marginal over an unknown variance). Neighbours'
residuals, and what the model leaves out, go together: a cell counts as one sample of the low band and half a sample of
the high one, so that its likelihood is

    1 / (√(e_low + σ_low²) · ⁴√(e_high + σ_high²)).

Energies (not their logarithms, which have a cusp at the truth) are smooth in the CoC, near a parabola about its true
value: labels between the hypotheses take theirs by cubic splines, one matrix for all cells whose CoC varies with depth
alike. Where a lens blurs its corners more than its centre, each ring of cells has its own.
"""

from __future__ import annotations

import math

import cv2
import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from dfd_ros.optics.lens import Lens, field_radius

Image = NDArray[np.float32]

RING_STEP = 0.1
"""Largest difference of CoC within a ring, pixels."""
SUPPORT_RANGE = 6.0
"""How far evidence vouches for its neighbourhood, cells (standard deviation)."""
NOISE_CONTRAST = np.float32(0.1)
"""Evidence, ln of the best over the mean label's likelihood in a cell, that noise alone gives at most."""
SUPPORT = np.float32(0.05)
"""Evidence beyond that which halves confidence."""
OUTLIER_FLOOR = np.float32(1e-4)
"""Likelihood that no label falls below, against what the model does not know (occlusion, highlights, motion)."""
DIP = np.float32(0.3)
"""Between two hypotheses the energy may be this much of the least that any hypothesis leaves: splines can overshoot."""


class LabelLikelihood:
    """Likelihoods for one lens, image shape and set of labels; everything is computed and allocated once.

    Args:
        lens: Its `focus_blur` and `coc_field` are heeded.
        shape: (H, W) of the images.
        grid: (h, w) of the cells.
        labels: Signed CoCs at the image centre, pixels, (K,).
        cocs: The hypotheses that energies are given for, pixels, (n,), up to `largest_coc`.
        noise: Least noise energy per pixel in each band, (2,).

    Attributes:
        likelihood: (h, w, K), each cell's largest is 1.
        support: (h, w) in [0, 1), how much evidence there is in and about each cell.
    """

    def __init__(
        self,
        lens: Lens,
        shape: tuple[int, int],
        grid: tuple[int, int],
        labels: NDArray[np.float64],
        cocs: NDArray[np.float64],
        noise: NDArray[np.float64],
    ) -> None:
        self._noise = np.asarray(noise, np.float32)
        gain = cv2.resize(lens.coc_gain(field_radius(shape)), grid[::-1], interpolation=cv2.INTER_AREA)
        low, high = float(gain.min()), float(gain.max())
        rings = 1 + math.ceil((high - low) * float(np.abs(labels).max()) / RING_STEP)
        self._ring = np.minimum((gain - low) * (rings / max(high - low, 1e-9)), rings - 1).astype(np.int32)
        middles = low + (np.arange(rings) + 0.5) * ((high - low) / rings)
        label_cocs = np.hypot(middles[:, None] * labels, lens.focus_blur)
        # Energy is even in the CoC: flat at 0.
        spline = CubicSpline(cocs, np.eye(len(cocs)), bc_type=((1, np.zeros(len(cocs))), "not-a-knot"))
        self._to_labels = np.ascontiguousarray(spline(label_cocs).transpose(0, 2, 1), np.float32)
        self._contrast = np.empty(grid, np.float32)
        self.likelihood, self.support = np.empty((*grid, len(labels)), np.float32), np.empty(grid, np.float32)

    @staticmethod
    def largest_coc(lens: Lens, labels: NDArray[np.float64]) -> float:
        """The largest CoC that any label has anywhere in the image, pixels."""
        gain = max(1.0, float(lens.coc_gain(1.0)))
        return math.hypot(gain * float(np.abs(labels).max()), lens.focus_blur)

    def __call__(self, energies: Image, usable: Image) -> tuple[Image, Image]:
        """`likelihood` and `support` from the bands' energies (2, n, h, w) and the usable shares (h, w)."""
        _to_labels(energies, usable, self._noise, self._to_labels, self._ring, self.likelihood, self._contrast)
        cv2.GaussianBlur(self._contrast, (0, 0), SUPPORT_RANGE, dst=self.support, borderType=cv2.BORDER_REFLECT)
        self.support -= NOISE_CONTRAST
        np.maximum(self.support, np.float32(0.0), out=self.support)
        np.divide(self.support, self.support + SUPPORT, out=self.support)
        return self.likelihood, self.support


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _to_labels(energies, usable, noise, to_labels, ring, likelihood, contrast):  # type: ignore[no-untyped-def]
    """Likelihood (h, w, K) relative to the best label's, and ln of that over the mean label's (h, w)."""
    _, count, height, width = energies.shape
    labels = to_labels.shape[2]
    low, high = np.empty(labels, np.float32), np.empty(labels, np.float32)
    one = np.float32(1.0)
    for y in range(height):
        for x in range(width):
            matrix = ring[y, x]
            low[:] = noise[0]
            high[:] = noise[1]
            least_low, least_high = energies[0, 0, y, x], energies[1, 0, y, x]
            for n in range(count):
                a, b = energies[0, n, y, x], energies[1, n, y, x]
                least_low, least_high = min(least_low, a), min(least_high, b)
                for k in range(labels):
                    low[k] += a * to_labels[matrix, n, k]
                    high[k] += b * to_labels[matrix, n, k]
            least_low, least_high = DIP * least_low + noise[0], DIP * least_high + noise[1]
            top = np.float32(0.0)
            for k in range(labels):
                value = one / np.sqrt(max(low[k], least_low) * np.sqrt(max(high[k], least_high)))
                low[k] = value
                top = max(top, value)
            scale, share, total = one / top, usable[y, x], np.float32(0.0)
            if share < one:
                for k in range(labels):
                    low[k] = (low[k] * scale) ** share
                scale = one
            for k in range(labels):
                value = max(low[k] * scale, OUTLIER_FLOOR)
                likelihood[y, x, k] = value
                total += value
            contrast[y, x] = math.log(labels / total)
