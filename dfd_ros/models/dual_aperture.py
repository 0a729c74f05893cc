"""The dual-aperture network with boundary cue: depth from a shallow and a deep picture at full resolution.

Song, Kim, Chun & Lee, "Multi Image Depth from Defocus Network with Boundary Cue for Dual Aperture Camera" (ICASSP
2020): the network of its figure on the architecture. Twelve residual blocks of EDSR (Lim et al., "Enhanced Deep Residual
Networks for Single Image Super-Resolution", CVPR Workshops 2017, figure 2c: convolution, ReLU, convolution, no
normalisation) with 64 features, in three units of four. The boundary cue, features of the shallow minus the deep
picture, where blur shows as edges, enters as a skip layer.

About 966 k parameters are expected. The sources at hand leave open where the skip layer joins and how deep it is; here
two convolutions make the cue, and it is added at the entrance of each unit. With EDSR's convolution and global skip after
the last unit that is 966,017 parameters; 927,297 without the cue, the published ablation; and 925,569 for a single
picture, shallow or all in focus, the ablation's other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature
from dfd_ros.models.boundary_cue import BoundaryCue

FEATURES = 64
UNITS = 3
BLOCKS_PER_UNIT = 4
_MID_GREY = 0.5  # taken off the input, as EDSR takes off the mean of its training pictures


class DualAperture(DepthModel):
    """The network.

    Args:
        inputs: The pictures it takes.
        cue: Whether it has the boundary cue; None for where it can, with shallow and deep among the inputs.
        features: Channels inside.

    Raises:
        InputError: A cue is asked for without both pictures.
    """

    def __init__(
        self, inputs: tuple[str, ...] = ("shallow", "deep"), cue: bool | None = None, features: int = FEATURES
    ) -> None:
        signature = Signature(inputs)
        super().__init__(signature)
        pair = {"shallow", "deep"} <= set(inputs)
        if cue and not pair:
            raise InputError(f"cue needs the shallow and the deep picture, but inputs are {', '.join(inputs)}")
        self.head = _convolution(signature.channels, features)
        self.cue = BoundaryCue(features) if cue or (cue is None and pair) else None
        self.units = nn.ModuleList(
            nn.Sequential(*(_ResidualBlock(features) for _ in range(BLOCKS_PER_UNIT))) for _ in range(UNITS)
        )
        self.end = _convolution(features, features)
        self.tail = _convolution(features, 1)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        first = self.head(images - _MID_GREY)
        cue = None
        if self.cue is not None:
            cue = self.cue(self.picture(images, "shallow"), self.picture(images, "deep"))
        x = first
        for unit in self.units:
            x = unit(x if cue is None else x + cue)
        return {"depth": self.tail(self.end(x) + first)}


class _ResidualBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = _convolution(features, features)
        self.conv2 = _convolution(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu_(self.conv1(x)))


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
