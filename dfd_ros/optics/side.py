"""Which side of the focus a patch lies on, as the lens's parallax has it.

Off the centre the shallow picture is displaced by u = q ρ² s outwards, the lens's share of it along the horizontal, with q the
parallax of the lens and s the signed CoC (`dfd_ros.optics.lens`). In a band of frequencies the shallow picture is then
g (d − u ∂d), with d the deep one, ∂ the derivative along that and g what blur leaves of the band; with R the energy that
s = g d leaves unexplained the negative log-likelihood of a small u is, but for a constant, u · Σ 2 g ⟨(s − g d) ∂d⟩ / R.

Only this linear term is kept, the part that is odd in s: how large a CoC is, blur says far better.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.optics.lens import Lens, field_radius

Image = NDArray[np.float32]

BANDS = ((1.0, 2.0), (2.0, 4.0))
"""Gaussians whose difference passes a band, pixels."""
SAMPLES = 0.1
"""Independent samples that a cell counts as: displacements of tenths of a pixel are also made by what is not modelled, alike
in whole objects."""
LARGEST = 0.3
"""Most that a cell may say, ln of a likelihood per pixel of CoC."""
UNMODELLED = np.float32(0.05)
"""Energy that displacement never explains, of the shallow band's."""
NOISE_ENERGY = np.float32(4e-6)


class SideEvidence:
    """The evidence of one lens and image size; what does not change is computed once.

    Args:
        lens: With a parallax.
        shape: (H, W) of the images.
        grid: (h, w) of the cells.
    """

    def __init__(self, lens: Lens, shape: tuple[int, int], grid: tuple[int, int]) -> None:
        height, width = shape
        field = field_radius(shape)
        corner = max(0.5 * float(np.hypot(height - 1, width - 1)), 0.5)
        length = np.maximum(field * np.float32(corner), np.float32(0.5))
        self._down = ((np.arange(height) - 0.5 * (height - 1))[:, None] / length).astype(np.float32)
        self._right = (lens.parallax_aspect * (np.arange(width) - 0.5 * (width - 1)) / length).astype(np.float32)
        self._size = grid[::-1]
        weight = cv2.resize(field * field, self._size, interpolation=cv2.INTER_AREA)
        self._weight = (2.0 * SAMPLES * lens.parallax * weight).astype(np.float32)

    def __call__(self, shallow: Image, deep: Image) -> Image:
        """What a pixel of signed CoC costs, (h, w): ln of the likelihood lost, negative where it is gained."""
        total = np.zeros(self._size[::-1], np.float32)
        for narrow, wide in BANDS:
            s, d = (cv2.GaussianBlur(p, (0, 0), narrow) - cv2.GaussianBlur(p, (0, 0), wide) for p in (shallow, deep))
            slope = 0.5 * (self._down * cv2.Sobel(d, -1, 0, 1, ksize=1) + self._right * cv2.Sobel(d, -1, 1, 0, ksize=1))
            products = ((s, s), (s, d), (d, d), (s, slope), (d, slope))
            ss, sd, dd, cross, own = (self._cells(a * b) for a, b in products)
            gain = np.clip(sd / (dd + np.float32(1e-12)), 0.0, 1.5)
            left = np.maximum(ss - gain * sd, 0.0) + UNMODELLED * ss + NOISE_ENERGY
            total += gain * (cross - gain * own) / left
        return np.clip(total * self._weight, -LARGEST, LARGEST)

    def _cells(self, picture: Image) -> Image:
        return cv2.GaussianBlur(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), (0, 0), 1.0)
