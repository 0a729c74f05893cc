"""Measuring a lens's parallax: how the wide aperture's blur is displaced off the image's centre.

Windows of one depth tell by how much u the shallow picture lies off the deep one (`dfd_ros.window_shifts`). Over many of them,
each pair's own motion set apart,

    u = (m − 1) r + q c ρ (a x, y)/R + (shift and rotation of the pair),

with r = (x, y) the place in the image, ρ = |r|/R, R the corner's distance, c the signed CoC, q the lens's parallax, a its
aspect and m its magnification, by least squares with Cauchy weights. Uncertainties come from the bootstrap over pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import MAX_PARALLAX_ASPECT, Lens
from dfd_ros.window_shifts import window_means, window_shifts

Image = NDArray[np.float32]
Array = NDArray[np.float64]

MIN_WINDOWS = 50
"""Fewest that make a fit."""
MIN_PAIRS = 5
"""Fewest pairs with windows: a single pair's error looks like parallax."""
SIGNIFICANT = 4.0
"""Standard deviations that a parallax must be off zero to be believed."""

_MAX_DEPTH_SPREAD = 0.1  # standard deviation over mean
_MIN_KNOWN = 0.8  # of a window's depth
_DOUBT = 0.15  # pixels off the fit at which a window's weight is halved
_ROUNDS = 8
_BOOTSTRAPS = 200


@dataclass(frozen=True)
class Displacements:
    """What the windows of one pair show, arrays of shape (n,).

    Attributes:
        x, y: Place of the windows' centres from the image's, over the corner's distance.
        dx, dy: Of the shallow picture against the deep one, pixels.
        depth: Metres.
        corner: The corner's distance, pixels.
    """

    x: Array
    y: Array
    dx: Array
    dy: Array
    depth: Array
    corner: float


@dataclass(frozen=True)
class Parallax:
    """The fit.

    Attributes:
        parallax, sigma: The lens's, and its standard deviation.
        aspect: Of the parallax.
        magnification: The lens's.
    """

    parallax: float
    sigma: float
    aspect: float
    magnification: float

    @property
    def significant(self) -> bool:
        """Whether there is any."""
        return abs(self.parallax) > SIGNIFICANT * self.sigma


def measure_displacements(shallow: Image, deep: Image, depth: Image, scale: float = 1.0) -> Displacements:
    """Displacements of a pair in windows of one depth.

    Args:
        shallow, deep: (H, W) linear light, of one brightness, brought together to within a pixel.
        depth: (H, W) metres, NaN or 0 unknown.
        scale: By how much the shallow picture was larger before it was brought to the deep one's size.
    """
    known = np.isfinite(depth) & (depth > 0.0)
    z = np.where(known, depth, np.float32(0.0))
    share = window_means(known.astype(np.float32))
    mean_depth = window_means(z) / np.maximum(share, 1e-6)
    spread = np.sqrt(np.maximum(window_means(z * z) / np.maximum(share, 1e-6) - mean_depth**2, 0.0))
    found = window_shifts(shallow, deep)
    good = found.good & (share > _MIN_KNOWN) & (spread < _MAX_DEPTH_SPREAD * mean_depth)
    place, mean_depth = (np.broadcast_to(each, (len(good), *each.shape))[good] for each in (found.place, mean_depth))
    moved = found.shift[good] + (scale - 1.0) * found.corner * place
    return Displacements(
        place[:, 0], place[:, 1], moved[:, 0], moved[:, 1], mean_depth.astype(np.float64), found.corner
    )


def fit_parallax(pairs: Sequence[Displacements], lens: Lens) -> Parallax:
    """Parallax and magnification of a lens of known CoC.

    Raises:
        InputError: The pairs show too little.
    """
    used = [pair for pair in pairs if len(pair.x) >= 6]
    if len(used) < MIN_PAIRS or sum(len(pair.x) for pair in used) < MIN_WINDOWS:
        raise InputError(
            f"parallax: expected {MIN_PAIRS} pairs or more with {MIN_WINDOWS} textured windows, got {len(used)} with "
            f"{sum(len(pair.x) for pair in used)}"
        )
    designs = [_design(pair, lens) for pair in used]
    weights: list[Array] = [np.ones(len(pair.x)) for pair in used]
    for _ in range(_ROUNDS):
        parts = [_eliminated(*design, weight) for design, weight in zip(designs, weights, strict=True)]
        normals, rights = (np.stack([part[k] for part in parts]) for k in (0, 1))
        solution = np.linalg.solve(normals.sum(axis=0), rights.sum(axis=0))
        weights = [_weights(*design, weight, solution) for design, weight in zip(designs, weights, strict=True)]
    random = np.random.default_rng(0)
    drawn = random.integers(len(used), size=(_BOOTSTRAPS, len(used)))
    others = np.linalg.solve(normals[drawn].sum(axis=1), rights[drawn].sum(axis=1)[..., None])[..., 0]
    enlarged, along_x, along_y = map(float, solution)
    aspect = float(np.clip(along_x / along_y, 0.0, MAX_PARALLAX_ASPECT)) if along_y else 1.0
    return Parallax(along_y, float(np.std(others[:, -1])), aspect, 1.0 + enlarged / used[0].corner)


def _design(pair: Displacements, lens: Lens) -> tuple[Array, Array, Array]:
    """Columns of the lens (2 n, 3), of the pair's own motion (2 n, 3), and the displacements (2 n,)."""
    zero, one = np.zeros_like(pair.x), np.ones_like(pair.x)
    coc = lens.signed_coc(pair.depth) * np.hypot(pair.x, pair.y)
    shared = np.concatenate(
        [np.column_stack([pair.x, coc * pair.x, zero]), np.column_stack([pair.y, zero, coc * pair.y])]
    )
    own = np.concatenate([np.column_stack([one, zero, -pair.y]), np.column_stack([zero, one, pair.x])])
    return shared, own, np.concatenate([pair.dx, pair.dy])


def _eliminated(shared: Array, own: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """Normal matrix and right side of the lens's numbers, the pair's own solved for."""
    root = np.sqrt(np.concatenate([weight, weight]))[:, None]
    basis, _ = np.linalg.qr(own * root)
    rows = np.column_stack([shared, target]) * root
    rows = rows - basis @ (basis.T @ rows)
    return rows[:, :-1].T @ rows[:, :-1], rows[:, :-1].T @ rows[:, -1]


def _weights(shared: Array, own: Array, target: Array, weight: Array, solution: Array) -> Array:
    """New weights of a pair's windows, by how far they are off."""
    root = np.sqrt(np.concatenate([weight, weight]))
    left = target - shared @ solution
    motion = np.linalg.lstsq(own * root[:, None], left * root, rcond=None)[0]
    error = (left - own @ motion).reshape(2, -1)
    return np.asarray(1.0 / (1.0 + (error**2).sum(axis=0) / _DOUBT**2), np.float64)
