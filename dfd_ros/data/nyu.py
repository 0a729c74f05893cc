"""NYU Depth V2, labelled (Silberman, Hoiem, Kohli and Fergus, ECCV 2012): 1449 indoor frames, 640x480.

nyu_depth_v2_labeled.mat    HDF5: images (n, 3, W, H) uint8, depths (n, W, H) float32 metres, in-painted, and
                            rawDepths, the same before in-painting, 0 unknown
splits.mat                  MATLAB 5: trainNdxs (795) and testNdxs (654), counted from 1
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.matlab import load_matlab
from dfd_ros.data.samples import RgbdFrame, RgbdFrames, check_depth
from dfd_ros.errors import InputError

LABELED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
WHERE = "NYU Depth V2, https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"
_SPLIT_NAMES = {"train": "trainNdxs", "test": "testNdxs"}


class NyuFrames(RgbdFrames):
    """The frames of a split, `train`, `test` or `all`; `weight` is 1 where the sensor measured, 0 where it was in-painted.

    Args:
        path: The folder of the two files, or the labelled file with the splits beside it.

    Raises:
        InputError: h5py or a file is missing, or a file is not what it should be.
    """

    def __init__(self, path: str | Path, split: str = "test") -> None:
        path = Path(path)
        self._file = path / LABELED if path.is_dir() else path
        if not self._file.is_file():
            raise InputError(f"NYU Depth V2: expected {LABELED} in {path}, got no such file; get it from {WHERE}")
        with _open(self._file) as content:
            count = self._check(content)
        self._numbers = _split(self._file.parent / SPLITS, split, count)
        self.names = tuple(f"{number + 1:04d}" for number in self._numbers)

    def read(self, index: int) -> RgbdFrame:
        number, name = self._numbers[index], self.names[index]
        with _open(self._file) as content:
            try:
                image = np.ascontiguousarray(content["images"][number].transpose(2, 1, 0))
                depth = np.ascontiguousarray(content["depths"][number].T, np.float32)
                raw = content["rawDepths"][number].T if "rawDepths" in content else None
            except (OSError, RuntimeError) as error:
                raise InputError(f"NYU Depth V2 {self._file}: frame {name} cannot be read ({_line(error)})") from error
        depth[~(depth > 0)] = np.nan
        check_depth(f"NYU Depth V2 {self._file}, frame {name}", depth)
        return RgbdFrame(name, image, depth, None if raw is None else (raw > 0).astype(np.float32))

    def _check(self, content: Any) -> int:
        """How many frames there are."""
        for name in ("images", "depths"):
            if name not in content:
                raise InputError(f"NYU Depth V2 {self._file}: expected images and depths in it, got no {name}")
        images, depths = content["images"].shape, content["depths"].shape
        if len(images) != 4 or images[1] != 3 or (images[0], *images[2:]) != depths:
            raise InputError(
                f"NYU Depth V2 {self._file}: expected images (n, 3, W, H) and depths (n, W, H), got {images} and {depths}"
            )
        return int(images[0])


def _split(path: Path, split: str, count: int) -> NDArray[np.int64]:
    """The numbers, from 0, of the frames of a split."""
    if split == "all":
        return np.arange(count)
    if split not in _SPLIT_NAMES:
        raise InputError(f"NYU Depth V2: expected the split train, test or all, got {split!r}")
    numbers = np.asarray(load_matlab(path, _SPLIT_NAMES[split], WHERE), np.int64).reshape(-1) - 1
    if not numbers.size or numbers.min() < 0 or numbers.max() >= count:
        raise InputError(f"NYU Depth V2 {path}: expected numbers of 1 to {count}, got another data set's")
    return numbers


def _open(path: Path) -> Any:
    try:
        return _h5py().File(path, "r")
    except OSError as error:
        raise InputError(
            f"NYU Depth V2 {path}: expected a whole HDF5 file, got {_line(error)}; get it anew from {WHERE}"
        ) from error


def _h5py() -> ModuleType:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise InputError("NYU Depth V2: its reader needs h5py: pip install h5py, or dfd_ros[data]") from error


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
