"""A folder of RGB-D frames: pictures and depth with the same name.

    NAME.jpg or .png, or NAME_rgb.…, or in a folder rgb, image, images or color
    NAME_depth.png or .npy, NAME_depth_mm.png, or in a folder depth

A PNG is 16-bit millimetres, 0 unknown; an array is metres, (H, W), NaN or 0 unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfd_ros.data.pictures import PICTURE_SUFFIXES, read_depth_mm, read_rgb
from dfd_ros.data.samples import Image, RgbdFrame, RgbdFrames, check_depth, check_same_size
from dfd_ros.errors import InputError

LAYOUT = "NAME.jpg with NAME_depth.png (millimetres) or NAME_depth.npy (metres), or folders rgb and depth"
_IMAGE_FOLDERS = ("rgb", "image", "images", "color")
_DEPTH_FOLDER = "depth"
_DEPTH_ENDINGS = ("_depth_mm", "_depth", "")


class RgbdFolder(RgbdFrames):
    """The frames of a folder by name; pictures without depth are left out.

    Raises:
        InputError: The folder is missing or holds no picture with depth.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"RGB-D frames {path}: expected a folder, got no such folder")
        self._files = find_frames(self.path)
        if not self._files:
            raise InputError(f"RGB-D frames {path}: expected {LAYOUT}, got no picture with depth")
        self.names = tuple(self._files)

    def read(self, index: int) -> RgbdFrame:
        name = self.names[index]
        image_path, depth_path = self._files[name]
        image = read_rgb(image_path)
        depth = _read_array(depth_path) if depth_path.suffix == ".npy" else read_depth_mm(depth_path)
        check_same_size(f"depth {depth_path}", image, depth, image_path.name)
        check_depth(f"depth {depth_path}", depth)
        return RgbdFrame(name, image, depth)


def find_frames(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Name to picture and depth, by name."""
    images = [folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()]
    sources, depth_folder = (images, folder / _DEPTH_FOLDER) if images else ([folder], folder)
    depths = {
        file.name: file
        for file in (depth_folder.iterdir() if depth_folder.is_dir() else ())
        if file.suffix in (".png", ".npy")
    }
    found = {}
    for file in sorted(file for source in sources for file in source.iterdir()):
        name = file.stem.removesuffix("_rgb")
        if file.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        for ending in _DEPTH_ENDINGS:
            for suffix in (".png", ".npy"):
                depth = depths.get(f"{name}{ending}{suffix}")
                if depth is not None and depth != file and name not in found:
                    found[name] = (file, depth)
    return found


def _read_array(path: Path) -> Image:
    try:
        depth = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"depth {path}: expected a whole array of numbers, it cannot be read") from error
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise InputError(f"depth {path}: expected numbers of shape (H, W), got {depth.dtype} {depth.shape}")
    depth = depth.astype(np.float32)
    depth[~((depth > 0.0) & np.isfinite(depth))] = np.nan
    return depth
