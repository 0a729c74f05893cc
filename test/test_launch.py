"""The launch files, run for real by `ros2 launch` wherever launch_ros can be imported.

The package is installed as a user's pip would install it, into a folder of its own in front of this checkout's.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[1]
ARGUMENTS = {"source", "driver", "record", "rviz", "namespace", "params_file", "log_level", "composed"}
NODES = {"aperture", "pair", "lidar_depth", "depth", "sim"}

needs_launch = pytest.mark.skipif(
    find_spec("launch_ros") is None or find_spec("ros2launch") is None,
    reason="launch_ros and ros2launch come with a ROS 2 distribution, not from PyPI",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a shell in which the package is installed by pip."""
    prefix = tmp_path_factory.mktemp("prefix")
    source = tmp_path_factory.mktemp("source") / "dfd_ros"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--ignore-installed",
        "--prefix",
        prefix,
        source,
    ]
    subprocess.run(command, check=True)
    site = next(prefix.glob("lib/python3*/site-packages"))
    paths = {"PATH": prefix / "bin", "PYTHONPATH": site, "AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{sys.prefix}"}
    environment = dict(os.environ)
    for name, value in paths.items():
        environment[name] = os.pathsep.join([str(value), *filter(None, [os.environ.get(name)])])
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return environment


def test_the_wheel_puts_everything_where_ros_looks(installed):
    prefix = Path(installed["AMENT_PREFIX_PATH"].split(os.pathsep)[0])
    assert (prefix / "share/ament_index/resource_index/packages/dfd_ros").is_file()
    assert (prefix / "share/dfd_ros/package.xml").is_file()
    for name in ("launch/vehicle.launch.py", "launch/replay.launch.py", "config/vehicle.yaml", "config/dfd.rviz"):
        assert (prefix / "share/dfd_ros" / name).is_file()
    executables = {path.name for path in (prefix / "lib/dfd_ros").iterdir() if os.access(path, os.X_OK)}
    assert executables >= {f"{name}_node" for name in (*NODES, "record", "replay")} | {"composed"}


@needs_launch
@pytest.mark.parametrize("file", ["vehicle.launch.py", "replay.launch.py"])
def test_show_args_lists_every_argument_with_its_meaning(installed, file):
    command = ["ros2", "launch", "dfd_ros", file, "--show-args"]
    text = subprocess.run(command, env=installed, check=True, capture_output=True, text=True, timeout=60).stdout
    listed = {line.strip().strip("':") for line in text.splitlines() if line.strip().startswith("'")}
    assert listed >= ARGUMENTS
    assert "no description given" not in text


@needs_launch
@pytest.mark.parametrize("composed", ["false", "true"])
def test_the_vehicle_comes_up_gives_depth_and_ends_cleanly(installed, tmp_path, composed):
    bag = tmp_path / "bag"
    words = [f"composed:={composed}", "record:=true", f"bag:={bag}", "namespace:=front"]
    log = tmp_path / "log"
    with log.open("w") as output:
        # In a session of its own, so that the signal reaches launch's whole group as Ctrl-C would.
        launch = subprocess.Popen(
            ["ros2", "launch", "dfd_ros", "vehicle.launch.py", *words],
            env=installed,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert depth_arrives("/front/depth/image_rect", 120), log.read_text()
    finally:
        os.killpg(launch.pid, signal.SIGINT)
        time.sleep(0.2)
        if launch.poll() is None:
            os.killpg(launch.pid, signal.SIGINT)  # an impatient user
        code = launch.wait(90)
    text = log.read_text()
    assert code == 0, text
    assert "Traceback" not in text
    assert "process has died" not in text
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    recorded = {t["topic_metadata"]["name"]: t["message_count"] for t in metadata["topics_with_message_count"]}
    assert recorded["/front/depth/image_rect"] > 0
    assert recorded["/front/pair"] > 0


def depth_arrives(topic, timeout):
    """Wait for one depth image in a process of its own, as any other ROS program would."""
    code = f"""
import rclpy, sys, time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("listener")
got = []
node.create_subscription(Image, {topic!r}, got.append, qos_profile_sensor_data)
deadline = time.monotonic() + {timeout}
while not got and time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.2)
sys.exit(0 if got else 1)
"""
    profile = {"FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "config/fastdds.xml")}
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **profile}, check=False).returncode == 0
