"""DenseNet-121 as an encoder: features at five scales, with the names that torchvision gives their parameters.

Huang, Liu, van der Maaten & Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017): table 1, the column
DenseNet-121 with growth rate 32, and section 3 for the layers (normalisation, ReLU, convolution; a bottleneck of four
times the growth rate; transitions that halve the channels). The paper reports about 8 M parameters for the classifier;
without its last layer the encoder has 6,953,856.

Two other stems are published: Carvalho et al. (see `d3net`) replace the max-pooling by a 4x4 convolution of stride 2, with
normalisation and leaky ReLUs, and Nazir et al. (see `two_headed`) take a 3x3 first convolution besides. Both have a leaky
ReLU on the last features, too.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

GROWTH_RATE = 32
BOTTLENECK = 4 * GROWTH_RATE
BLOCKS = (6, 12, 24, 16)
STEM_FEATURES = 64
LEAKY_SLOPE = 0.2
"""Slope of the leaky ReLUs of the strided stem, from its authors' code."""
CHANNELS = (64, 128, 256, 512, 1024)
"""Channels of the features at strides 2, 4, 8, 16 and 32."""
STRIDE = 32


class DenseNet121(nn.Module):
    """The encoder.

    Args:
        in_channels: Channels of the image.
        kernel: Edge of the first convolution's kernel, 7 or 3.
        strided: Whether a strided convolution stands for the max-pooling.
    """

    def __init__(self, in_channels: int = 3, *, kernel: int = 7, strided: bool = False) -> None:
        super().__init__()
        self.strided = strided
        width = STEM_FEATURES
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv0"] = nn.Conv2d(in_channels, width, kernel, stride=2, padding=kernel // 2, bias=False)
        layers["norm0"] = nn.BatchNorm2d(width)
        layers["relu0"] = _activation(strided)
        if strided:
            layers["downconv0"] = nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False)
            layers["norm1"] = nn.BatchNorm2d(width)
            layers["relu1"] = _activation(strided)
        else:
            layers["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
        for i, count in enumerate(BLOCKS, 1):
            layers[f"denseblock{i}"] = _DenseBlock(width, count)
            width += count * GROWTH_RATE
            if i < len(BLOCKS):
                layers[f"transition{i}"] = _Transition(width)
                width //= 2
        layers["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(layers)
        self.last_activation = _activation(strided)
        self.pool = nn.AvgPool2d(2)

    def forward(
        self,
        images: Tensor,  # (N, C, H, W)
    ) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32: after the stem, the three transitions, and the last block."""
        pyramid: list[Tensor] = []
        x = images
        for name, layer in self.features.named_children():
            x = layer(x)
            if name == "relu0" or name.startswith("transition"):
                pyramid.append(x)
            if name.startswith("transition"):
                x = self.pool(x)
        return [*pyramid, self.last_activation(x)]


class _DenseLayer(nn.Module):
    """Adds `GROWTH_RATE` channels to what it is given."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH_RATE, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        bottleneck = self.conv1(torch.relu_(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu_(self.norm2(bottleneck)))], dim=1)


class _DenseBlock(nn.Sequential):
    def __init__(self, in_channels: int, layers: int) -> None:
        super().__init__(
            OrderedDict((f"denselayer{i + 1}", _DenseLayer(in_channels + i * GROWTH_RATE)) for i in range(layers))
        )


class _Transition(nn.Sequential):
    """Halves the channels; the pooling follows outside, so that what comes before it can be had."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            OrderedDict(
                norm=nn.BatchNorm2d(in_channels),
                relu=nn.ReLU(inplace=True),
                conv=nn.Conv2d(in_channels, in_channels // 2, 1, bias=False),
            )
        )


def _activation(strided: bool) -> nn.Module:
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True) if strided else nn.ReLU(inplace=True)
