"""Fixed filters as convolutions that processors are fast at.

A convolution of one channel to one or two wastes most of a vector unit's lanes. So the answers of a block of positions are
computed as channels of one convolution with a longer stride (`block_kernels`), where the sum over the block is what is wanted
next; and many channels filtered alike are one convolution in groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def block_kernels(kernels: Array, places: Sequence[tuple[int, int]]) -> Array:
    """Kernels whose answers at a block's first pixel are those of `kernels` at each of its places.

    Args:
        kernels: (n, t, t).
        places: y and x in the block, pixels from its first.

    Returns:
        (n, len(places), t + the farthest, likewise).
    """
    number, taps, _ = kernels.shape
    whole = taps + max(max(place) for place in places)
    blocks = np.zeros((number, len(places), whole, whole))
    for index, (y, x) in enumerate(places):
        blocks[:, index, y : y + taps, x : x + taps] = kernels
    return blocks


def filter_picture(picture: Tensor, kernels: Tensor, reach: int, stride: int) -> Tensor:
    """The answers (N, n, b, H/stride, W/stride) of kernels (n, b, t, t) to a picture (N, 1, H, W).

    Args:
        picture: The picture.
        kernels: `block_kernels`, which reach so far beyond the pixels that their answers are for.
        reach: That, pixels.
        stride: Pixels a side of a block.
    """
    number, block, *taps = kernels.shape
    answers = F.conv2d(with_margin(picture, reach), kernels.reshape(number * block, 1, *taps), stride=stride)
    return answers.unflatten(1, (number, block))


def filter_each(channels: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Every channel of (N, C, h, w) filtered by one kernel, (1, 1, 3, 3), or (1, 1, 4, 4) for a stride of 2."""
    number, taps = channels.shape[1], kernel.shape[-1]
    return F.conv2d(with_margin(channels, 1), kernel.expand(number, 1, taps, taps), stride=stride, groups=number)


def mean_over_window(channels: Tensor, side: int) -> Tensor:
    """The mean of what lies in a window of odd side around each cell, (N, C, h, w): by columns, then by rows."""
    half = side // 2
    columns = F.avg_pool2d(channels, (side, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, side), 1, (0, half), count_include_pad=False)


def with_margin(picture: Tensor, width: int) -> Tensor:
    """Repeat the border, which any size of picture allows."""
    return F.pad(picture, (width, width, width, width), mode="replicate")


def enlarge_map(values: Tensor, factor: int) -> Tensor:
    """One channel (N, 1, h, w) enlarged linearly by an even factor: what `F.interpolate` gives, as one small convolution.

    Each value becomes a block of its own, of which all pixels have the same neighbours.
    """
    place = (np.arange(factor) + 0.5) / factor - 0.5  # of a block's pixels, values from its middle
    weights = np.stack([np.maximum(-place, 0.0), 1.0 - np.abs(place), np.maximum(place, 0.0)], axis=1)
    kernels = (weights[:, None, :, None] * weights[None, :, None]).reshape(factor * factor, 1, 3, 3)
    with torch.autocast(values.device.type, enabled=False):  # values are not rounded on the way
        answers = F.conv2d(with_margin(values, 1), torch.from_numpy(kernels).to(values))
    return F.pixel_shuffle(answers, factor)
