"""FocusNet and DefocusNet: depth without true depth, from pictures that must agree about it.

After Lu, Milliron, Slagter & Lu, "Self-Supervised Single-Image Depth Estimation From Focus and Defocus Clues" (IEEE Robotics
and Automation Letters, 2021). DefocusNet sees the defocused pictures, FocusNet the sharp one, and both say depth;
the lens then blurs the sharp picture by that depth, and the result must be the pictures taken (reconstruction), the two
depths must be one (consistency), and the losses in `learning` hold the rest (blur, smoothness). Where no all-in-focus
picture is given it is completed: each pixel from the picture with the most energy of the Laplacian of Gaussian around it.

The paper itself was not at hand: the layers below are the U-Net of its field (two 3x3 convolutions a scale, five scales,
bilinear enlargement; as in Maximov et al., "Focus on Defocus", CVPR 2020, and Si et al., "Fully Self-Supervised Depth
Estimation from Defocus Clue", CVPR 2023), and the sigmoid at its end spans inverse depth, in which CoC is linear. It gives no
count that we know; here the two have 17,262,370 parameters together for a pair.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature, check_range

SCALES = 5
FEATURES = 32
"""Channels at full size; twice as many at each scale."""
LOG_SIGMA = 1.0
"""Standard deviation of the Laplacian of Gaussian, pixels."""
LOG_WINDOW = 2.0
"""Standard deviation of the window that pools its energy, pixels."""
_REACH = 3  # kernels reach so many standard deviations


class FocusDefocus(DepthModel):
    """Both networks. `depth` is DefocusNet's, which is the one to use; `focus_depth` is FocusNet's.

    Args:
        inputs: The pictures it takes. If `all_in_focus` is among them FocusNet sees that one and DefocusNet all others,
            else DefocusNet sees all, and FocusNet the all-in-focus picture completed from them.
        near, far: The depths to span, metres.
        features: Channels at full size.
    """

    def __init__(
        self,
        inputs: tuple[str, ...] = ("shallow", "deep"),
        near: float = 0.5,
        far: float = 10.0,
        features: int = FEATURES,
    ) -> None:
        check_range(near, far)
        signature = Signature(inputs, ("depth", "focus_depth", "all_in_focus"), multiple=2 ** (SCALES - 1))
        super().__init__(signature)
        self._defocused = [name for name in inputs if name != "all_in_focus"]
        if not self._defocused or "difference" in inputs:
            raise InputError(f"inputs must hold a defocused picture and no difference, got {', '.join(inputs)}")
        self.near, self.far = near, far
        self.defocus = UNet(3 * len(self._defocused), 1, features)
        self.focus = UNet(3, 1, features)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        stack = [self.picture(images, name) for name in self._defocused]
        if "all_in_focus" in self.signature.inputs:
            sharp = self.picture(images, "all_in_focus")
        else:
            sharp = complete_all_in_focus(torch.stack(stack, dim=1))
        return {
            "depth": self._depth(self.defocus(2.0 * torch.cat(stack, dim=1) - 1.0)),
            "focus_depth": self._depth(self.focus(2.0 * sharp - 1.0)),
            "all_in_focus": sharp,
        }

    def _depth(self, logit: Tensor) -> Tensor:
        return 1.0 / (1.0 / self.far + (1.0 / self.near - 1.0 / self.far) * torch.sigmoid(logit))


class UNet(nn.Module):
    """Two convolutions a scale on the way down and up, with skips; no normalisation (small batches).

    The height and width must be multiples of 16.
    """

    def __init__(self, in_channels: int, out_channels: int, features: int) -> None:
        super().__init__()
        widths = [features * 2**i for i in range(SCALES)]
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip([in_channels, *widths[:-1]], widths, strict=True))
        self.narrow = nn.ModuleList(_convolution(2 * width, width) for width in widths[-2::-1])
        self.up = nn.ModuleList(_pair(2 * width, width) for width in widths[-2::-1])
        self.last = nn.Conv2d(features, out_channels, 3, padding=1)
        self.apply(_initialise)

    def forward(
        self,
        x: Tensor,  # (N, in_channels, H, W)
    ) -> Tensor:  # (N, out_channels, H, W)
        skips: list[Tensor] = []
        for i, down in enumerate(self.down):
            x = down(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x = narrow(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            x = up(torch.cat([skips.pop(), x], dim=1))
        return self.last(x)


def complete_all_in_focus(
    stack: Tensor,  # (N, S, 3, H, W)
    sigma: float = LOG_SIGMA,
    window: float = LOG_WINDOW,
) -> Tensor:  # (N, 3, H, W)
    """One sharp picture from several that are sharp in different places (or all blurred more or less).

    Each pixel is taken from the picture with the greatest energy there: the square of the grey value filtered by a
    Laplacian of Gaussian, pooled by a Gaussian window. Where they are equal the first one wins.

    Args:
        stack: S registered pictures of equal exposure.
        sigma: Standard deviation of the Laplacian of Gaussian, pixels.
        window: Standard deviation of the window, pixels.

    Raises:
        InputError: The stack has another form.
    """
    if stack.ndim != 5 or stack.shape[2] != 3:
        raise InputError(f"stack must be (N, S, 3, H, W), got shape {tuple(stack.shape)}")
    with torch.no_grad():
        grey = stack.mean(dim=2).flatten(0, 1).unsqueeze(1)
        energy = _filter(grey, laplacian_of_gaussian(sigma).to(stack)).square()
        window_kernel = _gaussian(window).to(stack)
        pooled = _filter(_filter(energy, window_kernel[None]), window_kernel[:, None])
        sharpest = pooled.view(*stack.shape[:2], *stack.shape[3:]).argmax(dim=1)
        index = sharpest[:, None, None].expand(-1, 1, 3, -1, -1)
    return stack.gather(1, index).squeeze(1)


def laplacian_of_gaussian(sigma: float) -> Tensor:
    """The kernel (x² + y² − 2σ²)/σ⁴ · G_σ, (2r + 1, 2r + 1), moved to sum 0 so that flat areas have no energy."""
    reach = round(_REACH * sigma + 1)
    squares = torch.arange(-reach, reach + 1.0) ** 2
    radius = squares[:, None] + squares
    gaussian = torch.exp(-radius / (2 * sigma**2)) / (2 * torch.pi * sigma**2)
    kernel = (radius - 2 * sigma**2) / sigma**4 * gaussian
    return kernel - kernel.mean()


def _gaussian(sigma: float) -> Tensor:
    reach = round(_REACH * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _filter(images: Tensor, kernel: Tensor) -> Tensor:
    """Images (N, 1, H, W) filtered by a symmetric kernel, with their borders repeated."""
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    return F.conv2d(F.pad(images, (across, across, down, down), mode="replicate"), kernel[None, None])


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(in_channels, out_channels), *_convolution(out_channels, out_channels))


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
