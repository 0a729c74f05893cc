"""The LiDAR depth node between two processes: a 64-beam sweep and a 640x480 image at 10 Hz, answered with dense depth."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from spinning import Spinning, stay_alone
from std_msgs.msg import Header
from table import Row, report

from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.nodes.base import shut_down
from dfd_ros.nodes.clouds import cloud_message
from dfd_ros.nodes.convert import image_message, info_from_camera, time_message
from dfd_ros.nodes.lidar_depth_node import LidarDepthNode
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file, use_transport_profile
from dfd_ros.sim.spinning_lidar import LidarSettings
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of
from dfd_ros.stamps import nanoseconds

SWEEPS, RATE = 100, 10.0
LEFT_OUT = 10  # first sweeps, which find cold caches
MOST_MILLISECONDS = {"nyu": 130.0, "fast": 30.0}  # 95 % of the sweeps, from being sent to dense depth at hand
NAMESPACE = "camera"


def drive() -> None:
    """The vehicle's process: sends sweeps and images, takes dense depth; prints how many came and their latencies."""
    lens = load_lens(config_file("lenses/street.yaml"))
    camera = camera_of(lens)
    extrinsics = load_extrinsics(config_file("vehicle_extrinsics.yaml")).camera_from_lidar
    settings = SimSettings(seed=1, lidar=LidarSettings(sector=360.0))
    vehicle = SimulatedVehicle(settings, lens, camera, extrinsics)
    vehicle.prepare()
    picture = vehicle.photograph(0.0, 1e-3, (0.0, 1.0))
    points = vehicle.sweep(0.0)

    use_transport_profile()
    rclpy.init()
    node = rclpy.create_node("vehicle", namespace=NAMESPACE)
    image_raw = node.create_publisher(Image, "image_raw", 2)
    camera_info = node.create_publisher(CameraInfo, "camera_info", 2)
    sweeps = node.create_publisher(PointCloud2, "points", 2)
    sent: dict[int, float] = {}
    latencies: list[float] = []

    def take(dense: Image) -> None:
        latencies.append(1e3 * (time.monotonic() - sent[nanoseconds(dense.header.stamp)]))

    node.create_subscription(Image, "lidar/depth", take, qos_profile_sensor_data)
    spinning = Spinning(node)
    while not (sweeps.get_subscription_count() and node.count_publishers("lidar/depth")):
        time.sleep(0.01)
    time.sleep(1.0)
    info = info_from_camera(camera, Header(frame_id="camera"))
    start = time.monotonic()
    for index in range(SWEEPS):
        time.sleep(max(0.0, start + index / RATE - time.monotonic()))
        stamp = time.time_ns()
        header = Header(stamp=time_message(stamp), frame_id="camera")
        info.header = header
        camera_info.publish(info)
        image_raw.publish(image_message(picture, "rgb8", header))
        cloud = cloud_message(points, Header(stamp=time_message(stamp), frame_id="lidar"))
        sent[stamp] = time.monotonic()
        sweeps.publish(cloud)
    time.sleep(1.0)
    print(len(points), len(latencies), *np.quantile(latencies[LEFT_OUT:], [0.5, 0.95]), flush=True)
    spinning.stop()
    node.destroy_node()
    rclpy.shutdown()


def answered(method: str) -> tuple[int, int, float, float]:
    """Points of a sweep, sweeps answered, and the median and 95 % latency in milliseconds."""
    parameters = {"guide": "image", "method": method, "niceness": 0}
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    node = LidarDepthNode(parameter_overrides=overrides, namespace=NAMESPACE)
    node.trigger_configure()
    node.trigger_activate()
    spinning = Spinning(node)
    output = subprocess.run([sys.executable, __file__, "drive"], check=True, stdout=subprocess.PIPE, text=True).stdout
    spinning.stop()
    shut_down(node)
    node.destroy_node()
    points, count, median, late = output.split()[-4:]
    return int(points), int(count), float(median), float(late)


def measure() -> list[Row]:
    use_transport_profile()
    rclpy.init()
    rows = []
    for method, limit in MOST_MILLISECONDS.items():
        points, count, median, late = answered(method)
        share, name = count / SWEEPS, f"{method}: sweeps of {points} points answered"
        rows.append(Row(name, count, f"of {SWEEPS}", SWEEPS, share, "all", count == SWEEPS))
        rows.append(Row(f"{method}: latency, median", median, "ms"))
        rows.append(Row(f"{method}: latency, 95 %", late, "ms", limit=f"{limit:g} or less", met=late <= limit))
    rclpy.shutdown()
    return rows


if __name__ == "__main__":
    stay_alone()
    if sys.argv[1:] == ["drive"]:
        drive()
    else:
        report(f"LiDAR depth node, 64 beams and 640x480 at {RATE:g} Hz", measure)
