"""Evidence gathered over cells that belong together: what a wall's few textured cells tell, the whole wall may know.

How much of a neighbour's evidence bears on a cell is learned from the features there, an affinity for each of the eight
neighbours, near, farther and far, one after another (after convolutional spatial propagation, Cheng, Wang & Yang, ECCV 2018;
but sums, not means: independent evidence adds up, so a gathering is surer than its parts).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

REACHES = (1, 3, 9)
"""Cells to the neighbours of each gathering: windows of 3, 9 and 27 cells without a gap."""
_NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
_FIRST = -4.0  # affinity before the sigmoid: to begin with, a cell hardly heeds its neighbours


class AffinityGathering(nn.Module):
    """Gathers evidence by learned affinities.

    Args:
        features: Channels that affinities are learned from.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.affinities = nn.Conv2d(features, len(REACHES) * len(_NEIGHBOURS), 1)
        nn.init.zeros_(self.affinities.weight)
        nn.init.constant_(cast(Tensor, self.affinities.bias), _FIRST)

    def forward(self, evidence: Tensor, features: Tensor) -> Tensor:
        """Evidence (N, K, h, w) for each of K hypotheses, gathered; features are (N, features, h, w)."""
        height, width = evidence.shape[-2:]
        affinities = torch.sigmoid(self.affinities(features).to(evidence.dtype))
        for reach, shares in zip(REACHES, affinities.split(len(_NEIGHBOURS), dim=1), strict=True):
            around = F.pad(evidence, (reach,) * 4)
            for (y, x), share in zip(_NEIGHBOURS, shares.split(1, dim=1), strict=True):
                top, left = reach * (1 + y), reach * (1 + x)
                evidence = evidence + share * around[..., top : top + height, left : left + width]
        return evidence
