"""Bags: written by our writer and read by others, written by others and read by our reader, and cut in every way."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_maker import MESSAGE_FOLDER, SECOND, STORE, cdr, header, image, message
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from dfd_ros.data.bags import BagReader, BagWriter, OfferedQos, RecordingError
from dfd_ros.data.image_messages import depth_array, header_stamp, rgb_array
from dfd_ros.errors import InputError

IMAGE, STATE = "sensor_msgs/msg/Image", "dfd_msgs/msg/ApertureState"
START = 1_700_000_000 * SECOND
DEPTH = np.linspace(1, 70, 12 * 16, dtype=np.float32).reshape(12, 16)


def depth_message(index, array=DEPTH):
    return image(START + index, array, "32FC1")


def state_message(index):
    return message(STATE, header=header(START + index), index=index % 2, f_number=1.8)


def write_run(path, frames=5, array=DEPTH):
    with BagWriter(path, [MESSAGE_FOLDER]) as bag:
        for i in range(frames):
            bag.write("/cam/depth", IMAGE, cdr(depth_message(i, array)), START + 2 * i * SECOND)
            bag.write(
                "/cam/aperture/state",
                STATE,
                cdr(state_message(i)),
                START + (2 * i + 1) * SECOND,
                OfferedQos(latched=True, depth=1),
            )
    return path


def write_with_rosbags(path, plugin, compression=None, frames=5, array=DEPTH):
    bag = Writer(path, version=9, storage_plugin=plugin)
    if compression:
        bag.set_compression(compression, CompressionFormat.ZSTD)
    with bag:
        topic = bag.add_connection("/cam/depth", IMAGE, typestore=STORE)
        for i in range(frames):
            bag.write(topic, START + i, cdr(depth_message(i, array)))
    return path


def storage_file(path):
    (file,) = path.glob("*.mcap")
    return file


def test_others_read_our_bag_without_knowing_its_types(tmp_path):
    path = write_run(tmp_path / "run")
    with AnyReader([path]) as bag:  # no type store given; it checks the type hashes against the definitions
        assert {c.topic: c.msgtype for c in bag.connections} == {"/cam/depth": IMAGE, "/cam/aperture/state": STATE}
        read = [(c.topic, time, bag.deserialize(raw, c.msgtype)) for c, time, raw in bag.messages()]
    assert [time for _, time, _ in read] == [START + i * SECOND for i in range(10)]
    np.testing.assert_array_equal(read[0][2].data.view(np.float32).reshape(DEPTH.shape), DEPTH)
    assert read[3][2].f_number == pytest.approx(1.8)
    assert read[3][2].index == 1


def test_the_mcap_file_is_whole_by_the_mcap_librarys_own_reader(tmp_path):
    with storage_file(write_run(tmp_path / "run")).open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        assert reader.get_header().profile == "ros2"
        assert summary.statistics.message_count == 10
        assert {s.name for s in summary.schemas.values()} == {IMAGE, STATE}
        assert all(c.message_encoding == "cdr" for c in summary.channels.values())
        assert [m.log_time for _, _, m in reader.iter_messages()] == [START + i * SECOND for i in range(10)]


def test_the_metadata_lets_a_player_latch_again(tmp_path):
    path = write_run(tmp_path / "run")
    content = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert content["storage_identifier"] == "mcap"
    assert content["message_count"] == 10
    assert content["duration"]["nanoseconds"] == 9 * SECOND
    assert content["starting_time"]["nanoseconds_since_epoch"] == START
    topics = {t["topic_metadata"]["name"]: t["topic_metadata"] for t in content["topics_with_message_count"]}
    assert all(t["serialization_format"] == "cdr" for t in topics.values())
    (state_qos,) = topics["/cam/aperture/state"]["offered_qos_profiles"]
    assert (state_qos["durability"], state_qos["reliability"], state_qos["depth"]) == ("transient_local", "reliable", 1)
    (depth_qos,) = topics["/cam/depth"]["offered_qos_profiles"]
    assert depth_qos["durability"] == "volatile"
    assert topics["/cam/aperture/state"]["type_description_hash"] == STORE.hash_rihs01(STATE)
    with AnyReader([path]) as bag:
        (connection,) = [c for c in bag.connections if c.topic == "/cam/aperture/state"]
        assert connection.ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL
        assert connection.ext.offered_qos_profiles[0].reliability == QosReliability.RELIABLE


def test_what_was_written_is_read_back(tmp_path):
    with BagReader(write_run(tmp_path / "run")) as bag:
        assert bag.topics == {"/cam/depth": IMAGE, "/cam/aperture/state": STATE}
        assert bag.counts == {"/cam/depth": 5, "/cam/aperture/state": 5}
        assert (bag.duration, bag.start_time_ns, bag.recovered) == (pytest.approx(9.0), START, None)
        raw = list(bag.messages(["/cam/depth"]))
        assert [m.data for m in raw] == [cdr(depth_message(i)) for i in range(5)]
        assert [header_stamp(m.data) for m in raw] == [START + i for i in range(5)]
        for _, _, content in bag.decoded(["/cam/depth"]):
            np.testing.assert_array_equal(depth_array(content, "depth"), DEPTH)
        assert list(bag.messages(["/no/such"])) == []
        assert len(list(bag.messages())) == 10


@pytest.mark.parametrize(
    ("plugin", "compression"),
    [
        (StoragePlugin.SQLITE3, None),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, None),
    ],
)
def test_others_bags_are_read(tmp_path, plugin, compression):
    path = write_with_rosbags(tmp_path / "other", plugin, compression)
    with BagReader(path) as bag:
        assert (bag.counts, bag.recovered) == ({"/cam/depth": 5}, None)
        for _, time, content in bag.decoded():
            assert content.header.stamp.nanosec == time - START
            np.testing.assert_array_equal(depth_array(content, "depth"), DEPTH)


def test_a_bare_mcap_file_and_a_folder_without_metadata_are_bags(tmp_path):
    path = write_run(tmp_path / "run")
    with BagReader(storage_file(path)) as bag:
        assert (sum(bag.counts.values()), bag.recovered) == (10, None)
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert (sum(bag.counts.values()), bag.recovered) == (10, None)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    """A bag of several chunks, its MCAP bytes, and where each message's record ends in them."""
    array = np.tile(DEPTH, (10, 10))
    content = storage_file(write_run(tmp_path_factory.mktemp("run") / "run", array=array)).read_bytes()
    payloads = [cdr(m) for i in range(5) for m in (depth_message(i, array), state_message(i))]
    ends, position = [], 0
    for payload in payloads:
        position = content.index(payload, position) + len(payload)
        ends.append(position)
    return content, payloads, ends


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1))
def test_a_bag_cut_anywhere_gives_every_message_that_is_whole(run_file, tmp_path_factory, share):
    content, payloads, ends = run_file
    cut = round(share * (len(content) - 1))
    whole = sum(end <= cut for end in ends)
    folder = tmp_path_factory.mktemp("cut")
    (folder / "cut_0.mcap").write_bytes(content[:cut])
    if whole == 0:
        with pytest.raises(InputError):
            BagReader(folder)
        return
    with BagReader(folder) as bag:
        assert [bytes(m.data) for m in bag.messages()] == payloads[:whole]
        assert bag.recovered == whole
        assert bag.counts["/cam/depth"] == (whole + 1) // 2
        assert all(content.f_number == pytest.approx(1.8) for *_, content in bag.decoded(["/cam/aperture/state"]))


def test_a_cut_compressed_bag_gives_its_whole_chunks(tmp_path):
    noise = np.random.default_rng(0).random((300, 400)).astype(np.float32)
    path = write_with_rosbags(tmp_path / "zstd", StoragePlugin.MCAP, CompressionMode.STORAGE, 12, noise)
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[: int(0.6 * file.stat().st_size)])
    (path / "metadata.yaml").unlink()
    with BagReader(path) as cut:
        assert 3 <= cut.recovered < 12
        for index, (_, _, content) in enumerate(cut.decoded()):
            assert content.header.stamp.nanosec == index


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from bag_maker import *
from dfd_ros.data.bags import BagWriter
bag = BagWriter(sys.argv[1], [MESSAGE_FOLDER])
for i in range(10):
    content = message("dfd_msgs/msg/ApertureState", header=header(i))
    bag.write("/state", "dfd_msgs/msg/ApertureState", cdr(content), i * SECOND // 2)
os.kill(os.getpid(), signal.SIGKILL)
"""

FULL = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from bag_maker import *
from dfd_ros.data.bags import BagWriter, RecordingError
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
bag = BagWriter(sys.argv[1], [MESSAGE_FOLDER])
frame = np.zeros((480, 640), np.float32)
try:
    for i in range(20):
        bag.write("/depth", "sensor_msgs/msg/Image", cdr(image(i, frame, "32FC1")), i)
except RecordingError as error:
    print(i, bag.counts["/depth"], error)
    try:
        bag.write("/depth", "sensor_msgs/msg/Image", b"", 0)
    except RecordingError as error:
        print(error)
bag.close()
"""


def run_script(script, bag):
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    return subprocess.run([sys.executable, "-c", script, str(bag), *places], capture_output=True, text=True, timeout=60)


def test_a_killed_recorder_loses_a_second_at_most(tmp_path):
    run_script(KILLED, tmp_path / "run")
    with BagReader(tmp_path / "run") as bag:
        assert bag.recovered >= 10 - 3
        assert bag.duration >= 4.5 - 1.5


def test_a_full_disk_is_one_clear_error_and_leaves_a_whole_bag(tmp_path):
    done = run_script(FULL, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    attempt, kept, said = first.split(maxsplit=2)
    assert said == f"bag {tmp_path / 'run'}: cannot be written on (File too large)"
    assert "after it was closed" in second
    assert int(kept) == 4  # of 1.2 MB each in 5 MB
    assert int(attempt) == 4
    with BagReader(tmp_path / "run") as bag:
        assert (bag.counts, bag.recovered) == ({"/depth": 4}, None)
        assert [header_stamp(m.data) for m in bag.messages()] == [0, 1, 2, 3]
    with storage_file(tmp_path / "run").open("rb") as stream:
        assert make_reader(stream).get_summary().statistics.message_count == 4


def test_a_topic_without_messages_is_listed(tmp_path):
    with BagWriter(tmp_path / "run") as bag:
        bag.add_topic("/cam/points", "sensor_msgs/msg/PointCloud2")
        bag.add_topic("/cam/points", "sensor_msgs/msg/PointCloud2")
        bag.write("/cam/depth", IMAGE, cdr(depth_message(0)), START)
        assert bag.counts == {"/cam/points": 0, "/cam/depth": 1}
    with BagReader(tmp_path / "run") as bag:
        assert bag.counts == {"/cam/points": 0, "/cam/depth": 1}


def test_an_empty_recording_is_closed_without_fuss_and_refused_by_the_reader(tmp_path):
    with BagWriter(tmp_path / "run") as bag:
        bag.add_topic("/cam/depth", IMAGE)
    content = yaml.safe_load((tmp_path / "run" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert content["starting_time"]["nanoseconds_since_epoch"] == 0
    with pytest.raises(InputError, match="expected recorded messages, got none"):
        BagReader(tmp_path / "run")


def test_the_writer_names_what_it_cannot_use(tmp_path):
    with pytest.raises(InputError, match="exists already"):
        BagWriter(tmp_path)
    with pytest.raises(InputError, match=r"expected \.msg files"):
        BagWriter(tmp_path / "a", [tmp_path])
    folder = tmp_path / "bad_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Bad.msg").write_text("%%%\n")
    with pytest.raises(InputError, match=r"Bad\.msg"):
        BagWriter(tmp_path / "b", [folder])
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written on"):
        BagWriter(tmp_path / "file" / "run")
    with BagWriter(tmp_path / "c") as bag:
        assert not bag.knows_type(STATE)
        with pytest.raises(InputError, match=STATE):
            bag.write("/state", STATE, b"", 0)
        bag.write("/cam/depth", IMAGE, cdr(depth_message(0)), START)
        with pytest.raises(InputError, match="of type sensor_msgs/msg/Image"):
            bag.write("/cam/depth", "sensor_msgs/msg/CameraInfo", b"", 0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing", None, "does not exist"),
        ("picture.png", b"\x89PNG", r"got a \.png file"),
        ("empty.mcap", b"", "an empty file"),
        ("other.mcap", b"bag of crisps", "another file format"),
        ("broken.db3", b"not a database", "cannot be read"),
    ],
)
def test_the_reader_names_what_is_no_bag(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        BagReader(tmp_path / name)


def test_a_folder_without_storage_is_no_bag(tmp_path):
    with pytest.raises(InputError, match="a folder without"):
        BagReader(tmp_path)


def test_images_are_views_whatever_their_step():
    padded = image(0, DEPTH, "32FC1", padding=8)
    np.testing.assert_array_equal(depth_array(padded, "depth"), DEPTH)
    millimetres = image(0, np.array([[0, 1500]], np.uint16), "16UC1")
    np.testing.assert_allclose(depth_array(millimetres, "depth"), [[0, 1.5]], rtol=1e-6)
    red = np.zeros((2, 3, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_array_equal(rgb_array(image(0, red, "rgb8", padding=5), "image"), red)
    np.testing.assert_array_equal(rgb_array(image(0, red[..., ::-1], "bgr8"), "image"), red)
    assert rgb_array(image(0, red[..., 0], "mono8"), "image").shape == (2, 3, 3)
    with pytest.raises(InputError, match="expected a 32FC1 or 16UC1 depth image, got 'rgb8'"):
        depth_array(image(0, red, "rgb8"), "depth")
    padded.step = 4
    with pytest.raises(InputError, match="step of 64 bytes or more"):
        depth_array(padded, "depth")
    with pytest.raises(InputError, match="a header"):
        header_stamp(b"\x00\x01\x00\x00")
