"""Dense ASPP with self-attention: depth from one all-in-focus picture, learned from how it looks out of focus.

Gur & Wolf, "Single Image Depth Estimation Trained via Depth from Defocus Cues" (CVPR 2019): the network of its figure on
the architecture, with the details of its authors' code. The encoder of DeepLabV3+ (Chen et al., ECCV 2018) on a ResNet-50
of output stride 16; atrous convolutions of rates 1, 6, 12 and 18, each of which sees all before it, and the global
mean; self-attention over all of them (Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019, here with
tanh on the energies); DeepLabV3+'s decoder with its low-level features; and a sigmoid that spans the depths linearly. The
network sees the picture at half its size.

The paper gives no parameter count; here it is 46,382,113. With weights of an ImageNet classifier its authors keep
the normalisations frozen. In training, a batch of one cannot be normalised after the global mean: take two at least.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature, check_range

RATES = (1, 6, 12, 18)
ASPP_FEATURES = 256
LOW_LEVEL_FEATURES = 48
OUTPUT_STRIDE = 16
_ENCODED = 2048  # channels of a ResNet-50's last layer
_LOW_LEVEL = 256  # and of its first


class DenseAspp(DepthModel):
    """The network.

    Args:
        inputs: The picture or pictures it takes.
        near, far: The depths that the sigmoid spans, metres.
        reduction: How many times smaller the network sees the pictures.
    """

    def __init__(
        self,
        inputs: tuple[str, ...] = ("all_in_focus",),
        near: float = 0.1,
        far: float = 10.0,
        reduction: int = 2,
    ) -> None:
        if reduction < 1:
            raise InputError(f"reduction must be at least 1, got {reduction}")
        check_range(near, far)
        signature = Signature(inputs, multiple=OUTPUT_STRIDE * reduction)
        super().__init__(signature)
        self.near, self.far, self.reduction = near, far, reduction
        width = ASPP_FEATURES
        self.encoder = ResNet50(signature.channels)
        self.atrous = nn.ModuleList(_atrous(_ENCODED + i * width, rate) for i, rate in enumerate(RATES))
        self.mean = _normed(_ENCODED + len(RATES) * width, width, 1)
        self.attention = SelfAttention((len(RATES) + 1) * width)
        self.project = _normed((len(RATES) + 1) * width, width, 1)
        self.low_level = _normed(_LOW_LEVEL, LOW_LEVEL_FEATURES, 1)
        self.join = nn.Sequential(_normed(width + LOW_LEVEL_FEATURES, width, 3), _normed(width, width, 3))
        self.head = nn.Sequential(_normed(width, 64, 3), _normed(64, 64, 3), nn.Conv2d(64, 1, 1))
        self.apply(_initialise)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        if self.reduction > 1:
            images = F.avg_pool2d(images, self.reduction)
        low_level, x = self.encoder(images)
        branches: list[Tensor] = []
        for atrous in self.atrous:
            branches.append(atrous(x))
            x = torch.cat([x, branches[-1]], dim=1)
        # A size of 1 needs no interpolation to grow.
        branches.append(self.mean(x.mean(dim=(2, 3), keepdim=True)).expand_as(branches[-1]))
        x = self.project(self.attention(torch.cat(branches, dim=1)))
        low_level = self.low_level(low_level)
        x = self.join(torch.cat([_enlarge(x, OUTPUT_STRIDE // 4), low_level], dim=1))
        relative = _enlarge(torch.sigmoid(self.head(_enlarge(x, 4))), self.reduction)
        return {"depth": self.near + (self.far - self.near) * relative}


class ResNet50(nn.Module):
    """A ResNet-50 of output stride 16: its last layer has dilated convolutions (rates 2, 4 and 8) in place of a stride.

    The parameters have torchvision's names.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(64, 64, stride=1, rates=(1,) * 3)
        self.layer2 = _layer(256, 128, stride=2, rates=(1,) * 4)
        self.layer3 = _layer(512, 256, stride=2, rates=(1,) * 6)
        self.layer4 = _layer(1024, 512, stride=1, rates=(2, 4, 8))

    def forward(
        self,
        images: Tensor,  # (N, C, H, W)
    ) -> tuple[Tensor, Tensor]:
        """Features at stride 4, (N, 256, H/4, W/4), and at stride 16, (N, 2048, H/16, W/16)."""
        x = F.max_pool2d(torch.relu_(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        low_level = self.layer1(x)
        return low_level, self.layer4(self.layer3(self.layer2(low_level)))


class _Bottleneck(nn.Module):
    def __init__(self, in_channels: int, width: int, stride: int, rate: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, dilation=rate, padding=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        return torch.relu_(self.bn3(self.conv3(y)) + self.downsample(x))


def _layer(in_channels: int, width: int, stride: int, rates: tuple[int, ...]) -> nn.Sequential:
    rest = (_Bottleneck(4 * width, width, 1, rate) for rate in rates[1:])
    return nn.Sequential(_Bottleneck(in_channels, width, stride, rates[0]), *rest)


class SelfAttention(nn.Module):
    """Every place looks at every place: values weighted by the softmax of tanh(query · key).

    Queries and keys have an eighth of the channels. Memory grows with the square of the number of places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.softmax(torch.tanh(query.transpose(1, 2) @ key), dim=-1)
        return (value @ attention.transpose(1, 2)).view_as(x)


def _atrous(in_channels: int, rate: int) -> nn.Sequential:
    return _normed(in_channels, ASPP_FEATURES, 1 if rate == 1 else 3, rate)


def _normed(in_channels: int, out_channels: int, kernel: int, rate: int = 1) -> nn.Sequential:
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, dilation=rate, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _enlarge(x: Tensor, times: int) -> Tensor:
    return F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=True) if times > 1 else x


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
