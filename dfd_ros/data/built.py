"""A data set that `dfd dataset build` made: its layout, and its pairs as samples (docs/datasets.md).

dataset.json            the layout's version, the settings and their hash
index.jsonl             a sample a line, by bag and time
rejected.jsonl          what was left out, and why
bags.json               the bags, and what was wrong with them
calibration/ID.yaml     lens and camera
samples/BAG/STAMP_…     the pictures, the depth and its confidence
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from dfd_ros.data.pictures import read_depth_mm, read_rgb
from dfd_ros.data.samples import Dataset, Image, Sample, as_values, check_depth, check_same_size
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens
from dfd_ros.storage import open_place

LAYOUT = "dfd_ros data set"
VERSION = 1
MANIFEST, INDEX, REJECTED, BAGS = "dataset.json", "index.jsonl", "rejected.jsonl", "bags.json"
TRAIN, VALIDATION, GUARD = "train", "validation", "guard"
SPLITS = {"train": (TRAIN,), "test": (VALIDATION,), "validation": (VALIDATION,), "all": (TRAIN, VALIDATION, GUARD)}
"""What the splits are of, by the name they are asked for."""


class BuiltPairs(Dataset):
    """The samples with depth of a built data set, in its index's order; their weight is the depth's confidence.

    Args:
        path: The folder, or its URL.
        split: `train`, `test` (or `validation`) or `all`, which has those between the two as well.

    Raises:
        InputError: The folder is none, or of another version, the split is unknown, or it has no sample with depth.
    """

    def __init__(self, path: str | Path, split: str = "all") -> None:
        self.path = str(path)  # and no open path of object storage: those do not survive the fork of who loads
        folder = open_place(self.path)
        read_manifest(folder)
        if split not in SPLITS:
            raise InputError(f"data set {path}: expected a split of {', '.join(SPLITS)}, got {split!r}")
        records = [record for record in read_lines(folder / INDEX) if record["split"] in SPLITS[split]]
        self._records = [record for record in records if record["depth"] is not None]
        if not self._records:
            raise InputError(
                f"data set {path}: expected samples with depth in split {split}, got {len(records)} without"
            )
        self.names = tuple(record["name"] for record in self._records)
        self._lenses: dict[str, Lens | None] = {}

    def read(self, index: int) -> Sample:
        record, folder = self._records[index], open_place(self.path)
        what = f"data set {self.path}, {record['name']}"
        shallow, deep = (read_rgb(folder / record[key]) for key in ("shallow", "deep"))
        depth = read_depth(folder / record["depth"])
        confidence = read_confidence(folder / record["confidence"])
        for name, picture in (("deep image", deep), ("depth", depth), ("confidence", confidence)):
            check_same_size(f"{what}: {name}", shallow, picture, "the shallow image")
        check_depth(what, depth)
        lens = self._lens(folder, record["calibration"])
        return Sample(
            record["name"],
            as_values(shallow),
            as_values(deep),
            depth,
            lens,
            weight=confidence,
            gamma=float(record["gamma"]),
        )

    def _lens(self, folder: Path, name: str) -> Lens | None:
        if name not in self._lenses:
            content = read_calibration(folder / name)["lens"]
            self._lenses[name] = None if content is None else Lens(**content)
        return self._lenses[name]


def is_built(path: Path) -> bool:
    """Whether a folder holds a built data set."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of dataset.json.

    Raises:
        InputError: There is none, or it is of another layout or version.
    """
    content = _read_json(path / MANIFEST)
    if not isinstance(content, dict) or content.get("layout") != LAYOUT:
        raise InputError(f"data set {path}: expected {MANIFEST} to name the layout {LAYOUT!r}, it does not")
    if content.get("version") != VERSION:
        raise InputError(f"data set {path}: expected layout version {VERSION}, got {content.get('version')}")
    return content


def read_bags(path: Path) -> list[dict[str, Any]]:
    """The content of bags.json; raises InputError where it cannot be read."""
    content = _read_json(path / BAGS)
    if not isinstance(content, list):
        raise InputError(f"data set {path}: expected a list in {BAGS}, got {type(content).__name__}")
    return content


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines.

    Raises:
        InputError: It is missing (the data set is not built to its end), or a line is none.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise InputError(
            f"data set {path.parent}: expected {path.name}, got none: run dfd dataset build again to finish it"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"data set {path.parent}: {path.name} cannot be read ({error})") from error


def read_calibration(path: Path) -> dict[str, Any]:
    """Lens and camera of a calibration file, None where unknown; raises InputError where it cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"calibration {path}: cannot be read ({error})") from error
    if not isinstance(content, dict) or not {"lens", "camera"} <= content.keys():
        raise InputError(f"calibration {path}: expected lens and camera, got neither")
    return content


def read_depth(path: Path) -> Image:
    """Depth (H, W) float32 metres, NaN unknown, of a PNG of millimetres or an array of metres.

    Raises:
        InputError: It cannot be read.
    """
    if path.suffix != ".npy":
        return read_depth_mm(path)
    try:
        depth = np.load(io.BytesIO(path.read_bytes()))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"depth {path}: cannot be read ({error})") from error
    if depth.dtype != np.float16 or depth.ndim != 2:
        raise InputError(f"depth {path}: expected float16 of shape (H, W), got {depth.dtype} {depth.shape}")
    return depth.astype(np.float32)


def read_confidence(path: Path) -> Image:
    """Confidence (H, W) float32 in [0, 1] of an 8-bit PNG; raises InputError where it cannot be read."""
    try:
        content: NDArray[np.uint8] = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"confidence {path}: cannot be read ({error.strerror or error})") from error
    picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    if picture is None or picture.dtype != np.uint8 or picture.ndim != 2:
        raise InputError(f"confidence {path}: expected an 8-bit grey PNG, got another file")
    return as_values(np.asarray(picture, np.uint8))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"data set {path.parent}: {path.name} cannot be read ({error})") from error
