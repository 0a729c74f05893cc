"""KITTI raw data with the split of Eigen, Puhrsch and Fergus (NIPS 2014), and with the depth benchmark's maps.

    RAW/2011_09_26/calib_cam_to_cam.txt, calib_velo_to_cam.txt
    RAW/2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png      (or .jpg)
    RAW/2011_09_26/2011_09_26_drive_0002_sync/velodyne_points/data/0000000069.bin
    DEPTH/{train,val}/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png

Depth is that of the sweep (Eigen's protocol: every return, the nearest in a pixel), or the benchmark's: uint16, 1/256 m, 0
unknown (Uhrig et al., 3DV 2017). Both are sparse. The list of the split's 697 test pictures is the user's own file: each
line names a picture in one of the three ways in use,

    2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png [anything]
    2011_09_26/2011_09_26_drive_0002_sync 0000000069 l
    2011_09_26/2011_09_26_drive_0002_sync 69
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.kitti import read_points
from dfd_ros.data.pictures import PICTURE_SUFFIXES, read_rgb
from dfd_ros.data.samples import Image, RgbdFrame, RgbdFrames, check_depth, check_same_size
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.projection import project

WHERE = "KITTI raw data and depth prediction, https://www.cvlibs.net/datasets/kitti/"
EIGEN_TEST_PICTURES = 697
BENCHMARK_STEP = 1.0 / 256.0  # metres
_LINE = re.compile(
    r"(?P<date>\d{4}_\d\d_\d\d)/(?P<drive>\d{4}_\d\d_\d\d_drive_\d{4}_sync)"
    r"(?:/image_(?P<camera>0[23])/data/(?P<frame>\d+)\.\w+\b.*|\s+(?P<number>\d+)(?:\s+(?P<side>[lr]))?)\s*"
)


@dataclass(frozen=True)
class _Picture:
    date: str
    drive: str
    camera: str
    frame: str

    @property
    def name(self) -> str:
        return f"{self.drive}/image_{self.camera}/{self.frame}"


class KittiDepthFrames(RgbdFrames):
    """KITTI pictures with sparse depth.

    Args:
        raw: The folder of the dates.
        split: A file with the list of pictures; None: every picture of the left colour camera that has depth.
        depth_maps: The benchmark's folder (with or without its train and val); None: depth of the sweeps.

    Attributes:
        without_depth: Names of the pictures of the split that the benchmark has no depth of (45 of Eigen's 697); they are
            left out.

    Raises:
        InputError: A folder, the split or a picture of it is missing, or a line of the split names no picture.
    """

    def __init__(self, raw: str | Path, split: str | Path | None = None, depth_maps: str | Path | None = None) -> None:
        self.raw = Path(raw)
        self._maps = None if depth_maps is None else Path(depth_maps)
        for folder in filter(None, (self.raw, self._maps)):
            if not folder.is_dir():
                raise InputError(f"KITTI {folder}: expected a folder, got no such folder; get it from {WHERE}")
        wanted = self._all_pictures() if split is None else _read_split(Path(split))
        pictures = [picture for picture in wanted if self._has_depth(picture)]
        self.without_depth = tuple(picture.name for picture in wanted if not self._has_depth(picture))
        if not pictures:
            raise InputError(
                f"KITTI {self.raw}: expected pictures DATE/DRIVE/image_02/data/… with depth, got none; get them from {WHERE}"
            )
        self._pictures = pictures
        self._images = [self._image_path(picture) for picture in pictures]
        self.names = tuple(picture.name for picture in pictures)

    def read(self, index: int) -> RgbdFrame:
        picture = self._pictures[index]
        image = read_rgb(self._images[index])
        if self._maps is None:
            depth = self._sweep_depth(picture, image.shape[:2])
        else:
            path = self._map_path(picture)
            depth = _read_map(path)
            check_same_size(f"KITTI depth {path}", image, depth, self._images[index].name)
        check_depth(f"KITTI {picture.name}", depth)
        return RgbdFrame(picture.name, image, depth)

    def _all_pictures(self) -> list[_Picture]:
        files = sorted(self.raw.glob("*/*_sync/image_02/data/*"))
        return [
            _Picture(file.parts[-5], file.parts[-4], "02", file.stem)
            for file in files
            if file.suffix.lower() in PICTURE_SUFFIXES
        ]

    def _image_path(self, picture: _Picture) -> Path:
        folder = self.raw / picture.date / picture.drive / f"image_{picture.camera}" / "data"
        for suffix in PICTURE_SUFFIXES:
            if (path := folder / f"{picture.frame}{suffix}").is_file():
                return path
        raise InputError(f"KITTI {folder}: expected {picture.frame}.png, got no such picture; get it from {WHERE}")

    def _sweep_path(self, picture: _Picture) -> Path:
        return self.raw / picture.date / picture.drive / "velodyne_points" / "data" / f"{picture.frame}.bin"

    def _map_path(self, picture: _Picture) -> Path:
        assert self._maps is not None
        tail = Path(picture.drive, "proj_depth", "groundtruth", f"image_{picture.camera}", f"{picture.frame}.png")
        for part in ("train", "val"):
            if (path := self._maps / part / tail).is_file():
                return path
        return self._maps / tail

    def _has_depth(self, picture: _Picture) -> bool:
        return (self._sweep_path(picture) if self._maps is None else self._map_path(picture)).is_file()

    def _sweep_depth(self, picture: _Picture, shape: tuple[int, ...]) -> Image:
        """The nearest return in each pixel, (H, W) metres, NaN where there is none."""
        calibration = self.raw / picture.date
        cameras = _read_numbers(calibration / "calib_cam_to_cam.txt")
        velodyne = _read_numbers(calibration / "calib_velo_to_cam.txt")
        projection = _matrix(cameras, f"P_rect_{picture.camera}", (3, 4), calibration)
        rectification = _matrix(cameras, "R_rect_00", (3, 3), calibration)
        rotation, translation = (
            _matrix(velodyne, key, size, calibration) for key, size in (("R", (3, 3)), ("T", (3,)))
        )
        height, width = shape
        matrix = projection[:, :3]
        camera = Camera(width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        offset = Transform(translation=np.linalg.solve(matrix, projection[:, 3]).astype(np.float64))
        extrinsics = offset @ Transform(rectification) @ Transform(rotation, translation)
        points = read_points(self._sweep_path(picture))
        return project(points[:, :3], extrinsics, camera, cull=False).depth


def _read_split(path: Path) -> list[_Picture]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"KITTI split {path}: expected a text file with the names of pictures (Eigen's test split has "
            f"{EIGEN_TEST_PICTURES}), it cannot be read"
        ) from error
    pictures = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise InputError(
                f"KITTI split {path}, line {number}: expected DATE/DRIVE/image_02/data/FRAME.png or "
                f"`DATE/DRIVE FRAME l`, got {line.strip()[:80]!r}"
            )
        frame = found["frame"] or found["number"]
        camera = found["camera"] or ("03" if found["side"] == "r" else "02")
        pictures.append(_Picture(found["date"], found["drive"], camera, frame.zfill(10)))
    if not pictures:
        raise InputError(f"KITTI split {path}: expected the names of pictures, got an empty file")
    return pictures


def _read_map(path: Path) -> Image:
    """A map of the depth benchmark as metres, NaN unknown."""
    steps = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if steps is None or steps.dtype != np.uint16 or steps.ndim != 2:
        got = "none that can be read" if steps is None else f"{steps.dtype} of shape {steps.shape}"
        raise InputError(f"KITTI depth {path}: expected a 16-bit single-channel PNG of 1/256 m, got {got}")
    depth = steps.astype(np.float32) * np.float32(BENCHMARK_STEP)
    depth[steps == 0] = np.nan
    return depth


def _read_numbers(path: Path) -> dict[str, list[float]]:
    """The lines `key: numbers` of a calibration file; others, such as the date's, are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"calibration {path}: cannot be read; get it from {WHERE}") from error
    entries = {}
    for line in lines:
        key, _, numbers = line.partition(":")
        try:
            entries[key.strip()] = [float(number) for number in numbers.split()]
        except ValueError:  # a time of day
            continue
    return entries


def _matrix(entries: dict[str, list[float]], key: str, shape: tuple[int, ...], folder: Path) -> NDArray[np.float64]:
    numbers = np.array(entries.get(key, []), np.float64)
    if numbers.size != np.prod(shape) or not np.isfinite(numbers).all():
        raise InputError(
            f"calibration {folder}: expected {key} with {int(np.prod(shape))} finite numbers, got {numbers.size}"
        )
    return numbers.reshape(shape)
