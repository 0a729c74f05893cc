"""What a path given by the user holds: photographs, KITTI frames or a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dfd_ros.data import kitti, photographs
from dfd_ros.errors import InputError

SourceKind = Literal["photographs", "kitti", "bag"]
_BAG_SUFFIXES = (".mcap", ".db3")


def detect(path: str | Path) -> SourceKind:
    """The kind of source at `path`, by its files' names.

    Raises:
        InputError: There is no such path, or it holds none of the three.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"source {path}: expected a folder or a bag, got no such path")
    if path.is_file() and path.suffix in _BAG_SUFFIXES:
        return "bag"
    if path.is_dir():
        if (path / "metadata.yaml").is_file() or any(child.suffix in _BAG_SUFFIXES for child in path.iterdir()):
            return "bag"
        if all((path / part).is_dir() for part in ("image_2", "velodyne", "calib")):
            return "kitti"
        if photographs.find_photographs(path):
            return "photographs"
    raise InputError(
        f"source {path}: expected a bag (metadata.yaml, .mcap or .db3), KITTI frames ({kitti.LAYOUT}) "
        f"or photographs ({photographs.LAYOUT}), got none of these"
    )
