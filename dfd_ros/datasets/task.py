"""One task: a run of a bag's pairs, read in one pass over the time that they span, made, written and noted down.

It holds the messages of a few pairs at a time, whatever the bag's size. A pair is noted once its files are there, and
what is noted is not made again, so a task that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.blas import keep_blas_to_one_thread
from dfd_ros.data.bags import BagMessage, BagReader
from dfd_ros.data.cloud_messages import sweep_from_message
from dfd_ros.data.image_messages import header_stamp
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.dense import SweepDensifier
from dfd_ros.datasets.files import (
    SUFFIXES,
    encoded_confidence,
    encoded_depth,
    encoded_picture,
    open_ledger,
    write_whole,
)
from dfd_ros.datasets.pairs import MadePair, RejectedError, paired, recorded_pair
from dfd_ros.datasets.plan import NO_LIDAR, Job
from dfd_ros.datasets.scan import Reference
from dfd_ros.datasets.settings import BuildSettings, plain_lens
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.stamps import NANOSECONDS

HISTOGRAM = np.geomspace(0.5, 128.0, 25)
"""Bounds of the bins in which depths are counted, metres."""
UNREADABLE = "unreadable"

Key = tuple[str, int, int]  # topic, time of receipt, stamp


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        bag: The bag, and its name in the data set.
        name: See above.
        topics: Recorded topic by the vehicle's name.
        jobs: The pairs to make, in the order of their reception.
        camera_from_lidar: The extrinsics; None where the LiDAR is not used.
        settings: How.
        out: The data set's folder.
        ledger: Where it is noted what was made.
    """

    bag: Path
    name: str
    topics: dict[str, str]
    jobs: tuple[Job, ...]
    camera_from_lidar: Transform | None
    settings: BuildSettings
    out: Path
    ledger: Path


def run_task(task: Task) -> int:
    """Make what of a task is not made yet; returns how many pairs the task has.

    Raises:
        InputError: The bag cannot be opened.
        StorageError: The disk is full or broken.
    """
    # What products come to in the last bit depends on the number of threads, and so would the bytes written.
    keep_blas_to_one_thread()
    with open_ledger(task.ledger) as ledger:
        made = {record["stamp"] for record in ledger.records}
        jobs = [job for job in task.jobs if job.stamp not in made]
        if jobs:
            maker = _Maker(task)
            with BagReader(task.bag) as bag:
                for job, messages in gather(bag, task.topics, jobs):
                    ledger.add(maker.record(bag, job, messages))
    return len(task.jobs)


def gather(bag: BagReader, topics: dict[str, str], jobs: Sequence[Job]) -> Iterator[tuple[Job, list[BagMessage] | str]]:
    """Each job in turn with its messages, or with the reason why they cannot be read."""
    wanted: Counter[Key] = Counter(key for job in jobs for key in _keys(job, topics))
    times = [time for _, time, _ in wanted]
    kept: dict[Key, BagMessage] = {}
    messages = bag.messages({topic for topic, _, _ in wanted}, min(times), max(times) + 1)
    damage, ended = f"bag {bag.path}: expected the pair's messages, got none: the bag has changed", False
    for job in jobs:
        keys = _keys(job, topics)
        while not ended and not all(key in kept for key in keys):
            try:
                message = next(messages, None)
            except InputError as error:
                damage, message = str(error), None
            if message is None:
                ended = True
                break
            key = (message.topic, message.receive_time_ns, header_stamp(message.data))
            if wanted.get(key, 0) > 0:
                kept[key] = message
        found = [kept[key] for key in keys if key in kept]
        yield job, found if len(found) == len(keys) else damage
        for key in keys:
            wanted[key] -= 1
            if wanted[key] <= 0:
                kept.pop(key, None)


def _keys(job: Job, topics: dict[str, str]) -> list[Key]:
    return [_key(topics[name], at) for name, at in job.messages]


def _key(topic: str, at: Reference) -> Key:
    return topic, at.received, at.stamp


class _Maker:
    """Makes the pairs of a task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        pose = task.camera_from_lidar
        self._densifier = None if pose is None else SweepDensifier(task.settings.depth, pose)
        self._infos: dict[Reference, Any] = {}

    def record(self, bag: BagReader, job: Job, messages: list[BagMessage] | str) -> dict[str, Any]:
        """Make a pair, write its files, and return its line: of the index, or of what was rejected."""
        try:
            if isinstance(messages, str):
                raise RejectedError(UNREADABLE, messages)
            pair = self._pair(bag, job, messages)
            depth = self._depth(bag, job, pair, messages[-1])
        except RejectedError as error:
            return rejection(self._task.name, job.stamp, error.cause, error.why)
        return self._write(job, pair, depth)

    def _pair(self, bag: BagReader, job: Job, messages: list[BagMessage]) -> MadePair:
        settings = self._task.settings
        try:
            if job.shallow is None:
                return recorded_pair(bag.decode(messages[0]), settings)
            info = None if job.info is None else self._info(bag, job.info)
            return paired(bag.decode(messages[0]), bag.decode(messages[1]), info, job, settings)
        except RejectedError:
            raise
        except InputError as error:  # bytes that are no such message, or a lens that is none
            raise RejectedError(UNREADABLE, str(error)) from error

    def _info(self, bag: BagReader, at: Reference) -> Any:
        if at not in self._infos:
            topic = self._task.topics[names.INFO]
            for message in bag.messages((topic,), at.received, at.received + 1):
                if header_stamp(message.data) == at.stamp:
                    self._infos[at] = bag.decode(message)
        return self._infos[at]

    def _depth(self, bag: BagReader, job: Job, pair: MadePair, message: BagMessage) -> dict[str, Any] | None:
        """Depth and confidence, and what the index says of them; None where the bag's LiDAR is not used."""
        if self._densifier is None or job.sweep is None:
            return None
        if pair.camera is None:
            raise RejectedError("not_calibrated", "expected a camera_info with focal lengths, got one of zeros")
        least = self._task.settings.checks.min_returns
        try:
            sweep = sweep_from_message(bag.decode(message))
            found = self._densifier.solve(pair.deep, pair.camera, sweep, job.stamp, job.twist)
        except InputError as error:
            raise RejectedError("bad_sweep", str(error)) from error
        if found.returns < least:
            why = f"expected {least} LiDAR returns in the picture or more, got {found.returns}"
            raise RejectedError(NO_LIDAR, why)
        depth = found.dense.depth
        known = depth[np.isfinite(depth)]
        if not len(known):
            raise RejectedError(NO_LIDAR, "expected depth at some pixel at least, got none")
        return {
            "depth": depth,
            "confidence": found.dense.confidence,
            "returns": found.returns,
            "known": round(len(known) / depth.size, 4),
            "lidar_skew": round((job.sweep.stamp - job.stamp) / NANOSECONDS, 6),
            "deskewed": found.deskewed,
            "histogram": _histogram(known),
        }

    def _write(self, job: Job, pair: MadePair, depth: dict[str, Any] | None) -> dict[str, Any]:
        task, settings = self._task, self._task.settings
        start = f"samples/{task.name}/{job.stamp}_"
        suffix = SUFFIXES[settings.image_format]
        files = {
            "shallow": (f"{start}shallow{suffix}", encoded_picture(pair.shallow, settings)),
            "deep": (f"{start}deep{suffix}", encoded_picture(pair.deep, settings)),
        }
        about = {"returns": 0, "known": 0.0, "lidar_skew": None, "deskewed": False, "histogram": None}
        if depth is not None:
            files["depth"] = (f"{start}depth.{settings.depth_format}", encoded_depth(depth["depth"], settings))
            files["confidence"] = (f"{start}confidence.png", encoded_confidence(depth["confidence"]))
            about = {key: depth[key] for key in about}
        for path, content in files.values():
            write_whole(task.out / path, content)
        return {
            "name": f"{task.name}/{job.stamp}",
            "bag": task.name,
            "stamp": job.stamp,
            "shallow_stamp": pair.shallow_stamp,
            **{key: files[key][0] if key in files else None for key in ("shallow", "deep", "depth", "confidence")},
            "gamma": round(pair.gamma, 6),
            "gain": round(pair.gain, 4),
            "motion": None if math.isnan(pair.motion) else round(pair.motion, 3),
            "compensated": pair.compensated,
            "exposure_times": [None if math.isnan(time) else round(time, 9) for time in pair.exposure_times],
            **about,
            "calibration": {
                "lens": None if pair.lens is None else plain_lens(pair.lens),
                "camera": None if pair.camera is None else _plain_camera(pair.camera),
            },
        }


def rejection(bag: str, stamp: int, cause: str, why: str) -> dict[str, Any]:
    """The line of what was rejected."""
    return {"name": f"{bag}/{stamp}", "bag": bag, "stamp": stamp, "rejected": cause, "why": why}


def _plain_camera(camera: Camera) -> dict[str, Any]:
    return {**asdict(camera), "distortion": list(camera.distortion)}


def _histogram(depths: NDArray[np.float32]) -> list[int]:
    """Pixels by depth, in the bins of `HISTOGRAM`; what lies outside is in the first or the last.

    By their millimetres, as stored: the last bit may differ between a process that compiled its kernels and one that
    found them compiled.
    """
    inside = np.clip(1e-3 * np.rint(1e3 * depths.astype(np.float64)), HISTOGRAM[0], HISTOGRAM[-1])
    return np.histogram(inside, HISTOGRAM)[0].tolist()
