"""The record node: every topic of the graph into a rosbag2 MCAP.

Subscribes raw, with the publishers' own QoS, to each topic as it appears; a thread of its own writes. What can't be
written is a fault with its cause; what was written until then stays readable.
"""

from __future__ import annotations

import importlib
import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dfd_ros.data.bags import BagWriter, OfferedQos, RecordingError
from dfd_ros.errors import InputError
from dfd_ros.nodes.base import DfdNode, run
from dfd_ros.nodes.parameters import parameter
from dfd_ros.share import package_share


@dataclass(frozen=True)
class RecordParameters:
    bag: str = parameter("", "folder to make and record into; empty is bag_<date and time> in the current folder")
    topics: str = parameter(".*", "regular expression: which topics to record, by their whole name")
    exclude: str = parameter(
        "/(parameter_events|rosout)|.*/(_service_event|transition_event)",
        "regular expression: topics not to record, though `topics` has them",
    )
    max_memory: int = parameter(512, "for messages that wait for the disk", unit="MiB", minimum=1, maximum=65536)


@dataclass(frozen=True)
class Recorded:
    """A message as it came."""

    topic: str
    type_name: str
    data: bytes
    time: int
    qos: OfferedQos


class RecordNode(DfdNode[RecordParameters]):
    """See the module."""

    DISCOVERY_PERIOD = 0.2  # seconds

    def __init__(self, **arguments: object) -> None:
        super().__init__("record", RecordParameters, **arguments)

    def configure(self) -> None:
        p = self.parameters
        try:
            self._wanted, self._unwanted = re.compile(p.topics), re.compile(p.exclude)
        except re.error as error:
            raise InputError(f"parameters topics and exclude: expected regular expressions, got {error}") from error
        self._path = Path(p.bag or f"bag_{time.strftime('%Y-%m-%dT%H-%M-%S')}")
        if self._path.exists():
            raise InputError(f"parameter bag: expected the name of a new folder, got {self._path}, which exists")

    @property
    def counts(self) -> dict[str, int]:
        """Messages in the bag so far, by topic."""
        return self._writer.counts

    def activate(self) -> None:
        self._writer = BagWriter(self._path, [package_share("dfd_msgs") / "msg"])
        self._topics_seen: set[str] = set()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Recorded | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="record", daemon=True)
        self._thread.start()
        self._timer = self.create_timer(self.DISCOVERY_PERIOD, self._discover)
        self._discover()
        self.get_logger().info(f"recording into {self._path}")

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)
        self._queue.put(None)
        self._thread.join()
        try:
            self._writer.close()
        except RecordingError as error:
            self.diagnostics.fault(str(error))

    def _discover(self) -> None:
        """Subscribe to the topics that are new."""
        for topic, types in self.get_topic_names_and_types():
            if topic in self._topics_seen or not self._wanted.fullmatch(topic) or self._unwanted.fullmatch(topic):
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue  # its publishers' QoS is not known yet
            self._topics_seen.add(topic)
            offered = OfferedQos(
                reliable=all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers),
                latched=all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers),
            )
            type_name = types[0]
            try:
                if len(types) > 1:
                    raise InputError(f"topic {topic}: expected one type, got {', '.join(types)}")
                message_type = _message_type(type_name)
                if not self._writer.knows_type(type_name):
                    raise InputError(f"topic {topic}: expected a standard type or one of dfd_msgs, got {type_name}")
            except InputError as error:
                self.diagnostics.drop("unknown_type", str(error))
                continue
            qos = QoSProfile(
                depth=offered.depth,
                reliability=ReliabilityPolicy.RELIABLE if offered.reliable else ReliabilityPolicy.BEST_EFFORT,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if offered.latched else DurabilityPolicy.VOLATILE,
            )
            subscription = self.create_subscription(
                message_type, topic, self._keep(topic, type_name, offered), qos, raw=True
            )
            self._topics.append(subscription)

    def _keep(self, topic: str, type_name: str, qos: OfferedQos) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            with self._lock:
                full = self._waiting_bytes > self.parameters.max_memory << 20
                if not full:
                    self._waiting_bytes += len(data)
            if full:
                self.diagnostics.drop("disk_too_slow", f"{topic}: more than max_memory waits for the disk")
            else:
                self._queue.put(Recorded(topic, type_name, data, time.time_ns(), qos))

        return keep

    def _write(self) -> None:
        failed = False
        while (message := self._queue.get()) is not None:
            with self._lock:
                self._waiting_bytes -= len(message.data)
            if failed:
                self.diagnostics.drop("not_recorded")
                continue
            try:
                self._writer.write(message.topic, message.type_name, message.data, message.time, message.qos)
                self.diagnostics.count("recorded")
            except RecordingError as error:
                failed = True
                self.diagnostics.fault(f"recording stopped: {error}")
                self.diagnostics.drop("not_recorded")


def _message_type(name: str) -> type[Any]:
    """The class of `package/msg/Name`."""
    package, _, message = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError) as error:
        raise InputError(f"type {name}: expected an installed message type, got {error}") from error


def main() -> None:
    run(RecordNode)
