"""A data set whose samples stay in memory once they were read, as far as there is room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.samples import Dataset, Image, Sample, as_values

_PICTURES = ("shallow", "deep", "all_in_focus")
_WHITE = np.float32(255.0)
Packed = NDArray[np.uint8] | NDArray[np.float16]


class Kept(Dataset):
    """What takes long to make or to decode, made once and seen often.

    Pictures are kept as bytes where they are of bytes, and as half-precision numbers otherwise, which are as fine as 12 bits;
    a sample comes out the same the first time, so that what was kept makes no difference.

    Args:
        dataset: Where samples come from.
        room: Bytes that may be kept in this process; samples beyond are read each time.
    """

    def __init__(self, dataset: Dataset, room: float) -> None:
        self.names = dataset.names
        self._dataset, self._room = dataset, room
        self._kept: dict[int, Sample] = {}

    def read(self, index: int) -> Sample:
        sample = self._kept.get(index)
        if sample is None:
            sample = _packed(self._dataset.read(index))
            size = sum(array.nbytes for array in vars(sample).values() if isinstance(array, np.ndarray))
            if size <= self._room:
                self._room -= size
                self._kept[index] = sample
        return _unpacked(sample)


def _packed(sample: Sample) -> Sample:
    return _with_pictures(sample, _pack)


def _unpacked(sample: Sample) -> Sample:
    return _with_pictures(sample, _unpack)


def _with_pictures(sample: Sample, change: Any) -> Sample:
    changed: dict[str, Any] = {}
    for name in _PICTURES:
        picture = getattr(sample, name)
        changed[name] = None if picture is None else change(picture)
    return replace(sample, **changed)


def _pack(picture: Image) -> Packed:
    steps = np.rint(picture * _WHITE)
    if 0.0 <= steps.min() and steps.max() <= _WHITE:
        whole = steps.astype(np.uint8)
        if np.array_equal(as_values(whole), picture):
            return whole
    return picture.astype(np.float16)


def _unpack(picture: Packed) -> Image:
    return as_values(picture.view(np.uint8)) if picture.dtype == np.uint8 else picture.astype(np.float32)
