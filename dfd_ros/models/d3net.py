"""D3-Net: depth from one defocused picture, or from a shallow and a deep one, and how sure it is.

Carvalho, Le Saux, Trouvé-Peloux, Almansa & Champagnat, "Deep Depth from Defocus: how can defocus blur improve 3D
estimation using dense neural networks?" (ECCV Workshops 2018): the network of its figure on the architecture, with the
details of its authors' code. A DenseNet-121 encoder whose max-pooling is a 4x4 convolution of stride 2; a decoder of
five blocks, each a 4x4 transposed convolution of stride 2 and a 3x3 convolution with normalisation and ReLU, joined with the
encoder's features of its scale; one 3x3 convolution to depth. The first four convolutions of the decoder (its first
two blocks) have dropout of 0.5 in training. Nothing bounds the depth.

The paper gives no parameter count; here it is 24,220,224 for one picture, and 24,229,632 for two (the paper has one: a
pair is concatenated before the first convolution).

Uncertainty, after the paper and Gal & Ghahramani, "Dropout as a Bayesian Approximation" (ICML 2016): the
mean and the variance over 50 passes with dropout on. Such variance is of the weights (epistemic) alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature
from dfd_ros.models.densenet import CHANNELS, STRIDE, DenseNet121

DROPOUT = 0.5
DROPOUT_BLOCKS = 2
"""Blocks of the decoder, from the coarsest, with dropout."""
SAMPLES = 50
"""Passes with dropout, from the paper."""
_INIT_DEVIATION = 0.02  # of the authors' initial weights


class D3Net(DepthModel):
    """The network.

    Args:
        inputs: The picture or pictures it takes.
        dropout: Probability of dropout.
    """

    def __init__(self, inputs: tuple[str, ...] = ("shallow",), dropout: float = DROPOUT) -> None:
        signature = Signature(inputs, multiple=STRIDE)
        super().__init__(signature)
        self.encoder = DenseNet121(signature.channels, strided=True)
        self.decoder = Decoder(1, dropout)
        self.apply(initialise)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        return {"depth": self.decoder(self.encoder(centre(images)))}


class Decoder(nn.Module):
    """From features at strides 32, 16, 8, 4 and 2 to a picture of the input's size.

    Args:
        out_channels: Channels of the picture.
        dropout: Probability of dropout in the first two blocks.
    """

    def __init__(self, out_channels: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {dropout}")
        coarse = CHANNELS[::-1]
        # Each block gives as many channels as the encoder has at its scale; at full size, where it has none, as before.
        inner = (*coarse[1:], coarse[-1])
        incoming = (coarse[0], *(2 * channels for channels in coarse[1:]))
        self.blocks = nn.ModuleList(
            _UpBlock(a, b, dropout if i < DROPOUT_BLOCKS else 0.0)
            for i, (a, b) in enumerate(zip(incoming, inner, strict=True))
        )
        self.last = nn.Conv2d(inner[-1], out_channels, 3, padding=1, bias=False)

    def forward(
        self,
        pyramid: list[Tensor],  # from stride 2 to stride 32
    ) -> Tensor:  # (N, out_channels, H, W)
        x = pyramid[-1]
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 else torch.cat([pyramid[-1 - i], x], dim=1))
        return self.last(x)


class _UpBlock(nn.Sequential):
    """Twice the size."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.Dropout(dropout),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.Dropout(dropout),
            nn.ReLU(inplace=True),
        )


@dataclass(frozen=True)
class MonteCarlo:
    """Mean depth (N, 1, H, W), metres, and its epistemic variance, square metres."""

    mean: Tensor
    variance: Tensor


@torch.no_grad()
def monte_carlo(
    model: D3Net,
    images: Tensor,  # (N, 3 k, H, W)
    samples: int = SAMPLES,
) -> MonteCarlo:
    """Depth and its uncertainty by dropout at test time.

    The encoder, which has no dropout, runs once. Random numbers are torch's; the model's modes are left as they were.

    Args:
        model: The network.
        images: As for the network.
        samples: Passes, 2 at least.

    Raises:
        InputError: Too few samples, a model without dropout, or images that do not suit it.
    """
    if samples < 2:
        raise InputError(f"samples must be at least 2, got {samples}")
    if not any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        raise InputError("model must have dropout for its passes to differ, but its dropout is 0")
    height, width = images.shape[-2:]
    with _only_dropout_training(model):
        pyramid = model.encoder(centre(model.prepare(images)))
        mean = squares = torch.zeros((), dtype=images.dtype, device=images.device)
        for i in range(1, samples + 1):  # Welford's sums, which do not cancel
            depth = model.decoder(pyramid)
            step = depth - mean
            mean = mean + step / i
            squares = squares + step * (depth - mean)
    return MonteCarlo(mean[..., :height, :width], (squares / samples)[..., :height, :width])


@contextmanager
def _only_dropout_training(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = isinstance(module, nn.Dropout)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def centre(images: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1], about the range of the normalised pictures that ImageNet weights know."""
    return 2.0 * images - 1.0


def initialise(module: nn.Module) -> None:
    """The authors' initial weights: normal, with deviation 0.02, and as many about 1 for the normalisations."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, _INIT_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _INIT_DEVIATION)
        nn.init.zeros_(module.bias)
