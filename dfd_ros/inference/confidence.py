"""Confidence: the probability that a depth is right to within 10 %, from what a network says of its own error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERANCE = 0.1
"""Relative error of a depth that confidence vouches for, as the estimator's (`EstimatorSettings.tolerance`)."""


def laplacian_confidence(deviation: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Probability that a depth is right to within a relative error, ln depth being Laplacian about the truth.

    Right is |z − z*| <= t z*, or −ln(1 + t) <= ln z* − ln z <= −ln(1 − t); of a distribution of that standard deviation,
    scale b = σ/√2, this holds 1 − (e^(−ln(1 + t)/b) + e^(ln(1 − t)/b))/2.
    """
    scale = deviation / math.sqrt(2.0)
    return 1.0 - 0.5 * (torch.exp(-math.log1p(tolerance) / scale) + torch.exp(math.log1p(-tolerance) / scale))
