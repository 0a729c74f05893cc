"""The table of a lens: how well each of its depths explains what bands of a pair have in common.

At each level of the pyramid (`bands`) there are eight answers, of the four bands in the shallow and in the deep picture; what
is kept of them are the means G of their products around each cell. Where the CoCs are c_s and c_d the pictures' spectra are
H(c_s) and H(c_d) times that of the scene, P(f), so the answers are samples of eight variables of covariance α C, with

    C_ij = γ_ij ∫ P T_i T_j df + ½ ρ tr(C) δ_ij,    T = (B_1 H_s ... B_4 H_s, B_1 H_d ... B_4 H_d),

and α the scene's contrast, unknown. All that is not in the model makes noise, ρ, and makes the pictures less alike than blur
alone does: γ is a little below 1 between the two, and 1 within each. With the α that suits them best the samples' negative
log-likelihood (of Gaussian variables; its data are a Wishart matrix, Anderson, An Introduction to Multivariate Statistical
Analysis, ch. 7) is

    ln E + const,    E = tr(C⁻¹ G) det(C)^⅛,

over 8 and the number of samples. Half of the directions of these eight variables hold, for each c, next to nothing: those
in which one picture, blurred like the other, takes the other's bands away, whatever the texture. Four overlapping bands come
near them, so E judges a single cell as the whitened projection of `dfd_ros.optics.projection` does with hundreds of
frequencies.

E is linear in what was kept: the cost volume of a lens is one small matrix product, and the matrix is the lens. Tables are
inputs of the network: another lens, another table, the same weights.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import j1
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.models.bands import BANDS, LEVELS, band_responses

_BOTH = tuple(product(range(BANDS), repeat=2))
PRODUCTS = (
    *_BOTH,
    *((BANDS + i, BANDS + j) for i, j in _BOTH),
    *((i, BANDS + j) for i, j in _BOTH),
)
"""What is kept of a level: products of its answers, which are those of the shallow picture's bands, then of the deep one's.
Those within the shallow picture (each twice), within the deep one, and between the two."""
LABELS = 32
"""Depths of a table."""
NOISE = (0.002, 0.0005, 0.0001, 0.00003)
"""ρ of each level, as a fraction of the energy."""
INCOHERENCE = 0.003
"""1 − γ: misregistration, aberrations, depth that varies, as a fraction of what the pictures have in common."""
SLOPES = (0.5, 1.0, 1.5)
"""The scene's amplitude falls as 1 / f^slope (Field, JOSA A 4(12), 1987); the mean over these is P."""
LN_DEPTH, SIDE, PARALLAX, PARALLAX_ASPECT, DISPLACEMENT, PRIOR, PRIOR_TILT = range(7)
"""First columns of a table: ln depth (metres), side of the focus (−1 before to 1 behind), parallax and its aspect, by how much
that displaces the shallow picture outwards in the corners (pixels), ln of the lens file's prior for the depth in the picture's
middle row, and by how much it is less in the bottom row (more in the top one)."""
TABLE_COLUMNS = 7 + LEVELS * len(PRODUCTS)
"""Then the factors of each level's products."""

_SIDE_COC = 2.0  # pixels, from where on it is clear on which side of the focus a depth lies

Array = NDArray[np.float64]


class AnyLens(Protocol):
    """What is asked of a lens: `dfd_ros.optics.lens.Lens`."""

    f_number_deep: float
    min_depth: float
    max_depth: float
    psf: str
    focus_blur: float
    parallax: float
    parallax_aspect: float
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
    coc = zoom * np.asarray(lens.signed_coc(depth))
    parallax, aspect = np.full(labels, lens.parallax), np.full(labels, lens.parallax_aspect)
    columns = np.column_stack(
        [np.log(depth), np.tanh(coc / _SIDE_COC), parallax, aspect, parallax * coc, *_prior(lens, depth), factors]
    )
    return torch.from_numpy(columns.astype(np.float32))


def _prior(lens: AnyLens, depth: Array) -> tuple[Array, Array]:
    """Ln of the lens file's log-normal prior in the middle row, and its change to the bottom row; 0 where there is none."""
    if not (np.isfinite(lens.prior_depth) and np.isfinite(lens.prior_log_sigma)):
        return np.zeros_like(depth), np.zeros_like(depth)
    deviation = np.log(depth / lens.prior_depth) / lens.prior_log_sigma
    # From the middle row to the bottom one the prior's median falls by half its slope.
    return -0.5 * deviation**2, -0.5 * deviation * lens.prior_log_slope / lens.prior_log_sigma


def explanation(shallow: Array, deep: Array, psf: str = "disk") -> Array:
    """Factors of the `PRODUCTS` in the E of CoCs (pixels): (..., LEVELS, len(PRODUCTS))."""
    frequency, _ = band_responses()
    transfer = np.stack([_transfer(coc, frequency, psf) for coc in (shallow, deep)], axis=-2)  # (..., 2, n)
    alike = (1.0 - INCOHERENCE * (1.0 - np.eye(2)))[..., None]
    pictures = alike * transfer[..., :, None, :] * transfer[..., None, :, :]
    covariance = np.einsum("...abn,lijn->...laibj", pictures, _spectra(), optimize=True)
    count = 2 * BANDS
    covariance = covariance.reshape(*covariance.shape[:-4], count, count)
    noise = 0.5 * np.array(NOISE) * np.trace(covariance, axis1=-2, axis2=-1)
    covariance += noise[..., None, None] * np.eye(count)
    factors = np.linalg.inv(covariance) * (np.linalg.det(covariance) ** (1.0 / count))[..., None, None]
    rows, columns = np.transpose(PRODUCTS)
    between = rows // BANDS != columns // BANDS  # the two pictures: these stand for their mirror images, too
    return np.asarray((1.0 + between) * factors[..., rows, columns])


@cache
def _spectra() -> Array:
    """P df times the product of each two of a level's bands, averaged over directions, (LEVELS, BANDS, BANDS, n)."""
    frequency, response = band_responses()
    overlap = np.mean(response[:, :, None] * response[:, None], axis=3)  # (LEVELS, bands, bands, n)
    power = np.zeros((LEVELS, 1, 1, len(frequency)))
    for slope in SLOPES:
        falling = frequency ** (1.0 - 2.0 * slope)  # 2 π f df of them
        power += falling / (np.trace(overlap, axis1=1, axis2=2) @ falling)[:, None, None, None]
    return np.asarray(overlap * power / len(SLOPES))


def _transfer(coc: Array, frequency: Array, psf: str) -> Array:
    """What a blur leaves of each frequency, (..., n): the Fourier transform of a disk, or of a Gaussian of its variance."""
    argument = np.maximum(np.pi * np.asarray(coc)[..., None] * frequency, 1e-6)
    if psf == "disk":
        return np.asarray(2.0 * j1(argument) / argument)
    if psf == "gaussian":
        return np.exp(-0.125 * argument**2)
    raise InputError(f"psf: expected disk or gaussian, got {psf!r}")
