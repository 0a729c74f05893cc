"""The boundary cue: features of the shallow minus the deep picture, where blur shows as edges.

Song, Kim, Chun & Lee, "Multi Image Depth from Defocus Network with Boundary Cue for Dual Aperture Camera" (ICASSP
2020). Two convolutions; the first one with the difference before it and the ReLU behind it is one node of an exported
graph, `dfd::BoundaryCue`, because the three move many bytes for little arithmetic and so are best done at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class BoundaryCue(nn.Sequential):
    """Shallow and deep picture, (N, 3, H, W) each -> the cue, (N, features, H, W).

    Args:
        features: Channels of the cue.
    """

    def __init__(self, features: int) -> None:
        super().__init__(
            nn.Conv2d(3, features, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(features, features, 3, padding=1)
        )

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:  # type: ignore[override]
        if torch.onnx.is_in_onnx_export():
            return self[2](_Node.apply(shallow, deep, self[0].weight, self[0].bias))
        return super().forward(shallow - deep)


class _Node(torch.autograd.Function):
    """relu(weight * (shallow − deep) + bias), as one node where it is exported."""

    @staticmethod
    def forward(ctx: Any, shallow: Tensor, deep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.relu(nn.functional.conv2d(shallow - deep, weight, bias, padding=1))

    @staticmethod
    def symbolic(g: Any, shallow: Any, deep: Any, weight: Any, bias: Any) -> Any:
        features, (count, _, height, width) = weight.type().sizes()[0], shallow.type().sizes()
        node = g.op("dfd::BoundaryCue", shallow, deep, weight, bias)
        node.setType(shallow.type().with_sizes([count, features, height, width]))
        return node
