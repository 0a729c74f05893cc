"""`dfd bag check`: what is wrong with a recording, before anyone trains on it. No labels, no ROS.

Every message is looked at once, as it comes; then pairs evenly spread over the recording, with their sweeps. What is
kept of a message are 16 bytes, so an hour of a vehicle takes 10 MB, whatever its pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dfd_ros.checks.alignment import Alignment
from dfd_ros.checks.aperture import Apertures, unlabelled
from dfd_ros.checks.cameras import Cameras
from dfd_ros.checks.exposure import Exposures
from dfd_ros.checks.findings import Check, Finding, Severity
from dfd_ros.checks.messages import Seen, messages
from dfd_ros.checks.motion import Motions
from dfd_ros.checks.presence import Presence, no_extrinsics
from dfd_ros.checks.samples import PairSample, Sampling, sample_pairs
from dfd_ros.checks.timing import Timing
from dfd_ros.data.bags import BagReader
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.scan import Reference
from dfd_ros.datasets.settings import BuildSettings, PairSettings
from dfd_ros.errors import InputError
from dfd_ros.lidar.calibration import Extrinsics
from dfd_ros.stamps import NANOSECONDS

SAMPLES = 60
# What follows from another finding is not told beside it.
_FOLLOWS = {
    "unlabelled": {"gap", "clock_jump", "clock_drift", "clock_offset", "missing_topic", "camera_mixed"},
    "brightness_mismatch": {"aperture_mismatch"},
    "gap": {"damaged"},
}
_OF_STREAMS = ("gap", "clock_jump")
_TOGETHER = NANOSECONDS // 2
_ORDER = {severity: number for number, severity in enumerate((Severity.FATAL, Severity.ERROR, Severity.WARNING))}


@dataclass(frozen=True)
class CheckSettings:
    """
    Attributes:
        topics: Recorded topic by the vehicle's name, where it is another than that.
        extrinsics: Of the LiDAR; None: by the bag's /tf_static.
        samples: How many pairs are looked at; 0: none.
        gamma: Encoding of raw images.
        max_motion: Pixels that a pair's images may be apart.
    """

    topics: Mapping[str, str] = field(default_factory=dict)
    extrinsics: Extrinsics | None = None
    samples: int = SAMPLES
    gamma: float = 2.2
    max_motion: float = 8.0


@dataclass(frozen=True)
class Report:
    """What was found in a bag.

    Attributes:
        bag: The bag.
        start_time_ns: Receive time of its first message.
        duration: Seconds.
        counts: Messages by topic.
        pairs, sweeps: How many pairs were looked at, and how many of them with a sweep.
        findings: The worst first, then by time.
        notes: What could not be checked, in sentences.
    """

    bag: Path
    start_time_ns: int
    duration: float
    counts: Mapping[str, int]
    pairs: int
    sweeps: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: nothing was found; 1: something; 2: nothing can be made of the bag."""
        if any(finding.severity is Severity.FATAL for finding in self.findings):
            return 2
        return 1 if self.findings else 0

    def seconds(self, finding: Finding) -> float | None:
        """When a finding begins: seconds of receipt from the bag's start."""
        return None if finding.at is None else 1e-9 * (finding.at.received - self.start_time_ns)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "bag": str(self.bag),
            "duration_s": round(self.duration, 3),
            "messages": dict(self.counts),
            "pairs_looked_at": self.pairs,
            "sweeps_looked_at": self.sweeps,
            "findings": [self._plain(finding) for finding in self.findings],
            "notes": list(self.notes),
        }

    def _plain(self, finding: Finding) -> dict[str, Any]:
        seconds = self.seconds(finding)
        return {
            "kind": finding.kind,
            "severity": finding.severity.value,
            "topic": finding.topic,
            "time_s": None if seconds is None else round(seconds, 3),
            "stamp": None if finding.at is None else finding.at.stamp,
            "sentence": finding.sentence,
        }


def check_bag(
    path: Path, settings: CheckSettings = CheckSettings(), progress: Callable[[str, int, int], None] | None = None
) -> Report:
    """Check a bag.

    Args:
        path: A rosbag2 folder or a file of one.
        settings: How.
        progress: Told what is done, how much of it, and of how much.

    Raises:
        InputError: The bag cannot be opened, or its topics not told apart.
    """
    report = progress or (lambda what, done, total: None)
    with BagReader(path) as bag:
        topics = names.name_topics(bag.topics, settings.topics, f"bag {path}")
        found: list[Finding] = []
        notes: list[str] = []
        if bag.recovered is not None:
            sentence = f"expected a whole recording, got one cut short: {bag.recovered} messages were recovered"
            found.append(Finding("truncated", Severity.ERROR, "", None, sentence))
        f_numbers = _FNumbers()
        checks: tuple[Check[Seen], ...] = (Presence(topics), Timing(), Cameras(), f_numbers)
        found += _look_at_messages(bag, topics, checks, report)
        pairs = _PairChecks(topics, settings)
        if not any(finding.severity is Severity.FATAL for finding in found) and settings.samples:
            found += pairs.look(bag, topics, f_numbers.by_index, report)
            notes += pairs.notes()
        return Report(
            Path(path),
            bag.start_time_ns,
            bag.duration,
            bag.counts,
            pairs.pairs,
            pairs.sweeps,
            tuple(sorted(_joined(_without_what_follows(found)), key=_rank)),
            tuple(notes),
        )


def _look_at_messages(
    bag: BagReader,
    topics: Mapping[str, str],
    checks: tuple[Check[Seen], ...],
    progress: Callable[[str, int, int], None],
) -> Iterator[Finding]:
    total = sum(bag.counts[topic] for name, topic in topics.items() if name != names.TRANSFORMS)
    bad: dict[str, str] = {}
    stream, done = messages(bag, topics), 0
    while True:
        try:
            seen = next(stream, None)
        except InputError as error:
            yield Finding("damaged", Severity.ERROR, "", None, str(error))
            break
        if seen is None:
            break
        for check in checks:
            try:
                check.see(seen)
            except InputError as error:
                bad.setdefault(seen.topic, str(error))
        done += 1
        progress("messages", done, total)
    for topic, sentence in sorted(bad.items()):
        yield Finding("unreadable", Severity.ERROR, topic, None, sentence)
    for check in checks:
        yield from check.findings()


class _FNumbers:
    """The f-numbers that the aperture's states tell, by index."""

    def __init__(self) -> None:
        self.by_index: dict[int, float] = {}

    def see(self, seen: Seen) -> None:
        if seen.name == names.APERTURE and len(self.by_index) < 2:
            state = seen.content()
            if state.f_number > 0.0:
                self.by_index.setdefault(int(state.index), float(state.f_number))

    def findings(self) -> Iterator[Finding]:
        yield from ()


class _PairChecks:
    """The checks of pairs."""

    def __init__(self, topics: Mapping[str, str], settings: CheckSettings) -> None:
        self._settings = settings
        pictures = topics.get(names.IMAGE, topics.get(names.PAIR, ""))
        self._states = topics.get(names.APERTURE, pictures)
        points = topics.get(names.POINTS, "")
        self._has_points = bool(points)
        self._checks: tuple[Check[PairSample], ...] = (
            Exposures(pictures),
            Apertures(self._states),
            Motions(pictures, settings.max_motion),
            Alignment(points),
        )
        self._sampling = Sampling()
        self.pairs = self.sweeps = 0

    def look(
        self,
        bag: BagReader,
        topics: Mapping[str, str],
        f_numbers: Mapping[int, float],
        progress: Callable[[str, int, int], None],
    ) -> Iterator[Finding]:
        settings, sampling = self._settings, self._sampling
        build = BuildSettings(
            extrinsics=settings.extrinsics,
            pairs=PairSettings(gamma=settings.gamma),
        )
        for sample in sample_pairs(bag, topics, f_numbers, build, settings.samples, sampling):
            self.pairs += 1
            self.sweeps += sample.points is not None
            for check in self._checks:
                check.see(sample)
            progress("pairs", self.pairs, settings.samples)
        for check in self._checks:
            yield from check.findings()
        yield from unlabelled(sampling, self._states)

    def notes(self) -> Iterator[str]:
        """What could not be checked."""
        yield from self._sampling.problems
        if not self.pairs:
            yield "no pair could be looked at: apertures, motion and the LiDAR's place were not checked"
        elif any(self._sampling.unplaced):
            yield no_extrinsics(*self._sampling.unplaced)
        elif self._has_points and not self.sweeps:
            yield "no pair has a sweep within 0.1 s: the LiDAR's place was not checked"


def _without_what_follows(found: list[Finding]) -> list[Finding]:
    kinds = {finding.kind for finding in found}
    return [finding for finding in found if not _FOLLOWS.get(finding.kind, set()) & kinds]


def _joined(found: list[Finding]) -> Iterator[Finding]:
    """What befalls several streams at a time is one finding: it names their topics."""
    left: list[Finding] = []
    for finding in found:
        at = finding.at
        for number, other in enumerate(left):
            if finding.kind == other.kind in _OF_STREAMS and _together(at, other.at):
                if finding.topic not in other.topic.split(", "):
                    left[number] = replace(other, topic=f"{other.topic}, {finding.topic}")
                break
        else:
            left.append(finding)
    yield from left


def _together(one: Reference | None, other: Reference | None) -> bool:
    return one is not None and other is not None and abs(one.received - other.received) < _TOGETHER


def _rank(finding: Finding) -> tuple[int, int]:
    return _ORDER[finding.severity], 0 if finding.at is None else finding.at.received
