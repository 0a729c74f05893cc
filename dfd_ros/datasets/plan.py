"""What is to be made of a bag: its pairs, each with the messages it needs, and the frames that are in none.

Pairs are those recorded, or made of frames and the aperture's reports by the pair node's own `Pairer`. All of a bag is
paired at once, whatever the tasks it is then worked off in, so how it is divided changes nothing.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from dfd_ros.capture.aperture import ApertureReport
from dfd_ros.capture.pairing import Drop, Frame, Pair, Pairer, exposure_interval
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.scan import FrameSeen, Reference, Scan, TwistSeen
from dfd_ros.datasets.settings import BuildSettings, PairSettings
from dfd_ros.errors import InputError
from dfd_ros.geometry import Transform
from dfd_ros.stamps import NANOSECONDS

MAX_WAITING = 1000
"""Frames that wait for the aperture's reports: nothing is in a hurry here."""
NO_LIDAR = "no_lidar"


@dataclass(frozen=True)
class Job:
    """One pair to make. Times in nanoseconds.

    Attributes:
        stamp: The deep image's, which names the pair.
        deep: The deep image's message, or the recorded pair's.
        shallow: The shallow image's message; None where the pair was recorded.
        exposure_times: Shallow and deep, seconds.
        light_ratio: The deep image's light over the shallow one's by their settings, NaN where not known.
        info: The camera_info's message; None where the recorded pair brings it along or there is none.
        sweep: The nearest sweep's message; None in a bag whose LiDAR is not used.
        twist: The vehicle's motion at that time; None where not known.
    """

    stamp: int
    deep: Reference
    shallow: Reference | None = None
    exposure_times: tuple[float, float] = (math.nan, math.nan)
    light_ratio: float = math.nan
    info: Reference | None = None
    sweep: Reference | None = None
    twist: TwistSeen | None = None

    @property
    def messages(self) -> tuple[tuple[str, Reference], ...]:
        """The messages it needs, by their names in the vehicle, camera_info aside."""
        pictures: tuple[tuple[str, Reference], ...] = ((names.PAIR, self.deep),)
        if self.shallow is not None:
            pictures = ((names.IMAGE, self.shallow), (names.IMAGE, self.deep))
        return pictures if self.sweep is None else (*pictures, (names.POINTS, self.sweep))


@dataclass(frozen=True)
class Dropped:
    """A frame or pair that nothing is made of: its stamp, nanoseconds, the cause in a word, and in a sentence."""

    stamp: int
    cause: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What is to be made of a bag.

    Attributes:
        name: The bag's, unique in the data set.
        topics: Recorded topic by the vehicle's name.
        jobs: The pairs to make, in the order of their reception.
        dropped: What will not be made.
        camera_from_lidar: The extrinsics; None where the LiDAR is not used.
        notes: What the user should know about the bag, in sentences.
        fingerprint: Of the times and counts of the bag's messages, by which a changed bag is told.
        in_parts: Whether a part of the bag can be read without what is before it.
        cut: Where the bag ends before its end; empty if it is whole.
    """

    name: str
    topics: dict[str, str]
    jobs: tuple[Job, ...]
    dropped: tuple[Dropped, ...]
    camera_from_lidar: Transform | None
    notes: tuple[str, ...]
    fingerprint: str = ""
    in_parts: bool = True
    cut: str = ""

    def to_json(self) -> str:
        """As text that `plan_from_json` reads back."""
        pose = self.camera_from_lidar
        content = {
            "name": self.name,
            "topics": self.topics,
            "fingerprint": self.fingerprint,
            "in_parts": self.in_parts,
            "notes": self.notes,
            "cut": self.cut,
            "camera_from_lidar": None if pose is None else [pose.rotation.tolist(), pose.translation.tolist()],
            "dropped": [asdict(one) for one in self.dropped],
            "jobs": [asdict(one) for one in self.jobs],
        }
        return json.dumps(content, indent=None)


def plan_from_json(text: str) -> Plan:
    """The plan of a text that `to_json` wrote."""
    content = json.loads(text)
    pose = content["camera_from_lidar"]
    return Plan(
        name=content["name"],
        topics=content["topics"],
        jobs=tuple(map(_job, content["jobs"])),
        dropped=tuple(Dropped(**one) for one in content["dropped"]),
        camera_from_lidar=None if pose is None else Transform(np.array(pose[0]), np.array(pose[1])),
        notes=tuple(content["notes"]),
        fingerprint=content["fingerprint"],
        in_parts=content["in_parts"],
        cut=content["cut"],
    )


def make_plan(name: str, bag: Path, topics: dict[str, str], scan: Scan, settings: BuildSettings) -> Plan:
    """Decide what is made of a scanned bag.

    Raises:
        InputError: There is a LiDAR, but nothing tells where it is.
    """
    notes = [f"{count} unreadable messages on {topic} left out" for topic, count in sorted(scan.bad.items())]
    pose = _camera_from_lidar(scan, topics, settings, bag, notes)
    jobs, dropped = _recorded(scan) if names.PAIR in topics else _paired(scan, settings)
    jobs, repeated = _without_repeats(jobs)
    dropped += repeated
    if pose is not None:
        jobs, without = _with_sweeps(jobs, scan, settings)
        dropped += without
    if not jobs:
        notes.append("no pair in it")
    ordered = tuple(sorted(dropped, key=lambda drop: drop.stamp))
    return Plan(name, topics, tuple(jobs), ordered, pose, tuple(notes))


def _recorded(scan: Scan) -> tuple[list[Job], list[Dropped]]:
    return [Job(at.stamp, at) for at in scan.pairs], []


def _paired(scan: Scan, settings: BuildSettings) -> tuple[list[Job], list[Dropped]]:
    """Jobs of frames, by the pair node's rules."""
    p = settings.pairs
    pairer: Pairer[FrameSeen] = Pairer(
        round(p.max_skew * NANOSECONDS), round(p.clock_tolerance * NANOSECONDS), MAX_WAITING
    )
    outcomes: list[Pair[FrameSeen] | Drop[FrameSeen]] = []
    for event in scan.events:
        if isinstance(event, ApertureReport):
            outcomes += pairer.add_report(event)
        else:
            outcomes += pairer.add_frame(_frame(event, scan, p))
    outcomes += pairer.flush()
    infos = [stamp for stamp, _ in scan.info_changes]
    jobs, dropped = [], []
    for outcome in outcomes:
        if isinstance(outcome, Drop):
            cause = outcome.cause.value
            dropped.append(Dropped(outcome.frame.payload.at.stamp, cause, FRAME_CAUSES[cause]))
            continue
        shallow, deep = outcome.shallow.payload.at, outcome.deep.payload.at
        info = None
        if infos:
            # The one in force, or, before the first of them, that.
            number = max(bisect_right(infos, deep.stamp) - 1, 0)
            info = scan.infos[scan.info_changes[number][1]]
        times, ratio = _light(shallow, deep, scan, settings)
        jobs.append(Job(deep.stamp, deep, shallow, times, ratio, info))
    return jobs, dropped


def _frame(seen: FrameSeen, scan: Scan, settings: PairSettings) -> Frame[FrameSeen]:
    known = scan.exposures.get(seen.at.stamp)
    seconds = known[0] if known else max(settings.exposure_times)
    start, end = exposure_interval(seen.at.stamp, round(seconds * NANOSECONDS), settings.stamp_at)
    return Frame(start, end, (seen.height, seen.width, seen.encoding), seen)


def _light(
    shallow: Reference, deep: Reference, scan: Scan, settings: BuildSettings
) -> tuple[tuple[float, float], float]:
    """Exposure times, and the deep image's light over the shallow one's; NaN where it is not known."""
    assumed = settings.pairs.exposure_times
    shallow_time, shallow_gain = scan.exposures.get(shallow.stamp, (assumed[0], 1.0))
    deep_time, deep_gain = scan.exposures.get(deep.stamp, (assumed[1], 1.0))
    ratio = math.nan
    if settings.lens is not None and shallow_time * shallow_gain > 0.0:
        ratio = deep_time * deep_gain / (shallow_time * shallow_gain) * settings.lens.f_number_ratio**2
    return (shallow_time, deep_time), ratio


def _without_repeats(jobs: Sequence[Job]) -> tuple[list[Job], list[Dropped]]:
    """Stamps name the pairs: the first of each, and those whose stamp was there already (a clock that was set back)."""
    seen: set[int] = set()
    first: list[Job] = []
    again: list[Dropped] = []
    for job in jobs:
        if job.stamp in seen:
            again.append(Dropped(job.stamp, "stamp_repeated", "expected a stamp of its own, got an earlier pair's"))
        else:
            first.append(job)
        seen.add(job.stamp)
    return first, again


def _with_sweeps(jobs: Sequence[Job], scan: Scan, settings: BuildSettings) -> tuple[list[Job], list[Dropped]]:
    """The jobs with the sweep and the motion nearest in time, and those that have no sweep."""
    sweeps = sorted(scan.sweeps, key=lambda at: at.stamp)
    twists = sorted(scan.twists, key=lambda twist: twist.stamp)
    with_sweep, without = [], []
    for job in jobs:
        sweep = _nearest(sweeps, job.stamp, settings.depth.max_skew)
        if sweep is None:
            why = f"expected a LiDAR sweep within {settings.depth.max_skew:g} s of the deep image, got none"
            without.append(Dropped(job.stamp, NO_LIDAR, why))
            continue
        twist = _nearest(twists, job.stamp, settings.depth.max_twist_skew)
        with_sweep.append(replace(job, sweep=sweep, twist=twist if settings.depth.deskew else None))
    return with_sweep, without


class _Stamped(Protocol):
    @property
    def stamp(self) -> int: ...


Item = TypeVar("Item", bound=_Stamped)


def _nearest(items: Sequence[Item], stamp: int, max_skew: float) -> Item | None:
    """The item nearest to a time, of those ordered by their stamps, if it is within `max_skew` seconds."""
    after = bisect_left(items, stamp, key=lambda item: item.stamp)
    nearest = min(items[max(after - 1, 0) : after + 1], key=lambda item: abs(item.stamp - stamp), default=None)
    return nearest if nearest is not None and abs(nearest.stamp - stamp) <= max_skew * NANOSECONDS else None


def _camera_from_lidar(
    scan: Scan, topics: dict[str, str], settings: BuildSettings, bag: Path, notes: list[str]
) -> Transform | None:
    """Where the LiDAR is; None, with a note, in a bag that has none or does not tell the camera's calibration."""
    if names.POINTS not in topics or not scan.sweeps:
        notes.append("no LiDAR: pairs without depth")
        return None
    if names.PAIR not in topics and not scan.infos:
        notes.append("no camera_info: pairs without depth")
        return None
    if settings.extrinsics is not None:
        return settings.extrinsics.camera_from_lidar
    if scan.lidar_frame == scan.camera_frame:
        return Transform()
    joined = joined_frames(scan.transforms, scan.camera_frame, scan.lidar_frame)
    if joined is None:
        raise InputError(
            f"bag {bag}: expected /tf_static to join {scan.lidar_frame!r} to {scan.camera_frame!r}, it does not; "
            "give an extrinsics file (--extrinsics)"
        )
    return joined


def joined_frames(transforms: dict[tuple[str, str], Transform], target: str, source: str) -> Transform | None:
    """`target_from_source` along transforms by (target, source), either way; None where they do not join the two."""
    steps = dict(transforms)
    steps |= {(b, a): transform.inverse() for (a, b), transform in transforms.items()}
    reached, edge = {target: Transform()}, [target]
    while edge and source not in reached:
        near = edge.pop(0)
        for (a, b), step in steps.items():
            if a == near and b not in reached:
                reached[b] = reached[near] @ step
                edge.append(b)
    return reached.get(source)


FRAME_CAUSES = {
    "transition": "the aperture was moving while the frame was exposed",
    "aperture_unknown": "expected an aperture/state that covers the frame's exposure, got none",
    "aperture_fault": "the aperture's driver did not answer while the frame was exposed",
    "unpaired": "the neighbouring frame has the same aperture",
    "skew": "the neighbouring frame is further away in time than allowed",
    "size_mismatch": "the frame differs in size from its neighbour",
    "stamp_backwards": "expected a stamp after the previous frame's, got one before it",
}
"""What each cause of `Pairer` means."""


def _job(content: dict[str, Any]) -> Job:
    references = {
        key: None if content[key] is None else Reference(**content[key]) for key in ("deep", "shallow", "info", "sweep")
    }
    twist = content["twist"]
    if twist is not None:
        velocities = {key: tuple(twist[key]) for key in ("linear", "angular")}
        twist = TwistSeen(**{**twist, **velocities})
    rest = {"exposure_times": tuple(content["exposure_times"]), "twist": twist}
    return Job(**{**content, **references, **rest})
