"""What a part of a bag holds, and when: all that pairing needs to know, without the pictures.

One pass over the bag's messages, of which only heads and small ones are looked at, so what comes back stays small
whatever the bag's size, and the parts of a bag may be scanned side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfd_ros.capture.aperture import ApertureReport
from dfd_ros.data.bags import BagMessage, BagReader
from dfd_ros.data.image_messages import CDR_STAMP_OFFSET, STAMP_BYTES, header_stamp
from dfd_ros.data.vehicle_messages import report_from_message
from dfd_ros.datasets import topics as names
from dfd_ros.errors import InputError
from dfd_ros.geometry import Transform
from dfd_ros.lidar.calibration import transform_from_quaternion
from dfd_ros.stamps import NANOSECONDS

SLICE = 30 * NANOSECONDS
"""Time of receipt that one part spans, nanoseconds."""
MOST_SLICES = 2000
"""A clock that jumped must not make millions of empty parts."""


@dataclass(frozen=True)
class Reference:
    """A recorded message: when it was received, and its stamp, nanoseconds."""

    received: int
    stamp: int


@dataclass(frozen=True)
class FrameSeen:
    """An image: where it is, and its size and encoding."""

    at: Reference
    height: int
    width: int
    encoding: str


@dataclass(frozen=True)
class TwistSeen:
    """How `frame_id` moves: `linear` m/s and `angular` rad/s as it sees them itself."""

    stamp: int
    frame_id: str
    linear: tuple[float, float, float]
    angular: tuple[float, float, float]


@dataclass
class Scan:
    """What was found, each in the order of receipt; times in nanoseconds.

    Attributes:
        events: Frames and the aperture's reports.
        exposures: Exposure time, seconds, and gain by the image's stamp.
        pairs: Recorded ones.
        sweeps: LiDAR sweeps.
        lidar_frame, camera_frame: Frames of the first sweep and of the first picture.
        twists: The vehicle's motion.
        infos: Where each new camera_info first came, by a hash of its content; and which one was in force when.
        transforms: Target from source by the frames (target, source).
        damage: Why the rest cannot be read; empty where all was.
        bad: Messages by topic that are not what they should be.
    """

    events: list[FrameSeen | ApertureReport] = field(default_factory=list)
    exposures: dict[int, tuple[float, float]] = field(default_factory=dict)
    pairs: list[Reference] = field(default_factory=list)
    sweeps: list[Reference] = field(default_factory=list)
    lidar_frame: str = ""
    camera_frame: str = ""
    twists: list[TwistSeen] = field(default_factory=list)
    infos: dict[str, Reference] = field(default_factory=dict)
    info_changes: list[tuple[int, str]] = field(default_factory=list)
    transforms: dict[tuple[str, str], Transform] = field(default_factory=dict)
    damage: str = ""
    bad: dict[str, int] = field(default_factory=dict)

    def add(self, later: Scan) -> None:
        """Take in what the next part of the bag held."""
        for name in ("events", "pairs", "sweeps", "twists"):
            getattr(self, name).extend(getattr(later, name))
        self.exposures.update(later.exposures)
        self.lidar_frame = self.lidar_frame or later.lidar_frame
        self.camera_frame = self.camera_frame or later.camera_frame
        for key, at in later.infos.items():
            self.infos.setdefault(key, at)
        last = self.info_changes[-1][1] if self.info_changes else ""
        self.info_changes.extend(c for i, c in enumerate(later.info_changes) if i or c[1] != last)
        self.transforms.update(later.transforms)
        self.damage = self.damage or later.damage
        for topic, count in later.bad.items():
            self.bad[topic] = self.bad.get(topic, 0) + count


@dataclass(frozen=True)
class ScanTask:
    """A part of a bag to scan: [start, end) of receipt, nanoseconds, and topics by name."""

    bag: Path
    topics: dict[str, str]
    start: int
    end: int


def slices(bag: BagReader) -> Iterable[tuple[int, int]]:
    """The times [start, end), nanoseconds, of the parts in which a bag is scanned."""
    end = bag.end_time_ns + 1
    if not bag.random_access:
        return [(bag.start_time_ns, end)]
    span = max(SLICE, (end - bag.start_time_ns) // MOST_SLICES + 1)
    return [(start, min(start + span, end)) for start in range(bag.start_time_ns, end, span)]


def scan_bag(task: ScanTask) -> Scan:
    """Scan a part of a bag; where it is damaged, as far as it goes.

    Raises:
        InputError: The bag cannot be opened.
    """
    scan = Scan()
    by_topic = {topic: name for name, topic in task.topics.items()}
    with BagReader(task.bag) as bag:
        messages = bag.messages(by_topic, task.start, task.end)
        while True:
            try:
                message = next(messages, None)
            except InputError as error:
                scan.damage = str(error)
                break
            if message is None:
                break
            try:
                _note(scan, by_topic[message.topic], message, bag)
            except InputError:
                scan.bad[message.topic] = scan.bad.get(message.topic, 0) + 1
    return scan


def _note(scan: Scan, name: str, message: BagMessage, bag: BagReader) -> None:
    if name == names.TRANSFORMS:
        for one in bag.decode(message).transforms:
            scan.transforms[one.header.frame_id, one.child_frame_id] = _transform(one.transform)
        return
    at = Reference(message.receive_time_ns, header_stamp(message.data))
    if name == names.PAIR:
        scan.pairs.append(at)
        scan.camera_frame = scan.camera_frame or bag.decode(message).header.frame_id
    elif name == names.INFO:
        key = hashlib.sha256(message.data[CDR_STAMP_OFFSET + STAMP_BYTES :]).hexdigest()
        scan.infos.setdefault(key, at)
        if not scan.info_changes or scan.info_changes[-1][1] != key:
            scan.info_changes.append((at.stamp, key))
    elif name == names.POINTS:
        scan.sweeps.append(at)
        scan.lidar_frame = scan.lidar_frame or bag.decode(message).header.frame_id
    else:
        _note_decoded(scan, name, at, bag.decode(message))


def _note_decoded(scan: Scan, name: str, at: Reference, content: Any) -> None:
    if name == names.IMAGE:
        frame = content.header.frame_id
        scan.events.append(FrameSeen(at, content.height, content.width, content.encoding))
        scan.camera_frame = scan.camera_frame or frame
    elif name == names.APERTURE:
        scan.events.append(report_from_message(content))
    elif name == names.EXPOSURE:
        scan.exposures[at.stamp] = (float(content.exposure_time), float(content.gain))
    elif name == names.TWIST:
        linear, angular = content.twist.linear, content.twist.angular
        velocities = (linear.x, linear.y, linear.z), (angular.x, angular.y, angular.z)
        if not np.isfinite(velocities).all():
            raise InputError(f"twist: expected finite velocities, got {velocities}")
        scan.twists.append(TwistSeen(at.stamp, content.header.frame_id, *velocities))


def _transform(message: Any) -> Transform:
    shift, turn = message.translation, message.rotation
    return transform_from_quaternion((shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))
