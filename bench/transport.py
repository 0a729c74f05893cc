"""Best-effort 1920x1080 images at 30 Hz between two processes, with the shipped transport profile and without one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
from table import Row, report

from dfd_ros.share import PROFILE_VARIABLE, config_file

COUNT, RATE = 300, 30.0
SHAPE = (1080, 1920, 3)


def publish() -> None:
    """The publishing process: waits for the listener, then sends `COUNT` images."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from dfd_ros.nodes.convert import image_message, time_message

    rclpy.init()
    node = rclpy.create_node("camera")
    qos = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(Image, "bench_image", qos)
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    time.sleep(0.5)
    picture = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    start = time.monotonic()
    for index in range(COUNT):
        time.sleep(max(0.0, start + index / RATE - time.monotonic()))
        header = Header(stamp=time_message(time.time_ns()), frame_id=str(index))
        publisher.publish(image_message(picture, "rgb8", header))
    time.sleep(0.5)
    rclpy.shutdown()


def receive(profile: bool) -> tuple[int, float]:
    """How many of the images arrive, and their median age in milliseconds."""
    environment = {name: value for name, value in os.environ.items() if name != PROFILE_VARIABLE}
    if profile:
        environment[PROFILE_VARIABLE] = str(config_file("fastdds.xml"))
    listener = subprocess.Popen(
        [sys.executable, __file__, "listen"], env=environment, stdout=subprocess.PIPE, text=True
    )
    camera = subprocess.Popen([sys.executable, __file__, "publish"], env=environment)
    output, _ = listener.communicate(timeout=120)
    camera.wait(30)
    received, age = output.split()
    return int(received), float(age)


def listen() -> None:
    """The listening process: prints how many images came and their median age."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    from dfd_ros.stamps import nanoseconds

    rclpy.init()
    node = rclpy.create_node("listener")
    ages: list[float] = []
    last = time.monotonic()

    def take(image: Image) -> None:
        nonlocal last
        last = time.monotonic()
        ages.append(1e-6 * (time.time_ns() - nanoseconds(image.header.stamp)))

    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, "bench_image", take, qos)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    last += 10.0  # until the first
    while len(ages) < COUNT and time.monotonic() - last < COUNT / RATE / 4 + 2.0:
        executor.spin_once(timeout_sec=0.1)
    print(len(ages), float(np.median(ages)) if ages else float("nan"), flush=True)
    rclpy.shutdown()


def measure() -> list[Row]:
    with_profile, age = receive(profile=True)
    without, _ = receive(profile=False)
    return [
        Row("images received", with_profile, f"of {COUNT}", without, None, f"{COUNT}", with_profile == COUNT),
        Row("age at receipt, median", age, "ms"),
    ]


if __name__ == "__main__":
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if sys.argv[1:] == ["publish"]:
        publish()
    elif sys.argv[1:] == ["listen"]:
        listen()
    else:
        report("Best-effort 1080p at 30 Hz between two processes (baseline: Fast DDS's own defaults)", measure)
