"""The aperture in time: reports of what was set when, and the label of an exposure.

All times are integer nanoseconds of one clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum


class Aperture(IntEnum):
    """Which of the two apertures; the values are those of dfd_msgs/ApertureState."""

    SHALLOW = 0
    DEEP = 1

    @property
    def other(self) -> Aperture:
        return Aperture(1 - self)


class Mode(IntEnum):
    """How the aperture is switched; the values are those of dfd_msgs/ApertureState."""

    HOLD = 0
    ALTERNATE = 1


class Unlabelled(StrEnum):
    """Why an exposure has no label."""

    TRANSITION = "transition"  # the aperture was moving
    UNKNOWN = "aperture_unknown"  # no report tells
    FAULT = "aperture_fault"  # the driver did not answer


@dataclass(frozen=True)
class ApertureReport:
    """One dfd_msgs/ApertureState.

    Attributes:
        aperture: The aperture that is set, or being set.
        transition_start: When it began to leave the previous state.
        settled_at: From when it is as set.
        known_until: No other transition began before this time.
        transitions: Counts the transitions; a gap between two reports is a lost report.
        fault: The driver does not answer, so the true state is unknown.
    """

    aperture: Aperture
    transition_start: int
    settled_at: int
    known_until: int
    transitions: int = 0
    fault: bool = False


class ApertureTimeline:
    """The aperture's recent past, from its reports, in any order of repetition but in order of time."""

    def __init__(self, tolerance: int = 0, memory: int = 64) -> None:
        """`tolerance`: how far the clocks of camera and aperture may disagree, nanoseconds."""
        self.tolerance = tolerance
        self._reports: deque[ApertureReport] = deque(maxlen=memory)
        self._whole_since: int | None = None

    def add(self, report: ApertureReport) -> None:
        """Take a report. One older than the newest restarts the history (the clock was set back)."""
        if self._reports:
            last = self._reports[-1]
            if report.known_until < last.known_until or report.transitions < last.transitions:
                self._reports.clear()
            elif report.transitions == last.transitions and report.fault == last.fault:
                # The same transition told again; where reports were lost before it, they stay lost.
                start = min(report.transition_start, last.transition_start)
                self._reports[-1] = replace(report, transition_start=start)
                return
            elif report.transitions > last.transitions + 1:
                # A report was lost: nothing is known between what was last known and this report's settling.
                report = replace(report, transition_start=last.known_until)
                self._whole_since = report.settled_at
        if not self._reports:
            self._whole_since = report.transition_start
        self._reports.append(report)

    @property
    def known_until(self) -> int | None:
        """Up to when the aperture is known; None before the first report."""
        return self._reports[-1].known_until if self._reports else None

    @property
    def whole_since(self) -> int | None:
        """From when on no report is missing; None before the first."""
        return self._whole_since

    def label(self, start: int, end: int) -> Aperture | Unlabelled | None:
        """The aperture in force during the whole exposure [start, end], widened by the tolerance.

        None where later reports may still tell.
        """
        start, end = start - self.tolerance, end + self.tolerance
        if not self._reports:
            return None
        if start < self._reports[0].transition_start:
            return Unlabelled.UNKNOWN
        # The newest report whose transition began by the end of the exposure is the one in force, or in the way.
        in_force = next(report for report in reversed(self._reports) if report.transition_start <= end)
        if in_force.fault:
            return Unlabelled.FAULT
        if start < in_force.settled_at:
            return Unlabelled.TRANSITION
        if end > self._reports[-1].known_until:
            return None
        return in_force.aperture

    def fraction(self, aperture: Aperture, start: int, end: int) -> float:
        """How much of [start, end] light came in through `aperture`, in [0, 1], taking a transition as linear in time.

        The simulated camera's exposure; an unknown past counts as the oldest known state. Meant for what began after
        `whole_since`: where reports are missing, it takes one transition for all.
        """
        if not self._reports:
            raise ValueError("no aperture report yet")
        total = 0.0
        reports = list(self._reports)
        ends = [report.transition_start for report in reports[1:]] + [max(end, reports[-1].transition_start)]
        begin = start
        for report, until in zip(reports, ends, strict=True):
            until = min(until, end)
            if until <= begin:
                continue
            total += _settled_light(report, begin, until, report.aperture == aperture)
            begin = until
        return total / (end - start) if end > start else float(self._at(start).aperture == aperture)

    def _at(self, time: int) -> ApertureReport:
        """The newest report whose transition began by `time`, or the oldest."""
        return next((r for r in reversed(self._reports) if r.transition_start <= time), self._reports[0])


def _settled_light(report: ApertureReport, begin: int, end: int, wanted: bool) -> float:
    """Nanoseconds of [begin, end] spent at (or, if not `wanted`, away from) the report's aperture."""
    duration = report.settled_at - report.transition_start
    moving_end = min(end, report.settled_at)
    arrived = float(end - max(begin, report.settled_at)) if end > report.settled_at else 0.0
    if moving_end > begin and duration > 0:
        middle = 0.5 * (begin + moving_end) - report.transition_start
        arrived += (moving_end - begin) * min(max(middle / duration, 0.0), 1.0)
    return arrived if wanted else (end - begin) - arrived
