"""Make3D (Saxena, Sun and Ng, PAMI 2009): outdoor pictures with depth from a laser scanner on a coarse grid.

    img-NAME.jpg                  2272x1704
    depth_sph_corr-NAME.mat       Position3DGrid (55, 305, 4): the fourth is what is published as depth, metres

in folders whose names begin with Train (400 of them) or Test (134), as the archives unpack; any other folders will do
where no split is asked for.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dfd_ros.data.matlab import load_matlab
from dfd_ros.data.pictures import PICTURE_SUFFIXES, read_rgb
from dfd_ros.data.samples import RgbdFrame, RgbdFrames, check_depth
from dfd_ros.errors import InputError

WHERE = "Make3D range image data, http://make3d.cs.cornell.edu/data.html"
SHAPE = (460, 345)
"""Height and width to which the literature brings the pictures (Laina et al., 3DV 2016)."""
FARTHEST = 80.0
"""Metres: the scanner gives 81 where nothing came back."""
_IMAGE, _DEPTH = "img-", "depth_sph_corr-"


class Make3dFrames(RgbdFrames):
    """The pictures of a split, `train`, `test` or `all`, brought to `shape` (None: as they are).

    Raises:
        InputError: The folder is missing or holds no such pictures, or a picture lacks its depth.
    """

    def __init__(self, path: str | Path, split: str = "test", shape: tuple[int, int] | None = SHAPE) -> None:
        self.path, self._shape = Path(path), shape
        if split not in ("train", "test", "all"):
            raise InputError(f"Make3D: expected the split train, test or all, got {split!r}")
        if not self.path.is_dir():
            raise InputError(f"Make3D {path}: expected a folder, got no such folder; get it from {WHERE}")
        files = [file for file in sorted(self.path.rglob("*")) if split == "all" or self._is_in(file, split)]
        depths = {f.stem.removeprefix(_DEPTH): f for f in files if f.name.startswith(_DEPTH) and f.suffix == ".mat"}
        images = {
            f.stem.removeprefix(_IMAGE): f
            for f in files
            if f.name.startswith(_IMAGE) and f.suffix.lower() in PICTURE_SUFFIXES
        }
        if not images:
            what = "pictures" if split == "all" else f"pictures below a folder {split.title()}…"
            raise InputError(f"Make3D {path}: expected {what} named {_IMAGE}NAME.jpg, got none; get them from {WHERE}")
        for name, image in images.items():
            if name not in depths:
                raise InputError(
                    f"Make3D {image}: expected {_DEPTH}{name}.mat beside it, got none; get it from {WHERE}"
                )
        self._files = [(images[name], depths[name]) for name in images]
        self.names = tuple(images)

    def read(self, index: int) -> RgbdFrame:
        image_path, depth_path = self._files[index]
        grid = load_matlab(depth_path, "Position3DGrid", WHERE)
        if grid.ndim != 3 or grid.shape[2] != 4:
            raise InputError(f"Make3D {depth_path}: expected a grid (rows, columns, 4), got {grid.shape}")
        image = read_rgb(image_path)
        if self._shape is not None:
            image = cv2.resize(image, self._shape[::-1], interpolation=cv2.INTER_AREA)
        coarse = grid[..., 3].astype(np.float32)
        coarse[~((coarse > 0.0) & (coarse < FARTHEST))] = np.nan
        check_depth(f"Make3D {depth_path}", coarse)
        depth = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return RgbdFrame(self.names[index], image, depth)

    def _is_in(self, file: Path, split: str) -> bool:
        """Whether one of the folders below `path`, or `path` itself, is named for the split."""
        folders = (self.path.name, *file.relative_to(self.path).parts[:-1])
        named = [f.lower() for f in folders if f.lower().startswith(("train", "test"))]
        return bool(named) and named[-1].startswith(split)
