"""What a built data set holds: counts, rejections by cause, how far its depths are, and a sheet of its pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dfd_ros.data.built import INDEX, REJECTED, read_bags, read_confidence, read_depth, read_lines, read_manifest
from dfd_ros.data.pictures import read_rgb
from dfd_ros.datasets.files import write_whole
from dfd_ros.datasets.task import HISTOGRAM
from dfd_ros.errors import InputError

BAR = 40
"""Characters of the histogram's longest bar."""
SHEET_ROWS = 8
CELL = (320, 240)
"""Largest width and height of a picture of the sheet, pixels."""
MARGIN = 4
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class DatasetInfo:
    """
    Attributes:
        path: The data set's folder.
        bags: Of bags.json.
        samples: The index's records.
        splits: Samples by split.
        scenes: Scenes by split.
        rejected: By cause.
        histogram: Pixels by depth, in the bins of `task.HISTOGRAM`.
    """

    path: Path
    bags: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    splits: Counter[str]
    scenes: Counter[str]
    rejected: Counter[str]
    histogram: NDArray[np.int64]

    def print(self, console: Console) -> None:
        """Tables of it."""
        table = Table(title="bags", title_justify="left")
        for column in ("bag", "samples", "rejected", "depth", "remarks"):
            table.add_column(column, justify="right" if column in ("samples", "rejected") else "left", overflow="fold")
        for bag in self.bags:
            cut = [f"cut short: {bag['cut']}"] if bag["cut"] else []
            remarks = "; ".join([*cut, *bag["notes"], *filter(None, [bag["error"]])])
            table.add_row(
                bag["name"], str(bag["samples"]), str(bag["rejected"]), "yes" if bag["lidar"] else "no", remarks
            )
        console.print(table)
        table = Table()
        for column in ("split", "scenes", "samples"):
            table.add_column(column, justify="left" if column == "split" else "right")
        for split, count in sorted(self.splits.items()):
            table.add_row(split, str(self.scenes[split]), str(count))
        console.print(table)
        if self.rejected:
            table = Table()
            table.add_column("rejected for")
            table.add_column("frames or pairs", justify="right")
            for cause, count in self.rejected.most_common():
                table.add_row(cause, str(count))
            console.print(table)
        if self.histogram.any():
            table = Table()
            for column in ("depth, m", "pixels, %", ""):
                table.add_column(column, justify="right" if column else "left")
            share = self.histogram / self.histogram.sum()
            seen = np.flatnonzero(self.histogram)
            for i in range(seen[0], seen[-1] + 1):
                bar = "█" * round(BAR * share[i] / share.max())
                table.add_row(f"{HISTOGRAM[i]:.3g} to {HISTOGRAM[i + 1]:.3g}", f"{100.0 * share[i]:.1f}", bar)
            console.print(table)


def describe(path: Path) -> DatasetInfo:
    """Read what a data set holds, by its index alone.

    Raises:
        InputError: The folder is no data set, of another version, or not built to its end.
    """
    read_manifest(path)
    samples = read_lines(path / INDEX)
    scenes = {(sample["split"], sample["scene"]) for sample in samples}
    histogram = np.zeros(len(HISTOGRAM) - 1, np.int64)
    for sample in samples:
        if sample["histogram"] is not None:
            histogram += np.array(sample["histogram"], np.int64)
    return DatasetInfo(
        path,
        read_bags(path),
        samples,
        Counter(sample["split"] for sample in samples),
        Counter(split for split, _ in scenes),
        Counter(line["rejected"] for line in read_lines(path / REJECTED)),
        histogram,
    )


def save_contact_sheet(info: DatasetInfo, path: Path, rows: int = SHEET_ROWS) -> None:
    """Draw a PNG of samples evenly spread, one a row: shallow, deep, depth (near is red) and confidence.

    Raises:
        InputError: There is no sample, or a file of one is missing or broken.
        StorageError: It cannot be written.
    """
    if not info.samples:
        raise InputError(f"data set {info.path}: expected samples to draw, got none")
    count = min(rows, len(info.samples))
    chosen = [info.samples[i * len(info.samples) // count] for i in range(count)]
    strips = [_strip(info.path, sample) for sample in chosen]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, MARGIN), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    _, content = cv2.imencode(".png", np.ascontiguousarray(np.concatenate(padded)[..., ::-1]))
    write_whole(path, content.tobytes())


def _strip(folder: Path, sample: dict[str, Any]) -> Picture:
    pictures = [read_rgb(folder / sample[key]) for key in ("shallow", "deep")]
    if sample["depth"] is not None:
        pictures.append(_coloured(read_depth(folder / sample["depth"])))
        confidence = np.rint(255.0 * read_confidence(folder / sample["confidence"])).astype(np.uint8)
        pictures.append(np.repeat(confidence[..., None], 3, axis=2))
    scale = min(1.0, CELL[0] / pictures[0].shape[1], CELL[1] / pictures[0].shape[0])
    size = (max(1, round(scale * pictures[0].shape[1])), max(1, round(scale * pictures[0].shape[0])))
    cells = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
    strip = np.concatenate([np.pad(cell, ((0, 0), (0, MARGIN), (0, 0))) for cell in cells], axis=1)
    caption = f"{sample['name']}  {sample['split']}"
    # Light over dark is read on any picture.
    for thickness, shade in ((3, 0), (1, 255)):
        strip = cv2.putText(
            np.ascontiguousarray(strip), caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (shade,) * 3, thickness
        )
    return np.asarray(strip, np.uint8)


def _coloured(depth: NDArray[np.float32]) -> Picture:
    """Depth (H, W) by its logarithm, near red and far blue, unknown black."""
    low, high = np.log(HISTOGRAM[0]), np.log(HISTOGRAM[-1])
    known = np.isfinite(depth)
    near = np.zeros(depth.shape, np.uint8)
    near[known] = np.rint(255.0 * np.clip((high - np.log(depth[known])) / (high - low), 0.0, 1.0))
    colours = np.asarray(cv2.applyColorMap(near, cv2.COLORMAP_TURBO)[..., ::-1], np.uint8)
    colours[~known] = 0
    return colours
