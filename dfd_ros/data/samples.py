"""What training and evaluation read: scenes at two apertures with their depth, by number.

A `Dataset` is a finite one, in a fixed order; a `Stream` makes sample after sample without end, each a function of the
seed and its number alone, so that workers share the numbers and a training goes on where it was stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens

GAMMA = 2.2
"""Encoding exponent of photographs that do not tell theirs (sRGB is nearly this)."""
MEDIAN_DEPTH = (0.1, 200.0)
"""What the median depth of a scene may be, metres: beyond, the unit is another."""

Image = NDArray[np.float32]
LEAST_TRUST = 0.5
"""Weight from which depth counts as truth."""


@dataclass(frozen=True)
class Sample:
    """One scene at two apertures.

    Attributes:
        name: The scene's, unique in its dataset.
        shallow, deep: (H, W, 3) float32 RGB in [0, 1] as photographed: light ** (1 / gamma).
        depth: (H, W) float32 metres, NaN unknown.
        lens: What took the pictures, its CoC in pixels of these pictures; None where it was not calibrated.
        all_in_focus: (H, W, 3) float32 as the pictures; None where it is not known.
        weight: (H, W) float32 in [0, 1], how far the depth is to be trusted; None for equally everywhere.
        gamma: Encoding exponent of the pictures.
    """

    name: str
    shallow: Image
    deep: Image
    depth: Image
    lens: Lens | None
    all_in_focus: Image | None = None
    weight: Image | None = None
    gamma: float = GAMMA

    def truth(self) -> Image:
        """Depth that estimates are held against, (H, W): NaN where it is to be trusted less than `LEAST_TRUST`.

        A LiDAR's dense depth goes on above its field of view, with next to no confidence: fit to learn on at so low a
        weight, but no measure of an error.
        """
        if self.weight is None:
            return self.depth
        return np.where(self.weight >= LEAST_TRUST, self.depth, np.float32(np.nan))


@dataclass(frozen=True)
class RgbdFrame:
    """A sharp picture with its depth.

    Attributes:
        name: The scene's, unique in its data set.
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 metres, NaN unknown.
        weight: (H, W) float32 in [0, 1], how far the depth is to be trusted; None for equally everywhere.
    """

    name: str
    image: NDArray[np.uint8]
    depth: Image
    weight: Image | None = None


class MissingSampleError(InputError, IndexError):
    """There is no sample of that number; also an IndexError, so that a loop over a dataset ends."""


Item = TypeVar("Item", covariant=True)


class Numbered(ABC, Generic[Item]):
    """Things in a fixed order: `len(d)`, `d[i]`, `for one in d`.

    Attributes:
        names: Their names in that order.
    """

    names: tuple[str, ...]

    @abstractmethod
    def read(self, index: int) -> Item:
        """Number `index`, 0 to len − 1; raises InputError if a file is missing or broken."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise MissingSampleError(f"sample: expected a number of 0 to {len(self) - 1}, got {index}")
        return self.read(int(index) % len(self))

    def __iter__(self) -> Iterator[Item]:
        return (self.read(index) for index in range(len(self)))


class Dataset(Numbered[Sample]):
    """Samples in a fixed order."""


class RgbdFrames(Numbered[RgbdFrame]):
    """Sharp pictures with depth in a fixed order."""


class Stream(Protocol):
    """Samples without end."""

    def sample(self, index: int) -> Sample:
        """Sample `index` >= 0: always the same."""


class Window(Dataset):
    """The samples of a stream from number `start` on, `count` of them, as a dataset."""

    def __init__(self, stream: Stream, count: int, start: int = 0) -> None:
        if count < 1 or start < 0:
            raise InputError(f"samples of a stream: expected 1 or more from number 0 on, got {count} from {start}")
        self._stream, self._start = stream, start
        self.names = tuple(str(number) for number in range(start, start + count))

    def read(self, index: int) -> Sample:
        return self._stream.sample(self._start + index)


class Selection(Dataset):
    """Some samples of a dataset, by their numbers: a split, or a fold of a cross-validation."""

    def __init__(self, dataset: Dataset, numbers: Sequence[int]) -> None:
        for number in numbers:
            if not 0 <= number < len(dataset):
                raise MissingSampleError(f"sample: expected numbers of 0 to {len(dataset) - 1}, got {number}")
        self._dataset, self._numbers = dataset, tuple(numbers)
        self.names = tuple(dataset.names[number] for number in numbers)

    def read(self, index: int) -> Sample:
        return self._dataset.read(self._numbers[index])


def resized(sample: Sample, shape: tuple[int, int]) -> Sample:
    """A sample made smaller or larger, (height, width) pixels; the lens's CoC goes along by the width.

    Pictures are averaged over pixels, depth is taken from the nearest pixel.
    """
    size = (shape[1], shape[0])
    if sample.depth.shape == shape:
        return sample
    scale = shape[1] / sample.depth.shape[1]
    way = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    lens = sample.lens
    if lens is not None:
        lens = lens.zoomed(scale)

    def nearest(picture: Image) -> Image:
        return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST_EXACT)

    def mean(picture: Image) -> Image:
        return cv2.resize(picture, size, interpolation=way)

    return replace(
        sample,
        shallow=mean(sample.shallow),
        deep=mean(sample.deep),
        depth=nearest(sample.depth),
        lens=lens,
        all_in_focus=None if sample.all_in_focus is None else mean(sample.all_in_focus),
        weight=None if sample.weight is None else nearest(sample.weight),
    )


def check_depth(what: str, depth: NDArray[np.floating]) -> None:
    """Refuse depths (metres, NaN unknown) that can only be of another unit.

    Raises:
        InputError: No pixel is known, one is not positive, or the median is outside `MEDIAN_DEPTH`.
    """
    known = depth[np.isfinite(depth)]
    if not known.size:
        raise InputError(f"{what}: expected a depth at some pixel at least, got none of {depth.size} known")
    if known.min() <= 0.0:
        raise InputError(f"{what}: expected positive depths in metres (NaN unknown), got {float(known.min()):g}")
    median = float(np.median(known))
    low, high = MEDIAN_DEPTH
    if not low <= median <= high:
        hint = "looks like millimetres" if median > high else "looks like kilometres, or depth scaled to [0, 1]"
        raise InputError(f"{what}: expected metres, a median of {low:g} to {high:g}, got {median:.4g} ({hint})")


def check_same_size(what: str, expected: NDArray[Any], got: NDArray[Any], whose: str) -> None:
    """Refuse pictures of other sizes.

    Raises:
        InputError: `got` has not the height and width of `expected`, which is `whose`.
    """
    if expected.shape[:2] != got.shape[:2]:
        raise InputError(
            f"{what}: expected {expected.shape[1]}x{expected.shape[0]} pixels as in {whose}, "
            f"got {got.shape[1]}x{got.shape[0]}"
        )


def as_values(image: NDArray[np.uint8]) -> Image:
    """8-bit values as float32 in [0, 1]."""
    return np.multiply(image, np.float32(1.0 / 255.0), dtype=np.float32)


def encode(light: NDArray[np.floating], gamma: float = GAMMA) -> Image:
    """Linear light as picture values in [0, 1]: clipped light ** (1 / gamma)."""
    values = np.clip(light, 0.0, 1.0).astype(np.float32, copy=False)
    return values if gamma == 1.0 else values ** np.float32(1.0 / gamma)


def decode(values: NDArray[np.floating], gamma: float = GAMMA) -> Image:
    """Picture values in [0, 1] as linear light: values ** gamma."""
    values = values.astype(np.float32, copy=False)
    return values if gamma == 1.0 else values ** np.float32(gamma)
