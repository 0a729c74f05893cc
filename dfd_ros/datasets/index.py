"""The index of a data set, from what its tasks noted: samples, rejections, bags and calibrations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dfd_ros.data.built import BAGS, INDEX, REJECTED
from dfd_ros.datasets.files import json_line, make_folder, parsed_lines, whole_file, write_whole
from dfd_ros.datasets.plan import Plan, plan_from_json
from dfd_ros.datasets.settings import BuildSettings
from dfd_ros.datasets.split import split_bags
from dfd_ros.datasets.task import rejection
from dfd_ros.storage import look_again

CALIBRATION = "calibration"
CALIBRATION_DIGITS = 12


def write_index(out: Path, settings: BuildSettings, failed: Mapping[str, str]) -> None:
    """Write index, rejections, bags and calibrations of all bags that the folder has; one bag's at a time in memory.

    Raises:
        StorageError: The disk is full or broken.
    """
    look_again(out)
    folders = sorted(path.parent for path in (out / "work").glob("*/plan.json"))
    stamps = {folder.name: [line["stamp"] for line in _noted(folder) if "rejected" not in line] for folder in folders}
    places = split_bags(stamps, settings.split)
    calibrations: set[str] = set()
    bags = []
    make_folder(out / CALIBRATION)
    with whole_file(out / REJECTED) as rejected, whole_file(out / INDEX) as index:
        for folder in folders:
            plan = plan_from_json((folder / "plan.json").read_text(encoding="utf-8"))
            refused = [rejection(plan.name, drop.stamp, drop.cause, drop.why) for drop in plan.dropped]
            where = iter(places[folder.name])
            for line in _noted(folder):
                if "rejected" in line:
                    refused.append(line)
                    continue
                place = next(where)
                line["calibration"] = _calibration(out, line["calibration"], calibrations)
                index.write(json_line({**line, "scene": place.scene, "split": place.split}))
            for line in sorted(refused, key=lambda line: line["stamp"]):
                rejected.write(json_line(line))
            bags.append(_bag(plan, len(stamps[folder.name]), len(refused), failed.get(plan.name, "")))
    known = {bag["name"] for bag in bags}
    bags += [_failed_bag(name, error) for name, error in sorted(failed.items()) if name not in known]
    write_whole(out / BAGS, (json.dumps(bags, indent=2) + "\n").encode())


def _noted(folder: Path) -> Iterator[dict[str, Any]]:
    for ledger in sorted(folder.glob("task_*.jsonl")):
        yield from parsed_lines(ledger.read_bytes())


def _calibration(out: Path, content: dict[str, Any], known: set[str]) -> str:
    """The file of a calibration, named by its content."""
    text = yaml.safe_dump(content, sort_keys=False).encode()
    name = f"{CALIBRATION}/{hashlib.sha256(text).hexdigest()[:CALIBRATION_DIGITS]}.yaml"
    if name not in known:
        write_whole(out / name, text)
        known.add(name)
    return name


def _bag(plan: Plan, samples: int, rejected: int, error: str) -> dict[str, Any]:
    return {
        "name": plan.name,
        "samples": samples,
        "rejected": rejected,
        "lidar": plan.camera_from_lidar is not None,
        "cut": plan.cut,
        "notes": list(plan.notes),
        "error": error,
    }


def _failed_bag(name: str, error: str) -> dict[str, Any]:
    return {"name": name, "samples": 0, "rejected": 0, "lidar": False, "cut": "", "notes": [], "error": error}
