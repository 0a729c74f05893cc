"""Any data set by one line, `KIND:PATH`, or by its path alone where its files tell the kind.

Bags and built sets may lie in object storage: `built:s3://bucket/set`.

synthetic:COUNT     made-up scenes, so many of them (default 100)
dslr:FOLDER         dual-aperture photographs
bag:PATH            recorded pairs
built:FOLDER        what dfd dataset build made of bags
flowers:FOLDER      light fields
nyu:, kitti:, make3d:, rgbd:, dslr-rendered:        sharp pictures with depth, rendered through a lens
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dfd_ros.data.bag_reader import METADATA, STORAGE_SUFFIXES
from dfd_ros.data.bag_samples import BagPairs
from dfd_ros.data.built import BuiltPairs, is_built
from dfd_ros.data.dslr import DslrFrames, DslrPairs, find_apertures
from dfd_ros.data.kitti_depth import KittiDepthFrames
from dfd_ros.data.light_field import LightFieldPairs
from dfd_ros.data.make3d import Make3dFrames
from dfd_ros.data.nyu import LABELED, NyuFrames
from dfd_ros.data.photographs import find_photographs
from dfd_ros.data.rendered import Filling, RenderedPairs, protocol_lens
from dfd_ros.data.rgbd import RgbdFolder, find_frames
from dfd_ros.data.samples import Dataset, RgbdFrames, Window
from dfd_ros.data.synthetic import SyntheticScenes, SyntheticSettings
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens
from dfd_ros.storage import URL, open_place

SYNTHETIC_COUNT = 100
STREET_RANGE = 80.0
"""Metres: the farthest depth of KITTI and Make3D."""


@dataclass(frozen=True)
class OpenOptions:
    """What some kinds need to know beyond their path.

    Attributes:
        split: `train`, `test` or `all`; None: `all`, and for NYU and Make3D `test`. Of a built one `test` is validation.
        lens: What took the photographs, or what to render with; None: not known, and the literature's.
        register: Photographs: bring the two to one exposure and place.
        synthetic: What scenes to make; None: `SyntheticSettings` as they stand.
        split_file: KITTI: the list of pictures.
        depth_maps: KITTI: the depth benchmark's folder.
        bag_depth: Bags: the topic of depth.
        disparity: Light fields: pixels, where to focus.
    """

    split: str | None = None
    lens: Lens | None = None
    register: bool = False
    synthetic: SyntheticSettings | None = None
    split_file: Path | None = None
    depth_maps: Path | None = None
    bag_depth: str | None = None
    disparity: float = 0.0


def open_dataset(spec: str | Path, options: OpenOptions = OpenOptions()) -> Dataset:
    """The data set that `spec` names: `KIND:PATH`, or a path.

    Raises:
        InputError: The kind is unknown, the path is missing or not of that kind, or its kind cannot be told.
    """
    kind, separator, place = str(spec).partition(":")
    if not separator or (kind not in KINDS and (URL in str(spec) or Path(spec).exists())):
        kind, place = ("synthetic", "") if str(spec) == "synthetic" else (detect_kind(open_place(spec)), str(spec))
    if kind not in KINDS:
        raise InputError(f"data {str(spec)!r}: expected KIND:PATH with KIND one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind](place, options)


def detect_kind(path: Path) -> str:
    """The kind of data at a path, by its files' names.

    Raises:
        InputError: There is no such path, or its files are of no known kind.
    """
    if not path.exists():
        raise InputError(
            f"data {path}: expected {', '.join(KINDS)} with a colon and a path, or a path, got no such path"
        )
    if path.name == LABELED or (path / LABELED).is_file():
        return "nyu"
    if path.suffix in STORAGE_SUFFIXES:
        return "bag"
    if path.is_dir():
        if is_built(path):
            return "built"
        if (path / METADATA).is_file() or any(child.suffix in STORAGE_SUFFIXES for child in path.iterdir()):
            return "bag"
        if find_apertures(path) or find_photographs(path):
            return "dslr"
        if any(path.glob("*/*_sync/image_02/data")):
            return "kitti"
        if any(path.rglob("*_eslf.png")):
            return "flowers"
        if any(path.rglob("depth_sph_corr-*.mat")):
            return "make3d"
        if find_frames(path):
            return "rgbd"
    raise InputError(f"data {path}: expected files of one of the kinds {', '.join(KINDS)}, got none of them")


def _synthetic(place: str, options: OpenOptions) -> Dataset:
    if place and not (place.isascii() and place.isdecimal() and int(place) > 0):
        raise InputError(f"data synthetic:{place}: expected how many scenes, 1 or more, got {place!r}")
    settings = options.synthetic or SyntheticSettings()
    if options.lens is not None:
        settings = replace(settings, lens=options.lens)
    return Window(SyntheticScenes(settings), int(place) if place else SYNTHETIC_COUNT)


def _rendered(
    read: Callable[[str, OpenOptions], RgbdFrames], fill: Filling = "nearest", farthest: float = 10.0
) -> Callable[[str, OpenOptions], Dataset]:
    def make(place: str, options: OpenOptions) -> Dataset:
        lens = protocol_lens(max_depth=farthest) if options.lens is None else options.lens
        return RenderedPairs(read(place, options), lens, fill=fill)

    return make


KINDS: dict[str, Callable[[str, OpenOptions], Dataset]] = {
    "synthetic": _synthetic,
    "dslr": lambda place, o: DslrPairs(place, o.split or "all", lens=o.lens, register=o.register),
    "dslr-rendered": _rendered(lambda place, o: DslrFrames(place, o.split or "all")),
    "nyu": _rendered(lambda place, o: NyuFrames(place, o.split or "test")),
    "kitti": _rendered(lambda place, o: KittiDepthFrames(place, o.split_file, o.depth_maps), "colorize", STREET_RANGE),
    "make3d": _rendered(lambda place, o: Make3dFrames(place, o.split or "test"), "nearest", STREET_RANGE),
    "rgbd": _rendered(lambda place, o: RgbdFolder(place)),
    "flowers": lambda place, o: LightFieldPairs(place, o.disparity),
    "bag": lambda place, o: BagPairs(place, o.bag_depth),
    "built": lambda place, o: BuiltPairs(place, o.split or "all"),
}
"""What makes a data set of each kind."""
