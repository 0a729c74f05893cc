"""The record node over real DDS: everything that was published is in the bag, and a full disk is a fault, not the end."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_until
from dfd_msgs.msg import ApertureState, ImagePair
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image

from dfd_ros.data.bags import BagReader
from dfd_ros.errors import InputError
from dfd_ros.nodes.base import latched_qos
from dfd_ros.nodes.record_node import RecordNode

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recorded(bench, tmp_path):
    """Publish 20 images and pairs and one latched state while recording; the bag."""
    state = bench.probe.create_publisher(ApertureState, "aperture/state", latched_qos(1))
    state.publish(ApertureState(index=1, f_number=4.0))
    images = bench.probe.create_publisher(Image, "image_raw", 5)
    pairs = bench.probe.create_publisher(ImagePair, "pair", 5)
    node = bench.start(RecordNode, bag=str(tmp_path / "bag"), exclude=".*/unwanted")
    assert wait_until(lambda: images.get_subscription_count() and pairs.get_subscription_count())
    for index in range(20):
        image = Image(height=1, width=1, step=1, encoding="mono8", data=[index])
        images.publish(image)
        pairs.publish(ImagePair(sequence=index, deep=image))
        expected = {"/camera/image_raw": index + 1, "/camera/pair": index + 1, "/camera/aperture/state": 1}
        assert wait_until(lambda expected=expected: expected.items() <= node._writer.counts.items())
    assert node.trigger_deactivate().name == "SUCCESS"
    return tmp_path / "bag"


def test_every_message_is_in_the_bag_with_its_type(recorded):
    with BagReader(recorded) as bag:
        assert bag.topics["/camera/pair"] == "dfd_msgs/msg/ImagePair"
        assert bag.counts["/camera/image_raw"] == bag.counts["/camera/pair"] == 20
        assert bag.counts["/camera/aperture/state"] == 1
        assert [m.sequence for topic, _, m in bag.decoded(["/camera/pair"])] == list(range(20))


def test_others_read_it_without_our_types(recorded):
    with AnyReader([recorded]) as bag:
        connections = [c for c in bag.connections if c.topic == "/camera/pair"]
        pairs = [bag.deserialize(raw, c.msgtype) for c, _, raw in bag.messages(connections)]
    assert [pair.deep.data[0] for pair in pairs] == list(range(20))


def test_an_existing_bag_is_never_overwritten(bench, tmp_path, capfd):
    node = bench.make(RecordNode, bag=str(tmp_path))
    assert node.trigger_configure().name == "FAILURE"
    assert "expected the name of a new folder" in capfd.readouterr().err


def test_bad_patterns_are_refused(bench, tmp_path):
    node = bench.make(RecordNode, bag=str(tmp_path / "bag"), topics="(")
    with pytest.raises(InputError, match="expected regular expressions"):
        node.configure()


FULL_DISK = """
import resource, sys, time
sys.path.insert(0, "test")
import conftest, rclpy
from sensor_msgs.msg import Image
from dfd_ros.nodes.record_node import RecordNode
rclpy.init()
bench = conftest.Bench()
images = bench.probe.create_publisher(Image, "image_raw", 5)
node = bench.start(RecordNode, bag=sys.argv[1], topics="/camera/.*")
assert conftest.wait_until(lambda: images.get_subscription_count())
picture = Image(height=500, width=1000, step=1000, encoding="mono8", data=bytes(500_000))
for _ in range(30):
    images.publish(picture)
    time.sleep(0.02)
assert conftest.wait_until(lambda: node.diagnostics.total("dropped/not_recorded") > 0), "the disk did not fill"
recorded = node.diagnostics.total("recorded")
assert conftest.wait_until(lambda: node.diagnostics.total("dropped/not_recorded") + recorded >= 30)
print(recorded, node.diagnostics._fault)
bench.close()
rclpy.shutdown()
"""


def test_a_full_disk_is_a_fault_and_what_was_written_stays(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))

    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "bag")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    recorded, fault = done.stdout.strip().split(" ", 1)
    assert 0 < int(recorded) < 30
    assert "recording stopped: " in fault
    assert str(tmp_path / "bag") in fault
    with BagReader(tmp_path / "bag") as bag:
        assert 0 < bag.counts["/camera/image_raw"] <= int(recorded)
