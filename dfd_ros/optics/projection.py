"""Whitened projection: how well a blur hypothesis explains a shallow/deep pair, without knowing the scene.

If a patch has CoC c in the shallow image, its spectra are I_s = H_s(c)·A + n_s and I_d = H_d(c)·A + n_d with the
all-in-focus spectrum A unknown. The one combination free of A,

    r_c = (H_d I_s − H_s I_d) / sqrt(H_s² + H_d²),

is zero but for noise at the true c, and its noise is white and of one variance for EVERY c: its local energy is the
negative log-likelihood of c with A eliminated (projection onto the orthogonal complement of the blur, Favaro &
Soatto, PAMI 27(3), 2005, with the operator known in closed form), so flat areas favour no hypothesis.

The residual is taken in two bands, below and above a quarter of a cycle per pixel, because they have different enemies:
low frequencies suffer from what the model leaves out, high ones from noise. Both bands live on a grid of every second
pixel. For the low one this loses nothing; the high one is folded onto it (its frequencies alias to distinct places or
add as independent signals do), which keeps its energy and a quarter of its samples. Transforms of a quarter of the size
serve for each hypothesis. Images go in as (H, W) float32 linear light; energies come out on a grid of `CELL` pixels.
"""

from __future__ import annotations

import math

import cv2
import numba as nb
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.transfer import transfer_function

Image = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

CELL = 4
"""Side of a cell of the evidence grid, pixels."""
BANDS = 2
"""The low band, then the high one."""
SPLIT = (0.177, 0.25)
"""Where the low band hands over to the high one, cycles per pixel: half an octave, below what the coarse grid carries."""
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
"""Least mirrored border around the images, pixels."""


class WhitenedProjection:
    """Energies of r_c for a fixed image size and a fixed set of CoCs; every buffer and filter is made once.

    Args:
        shape: (H, W) of the images.
        cocs: CoC diameters in the shallow image, pixels, (n,).
        ratio: Deep over shallow CoC, in (0, 1).
        psf: `disk` or `gaussian`.
        window: Standard deviation of the Gaussian window that pools energies, pixels.
        threads: Threads for the Fourier transforms.

    Attributes:
        grid: (h, w), the cells that cover the image.
        shares: The share of white noise that falls in each band, (2,).
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
        border = max(BORDER, math.ceil(self.cocs.max() / 2) + CELL)
        # Multiples of 4, so that the coarse grid has an even size too.
        self._size = tuple(4 * scipy.fft.next_fast_len(-(-(n + 2 * border) // 4)) for n in shape)
        self._origin = tuple((n - m) // 4 * 2 for n, m in zip(self._size, shape, strict=True))
        self._filters, self.shares = _filters(self._size, self.cocs, ratio, psf)
        half = (self._size[0] // 2, self._size[1] // 4 + 1)
        self._spectra = tuple(np.empty((3, *half), np.complex64) for _ in range(2))
        self._residuals = tuple(np.empty(half, np.complex64) for _ in range(BANDS))
        # A clipped pixel spoils everything its blur reaches.
        reach = 2 * int(np.ceil(self.cocs.max() / 2)) + 1
        self._spread = cv2.getStructuringElement(cv2.MORPH_RECT, (min(reach, 15), min(reach, 15)))
        self.energies = np.empty((BANDS, len(self.cocs), *self.grid), np.float32)
        self.usable = np.empty(self.grid, np.float32)

    def __call__(self, shallow: Image, deep: Image) -> tuple[Image, Image]:
        """Mean energies of r_c (2, n, H/4, W/4) and the usable share of each cell's window (H/4, W/4), in [0, 1].

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
        mask = self._usable_samples(shallow, deep)
        for image, spectrum in zip(self._even(shallow, deep), self._spectra, strict=True):
            _fold(scipy.fft.rfft2(image, workers=self.threads), spectrum)
        top, left = (n // 2 for n in self._origin)
        rows, columns = (2 * n for n in self.grid)
        for index, filters in enumerate(self._filters):
            _residuals(*self._spectra, filters, *self._residuals)
            for band, residual in enumerate(self._residuals):
                image = scipy.fft.irfft2(
                    residual, s=(self._size[0] // 2, self._size[1] // 2), workers=self.threads, overwrite_x=True
                )[top : top + rows, left : left + columns]
                if mask is not None:
                    image *= mask
                energy = self.energies[band, index]
                _cell_energy(image, energy)
                cv2.GaussianBlur(energy, (0, 0), self._window, dst=energy, borderType=cv2.BORDER_REFLECT)
        if mask is None:
            self.usable.fill(1.0)
        else:
            share = cv2.resize(mask, self.grid[::-1], interpolation=cv2.INTER_AREA)
            cv2.GaussianBlur(share, (0, 0), self._window, dst=self.usable, borderType=cv2.BORDER_REFLECT)
            self.energies /= np.maximum(self.usable, 1e-3)
        return self.energies, self.usable

    def _usable_samples(self, shallow: Image, deep: Image) -> Image | None:
        """On every second pixel, 1 where no clipped pixel is within the reach of the blur, else 0; None: all are usable."""
        clipped = np.maximum(shallow, deep) >= SATURATION
        if not clipped.any():
            return None
        usable = 1.0 - cv2.dilate(clipped.view(np.uint8), self._spread)[::2, ::2].astype(np.float32)
        bottom, right = (2 * n - m for n, m in zip(self.grid, usable.shape, strict=True))
        return cv2.copyMakeBorder(usable, 0, bottom, 0, right, cv2.BORDER_REPLICATE)

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


def _filters(
    size: tuple[int, int], cocs: NDArray[np.float64], ratio: float, psf: str
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Factors of I_s and I_d for each CoC, (n, H/4 + 1, 4, 2, W/4 + 1), and the bands' shares of white noise, (2,).

    The third axis: the low band, then the high band's part at frequencies below a quarter of a cycle per pixel both
    ways, above it in x, and above it in y. (The corner above it both ways carries noise more than light: left out.)
    Rows are those of |f_y|, counted from a half downwards where it is above a quarter.
    """
    height, width = size
    fy, fx = np.arange(height // 4 + 1)[:, None] / height, np.arange(width // 4 + 1)[None] / width
    parts = ((fy, fx), (fy, fx), (fy, 0.5 - fx), (0.5 - fy, fx))
    filters = np.empty((len(cocs), len(fy), len(parts), 2, fx.size), np.float32)
    powers = []
    for part, (y, x) in enumerate(parts):
        frequency = np.hypot(y, x)
        band = -np.expm1(-(frequency**2) / (2 * LOW_CUT**2))
        octave = np.log(np.maximum(frequency, 1e-9) / SPLIT[0]) / math.log(SPLIT[1] / SPLIT[0])
        phase = 0.5 * np.pi * np.clip(octave, 0.0, 1.0)
        band = band * (np.cos(phase) if part == 0 else np.sin(phase))
        powers.append(float(np.mean(band**2)) / 4.0)
        band = band / 4.0  # of the samples are kept
        for coc, out in zip(cocs, filters, strict=True):
            shallow = transfer_function(coc, frequency, psf)
            deep = transfer_function(coc * ratio, frequency, psf)
            norm = band / np.sqrt(shallow**2 + deep**2 + SPECTRAL_FLOOR)
            out[:, part, 0], out[:, part, 1] = deep * norm, shallow * norm
    return filters, np.array([powers[0], sum(powers[1:])])


def _fold(spectrum: Spectrum, out: Spectrum) -> None:
    """Sort a real image's spectrum (H, W/2 + 1) by where it aliases to on every second pixel, (3, H/2, W/4 + 1).

    Frequencies below a quarter both ways; above it in x; above it in y.
    """
    height, width = spectrum.shape[0], 2 * (spectrum.shape[1] - 1)
    rows, columns = height // 4, width // 4 + 1
    out[0, :rows], out[0, rows:] = spectrum[:rows, :columns], spectrum[3 * rows :, :columns]
    out[2, :rows], out[2, rows:] = spectrum[2 * rows : 3 * rows, :columns], spectrum[rows : 2 * rows, :columns]
    # The spectrum at −f_x, which is not stored, is the conjugate of that at (−f_y, f_x).
    mirrored = spectrum[:, width // 2 : width // 4 - 1 : -1]
    out[1, 0], out[1, 1:rows], out[1, rows:] = mirrored[0], mirrored[: 3 * rows : -1], mirrored[rows:0:-1]
    np.conjugate(out[1], out=out[1])


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _residuals(shallow, deep, filters, low, high):  # type: ignore[no-untyped-def]
    """Spectra of r_c in the low and the high band, (H/2, W/4 + 1), from folded spectra and one CoC's filters."""
    rows, columns = low.shape
    for y in range(rows):
        f = filters[min(y, rows - y)]
        for x in range(columns):
            low[y, x] = f[0, 0, x] * shallow[0, y, x] - f[0, 1, x] * deep[0, y, x]
        for x in range(columns):
            high[y, x] = (
                f[1, 0, x] * shallow[0, y, x]
                - f[1, 1, x] * deep[0, y, x]
                + f[2, 0, x] * shallow[1, y, x]
                - f[2, 1, x] * deep[1, y, x]
                + f[3, 0, x] * shallow[2, y, x]
                - f[3, 1, x] * deep[2, y, x]
            )


@nb.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _cell_energy(image, energy):  # type: ignore[no-untyped-def]
    """Mean square over 2 x 2 samples."""
    quarter = np.float32(0.25)
    for y in range(energy.shape[0]):
        for x in range(energy.shape[1]):
            a, b = image[2 * y, 2 * x], image[2 * y, 2 * x + 1]
            c, d = image[2 * y + 1, 2 * x], image[2 * y + 1, 2 * x + 1]
            energy[y, x] = quarter * (a * a + b * b + c * c + d * d)
