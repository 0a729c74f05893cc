"""The depth node between two processes: 640x480 pairs at 30 Hz, answered with depth by a network on two cores.

    python bench/depth_node.py                       # 20 s a row
    python bench/depth_node.py soak                  # 10 minutes: memory and latency must not grow

Latency is from a pair's being handed to the middleware to depth's being at hand in the process that sent it. The node's own
share is what it says it took beside the back end.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from dfd_msgs.msg import ImagePair
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from spinning import Spinning, stay_alone
from std_msgs.msg import Header
from table import Row, report

from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.nodes.base import shut_down
from dfd_ros.nodes.convert import image_message, info_from_camera, lens_message, time_message
from dfd_ros.nodes.depth_node import DepthNode
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file, use_transport_profile
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of
from dfd_ros.stamps import nanoseconds

RATE = 30.0
SECONDS, SOAK = 20.0, 600.0
WARM = 3.0  # seconds left out after the first answer: caches
MODELS: dict[str, dict[str, str]] = {
    "ours, auto": {"model": "ours", "backend": "auto"},
    "ours, onnxruntime": {"model": "ours", "backend": "onnxruntime"},
    "classical": {"model": ""},
}
LEAST_ANSWERED = 0.99
MOST_LATE, MOST_OWN = 60.0, 6.0  # ms
MOST_GROWTH = 1.01  # of memory after the first minute
MOST_DRIFT = 1.2  # of latency, last minute to second
NAMESPACE = "camera"
KIB = 1024


@dataclass(frozen=True)
class Run:
    """
    Attributes:
        sent: Pairs sent.
        when, latency: Of each answer, when its pair was sent (seconds) and how long it took (ms).
        stages: Median of each stage, ms, as the node says.
        memory: Resident, bytes, every ten seconds.
    """

    sent: int
    when: NDArray[np.float64]
    latency: NDArray[np.float64]
    stages: dict[str, float]
    memory: list[int]


def send(seconds: float) -> None:
    """The sender's process: prints how many pairs it sent and the stages, then time and latency of each answer."""
    lens = load_lens(config_file("lenses/street.yaml"))
    camera = camera_of(lens)
    extrinsics = load_extrinsics(config_file("vehicle_extrinsics.yaml")).camera_from_lidar
    vehicle = SimulatedVehicle(SimSettings(seed=1), lens, camera, extrinsics)
    vehicle.prepare()
    shallow, deep = (vehicle.photograph(0.0, 1e-3, shares) for shares in ((1.0, 0.0), (0.0, 1.0)))

    use_transport_profile()
    rclpy.init()
    node = rclpy.create_node("sender", namespace=NAMESPACE)
    pairs = node.create_publisher(ImagePair, "pair", 2)
    sent: dict[int, float] = {}
    answers: list[tuple[float, float]] = []
    said: dict[str, str] = {}

    def take(depth: Image) -> None:
        at = sent[nanoseconds(depth.header.stamp)]
        answers.append((at, 1e3 * (time.monotonic() - at)))

    def listen(array: DiagnosticArray) -> None:
        said.update({value.key: value.value for status in array.status for value in status.values})

    node.create_subscription(Image, "depth/image_rect", take, qos_profile_sensor_data)
    node.create_subscription(DiagnosticArray, "/diagnostics", listen, 10)
    spinning = Spinning(node)
    while not (pairs.get_subscription_count() and node.count_publishers("depth/image_rect")):
        time.sleep(0.01)
    header = Header(frame_id="camera")
    message = ImagePair(lens=lens_message(lens), gamma=2.2, shallow_gain=1.0)
    message.camera_info = info_from_camera(camera, header)
    message.shallow, message.deep = (image_message(picture, "rgb8", header) for picture in (shallow, deep))
    begin, end = np.inf, np.inf
    start = time.monotonic()
    while (now := time.monotonic()) < end:
        stamp = time.time_ns()
        header.stamp = time_message(stamp)
        for part in (message, message.camera_info, message.shallow, message.deep):
            part.header = header
        sent[stamp] = now
        pairs.publish(message)
        message.sequence += 1
        if answers and begin == np.inf:
            begin, end = now + WARM, now + WARM + seconds
        time.sleep(max(0.0, start + message.sequence / RATE - time.monotonic()))
    time.sleep(1.0)
    spinning.stop()
    node.destroy_node()
    rclpy.shutdown()
    stages = (said.get(f"{stage}_ms_p50", "nan") for stage in ("prepare", "infer", "finish"))
    print(sum(at >= begin for at in sent.values()), *stages, sep="\t")
    for at, latency in answers:
        if at >= begin:
            print(at - begin, latency, sep="\t")


def run_node(seconds: float, **parameters: str) -> Run:
    """Answer a sender for so long."""
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    node = DepthNode(parameter_overrides=overrides, namespace=NAMESPACE)
    node.trigger_configure()
    node.trigger_activate()
    spinning = Spinning(node)
    memory: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(10.0):
            memory.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    command = [sys.executable, __file__, "send", str(seconds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    done.set()
    watcher.join()
    spinning.stop()
    shut_down(node)
    node.destroy_node()
    first, *rest = output.splitlines()
    sent, *stages = first.split("\t")
    times = np.array([line.split("\t") for line in rest], np.float64).reshape(-1, 2)
    named = dict(zip(("prepare", "infer", "finish"), map(float, stages), strict=True))
    return Run(int(sent), times[:, 0], times[:, 1], named, memory)


def resident() -> int:
    """This process's resident memory, bytes."""
    status = Path("/proc/self/status").read_text()
    return KIB * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def measure(mode: str) -> list[Row]:
    if mode == "soak":
        return soak()
    rows = []
    for name, parameters in MODELS.items():
        run = run_node(SECONDS, **parameters)
        share, late = len(run.latency) / run.sent, float(np.quantile(run.latency, 0.95))
        own = run.stages["prepare"] + run.stages["finish"]
        promised = name == "ours, auto"
        rows += [
            Row(
                f"{name}: pairs answered",
                len(run.latency),
                "",
                run.sent,
                share,
                f"{LEAST_ANSWERED:.0%} at {RATE:g} Hz" if promised else "",
                share >= LEAST_ANSWERED or not promised,
            ),
            Row(f"{name}: latency, median", float(np.median(run.latency)), "ms"),
            _milliseconds(f"{name}: latency, 95 %", late, MOST_LATE if promised else None),
            Row(f"{name}: its back end", run.stages["infer"], "ms"),
            _milliseconds(f"{name}: the node's own", own, MOST_OWN if promised else None),
        ]
    return rows


def _milliseconds(name: str, value: float, most: float | None) -> Row:
    """A row with the promise, where there is one."""
    return Row(name, value, "ms", limit="" if most is None else f"{most:g} or less", met=most is None or value <= most)


def soak() -> list[Row]:
    run = run_node(SOAK, **MODELS["ours, auto"])
    after_a_minute, at_the_end = run.memory[6], run.memory[-1]
    growth = at_the_end / after_a_minute
    second, last = (
        float(np.median(run.latency[(run.when >= at) & (run.when < at + 60.0)])) for at in (60.0, SOAK - 60.0)
    )
    share = len(run.latency) / run.sent
    answered = Row("pairs answered", len(run.latency), "", run.sent, share, "99 %", share >= LEAST_ANSWERED)
    limits = f"{MOST_GROWTH:g} or less", f"{MOST_DRIFT:g} or less"
    return [
        answered,
        Row("memory, end", at_the_end / 1e6, "MB", after_a_minute / 1e6, growth, limits[0], growth <= MOST_GROWTH),
        Row("latency, last minute", last, "ms", second, last / second, limits[1], last / second <= MOST_DRIFT),
    ]


if __name__ == "__main__":
    stay_alone()
    if sys.argv[1:2] == ["send"]:
        send(float(sys.argv[2]))
    else:
        use_transport_profile()
        rclpy.init()
        report(f"Depth node, 640x480 at {RATE:g} Hz", measure, arguments={"mode": ("rate", "soak")})
