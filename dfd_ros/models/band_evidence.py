"""What a pair tells of its blur, with nothing learned: band energies, and how well each depth of a lens explains them.

Both pictures pass a pyramid of ring-shaped band filters, two at each level. So at each level there are four answers, of the
two bands in the shallow and in the deep picture, and around each cell of 4 x 4 pixels the means G of their ten products are
kept. Where the CoCs are c_s and c_d the pictures' spectra are H(c_s) and H(c_d) times that of the scene, P(f), so the answers
are samples of four variables of covariance α C, with

    C_ij = ∫ P T_i T_j df + ½ ρ tr(C) δ_ij,    T = (B_1 H_s, B_2 H_s, B_1 H_d, B_2 H_d),

and α the scene's contrast, unknown. With the α that suits them best the samples' negative log-likelihood (of Gaussian
variables; its data are a Wishart matrix, Anderson, An Introduction to Multivariate Statistical Analysis, ch. 7) is

    ln E + const,    E = tr(C⁻¹ G) det(C)^¼,

over 4 and the number of samples. What four variables add to two, one band by itself, is what the bands have in common: they
tell how H_s / H_d goes through the level's octave, whatever spectrum the texture happens to have there. So the blur of a single
cell is found five to nine times as sharply, which is near what the whitened projection of `dfd_ros.optics.projection` makes
of hundreds of frequencies. ρ stands for all that is not in the model.

E is linear in what was kept: the cost volume of a lens is one small matrix product, and the matrix is the lens.
`lens_table` makes it: for each of K depths, even in 1/z over the lens's range, ln z and ten factors a level. Tables are
inputs of the network: another lens, another table, the same weights.

With the energies comes what the pair tells of the side of the focus (`displacement`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from numpy.typing import NDArray
from scipy.special import j1
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.models.displacement import LEVELS as SHIFT_LEVELS
from dfd_ros.models.displacement import Displacement
from dfd_ros.models.filters import block_kernels, filter_each, filter_picture, with_margin

CELL = 4
"""Side of a cell, pixels."""
LEVELS = 4
"""Of the pyramid: each holds two bands, an octave below those of the one before."""
CENTRES = (0.30, 0.21)
"""Of a level's bands, cycles per pixel of the level: half an octave apart."""
BANDS = LEVELS * len(CENTRES)
PRODUCTS = ((0, 0), (1, 1), (2, 2), (3, 3), (0, 2), (1, 3), (0, 1), (2, 3), (0, 3), (1, 2))
"""What is kept of a level: products of its answers, which are s_1, s_2 of the shallow picture and d_1, d_2 of the deep one."""
FEATURES = 3 * BANDS
"""Channels of `band_features`."""
LABELS = 32
"""Depths of a table."""
UNMODELLED = (0.02, 0.006, 0.003, 0.003)
"""ρ of each level: noise, misregistration (more of a phase at finer levels) and aberrations, as a fraction of the energy."""
SLOPES = (0.5, 1.0, 1.5)
"""The scene's amplitude falls as 1 / f^slope (Field, JOSA A 4(12), 1987); the mean over these is P."""
NOISE_ENERGY = 2e-6
"""Added to energies before the logarithm: what 8 bits and compression leave on a flat wall."""
LN_DEPTH, SIDE, PARALLAX, PRIOR, PRIOR_TILT = range(5)
"""First columns of a lens table: ln depth (metres), side of the focus (−1 before to 1 behind), parallax, ln of the lens file's
prior for the depth in the picture's middle row, and by how much it is less in the bottom row (more in the top one)."""
TABLE_COLUMNS = 5 + LEVELS * len(PRODUCTS)
"""Then the factors of each level's products."""

_SIDE_COC = 2.0  # pixels, from where on it is clear on which side of the focus a depth lies
_LEAST_MISFIT = 4e-5  # E of a flat wall's noise
_BAND_SIGMA = 0.3  # octaves, of the log-Gabor ring (Field, 1987)
_TAPS = 9
_BLOCKS = ((2, 2), (1, 2), (1, 1), (1, 1))  # of each level: pixels between two answers, and answers a side of a cell
_MEAN_CELL = 16  # pixels: local brightness is made even over such cells, blurred
_SHADOW = 0.01  # linear light, where read noise takes over from photon noise
_BINOMIAL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0  # low pass of the pyramid (Burt & Adelson, 1983)
_TRIANGLE = np.array([1.0, 2.0, 1.0]) / 4.0

Array = NDArray[np.float64]


class AnyLens(Protocol):
    """What is asked of a lens: `dfd_ros.optics.lens.Lens`."""

    f_number_deep: float
    min_depth: float
    max_depth: float
    psf: str
    focus_blur: float
    parallax: float
    prior_depth: float
    prior_log_sigma: float
    prior_log_slope: float

    def coc(self, depth: Array, f_number: float | None = None) -> Any:
        """CoC in pixels at depths in metres, at the shallow aperture unless another is given."""

    def signed_coc(self, depth: Array) -> Any:
        """Likewise, negative before the focus."""


def lens_table(lens: AnyLens, labels: int = LABELS, zoom: float = 1.0) -> Tensor:
    """The table of a lens, (labels, TABLE_COLUMNS) float32.

    Args:
        lens: Its range is cut into `labels` depths; CoCs are pixels of the pictures as taken.
        labels: How many, from the farthest to the nearest.
        zoom: By how much the pictures were enlarged since they were taken (below 1: reduced, binned).

    Raises:
        InputError: Fewer than two labels, or a zoom that is not positive.
    """
    if labels < 2:
        raise InputError(f"labels: expected at least 2 depths, got {labels}")
    if not zoom > 0.0:
        raise InputError(f"zoom: expected a positive number, got {zoom:g}")
    depth = 1.0 / np.linspace(1.0 / lens.max_depth, 1.0 / lens.min_depth, labels)
    shallow = zoom * np.hypot(lens.coc(depth), lens.focus_blur)
    deep = zoom * np.asarray(lens.coc(depth, lens.f_number_deep))
    factors = explanation(shallow, deep, lens.psf).reshape(labels, -1)
    side = np.tanh(zoom * np.asarray(lens.signed_coc(depth)) / _SIDE_COC)
    columns = np.column_stack([np.log(depth), side, np.full(labels, lens.parallax), *_prior(lens, depth), factors])
    return torch.from_numpy(columns.astype(np.float32))


def _prior(lens: AnyLens, depth: Array) -> tuple[Array, Array]:
    """Ln of the lens file's log-normal prior in the middle row, and its change to the bottom row; 0 where there is none."""
    if not (np.isfinite(lens.prior_depth) and np.isfinite(lens.prior_log_sigma)):
        return np.zeros_like(depth), np.zeros_like(depth)
    deviation = np.log(depth / lens.prior_depth) / lens.prior_log_sigma
    # From the middle row to the bottom one the prior's median falls by half its slope.
    return -0.5 * deviation**2, -0.5 * deviation * lens.prior_log_slope / lens.prior_log_sigma


def explanation(shallow: Array, deep: Array, psf: str = "disk") -> Array:
    """Factors of the `PRODUCTS` in the E of CoCs (pixels): (..., LEVELS, 10)."""
    frequency, response = band_responses()
    response = response.reshape(LEVELS, len(CENTRES), -1)
    power = np.zeros((LEVELS, 1, len(frequency)))
    for slope in SLOPES:
        falling = frequency ** (1.0 - 2.0 * slope)  # 2 π f df of them
        power += falling / (response**2 @ falling).sum(axis=1)[:, None, None]
    transfer = np.stack([_transfer(coc, frequency, psf) for coc in (shallow, deep)], axis=-2)  # (..., 2, n)
    answers = transfer[..., None, :, None, :] * response[:, None]  # (..., LEVELS, 2, bands, n)
    answers = answers.reshape(*answers.shape[:-3], -1, len(frequency))
    covariance = (answers * (power / len(SLOPES))) @ answers.swapaxes(-1, -2)
    unmodelled = 0.5 * np.array(UNMODELLED) * np.trace(covariance, axis1=-2, axis2=-1)
    count = covariance.shape[-1]
    covariance += unmodelled[..., None, None] * np.eye(count)
    factors = np.linalg.inv(covariance) * (np.linalg.det(covariance) ** (1.0 / count))[..., None, None]
    return np.stack([(1.0 + (i != j)) * factors[..., i, j] for i, j in PRODUCTS], axis=-1)


@cache
def band_kernels() -> Array:
    """The two filters of a level, (2, 9, 9): log-Gabor rings cut to 9 taps, of no mean and unit energy."""
    size, reach = 64, _TAPS // 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    octaves = np.log2(np.maximum(frequency, 1e-9)[None] / np.array(CENTRES)[:, None, None])
    rings = np.exp(-0.5 * (octaves / _BAND_SIGMA) ** 2)
    window = np.hanning(_TAPS + 2)[1:-1]
    taper = np.minimum(1.0, 1.6 * np.outer(window, window))
    middle = slice(size // 2 - reach, size // 2 + reach + 1)
    kernels = np.fft.fftshift(np.fft.ifft2(rings).real, axes=(1, 2))[:, middle, middle] * taper
    kernels -= taper * kernels.sum(axis=(1, 2), keepdims=True) / taper.sum()
    return np.asarray(kernels / np.sqrt(np.sum(kernels**2, axis=(1, 2), keepdims=True)))


@cache
def band_responses() -> tuple[Array, Array]:
    """Frequencies (n,), cycles per pixel, and how each band answers to them (BANDS, n), averaged over directions."""
    frequency = np.linspace(0.004, 0.5, 500)
    y, x = np.mgrid[-(_TAPS // 2) : _TAPS // 2 + 1, -(_TAPS // 2) : _TAPS // 2 + 1]
    directions = np.linspace(0.0, np.pi / 4, 5)  # the others mirror them
    responses, passed = [], np.ones_like(frequency)
    for level in range(LEVELS):
        local = np.minimum(frequency * 2**level, 0.5)
        passed = passed * (frequency * 2**level <= 0.5)
        for kernel in band_kernels():
            waves = [
                np.cos(2.0 * np.pi * local[:, None, None] * (np.cos(angle) * x + np.sin(angle) * y))
                for angle in directions
            ]
            responses.append(passed * np.mean([np.sum(kernel * wave, axis=(1, 2)) for wave in waves], axis=0))
        passed = passed * (_BINOMIAL @ np.cos(2.0 * np.pi * np.outer(np.arange(-2, 3), local)))
    return frequency, np.stack(responses)


def _transfer(coc: Array, frequency: Array, psf: str) -> Array:
    """What a blur leaves of each frequency, (..., n): the Fourier transform of a disk, or of a Gaussian of its variance."""
    argument = np.maximum(np.pi * np.asarray(coc)[..., None] * frequency, 1e-6)
    if psf == "disk":
        return np.asarray(2.0 * j1(argument) / argument)
    if psf == "gaussian":
        return np.exp(-0.125 * argument**2)
    raise InputError(f"psf: expected disk or gaussian, got {psf!r}")


class BandStatistics(nn.Module):
    """What is kept of a pair, (N, 6, H, W) with H and W multiples of 32. Nothing in it is learned.

    The pair is shallow and deep RGB in [0, 1] with light = value ** gamma. Energies are those of pictures divided by the
    square root of the local mean (which makes photon noise even), the shallow one at the deep one's local brightness:
    neither exposure nor vignetting counts.
    """

    low_pass: Tensor
    triangle: Tensor
    luma: Tensor

    def __init__(self, gamma: float = 2.2) -> None:
        super().__init__()
        self.gamma = gamma

        def constant(name: str, value: Array) -> None:
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)

        self.displacement = Displacement(band_kernels(), _BLOCKS[:SHIFT_LEVELS])
        for level, block in enumerate(_BLOCKS):
            constant(f"kernels_{level}", block_kernels(band_kernels(), *block))
        constant("low_pass", np.outer(_BINOMIAL, _BINOMIAL)[None, None])
        constant("triangle", np.outer(_TRIANGLE, _TRIANGLE)[None, None])
        constant("luma", np.array([0.2126, 0.7152, 0.0722])[None, :, None, None])  # Rec. 709

    def forward(self, pair: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """The products, (N, LEVELS, 10, H/4, W/4), and the displacement's A and B, (N, 2, H/4, W/4).

        Args:
            pair: The pictures.
            size: Their height and width before they were grown to the right and at the bottom.
        """
        count, _, height, width = pair.shape
        size = size or (height, width)
        light = pair.reshape(2 * count, 3, height, width).clamp(0.0, 1.0) ** self.gamma
        picture = (light * self.luma).sum(dim=1, keepdim=True)
        evenness = self._evenness(picture)
        statistics, shifts = [], []
        for level in range(LEVELS):
            step, side = _BLOCKS[level]
            answers = filter_picture(picture, getattr(self, f"kernels_{level}"), _TAPS // 2, step * side)
            answers = answers.unflatten(0, (count, 2))  # (N, pictures, bands, b, h, w)
            shallow, deep = answers.unbind(dim=1)
            found = _products(shallow, deep)
            if level < SHIFT_LEVELS:
                lower = picture.unflatten(0, (count, 2))[:, 1]
                found += self.displacement.products(lower, shallow, level, size)
            products = filter_each(torch.cat(found, dim=1).mean(dim=2), self.triangle)
            if level == LEVELS - 1:
                products = F.interpolate(products, scale_factor=2.0, mode="bilinear", align_corners=False)
            s, d, x, _, _, *slopes = products.split(len(CENTRES), dim=1)
            if level < SHIFT_LEVELS:
                shifts.append(self.displacement.evidence(slopes, (s, x, d), 0.5**level, CELL, size))
            statistics.append(products[:, : len(PRODUCTS)] * evenness)
            if level < LEVELS - 1:
                picture = F.conv2d(with_margin(picture, 2), self.low_pass, stride=2)
        return torch.stack(statistics, dim=1), torch.stack(shifts).sum(dim=0)

    def _evenness(self, picture: Tensor) -> Tensor:
        """Factors of the products that make the pictures even, (N, 10, H/4, W/4)."""
        mean = F.conv2d(with_margin(F.avg_pool2d(picture, _MEAN_CELL), 2), self.low_pass)
        mean = F.interpolate(mean, scale_factor=_MEAN_CELL / CELL, mode="bilinear", align_corners=False) + _SHADOW
        shallow, deep = mean.reshape(-1, 2, *mean.shape[-2:]).chunk(2, dim=1)
        gain = deep / shallow
        gains = {(0, 0): gain * gain / deep, (0, 1): gain / deep, (1, 1): 1.0 / deep}  # of two answers' pictures
        return torch.cat([gains[i // 2, j // 2] for i, j in PRODUCTS], dim=1)


def _products(shallow: Tensor, deep: Tensor) -> list[Tensor]:
    """The `PRODUCTS` of answers (N, 2, b, h, w), two at a time."""
    (s_1, s_2), (d_1, d_2) = shallow.split(1, dim=1), deep.split(1, dim=1)
    return [shallow * shallow, deep * deep, shallow * deep, s_1 * s_2, d_1 * d_2, s_1 * d_2, s_2 * d_1]


def band_features(statistics: Tensor) -> Tensor:
    """What the statistics say without a lens, (N, LEVELS, 10, h, w) -> (N, FEATURES, h, w).

    Of each band, with the energies S, D and the correlation X of the pictures: ln S/D, ln D, and how alike the two are.
    """
    s, d, x, *_ = (found.flatten(1, 2) for found in statistics.split(len(CENTRES), dim=2))
    ln_s, ln_d = torch.log(torch.cat([s, d], dim=1) + NOISE_ENERGY).chunk(2, dim=1)
    ratio = ln_s - ln_d
    strength = 0.5 * ln_d + 4.0  # about 0 in the middle of what occurs
    likeness = 2.0 * x / (s + d + 2.0 * NOISE_ENERGY)
    return torch.cat([ratio, strength, likeness], dim=1)


def cost_volume(statistics: Tensor, table: Tensor) -> Tensor:
    """How badly each depth of a lens table explains the pair, by the levels' bands.

    Args:
        statistics: (N, LEVELS, 10, h, w), h and w even.
        table: (N or 1, K, TABLE_COLUMNS).

    Returns:
        (N, LEVELS, K, h/2, w/2): ln E of each level, less its mean over the depths.
    """
    count, _, products, height, width = statistics.shape
    labels = table.shape[1]
    pooled = F.avg_pool2d(statistics.flatten(1, 2), 2).reshape(count, LEVELS, products, -1)
    factors = table[..., -LEVELS * products :].reshape(-1, labels, LEVELS, products).transpose(1, 2)
    costs = torch.log((factors @ pooled).clamp_min(0.0) + _LEAST_MISFIT)  # (N, LEVELS, K, cells)
    costs = costs - costs.mean(dim=2, keepdim=True)
    return costs.reshape(count, LEVELS, labels, height // 2, width // 2)
