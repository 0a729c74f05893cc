"""Frames into pairs: each frame gets the aperture in force during its whole exposure, neighbours become pairs.

Times are integer nanoseconds. Every frame put in comes out once: in a pair, or as a drop with its cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from dfd_ros.capture.aperture import Aperture, ApertureReport, ApertureTimeline, Unlabelled

Payload = TypeVar("Payload")
StampAt = Literal["start", "middle", "end"]


class Cause(StrEnum):
    """Why a frame was dropped, besides `Unlabelled`."""

    UNPAIRED = "unpaired"  # its neighbour has the same aperture, or came too late
    SKEW = "skew"  # its neighbour is too far away in time
    SIZE = "size_mismatch"  # its neighbour differs in size
    BACKWARDS = "stamp_backwards"  # its stamp is not after the previous one


@dataclass(frozen=True)
class Frame(Generic[Payload]):
    """One picture: the first and last instant of its exposure, its size and encoding, and whatever it carries."""

    start: int
    end: int
    shape: tuple[int | str, ...]
    payload: Payload

    @property
    def middle(self) -> int:
        return (self.start + self.end) // 2


@dataclass(frozen=True)
class Pair(Generic[Payload]):
    shallow: Frame[Payload]
    deep: Frame[Payload]


@dataclass(frozen=True)
class Drop(Generic[Payload]):
    frame: Frame[Payload]
    cause: Cause | Unlabelled


def exposure_interval(stamp: int, exposure: int, stamp_at: StampAt) -> tuple[int, int]:
    """First and last instant of an exposure whose stamp marks its start, middle or end."""
    start = stamp - {"start": 0, "middle": exposure // 2, "end": exposure}[stamp_at]
    return start, start + exposure


class Pairer(Generic[Payload]):
    """Makes pairs of neighbouring frames, each labelled by the aperture's reports."""

    # A camera whose clock was set back sends only earlier stamps from then on; one odd frame does not.
    BACKWARDS_LIMIT = 3

    def __init__(self, max_skew: int, tolerance: int = 0, max_waiting: int = 8) -> None:
        """
        Args:
            max_skew: Longest time between the middles of a pair's exposures, ns.
            tolerance: How far the clocks of camera and aperture may disagree, ns.
            max_waiting: Frames kept until the aperture's report for them comes; then the oldest is dropped.
        """
        self.max_skew = max_skew
        self.max_waiting = max_waiting
        self._timeline = ApertureTimeline(tolerance)
        self._waiting: deque[Frame[Payload]] = deque()
        self._single: tuple[Aperture, Frame[Payload]] | None = None
        self._last_start: int | None = None
        self._backwards = 0

    def add_report(self, report: ApertureReport) -> list[Pair[Payload] | Drop[Payload]]:
        """Take an aperture report; returns what it decided."""
        self._timeline.add(report)
        return list(self._settle())

    def add_frame(self, frame: Frame[Payload]) -> list[Pair[Payload] | Drop[Payload]]:
        """Take a frame; returns what it decided."""
        if self._last_start is not None and frame.start <= self._last_start:
            self._backwards += 1
            if self._backwards < self.BACKWARDS_LIMIT:
                return [Drop(frame, Cause.BACKWARDS)]
            cleared = self.flush()
            self._last_start, self._backwards = frame.start, 0
            self._waiting.append(frame)
            return [*cleared, *self._settle()]
        self._backwards = 0
        self._last_start = frame.start
        self._waiting.append(frame)
        return list(self._settle())

    def flush(self) -> list[Pair[Payload] | Drop[Payload]]:
        """Give up on everything that waits: at the end, or when a clock was set back."""
        drops: list[Pair[Payload] | Drop[Payload]] = [Drop(frame, Unlabelled.UNKNOWN) for frame in self._waiting]
        if self._single is not None:
            drops.insert(0, Drop(self._single[1], Cause.UNPAIRED))
        self._waiting.clear()
        self._single = None
        return drops

    def _settle(self) -> Iterator[Pair[Payload] | Drop[Payload]]:
        while self._waiting:
            frame = self._waiting[0]
            label = self._timeline.label(frame.start, frame.end)
            if label is None:
                if len(self._waiting) <= self.max_waiting:
                    return
                label = Unlabelled.UNKNOWN
            self._waiting.popleft()
            if isinstance(label, Unlabelled):
                yield Drop(frame, label)
            else:
                yield from self._join(label, frame)

    def _join(self, aperture: Aperture, frame: Frame[Payload]) -> Iterator[Pair[Payload] | Drop[Payload]]:
        """Pair the frame with the single one before it, or keep it as the single one."""
        if self._single is None:
            self._single = aperture, frame
            return
        before_aperture, before = self._single
        if before_aperture == aperture:
            yield Drop(before, Cause.UNPAIRED)
        elif frame.middle - before.middle > self.max_skew:
            yield Drop(before, Cause.SKEW)
        elif before.shape != frame.shape:
            yield Drop(before, Cause.SIZE)
        else:
            self._single = None
            yield Pair(before, frame) if before_aperture == Aperture.SHALLOW else Pair(frame, before)
            return
        self._single = aperture, frame
