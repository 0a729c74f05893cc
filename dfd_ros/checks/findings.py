"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfd_ros.datasets.scan import Reference
from dfd_ros.stamps import NANOSECONDS

Picture = NDArray[np.uint8]
Seen = TypeVar("Seen", contravariant=True)

KINDS = {
    "truncated": "the recording was cut short",
    "damaged": "it cannot be read from some place on",
    "unreadable": "messages are not of their topic's type",
    "missing_topic": "a topic that data sets are made of is not there, or empty",
    "gap": "a stream pauses, or ends before the others",
    "clock_jump": "stamps go backwards, or leap against the time of receipt",
    "clock_drift": "a sensor's stamps run away from the camera's",
    "clock_offset": "a sensor's stamps stand apart from the camera's",
    "duplicate_stamps": "messages of one topic share a stamp",
    "camera_mixed": "images of several sizes, encodings or frames, or camera_info of several cameras, in one topic",
    "camera_mismatch": "camera_info does not fit the images, or is not calibrated",
    "overexposed": "images are clipped",
    "underexposed": "images are black",
    "unlabelled": "most frames find no partner: the aperture's states do not cover them, or it was moving",
    "aperture_mismatch": "the images contradict the aperture's states: what is said to be deep is more blurred",
    "brightness_mismatch": "the images' brightness contradicts their exposures and f-numbers",
    "motion": "the scene moved between the two images of pairs",
    "extrinsics": "the LiDAR's outlines fit the images better turned",
    "alignment_drift": "LiDAR and images drift apart",
}
"""Every kind of finding."""


class Severity(StrEnum):
    """How bad a finding is."""

    WARNING = "warning"  # look at it before training
    ERROR = "error"  # part of the recording is lost, or wrong
    FATAL = "fatal"  # nothing can be made of the recording


@dataclass(frozen=True)
class Finding:
    """
    Attributes:
        kind: One of `KINDS`.
        severity: How bad it is.
        topic: Where; empty where it is the bag itself.
        at: When it begins; None where it is all along.
        sentence: What was expected and what came.
        picture: (H, W, 3) uint8, red first; None where none would tell.
    """

    kind: str
    severity: Severity
    topic: str
    at: Reference | None
    sentence: str
    picture: Picture | None = field(default=None, compare=False, repr=False)


class Check(Protocol[Seen]):
    """One family of checks: it is shown everything in its order, then asked. What it keeps does not grow with pictures."""

    def see(self, seen: Seen) -> None:
        """Take note of a message, or of a pair."""

    def findings(self) -> Iterator[Finding]:
        """What was wrong."""


@dataclass
class Spell:
    """Bad moments in a row: the first and the last, how many, and the worst with its picture."""

    first: Reference
    last: Reference
    count: int
    worst: float
    picture: Picture | None

    @property
    def where(self) -> str:
        """How many pairs, and in what time, in words."""
        if self.count == 1:
            return "in one pair looked at"
        seconds = (self.last.received - self.first.received) / NANOSECONDS
        return f"in {self.count} pairs looked at within {seconds:.1f} s"


class Spells:
    """Bad moments of one kind; those within `JOIN` of each other are one spell."""

    JOIN = NANOSECONDS
    MOST = 20
    """Spells told apart; what comes later counts with the last one."""

    def __init__(self) -> None:
        self._spells: list[Spell] = []

    def add(self, at: Reference, badness: float, picture: Picture | None = None) -> None:
        """Note a bad moment; the picture is kept if it is its spell's worst."""
        last = self._spells[-1] if self._spells else None
        if last is None or (at.received - last.last.received > self.JOIN and len(self._spells) < self.MOST):
            self._spells.append(Spell(at, at, 1, badness, picture))
            return
        last.last, last.count = at, last.count + 1
        if badness > last.worst:
            last.worst, last.picture = badness, picture

    def __iter__(self) -> Iterator[Spell]:
        return iter(self._spells)
