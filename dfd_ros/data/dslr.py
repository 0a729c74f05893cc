"""The D3-Net authors' dual-aperture photographs (Carvalho et al., 3DRW at ECCV 2018), and any folder like them.

As published, two folders with the same pictures at f/2.8 and f/8:

    dfd_dataset_indoor_N2_8/rgb/{train,test}/2018-04-26T17:26:34.505212.JPG
    dfd_dataset_indoor_N2_8/depth/{train,test}/2018-04-26T17:26:34.375157.png     16-bit millimetres, 0 unknown
    dfd_dataset_indoor_N8/…

Names are times; a picture's depth was taken within a fraction of a second of it. The other layout is that of
`dfd_ros.data.photographs`: NAME_f2.8.jpg, NAME_f8.0.jpg, NAME_depth_mm.png in one folder.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np

from dfd_ros.capture.matching import MatchSettings, MotionError, match_pair
from dfd_ros.data.photographs import LAYOUT, PhotographedScene, PhotographFolder, find_photographs
from dfd_ros.data.pictures import PICTURE_SUFFIXES, read_depth_mm, read_rgb
from dfd_ros.data.samples import (
    GAMMA,
    Dataset,
    RgbdFrame,
    RgbdFrames,
    Sample,
    as_values,
    check_depth,
    check_same_size,
)
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens

WHERE = "the DFD indoor data set, https://github.com/marcelampc/d3net_depth_estimation"
MAX_DELAY = timedelta(seconds=2.0)
"""Between a picture and its depth."""
MAX_MOTION = 20.0
"""Pixels between the two pictures of a scene that are undone: the camera was touched between them."""
_APERTURE_FOLDER = re.compile(r".*_N(?P<whole>\d+)(?:_(?P<tenths>\d+))?")


class PublishedScenes:
    """The scenes of a split, `train`, `test` or `all`, in the published layout, by their times.

    Args:
        path: The folder of the two folders.

    Raises:
        InputError: A folder is missing, a picture lacks its partner, or its depth.
    """

    def __init__(self, path: str | Path, split: str = "all") -> None:
        self.path = Path(path)
        if split not in ("train", "test", "all"):
            raise InputError(f"photographs {path}: expected the split train, test or all, got {split!r}")
        apertures = find_apertures(self.path) if self.path.is_dir() else []
        if len(apertures) != 2:
            raise InputError(
                f"photographs {path}: expected two folders …_N2_8 and …_N8, got {len(apertures)}; get them from {WHERE}"
            )
        (self._shallow_f, shallow), (self._deep_f, deep) = apertures
        self._files: list[tuple[Path, Path, Path]] = []
        for part in ("train", "test") if split == "all" else (split,):
            pictures = [_pictures(folder / "rgb" / part) for folder in (shallow, deep)]
            lonely = sorted(pictures[0].keys() ^ pictures[1].keys())
            if lonely or not pictures[0]:
                got = f"{lonely[0]} once" if lonely else "no picture"
                raise InputError(f"photographs {path}: expected every {part} picture at both apertures, got {got}")
            depths = {**_pictures(deep / "depth" / part), **_pictures(shallow / "depth" / part)}
            for name, file in pictures[0].items():
                self._files.append((file, pictures[1][name], _nearest_in_time(name, depths, file)))
        self.ids = tuple(file.stem for file, _, _ in self._files)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> PhotographedScene:
        """Scene `index`, 0 to len − 1; raises InputError if a file is broken."""
        shallow_path, deep_path, depth_path = self._files[index]
        shallow, deep, depth = read_rgb(shallow_path), read_rgb(deep_path), read_depth_mm(depth_path)
        for file, picture in ((deep_path, deep), (depth_path, depth)):
            check_same_size(f"photograph {file}", shallow, picture, shallow_path.name)
        return PhotographedScene(self.ids[index], shallow, deep, (self._shallow_f, self._deep_f), depth)


class DslrPairs(Dataset):
    """Dual-aperture photographs with depth, in either layout.

    Args:
        path: The folder.
        split: `train`, `test` or `all`; the flat layout knows only `all`.
        lens: What took them, as calibrated (`dfd calibrate`); None where that is not known.
        register: Bring the shallow picture to the deep one's exposure and place first, if they show the same place.
        gamma: Encoding exponent of the pictures.

    Raises:
        InputError: As the folders do, or the lens has other f-numbers than the pictures.
    """

    def __init__(
        self,
        path: str | Path,
        split: str = "all",
        *,
        lens: Lens | None = None,
        register: bool = False,
        gamma: float = GAMMA,
    ) -> None:
        self._scenes = open_scenes(path, split)
        self._lens, self._gamma = lens, gamma
        self._match: MatchSettings | None = None
        if register:
            self._match = MatchSettings(
                gamma=gamma,
                max_motion=MAX_MOTION,
                magnification=1.0 if lens is None else lens.magnification,
                keep_magnification=lens is not None and lens.parallax != 0.0,
            )
        self.names = self._scenes.ids

    def read(self, index: int) -> Sample:
        scene = self._scenes.load(index)
        depth = scene.depth
        if depth is None:
            depth = np.full(scene.deep.shape[:2], np.nan, np.float32)
        else:
            check_depth(f"depth of photograph {scene.id}", depth)
        shallow = scene.shallow
        if self._match is not None:
            with suppress(MotionError):  # too far apart to be brought together: as they are
                shallow = match_pair(shallow, scene.deep, self._match, nominal_gain=float("nan")).shallow
        self._check_lens(scene)
        return Sample(scene.id, as_values(shallow), as_values(scene.deep), depth, self._lens, gamma=self._gamma)

    def _check_lens(self, scene: PhotographedScene) -> None:
        lens = self._lens
        if lens is not None and not np.allclose(
            scene.f_numbers, (lens.f_number_shallow, lens.f_number_deep), rtol=0.02
        ):
            raise InputError(
                f"lens {lens.name!r}: expected the f-numbers of the photographs, {scene.f_numbers[0]:g} and "
                f"{scene.f_numbers[1]:g}, got {lens.f_number_shallow:g} and {lens.f_number_deep:g}"
            )


class DslrFrames(RgbdFrames):
    """The pictures at one aperture of such photographs (default: the deep one, nearly all in focus) with depth."""

    def __init__(self, path: str | Path, split: str = "all", picture: Literal["deep", "shallow"] = "deep") -> None:
        self._scenes, self._picture = open_scenes(path, split), picture
        self.names = self._scenes.ids

    def read(self, index: int) -> RgbdFrame:
        scene = self._scenes.load(index)
        if scene.depth is None:
            raise InputError(f"photograph {scene.id}: expected its depth, got none")
        check_depth(f"depth of photograph {scene.id}", scene.depth)
        return RgbdFrame(scene.id, scene.deep if self._picture == "deep" else scene.shallow, scene.depth)


def open_scenes(path: str | Path, split: str = "all") -> PhotographFolder | PublishedScenes:
    """The scenes of a folder in either layout; raises InputError where it is neither, or has no such split."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"photographs {path}: expected a folder, got no such folder; get it from {WHERE}")
    if find_apertures(path):
        return PublishedScenes(path, split)
    if not find_photographs(path):
        raise InputError(f"photographs {path}: expected {LAYOUT}, or folders …_N2_8 and …_N8 from {WHERE}, got neither")
    if split != "all":
        raise InputError(f"photographs {path}: expected the split all, the only one of this layout, got {split!r}")
    return PhotographFolder(path)


def find_apertures(folder: Path) -> list[tuple[float, Path]]:
    """The f-numbers and folders of the published layout, in rising order."""
    found = []
    for child in folder.iterdir():
        name = _APERTURE_FOLDER.fullmatch(child.name)
        if name and (child / "rgb").is_dir():
            found.append((float(f"{name['whole']}.{name['tenths'] or 0}"), child))
    return sorted(found)


def _pictures(folder: Path) -> dict[str, Path]:
    """Name to file, by name."""
    if not folder.is_dir():
        return {}
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in PICTURE_SUFFIXES}


def _nearest_in_time(name: str, depths: dict[str, Path], file: Path) -> Path:
    """The depth of the picture's name, or else the one taken nearest to it."""
    if name in depths:
        return depths[name]
    time = _time(name)
    times = [(abs(other - time), path) for path in depths.values() if time and (other := _time(path.stem))]
    delay, path = min(times, default=(MAX_DELAY, file))
    if delay >= MAX_DELAY:
        raise InputError(f"photograph {file}: expected its depth within {MAX_DELAY.seconds} s, got none; see {WHERE}")
    return path


def _time(name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(name)
    except ValueError:
        return None
