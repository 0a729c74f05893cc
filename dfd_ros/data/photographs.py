"""Folders of dual-aperture photographs: two pictures of each scene, and its depth where that was measured.

    NNN_f2.8.jpg        at the wide aperture: the shallow image
    NNN_f8.0.jpg        at the narrow one: the deep image
    NNN_depth_mm.png    optional, 16-bit millimetres, 0 unknown

Any two f-numbers will do, and PNG in place of JPEG; NNN is any name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.pictures import PICTURE_SUFFIXES, read_depth_mm, read_rgb
from dfd_ros.errors import InputError

LAYOUT = "NAME_f<f-number>.jpg twice a scene, NAME_depth_mm.png optional"
_PICTURE_NAME = re.compile(r"(?P<scene>.+)_f(?P<f_number>\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class PhotographedScene:
    """One scene at two apertures.

    Attributes:
        id: The scene's name, as in the file names.
        shallow, deep: (H, W, 3) uint8 RGB.
        f_numbers: Of the shallow and of the deep image.
        depth: (H, W) float32 metres, NaN unknown; None where it was not measured.
    """

    id: str
    shallow: NDArray[np.uint8]
    deep: NDArray[np.uint8]
    f_numbers: tuple[float, float]
    depth: NDArray[np.float32] | None


class PhotographFolder:
    """A folder of dual-aperture photographs, scenes in the order of their names.

    Raises:
        InputError: The folder is missing, holds no such pictures, or a scene has not exactly two of them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"photographs {self.path}: expected a folder, got no such folder")
        found = find_photographs(self.path)
        if not found:
            raise InputError(f"photographs {self.path}: expected {LAYOUT}, got no such picture")
        for scene, pictures in found.items():
            if len(pictures) != 2:
                names = ", ".join(picture.name for _, picture in pictures)
                raise InputError(f"photographs {self.path}: expected two apertures of scene {scene}, got {names}")
            if pictures[0][0] == pictures[1][0]:
                raise InputError(
                    f"photographs {self.path}: expected two different apertures of scene {scene}, "
                    f"got f/{pictures[0][0]:g} twice"
                )
        self._pictures = found
        self.ids = tuple(found)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> PhotographedScene:
        """Read one scene.

        Raises:
            InputError: There is no such scene, or a picture is unreadable or not of its partner's size.
        """
        if not 0 <= index < len(self):
            raise InputError(f"photographs {self.path}: scenes are 0 to {len(self) - 1}, got {index}")
        scene = self.ids[index]
        (shallow_f, shallow_path), (deep_f, deep_path) = self._pictures[scene]
        shallow, deep = read_rgb(shallow_path), read_rgb(deep_path)
        depth_path = self.path / f"{scene}_depth_mm.png"
        depth = read_depth_mm(depth_path) if depth_path.exists() else None
        for path, picture in ((deep_path, deep), (depth_path, depth)):
            if picture is not None and picture.shape[:2] != shallow.shape[:2]:
                raise InputError(
                    f"photograph {path}: expected {_size(shallow)} pixels as in {shallow_path.name}, "
                    f"got {_size(picture)}"
                )
        return PhotographedScene(scene, shallow, deep, (shallow_f, deep_f), depth)


def find_photographs(folder: Path) -> dict[str, list[tuple[float, Path]]]:
    """The pictures with an aperture in their names: scene to (f-number, path), both in rising order."""
    found: dict[str, list[tuple[float, Path]]] = {}
    for path in sorted(folder.iterdir()):
        name = _PICTURE_NAME.fullmatch(path.stem)
        if name and path.suffix.lower() in PICTURE_SUFFIXES:
            found.setdefault(name["scene"], []).append((float(name["f_number"]), path))
    return {scene: sorted(found[scene]) for scene in sorted(found)}


def _size(picture: NDArray[np.generic]) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
