"""How much each return counts: less where it is noisy, hardly where it lies behind its surroundings.

A return that a nearer surface hides from the camera lands among that surface's own returns, and reaches deeper than
they. With u the deviation of the evidence around a return from its own inverse depth, relative (`evidence`), a return
that is farther than the mean of its surroundings counts

    ω = exp(−u² / t²),     t² = t_0² + (σ / z)²                        (Welsch; Holland and Welsch 1977)

and any return counts s² / (s² + (σ / z)²) of a certain one, where σ is the standard deviation of its range and s that
of predicting it from its neighbours. One that is nearer than its surroundings is a thin object, not an error.

That is the share that a return has in the best estimate of its pixel, its neighbours' prediction having the rest. The
toolbox's system gives it the share α / (1 + α), one half for every return; so here α_r is the `odds` of the share.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.lidar.evidence import FARTHEST, NEAREST, Evidence, FloatImage

_TOLERANCE = 0.3
"""t_0: what a return in front of the next surface may deviate, relative."""
_SMOOTHNESS = 0.02
"""s: how well neighbouring returns predict one, relative; the error of dense depth on simulated streets."""
_FAINTEST = 1.0 / 25.0
"""Intensity, of the mean, below which noise grows no further."""
_LEAST = 1e-6
"""What every return counts at least, so that the system always has a solution."""
_LEAST_DOUBT = 0.01
"""Share that its neighbours always keep: a return lies up to half a pixel beside the pixel's centre."""


def odds(weights: FloatImage) -> NDArray[np.float32]:
    """How strongly a return that counts `weights` in [0, 1] holds against its neighbours: at most a hundred to one."""
    return weights / (1.0 - weights + np.float32(_LEAST_DOUBT))


def write_robust_weights(
    evidence: Evidence, sparse: FloatImage, range_noise: float, intensity: FloatImage | None, weights: FloatImage
) -> None:
    """Write how much each return counts, in (0, 1], into `weights` (H, W).

    Args:
        evidence: Gathered from the same returns, each counting 1.
        sparse: (H, W) metres, NaN where unknown.
        range_noise: σ of a return of mean intensity, metres; σ² falls with intensity, the light that is detected.
        intensity: (H, W) at least 0 at the returns, in any unit; None where it is not known.
        weights: (H, W), written at the returns.
    """
    mean = 0.0
    if intensity is not None:
        bright = intensity[np.isfinite(sparse) & (intensity >= 0.0)]
        mean = float(bright.mean()) if len(bright) else 0.0
    _write(evidence.sums, sparse, range_noise, sparse if intensity is None else intensity, mean, weights)


@njit(nogil=True, cache=True, error_model="numpy")
def _write(sums, sparse, range_noise, intensity, mean_intensity, weights):  # type: ignore[no-untyped-def]
    height, width = sparse.shape
    for row in range(height):
        for column in range(width):
            z = sparse[row, column]
            if not NEAREST <= z <= FARTHEST:
                continue
            noise = (range_noise / z) ** 2
            if mean_intensity > 0.0 and intensity[row, column] >= 0.0:  # unknown is NaN
                noise /= max(intensity[row, column] / mean_intensity, _FAINTEST)
            weight = _SMOOTHNESS**2 / (_SMOOTHNESS**2 + noise)
            i, j = row // 2, column // 2
            evidence, first, second = sums[0, i, j], sums[1, i, j], sums[2, i, j]
            if first * z > evidence:  # nearer surroundings
                mean = first / evidence
                deviation = (second / evidence - 2.0 * mean / z + 1.0 / (z * z)) / (mean * mean)
                weight *= math.exp(-max(deviation, 0.0) / (_TOLERANCE**2 + noise))
            weights[row, column] = max(weight, _LEAST)
