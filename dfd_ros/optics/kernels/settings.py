"""The settings that every back end of the PSF layer shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dfd_ros.errors import InputError

Kind = Literal["gaussian", "disk"]
CocAt = Literal["source", "destination"]

SMALLEST_WINDOW, LARGEST_WINDOW = 3, 31


@dataclass(frozen=True)
class PsfSettings:
    """How a picture is blurred by its circle of confusion (CoC).

    With C the CoC diameter, clamped to the window, and d the distance from tap to centre (both in pixels), the weight
    of a tap before normalisation is

        gaussian: C^-2 exp(-d² / (2 (spread C)²)),
        disk:     clamp(C/2 + 1/2 - d, 0, 1) / (C² + 1/3), a disk with a ramp one pixel wide along its rim.

    Attributes:
        window: Edge of the square window of taps, pixels; odd, 3 to 31.
        kind: Shape of the PSF, `gaussian` or `disk`.
        coc_at: Whose CoC weighs a tap: that of the pixel the light comes from (`source`), or of the one it goes to
            (`destination`).
        spread: Standard deviation of the Gaussian in units of the CoC: 0.5 as in Gur & Wolf (CVPR 2019), 0.25 for the
            variance of a disk. The disk does not heed it.

    Raises:
        InputError: One of them is out of range.
    """

    window: int = 7
    kind: Kind = "gaussian"
    coc_at: CocAt = "source"
    spread: float = 0.5

    def __post_init__(self) -> None:
        if not (SMALLEST_WINDOW <= self.window <= LARGEST_WINDOW and self.window % 2 == 1):
            expected = f"an odd number from {SMALLEST_WINDOW} to {LARGEST_WINDOW}"
            raise InputError(f"window is {self.window}, but must be {expected}")
        if self.kind not in get_args(Kind):
            raise InputError(f"kind is {self.kind!r}, but must be one of {', '.join(get_args(Kind))}")
        if self.coc_at not in get_args(CocAt):
            raise InputError(f"coc_at is {self.coc_at!r}, but must be one of {', '.join(get_args(CocAt))}")
        if not 0.0 < self.spread < float("inf"):
            raise InputError(f"spread is {self.spread}, but must be positive and finite")

    @property
    def radius(self) -> int:
        """Taps on each side of the centre."""
        return self.window // 2
