"""A bag's clocks: pauses, leaps, repeated stamps, and sensors whose clocks do not agree.

The time of receipt less the stamp is a message's delay. Delays vary with the load, but only upwards: the least of a
stretch tells how the clock of the stamps stands to the recorder's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dfd_ros.checks.findings import Finding, Severity
from dfd_ros.checks.messages import Seen
from dfd_ros.datasets import topics as names
from dfd_ros.datasets.scan import Reference
from dfd_ros.stamps import NANOSECONDS

GAP_PERIODS = 5.0
"""A stream pauses if nothing comes for so many of its median periods,"""
GAP_SECONDS = 0.5
"""and for so long."""
EARLY_SECONDS = 1.0
"""A stream that ends so much before the last one stopped. Beginning late is no fault: drivers take their time."""
LEAP_SECONDS = 0.25
"""Change of the least delay that is a leap of the clock."""
LEAP_SPAN = 2.0
"""Seconds before and after that the least delay is taken of."""
DRIFT_SECONDS = 0.05
"""Of the least delay against the camera's, over the recording."""
OFFSET_SECONDS = 0.5
"""Between the least delays of two sensors."""
BLOCKS = 8
"""Stretches in which drift is looked for."""
MOST = 5
"""Gaps or leaps of a stream that are told one by one."""
FEWEST = 5
"""Messages of a stream that can be judged."""
CLOCKS = (names.POINTS, names.APERTURE)
"""Sensors whose clocks have to agree with the camera's."""


@dataclass
class _Stream:
    """When a topic's messages were received and what their stamps are, nanoseconds: 16 bytes a message."""

    topic: str
    received: array[int] = field(default_factory=lambda: array("q"))
    stamps: array[int] = field(default_factory=lambda: array("q"))

    def at(self, index: int) -> Reference:
        return Reference(self.received[index], self.stamps[index])


class Timing:
    """Pauses, leaps and disagreement of the streams' clocks."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}

    def see(self, seen: Seen) -> None:
        stream = self._streams.setdefault(seen.name, _Stream(seen.topic))
        stream.received.append(seen.at.received)
        stream.stamps.append(seen.at.stamp)

    def findings(self) -> Iterator[Finding]:
        judged = {name: s for name, s in self._streams.items() if len(s.stamps) >= FEWEST}
        if not judged:
            return
        # The aperture's node may live on: nothing is missed then.
        ends = [stream.received[-1] for name, stream in judged.items() if name not in (names.APERTURE, names.PAIR)]
        end = max(ends, default=0)
        leapt = set()
        for name, stream in judged.items():
            jumps = _summed(
                list(_jumps(stream)), "times that its stamps go backwards or leap: two senders of one topic?"
            )
            yield from jumps
            if jumps:
                leapt.add(name)
            # Pairs come when they can, and reports of the aperture when it moves.
            if name != names.PAIR:
                yield from _summed(list(_gaps(stream, end)), "pauses")
            if name != names.APERTURE:
                yield from _repeats(stream)
        yield from _disagreements({name: s for name, s in judged.items() if name not in leapt})


def _summed(found: list[Finding], what: str) -> list[Finding]:
    """The findings of one stream, or, where they are many, one for all."""
    if len(found) <= MOST:
        return found
    sentence = f"{found[0].sentence}; in all {len(found)} {what}"
    return [replace(found[0], sentence=sentence)]


def _gaps(stream: _Stream, end: int) -> Iterator[Finding]:
    received, stamps = np.array(stream.received), np.array(stream.stamps)
    # A clock that leaps lengthens only the one, a recorder that is held up only the other.
    pauses = np.minimum(np.diff(received), np.diff(stamps))
    period = float(np.median(np.diff(stamps)))
    limit = max(GAP_PERIODS * period, GAP_SECONDS * NANOSECONDS)
    usual = f"a message every {1e-9 * period:.3g} s"
    for index in np.flatnonzero(pauses > limit):
        sentence = f"expected {usual}, got none for {1e-9 * pauses[index]:.2f} s"
        yield Finding("gap", Severity.ERROR, stream.topic, stream.at(int(index)), sentence)
    if end - received[-1] > max(limit, EARLY_SECONDS * NANOSECONDS):
        sentence = f"expected {usual}, got none in the last {1e-9 * (end - received[-1]):.2f} s"
        yield Finding("gap", Severity.ERROR, stream.topic, stream.at(-1), sentence)


def _jumps(stream: _Stream) -> Iterator[Finding]:
    received, stamps = np.array(stream.received), np.array(stream.stamps)
    delay = received - stamps
    backwards = np.diff(stamps) < 0
    candidates = backwards | (np.abs(np.diff(delay)) > LEAP_SECONDS * NANOSECONDS)
    last = -1
    for index in map(int, np.flatnonzero(candidates)):
        leap = _leap(received, delay, index)
        back = stamps[index] - stamps[index + 1]
        if back <= 0 and abs(leap) <= LEAP_SECONDS * NANOSECONDS:
            continue
        # A stamp that is out of order comes back: one leap, not two.
        if last >= 0 and received[index] - received[last] < NANOSECONDS:
            continue
        last = index
        if back > 0:
            sentence = f"expected rising stamps, got one {1e-9 * back:.3f} s before the previous"
        else:
            sentence = f"expected stamps to keep pace with the time of receipt, got a leap of {-1e-9 * leap:+.2f} s"
        yield Finding("clock_jump", Severity.ERROR, stream.topic, stream.at(index + 1), sentence)


def _leap(received: NDArray[np.int64], delay: NDArray[np.int64], index: int) -> float:
    """Change of the least delay after the message `index`, nanoseconds; 0 where too few tell."""
    span = LEAP_SPAN * NANOSECONDS
    first = int(np.searchsorted(received, received[index] - span))
    last = int(np.searchsorted(received, received[index + 1] + span, side="right"))
    before, after = delay[first : index + 1], delay[index + 1 : max(last, index + 2)]
    return float(after.min() - before.min()) if min(len(before), len(after)) >= FEWEST else 0.0


def _repeats(stream: _Stream) -> Iterator[Finding]:
    same = np.flatnonzero(np.diff(np.array(stream.stamps)) == 0)
    if len(same):
        sentence = f"expected a stamp of its own for each message, got the previous one's {len(same)} times"
        yield Finding("duplicate_stamps", Severity.ERROR, stream.topic, stream.at(int(same[0]) + 1), sentence)


def _disagreements(streams: Mapping[str, _Stream]) -> Iterator[Finding]:
    """Clocks against the camera's."""
    camera = streams.get(names.IMAGE) or streams.get(names.PAIR)
    if camera is None:
        return
    expected = _least_delays(camera)
    for name in CLOCKS:
        stream = streams.get(name)
        if stream is None:
            continue
        apart = _least_delays(stream) - expected
        apart = apart[np.isfinite(apart)]
        if not len(apart):
            continue
        offset = float(np.median(apart))
        steps = np.diff(apart)
        # A drift goes on and on; a load goes up and down.
        drift = float(apart[-1] - apart[0]) * BLOCKS / max(len(apart) - 1, 1)
        steady = len(steps) >= BLOCKS // 2 and max((steps > 0).mean(), (steps < 0).mean()) > 0.8
        if steady and abs(drift) > DRIFT_SECONDS * NANOSECONDS:
            sentence = f"expected stamps on the camera's clock, got some that drift by {-1e-9 * drift:+.3f} s from it"
            yield Finding("clock_drift", Severity.ERROR, stream.topic, None, sentence)
        elif abs(offset) > OFFSET_SECONDS * NANOSECONDS:
            sentence = f"expected stamps on the camera's clock, got some {-1e-9 * offset:+.2f} s from it"
            yield Finding("clock_offset", Severity.ERROR, stream.topic, None, sentence)


def _least_delays(stream: _Stream) -> NDArray[np.float64]:
    """The least delay in each of `BLOCKS` stretches of the stream's own time, nanoseconds."""
    received = np.array(stream.received)
    delay = (received - np.array(stream.stamps)).astype(np.float64)
    edges = np.linspace(received[0], received[-1], BLOCKS + 1)
    block = np.clip(np.searchsorted(edges, received, side="right") - 1, 0, BLOCKS - 1)
    least = np.full(BLOCKS, np.inf)
    np.minimum.at(least, block, delay)
    return np.where(np.isfinite(least), least, np.nan)
