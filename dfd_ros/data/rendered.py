"""Sharp pictures with depth, defocused as a lens would have taken them: pairs of apertures, and focal stacks.

The literature photographs RGB-D data with a lens of 15 mm focal length and 5.6 µm pixels at F/2 and F/14 (dual aperture),
or focused at 2, 4 and 8 m (Carvalho et al., 3DRW at ECCV 2018): `protocol_lens`. The picture is taken to be all in focus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.samples import (
    GAMMA,
    Dataset,
    Image,
    Numbered,
    RgbdFrame,
    RgbdFrames,
    Sample,
    as_values,
    decode,
    encode,
)
from dfd_ros.errors import InputError
from dfd_ros.lidar.colorize import colorize
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.render import render_defocus

PROTOCOL_FOCAL_LENGTH = 15e-3  # metres
PROTOCOL_PIXEL_PITCH = 5.6e-6  # metres
PROTOCOL_F_NUMBERS = (2.0, 14.0)
PROTOCOL_FOCUS_DISTANCES = (2.0, 4.0, 8.0)  # metres

Filling = Literal["nearest", "colorize"]
FILLINGS = ("nearest", "colorize")


def protocol_lens(focus_distance: float = PROTOCOL_FOCUS_DISTANCES[0], max_depth: float = 10.0) -> Lens:
    """The literature's lens for rendered data, focused at a distance; metres."""
    return Lens.physical(
        "protocol",
        focal_length=PROTOCOL_FOCAL_LENGTH,
        pixel_pitch=PROTOCOL_PIXEL_PITCH,
        focus_distance=focus_distance,
        f_number_shallow=PROTOCOL_F_NUMBERS[0],
        f_number_deep=PROTOCOL_F_NUMBERS[1],
        min_depth=0.5,
        max_depth=max_depth,
    )


class RenderedPairs(Dataset):
    """RGB-D frames photographed at both apertures of a lens.

    Args:
        frames: The sharp pictures.
        lens: What to photograph them with, its CoC in pixels of these pictures.
        fill: What stands in where depth is not known while rendering: the nearest known depth, or colorization, which
            suits sparse depth. Such depth stays NaN in the samples.
        gamma: Encoding exponent of the pictures; defocus mixes linear light.
    """

    def __init__(self, frames: RgbdFrames, lens: Lens, *, fill: Filling = "nearest", gamma: float = GAMMA) -> None:
        _check_filling(fill)
        self.names = frames.names
        self._frames, self._lens, self._fill, self._gamma = frames, lens, fill, gamma

    def read(self, index: int) -> Sample:
        frame, lens = self._frames.read(index), self._lens
        views = (lens.f_number_shallow, lens.f_number_deep)
        shallow, deep = _photograph(frame, lens, views, None, self._fill, self._gamma)
        return Sample(frame.name, shallow, deep, frame.depth, lens, as_values(frame.image), frame.weight, self._gamma)


@dataclass(frozen=True)
class FocalStack:
    """One scene at several focus distances.

    Attributes:
        name: The scene's.
        pictures: (n, H, W, 3) float32 in [0, 1] as photographed.
        focus_distances: Of each, metres.
        f_number: Of all.
        lens, depth, all_in_focus, weight, gamma: As of a `Sample`.
    """

    name: str
    pictures: Image
    focus_distances: tuple[float, ...]
    f_number: float
    lens: Lens
    depth: Image
    all_in_focus: Image
    weight: Image | None = None
    gamma: float = GAMMA


class RenderedStacks(Numbered[FocalStack]):
    """RGB-D frames photographed at several focus distances, at the lens's wide aperture; arguments as `RenderedPairs`."""

    def __init__(
        self,
        frames: RgbdFrames,
        lens: Lens,
        focus_distances: Sequence[float] = PROTOCOL_FOCUS_DISTANCES,
        *,
        fill: Filling = "nearest",
        gamma: float = GAMMA,
    ) -> None:
        _check_filling(fill)
        if not focus_distances:
            raise InputError("focus_distances: expected one or more distances in metres, got none")
        self.names = frames.names
        self._frames, self._lens, self._fill, self._gamma = frames, lens, fill, gamma
        self._focus_distances = tuple(map(float, focus_distances))

    def read(self, index: int) -> FocalStack:
        frame, lens = self._frames.read(index), self._lens
        apertures = [lens.f_number_shallow] * len(self._focus_distances)
        pictures = _photograph(frame, lens, apertures, self._focus_distances, self._fill, self._gamma)
        return FocalStack(
            frame.name,
            np.stack(pictures),
            self._focus_distances,
            lens.f_number_shallow,
            lens,
            frame.depth,
            as_values(frame.image),
            frame.weight,
            self._gamma,
        )


def _check_filling(fill: str) -> None:
    if fill not in FILLINGS:
        raise InputError(f"fill: expected one of {', '.join(FILLINGS)}, got {fill!r}")


def _photograph(
    frame: RgbdFrame,
    lens: Lens,
    f_numbers: Sequence[float],
    focus_distances: Sequence[float] | None,
    fill: Filling,
    gamma: float,
) -> list[Image]:
    """The frame through the lens, encoded and rounded to 8 bits as a camera's pictures are."""
    light = decode(as_values(frame.image), gamma)
    pictures = render_defocus(light, filled(frame.image, frame.depth, fill), lens, f_numbers, focus_distances)
    return [np.rint(255.0 * encode(picture, gamma)) * np.float32(1.0 / 255.0) for picture in pictures]


def filled(image: NDArray[np.uint8], depth: Image, fill: Filling = "nearest") -> Image:
    """Depth without gaps: (H, W) float32 metres, from (H, W) with NaN where it is not known.

    Raises:
        InputError: No depth is known.
    """
    known = np.isfinite(depth)
    if known.all():
        return depth
    if not known.any():
        raise InputError(f"depth: expected some of {depth.size} pixels to be known, got none")
    if fill == "colorize":
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255.0)
        depth = colorize(grey, depth).depth
        known = np.isfinite(depth)
        if known.all():
            return depth
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.empty(int(labels.max()) + 1, np.float32)
    values[labels[known]] = depth[known]
    return np.where(known, depth, values[labels])
