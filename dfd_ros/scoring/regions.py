"""Depth of objects: over the middle of each one's box, by class and by distance.

Of a box the centre of half its width and height is taken, where mostly the object itself is seen; the mean estimate
over it is held against the mean truth (`metrics.mean_in_box`). Each box counts once, however large it is.

Labels are a JSON file, pixels of the samples' pictures, columns and rows from the top left one:

    {"sample": [{"name": "the red one", "kind": "car", "x": 10, "y": 20, "width": 40, "height": 30}, ...], ...}

where `kind` may be left out for the name; or a bag with dfd_msgs/ObjectBoxes, whose stamps name the samples.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dfd_ros.data.bags import BagReader
from dfd_ros.data.image_messages import header_stamp
from dfd_ros.errors import InputError
from dfd_ros.metrics import Box

OBJECTS_TYPE = "dfd_msgs/msg/ObjectBoxes"
_PLACE = ("x", "y", "width", "height")


@dataclass(frozen=True)
class LabelledBox:
    """An object in a picture: its class, what it is called, and where it is."""

    kind: str
    name: str
    box: Box


Boxes = Mapping[str, Sequence[LabelledBox]]
"""Objects by the name of the sample."""


@dataclass(frozen=True)
class RegionScore:
    """Some boxes: how many, and of their mean depths the mean absolute error and the bias, metres, and the relative error."""

    regions: int
    error: float
    bias: float
    rel: float


class RegionScores:
    """Sums up boxes, by class and by distance.

    Args:
        edges: Of the distance bins, metres, rising; boxes beyond them are in no bin.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = tuple(map(float, edges))
        self._means: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, kind: str, estimate: float, truth: float) -> None:
        """Add a box: its class, and its mean estimate and mean truth, metres."""
        self._means[kind].append((estimate, truth))

    @property
    def total(self) -> RegionScore | None:
        """Over all boxes; None where there were none."""
        return _score([means for each in self._means.values() for means in each])

    @property
    def by_kind(self) -> dict[str, RegionScore]:
        """By class, in the order of their names."""
        scores = {kind: _score(self._means[kind]) for kind in sorted(self._means)}
        return {kind: score for kind, score in scores.items() if score is not None}

    @property
    def by_distance(self) -> dict[tuple[float, float], RegionScore]:
        """By true distance: (from, to) metres; bins without boxes are left out."""
        everything = [means for each in self._means.values() for means in each]
        scores = {
            (near, far): _score([(estimate, truth) for estimate, truth in everything if near <= truth < far])
            for near, far in pairwise(self._edges)
        }
        return {limits: score for limits, score in scores.items() if score is not None}

    def to_dict(self) -> dict[str, Any] | None:
        """`{"all": …, "kinds": [{"kind", …}], "bins": [{"from", "to", …}]}`, ready for JSON; None without boxes."""
        if self.total is None:
            return None
        return {
            "all": asdict(self.total),
            "kinds": [{"kind": kind, **asdict(score)} for kind, score in self.by_kind.items()],
            "bins": [{"from": near, "to": far, **asdict(score)} for (near, far), score in self.by_distance.items()],
        }


def _score(means: Sequence[tuple[float, float]]) -> RegionScore | None:
    if not means:
        return None
    estimates, truths = np.array(means).T
    off = estimates - truths
    return RegionScore(len(means), float(np.abs(off).mean()), float(off.mean()), float((np.abs(off) / truths).mean()))


def region_cells(regions: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table of what `RegionScores.to_dict` gives."""
    rows = [("all", regions["all"])]
    rows += [(row["kind"], row) for row in regions["kinds"]]
    rows += [(f"{row['from']:g} to {row['to']:g} m", row) for row in regions["bins"]]
    lines = [
        [name, str(row["regions"]), f"{row['error']:.3f}", f"{row['bias']:+.3f}", f"{row['rel']:.3f}"]
        for name, row in rows
    ]
    return ["objects", "boxes", "error, m", "bias, m", "rel"], lines


def region_table(regions: Mapping[str, Any]) -> Table:
    """The same for the terminal."""
    heads, lines = region_cells(regions)
    table = Table(title="Objects by class and distance", title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head == "objects" else "right")
    for line in lines:
        table.add_row(*line)
    return table


def load_boxes(path: Path) -> Boxes:
    """Objects from a JSON file or a bag, as the module says.

    Raises:
        InputError: The file is missing or of another form, or the bag has no object boxes.
    """
    if path.is_dir() or path.suffix in (".mcap", ".db3"):
        return _boxes_of_bag(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"boxes {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"boxes {path}: expected JSON, got {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"boxes {path}: expected objects by sample, got a {type(content).__name__}")
    found = {}
    for sample, objects in content.items():
        if not isinstance(objects, list):
            raise InputError(f"boxes {path}: expected a list of objects for {sample!r}, got a {type(objects).__name__}")
        found[sample] = [_labelled(one, f"boxes {path}, {sample!r}, object {k}") for k, one in enumerate(objects, 1)]
    return found


def _labelled(content: Any, what: str) -> LabelledBox:
    if not isinstance(content, dict):
        raise InputError(f"{what}: expected name, x, y, width and height, got {content!r}")
    for key in ("name", *_PLACE):
        if key not in content:
            raise InputError(f"{what}: expected name, x, y, width and height, got no {key}")
    unknown = sorted(content.keys() - {"name", "kind", *_PLACE})
    if unknown:
        raise InputError(f"{what}: expected name, kind, x, y, width and height, got {unknown[0]!r}")
    for key in _PLACE:
        value = content[key]
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (key in ("width", "height") and round(value) < 1):
            least = "1 pixel or more" if key in ("width", "height") else "a number of pixels"
            raise InputError(f"{what}: expected {least} for {key}, got {value!r}")
    name = str(content["name"])
    return LabelledBox(str(content.get("kind", name)), name, Box(*(round(content[key]) for key in _PLACE)))


def _boxes_of_bag(path: Path) -> Boxes:
    with BagReader(path) as bag:
        topics = [topic for topic, type_name in bag.topics.items() if type_name == OBJECTS_TYPE]
        if len(topics) != 1:
            came = ", ".join(sorted(topics)) or "none"
            raise InputError(f"boxes {path}: expected one topic of {OBJECTS_TYPE}, got {came}")
        found = {}
        for message in bag.messages(topics):
            found[str(header_stamp(message.data))] = [
                LabelledBox(
                    one.kind,
                    f"{one.kind} {one.id}",
                    Box(one.roi.x_offset, one.roi.y_offset, one.roi.width, one.roi.height),
                )
                for one in bag.decode(message).objects
            ]
        return found


def boxes_of_sample(boxes: Boxes, name: str, shape: tuple[int, ...]) -> Sequence[LabelledBox]:
    """The objects of a sample: by its name, or by the stamp at the end of it.

    Raises:
        InputError: One of them does not lie in the picture of `shape` (height, width).
    """
    found = boxes[name] if name in boxes else boxes.get(name.rpartition("/")[2], ())
    for one in found:
        box = one.box
        inside = 0 <= box.x and box.x + box.width <= shape[1] and 0 <= box.y and box.y + box.height <= shape[0]
        if not inside:
            raise InputError(
                f"boxes: expected {one.name!r} within the {shape[1]}x{shape[0]} pixels of {name}, "
                f"got {box.width}x{box.height} at ({box.x}, {box.y})"
            )
    return found
