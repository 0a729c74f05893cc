"""Pairs of a bag, evenly spread over it, with their sweeps: what the checks of pictures are shown.

They are found as for a data set, excerpt by excerpt, so that memory does not grow with the bag; where raw images were
recorded, pairs are made of these, since recorded pairs were already matched.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.checks.findings import Picture
from dfd_ros.data.bags import BagMessage, BagReader
from dfd_ros.data.cloud_messages import sweep_from_message
from dfd_ros.data.image_messages import picture_array
from dfd_ros.data.vehicle_messages import camera_from_info
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.plan import Job, Plan, make_plan
from dfd_ros.datasets.scan import Reference, Scan, ScanTask, scan_bag
from dfd_ros.datasets.settings import BuildSettings
from dfd_ros.datasets.task import gather
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.deskew import Twist, deskew, seen_from
from dfd_ros.stamps import NANOSECONDS

EXCERPTS = 12
"""Stretches of a long bag that pairs are taken from,"""
EXCERPT = 4 * NANOSECONDS
"""each so long."""


@dataclass(frozen=True)
class PairSample:
    """A pair as recorded, not matched.

    Attributes:
        at: The deep image's message, or the recorded pair's.
        shallow, deep: (H, W) or (H, W, 3) uint8, red first.
        gamma: Their encoding.
        light_ratio: The deep image's light over the shallow one's by exposures and f-numbers; NaN where not known.
        applied_gain: What the shallow image's light was multiplied by before it was recorded.
        motion: Between the two as taken, pixels, where it was recorded; else NaN.
        camera: Of these pictures; None where not known.
        points: (N, 3) float32 of the nearest sweep, metres in the LiDAR's frame at the deep image's time; None without.
        camera_from_lidar: The extrinsics; None without.
    """

    at: Reference
    shallow: Picture
    deep: Picture
    gamma: float
    light_ratio: float
    applied_gain: float = 1.0
    motion: float = math.nan
    camera: Camera | None = None
    points: NDArray[np.float32] | None = None
    camera_from_lidar: Transform | None = None


@dataclass
class Sampling:
    """What sampling came across.

    Attributes:
        frames: Frames looked at, and of them by cause those in no pair.
        unplaced: Frames of the LiDAR and of the camera that nothing joins; empty where all is known.
        problems: Why pairs could not be read, in sentences.
    """

    frames: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unplaced: tuple[str, str] = ("", "")
    problems: list[str] = field(default_factory=list)


def sample_pairs(
    bag: BagReader,
    topics: Mapping[str, str],
    f_numbers: Mapping[int, float],
    settings: BuildSettings,
    budget: int,
    sampling: Sampling,
) -> Iterator[PairSample]:
    """Up to `budget` pairs in the order of their reception; what else was found goes into `sampling`.

    `f_numbers` are those of the aperture's states, by index.

    Raises:
        InputError: The bag cannot be opened again.
    """
    if {names.IMAGE, names.APERTURE} <= topics.keys():
        topics = {name: topic for name, topic in topics.items() if name != names.PAIR}
    transforms = _transforms(bag, topics)
    excerpts = _excerpts(bag)
    for number, (start, end) in enumerate(excerpts):
        share = budget * (number + 1) // len(excerpts) - budget * number // len(excerpts)
        scan = scan_bag(ScanTask(bag.path, dict(topics), start, end))
        scan.transforms |= transforms
        plan = _plan(bag, dict(topics), scan, settings, sampling)
        sampling.frames += sum(hasattr(event, "height") for event in scan.events)
        sampling.dropped.update(drop.cause for drop in plan.dropped)
        count = min(share, len(plan.jobs))
        jobs = [plan.jobs[i * len(plan.jobs) // count] for i in range(count)]
        if not jobs:
            continue
        maker = _Maker(bag, plan, scan, f_numbers, settings)
        for job, messages in gather(bag, plan.topics, jobs):
            try:
                if isinstance(messages, str):
                    raise InputError(messages)
                yield maker.sample(job, messages)
            except InputError as error:
                if str(error) not in sampling.problems:
                    sampling.problems.append(str(error))


def _excerpts(bag: BagReader) -> Sequence[tuple[int, int]]:
    """Times [start, end) of receipt, nanoseconds."""
    start, end = bag.start_time_ns, bag.end_time_ns + 1
    # What cannot be read in parts is read once.
    if end - start <= EXCERPTS * EXCERPT or not bag.random_access:
        return [(start, end)]
    begins = [start + number * (end - start - EXCERPT) // (EXCERPTS - 1) for number in range(EXCERPTS)]
    return [(begin, begin + EXCERPT) for begin in begins]


def _transforms(bag: BagReader, topics: Mapping[str, str]) -> dict[tuple[str, str], Transform]:
    """All of /tf_static, which mostly comes once."""
    if names.TRANSFORMS not in topics:
        return {}
    only = {names.TRANSFORMS: topics[names.TRANSFORMS]}
    return scan_bag(ScanTask(bag.path, only, bag.start_time_ns, bag.end_time_ns + 1)).transforms


def _plan(bag: BagReader, topics: dict[str, str], scan: Scan, settings: BuildSettings, sampling: Sampling) -> Plan:
    try:
        return make_plan("", bag.path, topics, scan, settings)
    except InputError:
        # Nothing tells where the LiDAR is: the pairs can be checked all the same.
        sampling.unplaced = scan.lidar_frame, scan.camera_frame
        without = {name: topic for name, topic in topics.items() if name != names.POINTS}
        return make_plan("", bag.path, without, scan, settings)


class _Maker:
    """Makes samples of an excerpt's jobs."""

    def __init__(
        self, bag: BagReader, plan: Plan, scan: Scan, f_numbers: Mapping[int, float], settings: BuildSettings
    ) -> None:
        self._bag, self._plan, self._scan, self._settings = bag, plan, scan, settings
        self._f_ratio = f_numbers.get(0, math.nan) / f_numbers.get(1, math.nan)
        self._infos: dict[Reference, Any] = {}

    def sample(self, job: Job, messages: Sequence[BagMessage]) -> PairSample:
        sample = self._recorded(job, messages) if job.shallow is None else self._paired(job, job.shallow, messages)
        if sample.shallow.shape != sample.deep.shape:
            raise InputError(f"pair: expected one size, got {sample.shallow.shape} and {sample.deep.shape}")
        if job.sweep is None or self._plan.camera_from_lidar is None:
            return sample
        return replace(sample, points=self._points(job, messages[-1]), camera_from_lidar=self._plan.camera_from_lidar)

    def _recorded(self, job: Job, messages: Sequence[BagMessage]) -> PairSample:
        pair = self._bag.decode(messages[0])
        shallow, deep = (picture_array(image, "pair") for image in (pair.shallow, pair.deep))
        times = float(pair.shallow_exposure_time), float(pair.deep_exposure_time)
        numbers = float(pair.shallow_f_number), float(pair.deep_f_number)
        known = min(*times, *numbers) > 0.0
        ratio = times[1] / times[0] * (numbers[0] / numbers[1]) ** 2 if known else math.nan
        camera = camera_from_info(pair.camera_info, deep.shape) if pair.camera_info.k[0] > 0.0 else None
        gain, motion = float(pair.shallow_gain) or 1.0, float(pair.motion)
        return PairSample(job.deep, shallow, deep, float(pair.gamma) or 1.0, ratio, gain, motion, camera)

    def _paired(self, job: Job, shallow_at: Reference, messages: Sequence[BagMessage]) -> PairSample:
        shallow, deep = (picture_array(self._bag.decode(message), message.topic) for message in messages[:2])
        light = [self._scan.exposures.get(at.stamp) for at in (shallow_at, job.deep)]
        ratio = math.nan
        if light[0] is not None and light[1] is not None and light[0][0] * light[0][1] > 0.0:
            ratio = light[1][0] * light[1][1] / (light[0][0] * light[0][1]) * self._f_ratio**2
        camera = None
        if job.info is not None:
            info = self._info(job.info)
            camera = camera_from_info(info, deep.shape) if info.k[0] > 0.0 else None
        return PairSample(job.deep, shallow, deep, self._settings.pairs.gamma, ratio, camera=camera)

    def _info(self, at: Reference) -> Any:
        if at not in self._infos:
            topic = self._plan.topics[names.INFO]
            for message in self._bag.messages((topic,), at.received, at.received + 1):
                self._infos[at] = self._bag.decode(message)
        return self._infos[at]

    def _points(self, job: Job, message: BagMessage) -> NDArray[np.float32]:
        sweep = sweep_from_message(self._bag.decode(message))
        twist = self._twist(job, sweep.frame_id)
        if twist is None or sweep.times is None:
            return sweep.points
        return deskew(sweep.points, sweep.times, twist, (job.stamp - sweep.stamp) / NANOSECONDS)

    def _twist(self, job: Job, lidar_frame: str) -> Twist | None:
        """The LiDAR's motion; None where it is not known."""
        pose = self._plan.camera_from_lidar
        if job.twist is None or pose is None:
            return None
        twist = Twist(np.array(job.twist.linear), np.array(job.twist.angular))
        if job.twist.frame_id == lidar_frame:
            return twist
        return seen_from(pose.inverse(), twist) if job.twist.frame_id == self._scan.camera_frame else None
