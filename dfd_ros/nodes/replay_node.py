"""The replay node: recorded pictures as if a vehicle took them now.

A folder of dual-aperture photographs comes as `image_raw`, `camera_info`, `exposure`, `aperture/state` and, where the
depth is known, `ground_truth/depth`; KITTI frames as `image_raw`, `camera_info` and `points`; a bag as what the vehicle's
hardware published, at the pace and in the order it was recorded. All stamps are of now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from dfd_msgs.msg import ApertureState, Exposure, ObjectBoxes
from rclpy.publisher import Publisher
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from dfd_ros.capture.aperture import Aperture, ApertureReport, Mode
from dfd_ros.data.bags import BagReader
from dfd_ros.data.kitti import KittiFrames
from dfd_ros.data.photographs import PhotographFolder
from dfd_ros.data.sources import detect
from dfd_ros.errors import InputError
from dfd_ros.nodes.base import DfdSource, latched_qos, publisher_qos, run
from dfd_ros.nodes.clouds import cloud_message
from dfd_ros.nodes.convert import image_message, info_from_camera, report_message, time_message
from dfd_ros.nodes.parameters import parameter
from dfd_ros.stamps import NANOSECONDS, nanoseconds

# Seconds between one event and the next: (when, what to publish then).
Schedule = Iterator[tuple[float, Callable[[], None]]]

# What the hardware publishes; the rest of a bag is what the nodes made of it.
HARDWARE_TOPICS = {
    "image_raw": Image,
    "camera_info": CameraInfo,
    "exposure": Exposure,
    "points": PointCloud2,
    "aperture/state": ApertureState,
    "ground_truth/depth": Image,
    "ground_truth/objects": ObjectBoxes,
}
LATCHED_TOPICS = {"aperture/state"}

KITTI_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])

# The replayed aperture: a plausible time line for each photograph.
EXPOSURE = NANOSECONDS // 1000
SETTLE = 2 * NANOSECONDS // 1000
STEP = 10 * NANOSECONDS // 1000


@dataclass(frozen=True)
class ReplayParameters:
    path: str = parameter("", "folder of photographs (NNN_f2.8.jpg and so on), KITTI frames, or a bag")
    rate: float = parameter(
        0.0, "scenes a second; 0 is 3 for photographs and 0.2 for KITTI frames", unit="Hz", minimum=0.0, maximum=100.0
    )
    speed: float = parameter(1.0, "of a bag's replay against its recording", minimum=0.01, maximum=100.0)
    first: int = parameter(0, "first scene to replay, from 0", minimum=0)
    last: int = parameter(-1, "last scene to replay; -1 is the folder's last", minimum=-1)
    loop: bool = parameter(False, "start over at the end")
    frame_id: str = parameter("camera", "the camera's optical frame")


class ReplayNode(DfdSource[ReplayParameters]):
    """See the module. `finished` turns true when all is replayed."""

    PATIENCE = 10.0  # seconds to wait for the first subscriber, so that the first scene is not lost
    DEFAULT_RATES = {"photographs": 3.0, "kitti": 0.2}  # noqa: RUF012 - a table

    def __init__(self, **arguments: object) -> None:
        super().__init__("replay", ReplayParameters, **arguments)
        p = self.parameter_set.value
        if not p.path:
            raise InputError("parameter path: expected a folder or bag to replay, got ''")
        path = Path(p.path)
        self.kind = detect(path)
        self.finished = False
        self._aperture_transitions = 0
        self._publishers_by_topic: dict[str, Publisher] = {}
        self._stopping = threading.Event()
        schedules: dict[str, Callable[[Path], Callable[[], Schedule]]] = {
            "photographs": self._photographs,
            "kitti": self._kitti,
            "bag": self._bag,
        }
        make_schedule = schedules[self.kind](path)
        self._thread = threading.Thread(target=self._play, args=(make_schedule,), name="replay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        super().close()

    def _play(self, make_schedule: Callable[[], Schedule]) -> None:
        if not self._wait_for_subscriber():
            self.get_logger().warning("nobody listens to the replay; it starts all the same")
        while not self._stopping.is_set():
            start = time.monotonic()
            for due, publish in make_schedule():
                if self._stopping.wait(max(0.0, start + due - time.monotonic())):
                    return
                try:
                    publish()
                except InputError as error:
                    self.diagnostics.drop("unreadable", str(error))
            if not self.parameter_set.value.loop:
                break
        self.finished = True

    def _wait_for_subscriber(self) -> bool:
        deadline = time.monotonic() + self.PATIENCE
        while time.monotonic() < deadline and not self._stopping.is_set():
            publishers = self._publishers_by_topic.values()
            if any(p.get_subscription_count() for p in publishers if p.msg_type in (Image, PointCloud2)):
                return not self._stopping.wait(0.5)  # the others are a moment later
            self._stopping.wait(0.05)
        return False

    def _open(self, *topics: str) -> None:
        for topic in topics:
            qos = latched_qos(depth=10) if topic in LATCHED_TOPICS else publisher_qos(depth=5)
            self._publishers_by_topic[topic] = self.advertise(HARDWARE_TOPICS[topic], topic, qos)

    def _header(self, stamp: int) -> Header:
        return Header(stamp=time_message(stamp), frame_id=self.parameter_set.value.frame_id)

    def _period(self) -> float:
        return 1.0 / (self.parameter_set.value.rate or self.DEFAULT_RATES[self.kind])

    def _chosen(self, count: int) -> range:
        """Which scenes of the folder to replay.

        Raises:
            InputError: None.
        """
        p = self.parameter_set.value
        last = count - 1 if p.last < 0 else p.last
        if not p.first <= last < count:
            raise InputError(
                f"parameters first and last: expected scenes from 0 to {count - 1}, got {p.first} to {last}"
            )
        return range(p.first, last + 1)

    def _photographs(self, path: Path) -> Callable[[], Schedule]:
        folder = PhotographFolder(path)
        chosen = self._chosen(len(folder))
        self._open("image_raw", "camera_info", "exposure", "aperture/state", "ground_truth/depth")
        self.get_logger().info(f"replaying {len(chosen)} dual-aperture scenes from {path}")

        def publish(index: int) -> None:
            scene = folder.load(index)
            now = self.get_clock().now().nanoseconds
            apertures = (Aperture.SHALLOW, scene.shallow), (Aperture.DEEP, scene.deep)
            for step, (aperture, picture) in enumerate(apertures):
                begin = now - (2 - step) * STEP
                self._publish_state(aperture, scene.f_numbers[aperture], begin)
                header = self._header(begin + SETTLE)
                self._publish("exposure", Exposure(header=header, exposure_time=EXPOSURE / NANOSECONDS, gain=1.0))
                info = CameraInfo(header=header, height=picture.shape[0], width=picture.shape[1])  # not calibrated
                self._publish("camera_info", info)
                self._publish("image_raw", image_message(picture, "rgb8", header))
            if scene.depth is not None:
                self._publish("ground_truth/depth", image_message(scene.depth, "32FC1", header))
            self.diagnostics.count("scenes")

        return lambda: self._paced(chosen, publish)

    def _publish_state(self, aperture: Aperture, f_number: float, begin: int) -> None:
        self._aperture_transitions += 1
        known_until = begin + SETTLE + 2 * EXPOSURE + SETTLE
        report = ApertureReport(aperture, begin, begin + SETTLE // 2, known_until, self._aperture_transitions)
        message = report_message(report, f_number, Mode.ALTERNATE, self.parameter_set.value.frame_id)
        self._publish("aperture/state", message)

    def _kitti(self, path: Path) -> Callable[[], Schedule]:
        frames = KittiFrames(path)
        chosen = self._chosen(len(frames))
        self._open("image_raw", "camera_info", "points")
        self.get_logger().info(f"replaying {len(chosen)} KITTI frames from {path}")

        def publish(index: int) -> None:
            frame = frames.load(index)
            header = self._header(self.get_clock().now().nanoseconds)
            self._publish("camera_info", info_from_camera(frame.camera, header))
            self._publish("image_raw", image_message(frame.image, "rgb8", header))
            # Each frame has a calibration of its own, so its points come in the camera's frame.
            points = np.empty(len(frame.points), KITTI_POINT)
            for name, values in zip("xyz", frame.camera_from_lidar.apply(frame.points[:, :3]).T, strict=True):
                points[name] = values
            points["intensity"] = frame.points[:, 3]
            self._publish("points", cloud_message(points, header))
            self.diagnostics.count("scenes")

        return lambda: self._paced(chosen, publish)

    def _paced(self, chosen: range, publish: Callable[[int], None]) -> Schedule:
        for step, index in enumerate(chosen):
            yield step * self._period(), partial(publish, index)

    def _bag(self, path: Path) -> Callable[[], Schedule]:
        with BagReader(path) as bag:
            recorded = bag.topics
        topics = {topic: name for topic in recorded for name in HARDWARE_TOPICS if f"/{topic}".endswith(f"/{name}")}
        if not topics:
            raise InputError(
                f"bag {path}: expected topics named {', '.join(HARDWARE_TOPICS)}, got {', '.join(recorded)}"
            )
        self._open(*set(topics.values()))
        self.get_logger().info(f"replaying {', '.join(sorted(topics))} from {path}")

        def schedule() -> Schedule:
            with BagReader(path) as bag:
                first, shift = None, 0
                for message in bag.messages(topics):
                    if first is None:
                        first = message.receive_time_ns
                        shift = self.get_clock().now().nanoseconds - first
                    due = (message.receive_time_ns - first) / NANOSECONDS / self.parameter_set.value.speed
                    yield due, partial(self._publish_shifted, topics[message.topic], message.data, shift)

        return schedule

    def _publish_shifted(self, topic: str, data: bytes | memoryview, shift: int) -> None:
        """Publish a recorded message with its times moved by `shift` nanoseconds."""
        message = deserialize_message(bytes(data), HARDWARE_TOPICS[topic])
        message.header.stamp = time_message(nanoseconds(message.header.stamp) + shift)
        if isinstance(message, ApertureState):
            message.transition_start = time_message(nanoseconds(message.transition_start) + shift)
            message.settled_at = time_message(nanoseconds(message.settled_at) + shift)
        self._publish(topic, message)
        self.diagnostics.count("messages")

    def _publish(self, topic: str, message: object) -> None:
        self._publishers_by_topic[topic].publish(message)


def main() -> None:
    run(ReplayNode)
