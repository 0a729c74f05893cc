"""The first layer of the boundary cue on a GPU, `cue.cu`: what TensorRT's plugin launches. `cuda` compiles it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dfd_ros.optics.kernels.cuda import ELEMENTS

SOURCE = Path(__file__).with_name("cue.cu")

_TILE_WIDTH, _WARPS, _ROWS = 32, 8, 2  # a block's outputs are 32 x 16
_AT_ONCE = 32  # features of a block


@dataclass(frozen=True)
class CueKernel:
    """relu(weight * (shallow − deep) + bias) for so many features.

    Its arguments are, pointers first and last: shallow, deep, weight, bias; height, width; cue.

    Attributes:
        features: Channels of the cue.
        picture: What shallow and deep are made of: float32, float16 or bfloat16.
        dtype: What weight, bias and cue are made of.
    """

    features: int
    picture: torch.dtype
    dtype: torch.dtype

    @property
    def source(self) -> Path:
        """The text."""
        return SOURCE

    @property
    def name(self) -> str:
        """Its name in the compiled module."""
        return "boundary_cue"

    @property
    def defines(self) -> dict[str, str]:
        """What `cue.cu` asks to be defined."""
        return {
            "FEATURES": str(self.features),
            "AT_ONCE": str(min(_AT_ONCE, self.features)),
            "PICTURE_ELEMENT": str(ELEMENTS[self.picture]),
            "CUE_ELEMENT": str(ELEMENTS[self.dtype]),
            "TILE_WIDTH": str(_TILE_WIDTH),
            "WARPS": str(_WARPS),
            "ROWS": str(_ROWS),
        }

    def launch(self, batch: Any, height: Any, width: Any) -> tuple[tuple[Any, Any, Any], tuple[int, int, int]]:
        """Grid and block for pictures of that size: integers, or expressions that know +, // and *."""
        groups = -(-self.features // _AT_ONCE)
        columns = (width + (_TILE_WIDTH - 1)) // _TILE_WIDTH
        rows = (height + (_WARPS * _ROWS - 1)) // (_WARPS * _ROWS)
        return (columns, rows, batch * groups), (_TILE_WIDTH, _WARPS, 1)
