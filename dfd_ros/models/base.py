"""What every network here is to those who train, score and export it: one way to call it, and what goes in and out.

    outputs = model(images)                                images (N, 3 k, H, W), outputs: name -> (N, c, H, W)

`images` are the k pictures that the model's `Signature` names, in that order, concatenated along the channels: RGB in
[0, 1] (`difference` in [-1, 1]). The outputs are a dictionary with exactly the signature's names in its order:

- `depth` (1 channel): metres. Every model has it. Of a model that ends in a convolution it can be any number, early in
  training also a negative one.
- `all_in_focus` (3 channels): RGB about [0, 1], not clamped, so that a loss can pull it back.
- `focus_depth` (1 channel): metres, a second opinion that training holds against `depth`.

Any height and width from 32 pixels on will do: a model that halves its picture n times wants multiples of 2^n, gets
them by repeating the last row and column, and what was added is cut off again. Models normalise their input themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from dfd_ros.errors import InputError

Picture = Literal["shallow", "deep", "all_in_focus", "difference"]
PICTURES: tuple[str, ...] = get_args(Picture)
"""Pictures that a model may take: at the wide and the narrow aperture, all in focus, and shallow minus deep."""
MIN_SIZE = 32
"""Least height and width, pixels."""


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        inputs: Pictures, in the order of the channels.
        outputs: Names of what it gives, in order; `depth` first.
        multiple: What the height and width are brought to a multiple of inside; as such no limit for the caller.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("depth",)
    multiple: int = 1

    def __post_init__(self) -> None:
        if not self.inputs or len(set(self.inputs)) < len(self.inputs) or not set(self.inputs) <= set(PICTURES):
            raise InputError(f"inputs must be different ones of {', '.join(PICTURES)}, got {list(self.inputs)}")

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return 3 * len(self.inputs)


class DepthModel(nn.Module):
    """A network that sees pictures and says depth.

    Subclasses hand their signature to `__init__` and write `predict`.
    """

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.signature = signature

    def forward(
        self,
        images: Tensor,  # (N, 3 k, H, W)
    ) -> dict[str, Tensor]:  # each (N, c, H, W)
        """See the module's head.

        Raises:
            InputError: Not so many channels, fewer than 32 pixels high or wide, or not floating.
        """
        height, width = images.shape[-2:]
        outputs = self.predict(self.prepare(images))
        return {name: outputs[name][..., :height, :width] for name in self.signature.outputs}

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs for images whose height and width are multiples of the signature's."""
        raise NotImplementedError

    def prepare(self, images: Tensor) -> Tensor:
        """The images checked, and grown to the right and at the bottom to the multiple; errors as for `forward`."""
        wanted = self.signature.channels
        if images.ndim != 4 or images.shape[1] != wanted:
            raise InputError(
                f"images must be (N, {wanted}, H, W), the RGB of {' and '.join(self.signature.inputs)}, "
                f"got shape {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        if height < MIN_SIZE or width < MIN_SIZE:
            raise InputError(f"images must be at least {MIN_SIZE} pixels high and wide, got {height} x {width}")
        if not images.is_floating_point():
            raise InputError(f"images must be floating, in [0, 1], got {images.dtype}")
        return pad_to_multiple(images, self.signature.multiple)

    def picture(self, images: Tensor, name: str) -> Tensor:
        """One of the pictures, (N, 3, H, W)."""
        first = 3 * self.signature.inputs.index(name)
        return images[:, first : first + 3]


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples, (N, C, H, W) -> (N, C, H', W')."""
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images


def check_range(near: float, far: float) -> None:
    """Refuse a range of depths that is none.

    Raises:
        InputError: Not 0 < near < far.
    """
    if not 0 < near < far:
        raise InputError(f"near and far must be rising positive metres, got {near} and {far}")
