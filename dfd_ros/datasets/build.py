"""Bags into a training set (docs/datasets.md): what is in them, which pairs to make, the pairs, and their index.

Every step leaves a file that is there whole or not at all, and is left out where its file is there: after a kill, a
full disk or a Ctrl-C the same call goes on, and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dfd_ros.data.bags import BagReader
from dfd_ros.data.built import LAYOUT, MANIFEST, VERSION, read_manifest
from dfd_ros.datasets.files import UNFINISHED, locked, make_folder, write_whole
from dfd_ros.datasets.index import write_index
from dfd_ros.datasets.plan import Plan, make_plan, plan_from_json
from dfd_ros.datasets.pool import run_tasks
from dfd_ros.datasets.scan import Scan, ScanTask, scan_bag, slices
from dfd_ros.datasets.settings import BuildSettings
from dfd_ros.datasets.task import Task, run_task
from dfd_ros.datasets.topics import find_topics
from dfd_ros.errors import InputError

SAMPLES, WORK, PLAN, LOCK = "samples", "work", "plan.json", "lock"
RECORDERS_NAME = "bag"
"""What every recording of `dfd vehicle` is called: its folder's name tells them apart."""

Engine = Callable[..., Iterator[tuple[Any, Any]]]
"""Runs a function on tasks, as `run_tasks`."""
Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


@dataclass
class BuildReport:
    """
    Attributes:
        failed: Why a bag was not used to its end, by the bag's name in the data set.
        notes: What the user should know, by the bag's name.
    """

    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def build(
    bags: Sequence[Path],
    out: Path,
    settings: BuildSettings,
    workers: int = 1,
    scheduler: str = "",
    progress: Progress = lambda what, done, total: None,
) -> BuildReport:
    """Make a data set of bags, or go on with it, or add bags to it.

    Args:
        bags: Folders or files, on this machine or in object storage (`storage.open_place`).
        out: The data set's folder, likewise.
        settings: How; those that it was begun with.
        workers: Processes.
        scheduler: Address of a Dask scheduler, to be used in their place.
        progress: See there.

    Raises:
        InputError: Two bags have one name, the folder is no data set, or one of another version or other settings, or
            no bag at all could be used.
        StorageError: The disk is full or broken.
    """
    paths, out = name_bags(bags), out.resolve()
    engine: Engine = partial(run_tasks, workers=workers, scheduler=scheduler)
    _open_folder(out, settings)
    with locked(out / WORK / LOCK, f"data set {out}"):
        report = BuildReport()
        counts: dict[str, int] = {}
        for plan in _plans(paths, out, settings, engine, report, progress):
            counts[plan.name] = len(plan.jobs)
            report.notes[plan.name] = (*((f"cut short: {plan.cut}",) if plan.cut else ()), *plan.notes)
        if not counts:
            raise InputError("; ".join(report.failed.values()))
        done, total = 0, sum(counts.values())
        tasks = (task for name in sorted(counts) for task in _tasks(paths[name], name, out, settings))
        for task, result in engine(run_task, tasks):
            done += len(task.jobs)
            progress("pairs", done, total)
            if isinstance(result, InputError):
                report.failed.setdefault(task.name, str(result))
        write_index(out, settings, report.failed)
    return report


def name_bags(bags: Sequence[Path]) -> dict[str, Path]:
    """The bags by their names in the data set: the folder's or file's, or its folder's where that is just `bag`.

    Raises:
        InputError: There is none, or two have one name.
    """
    if not bags:
        raise InputError("bags: expected one or more, got none")
    named: dict[str, Path] = {}
    for bag in bags:
        path = bag.resolve()
        name = path.stem if path.is_file() else path.name
        if name == RECORDERS_NAME:
            name = path.parent.name or name
        if name in named:
            raise InputError(f"bags: expected different names, got {named[name]} and {path}: rename one")
        named[name] = path
    return named


def _open_folder(out: Path, settings: BuildSettings) -> None:
    manifest = out / MANIFEST
    if manifest.exists():
        content = read_manifest(out)
        if content["settings_hash"] != settings.digest():
            raise InputError(
                f"data set {out}: expected the settings that it was begun with ({content['settings_hash']}), "
                f"got others ({settings.digest()}): {', '.join(_changed(content['settings'], settings))}"
            )
    else:
        begun = MANIFEST + UNFINISHED
        if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {begun}):
            raise InputError(f"data set {out}: expected a new or empty folder, or a data set, got neither")
        make_folder(out)
        content = {"layout": LAYOUT, "version": VERSION, "settings_hash": settings.digest()}
        content["settings"] = settings.content()
        write_whole(manifest, (json.dumps(content, indent=2) + "\n").encode())
    make_folder(out / WORK)


def _changed(old: dict[str, object], settings: BuildSettings) -> list[str]:
    """The names of the settings that differ."""
    new = json.loads(json.dumps(settings.content()))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


@dataclass
class _Opened:
    """A bag on its way to its plan."""

    path: Path
    topics: dict[str, str]
    fingerprint: str
    in_parts: bool
    cut: str
    slices: list[tuple[int, int]]
    scans: dict[int, Scan] = field(default_factory=dict)


def _plans(
    paths: dict[str, Path], out: Path, settings: BuildSettings, engine: Engine, report: BuildReport, progress: Progress
) -> Iterator[Plan]:
    """The bags' plans, kept or made; which bag has none, and why, goes to the report."""
    opened: dict[str, _Opened] = {}
    for name, path in paths.items():
        try:
            found = _kept_plan(path, out / WORK / name / PLAN, settings)
        except InputError as error:
            report.failed[name] = str(error)
            continue
        if isinstance(found, Plan):
            yield found
        else:
            opened[name] = found
    tasks = [
        (name, ScanTask(bag.path, bag.topics, start, end)) for name, bag in opened.items() for start, end in bag.slices
    ]
    for number, (task, scan) in enumerate(engine(_scan, tasks), 1):
        progress("scanning", number, len(tasks))
        name, bag = task[0], opened[task[0]]
        if isinstance(scan, InputError):
            report.failed.setdefault(name, str(scan))
            continue
        bag.scans[task[1].start] = scan
        if len(bag.scans) < len(bag.slices):
            continue
        try:
            plan = _make_plan(name, bag, settings)
        except InputError as error:
            report.failed[name] = str(error)
            continue
        finally:
            bag.scans.clear()
        make_folder(out / WORK / name)
        make_folder(out / SAMPLES / name)
        write_whole(out / WORK / name / PLAN, plan.to_json().encode())
        yield plan


def _kept_plan(path: Path, file: Path, settings: BuildSettings) -> Plan | _Opened:
    """A bag's plan, if it has been made; otherwise what it takes to make one."""
    with BagReader(path) as bag:
        fingerprint = _fingerprint(bag)
        if not file.exists():
            topics = find_topics(bag.topics, settings.topics, f"bag {path}")
            cut = ""
            if bag.recovered is not None:
                cut = f"{bag.recovered} messages of {bag.duration:.1f} s were found before the cut"
            return _Opened(path, topics, fingerprint, bag.random_access, cut, list(slices(bag)))
    plan = plan_from_json(file.read_text(encoding="utf-8"))
    if plan.fingerprint != fingerprint:
        raise InputError(
            f"bag {path}: expected the {plan.name!r} that the data set was begun with, it has changed, "
            "or is another bag of that name"
        )
    return plan


def _make_plan(name: str, bag: _Opened, settings: BuildSettings) -> Plan:
    whole = Scan()
    for start in sorted(bag.scans):
        whole.add(bag.scans[start])
    plan = make_plan(name, bag.path, bag.topics, whole, settings)
    return replace(plan, fingerprint=bag.fingerprint, in_parts=bag.in_parts, cut=bag.cut or whole.damage)


def _scan(task: tuple[str, ScanTask]) -> Scan:
    return scan_bag(task[1])


def _fingerprint(bag: BagReader) -> str:
    content = [bag.start_time_ns, bag.end_time_ns, sorted(bag.counts.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _tasks(path: Path, name: str, out: Path, settings: BuildSettings) -> Iterator[Task]:
    """The tasks of a bag. One that cannot be read in parts is one task: each would read all that is before it."""
    plan = plan_from_json((out / WORK / name / PLAN).read_text(encoding="utf-8"))
    size = settings.pairs_per_task if plan.in_parts else max(len(plan.jobs), 1)
    for number, first in enumerate(range(0, len(plan.jobs), size)):
        jobs = plan.jobs[first : first + size]
        ledger = out / WORK / name / f"task_{number:05d}.jsonl"
        yield Task(path, name, plan.topics, jobs, plan.camera_from_lidar, settings, out, ledger)
