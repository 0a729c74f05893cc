"""Whitened projection: how well a blur hypothesis explains a shallow/deep pair, without knowing the scene.

If a patch has CoC c in the shallow image, its spectra are I_s = H_s(c)·A + n_s and I_d = H_d(c)·A + n_d with the
all-in-focus spectrum A unknown. The one combination free of A,

    r_c = (H_d I_s − H_s I_d) / sqrt(H_s² + H_d²),

is zero but for noise at the true c, and its noise is white and of one variance for EVERY c: its local energy is the
negative log-likelihood of c with A eliminated (projection onto the orthogonal complement of the blur, Favaro &
Soatto, PAMI 27(3), 2005, with the operator known in closed form), so flat areas favour no hypothesis. Images go in as
(H, W) float32 linear light; energies come out on a grid of `CELL` pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.special import j1

from dfd_ros.errors import InputError

Image = NDArray[np.float32]

CELL = 4
"""Side of a cell of the evidence grid, pixels."""
SATURATION = 0.95
"""Linear-light value from which a pixel counts as clipped."""
LOW_CUT = 0.015
"""Frequencies below this (cycles per pixel) are damped: vignetting and stray light, not blur, live there."""
SPECTRAL_FLOOR = 1e-4
"""Regularisation of H_s² + H_d² where both transfer functions vanish."""
MEAN_SIGMA = 20.0
"""Gaussian within which the two images' brightness is made equal, pixels: wider than any CoC."""
SHADOW = 0.01
"""Linear-light value added to local means before dividing by them: where read noise takes over from photon noise."""
BORDER = 16
"""Mirrored border around the images, pixels."""


def transfer_function(coc: float, fy: ArrayLike, fx: ArrayLike, psf: str = "disk") -> Image:
    """Transfer function of a PSF of diameter `coc` pixels at frequencies fy, fx in cycles per pixel.

    A disk gives 2 J1(πcf)/(πcf); a Gaussian of standard deviation c/4 exp(−2(πcf/4)²).
    """
    argument = np.pi * coc * np.hypot(fy, fx)
    if psf == "gaussian":
        return np.exp(-0.125 * argument**2).astype(np.float32)
    argument = np.maximum(argument, 1e-6)
    return (2.0 * j1(argument) / argument).astype(np.float32)


class WhitenedProjection:
    """Energies of r_c for a fixed image size and a fixed set of CoCs; every buffer and filter is made once.

    Args:
        shape: (H, W) of the images.
        cocs: CoC diameters in the shallow image, pixels, (n,).
        ratio: Deep over shallow CoC, in (0, 1).
        psf: `disk` or `gaussian`.
        window: Standard deviation of the Gaussian window that pools energies, pixels.
        threads: Threads for the Fourier transforms.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        cocs: NDArray[np.floating],
        ratio: float,
        psf: str = "disk",
        window: float = 6.0,
        threads: int = 1,
    ) -> None:
        if min(shape) < 8 * CELL:
            raise InputError(f"image size: expected at least {8 * CELL} pixels a side, got {shape[1]}x{shape[0]}")
        self.shape, self.cocs, self.threads = shape, np.asarray(cocs, np.float64), threads
        self.grid = (-(-shape[0] // CELL), -(-shape[1] // CELL))
        self._window = window / CELL
        border = max(BORDER, int(np.ceil(self.cocs.max())))
        self._size = tuple(scipy.fft.next_fast_len(n + 2 * border, real=True) for n in shape)
        self._origin = tuple((n - m) // 2 for n, m in zip(self._size, shape, strict=True))
        fy = scipy.fft.fftfreq(self._size[0])[:, None]
        fx = scipy.fft.rfftfreq(self._size[1])[None]
        band = -np.expm1(-(fx**2 + fy**2) / (2 * LOW_CUT**2))
        self._filters = []
        for coc in self.cocs:
            shallow = transfer_function(coc, fy, fx, psf)
            deep = transfer_function(coc * ratio, fy, fx, psf)
            norm = (band / np.sqrt(shallow**2 + deep**2 + SPECTRAL_FLOOR)).astype(np.float32)
            self._filters.append((deep * norm, shallow * norm))
        spectrum = (self._size[0], self._size[1] // 2 + 1)
        self._products = (np.empty(spectrum, np.complex64), np.empty(spectrum, np.complex64))
        self._square = np.empty(tuple(CELL * n for n in self.grid), np.float32)
        # A clipped pixel spoils everything its blur reaches.
        reach = 2 * int(np.ceil(self.cocs.max() / 2)) + 1
        self._spread = cv2.getStructuringElement(cv2.MORPH_RECT, (min(reach, 15), min(reach, 15)))
        self.energies = np.empty((len(self.cocs), *self.grid), np.float32)
        self.usable = np.empty(self.grid, np.float32)

    def __call__(self, shallow: Image, deep: Image) -> tuple[Image, Image]:
        """Mean energies of r_c (n, H/4, W/4) and the usable share of each cell's window (H/4, W/4), in [0, 1].

        Energies are per pixel, of images divided by the square root of the local mean, which makes photon and 8-bit
        gamma noise about even. Both arrays belong to the instance and are overwritten by the next call.

        Raises:
            InputError: The images are not float32 of the size promised.
        """
        for name, image in (("shallow", shallow), ("deep", deep)):
            if image.shape != self.shape or image.dtype != np.float32:
                raise InputError(
                    f"{name} image: expected float32 of shape {self.shape}, got {image.dtype} of shape {image.shape}"
                )
        mask = self._usable_pixels(shallow, deep)
        spectra = [scipy.fft.rfft2(image, workers=self.threads) for image in self._even(shallow, deep)]
        share = self._cells(mask) if mask is not None else None
        if share is None:
            self.usable.fill(1.0)
        else:
            cv2.GaussianBlur(share, (0, 0), self._window, dst=self.usable, borderType=cv2.BORDER_REFLECT)
        height, width = self.shape
        top, left = self._origin
        for energy, (for_shallow, for_deep) in zip(self.energies, self._filters, strict=True):
            product, other = self._products
            np.multiply(spectra[0], for_shallow, out=product)
            np.multiply(spectra[1], for_deep, out=other)
            product -= other
            residual = scipy.fft.irfft2(product, s=self._size, workers=self.threads, overwrite_x=True)
            residual = residual[top : top + height, left : left + width]
            square = self._square[:height, :width]
            np.multiply(residual, residual, out=square)
            if mask is not None:
                square *= mask
            cv2.GaussianBlur(self._cells(square), (0, 0), self._window, dst=energy, borderType=cv2.BORDER_REFLECT)
            if share is not None:
                energy /= np.maximum(self.usable, 1e-3)
        return self.energies, self.usable

    def _usable_pixels(self, shallow: Image, deep: Image) -> Image | None:
        """1 where no clipped pixel is within the reach of the blur, else 0; None where all pixels are usable."""
        clipped = np.maximum(shallow, deep) >= SATURATION
        if not clipped.any():
            return None
        return 1.0 - cv2.dilate(clipped.view(np.uint8), self._spread).astype(np.float32)

    def _even(self, shallow: Image, deep: Image) -> list[Image]:
        """Both images at the deep one's local brightness, divided by its square root, mirrored at the border."""
        height, width = self.shape
        small = (max(width // 8, 1), max(height // 8, 1))
        means = []
        for image in (shallow, deep):
            mean = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
            means.append(cv2.GaussianBlur(mean, (0, 0), MEAN_SIGMA / 8, borderType=cv2.BORDER_REFLECT) + SHADOW)
        stabilise = 1.0 / np.sqrt(means[1])
        factors = (means[1] / means[0] * stabilise, stabilise)
        bottom, right = (self._size[i] - self._origin[i] - self.shape[i] for i in (0, 1))
        top, left = self._origin
        out = []
        for image, factor in zip((shallow, deep), factors, strict=True):
            even = image * cv2.resize(factor, (width, height), interpolation=cv2.INTER_LINEAR)
            out.append(cv2.copyMakeBorder(even, top, bottom, left, right, cv2.BORDER_REFLECT))
        return out

    def _cells(self, image: Image) -> Image:
        """Means over cells, (H/4, W/4); the last row and column may be cut."""
        height, width = self.grid
        if image.shape != (height * CELL, width * CELL):
            bottom, right = height * CELL - image.shape[0], width * CELL - image.shape[1]
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
