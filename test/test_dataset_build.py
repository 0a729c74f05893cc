"""Bags into data sets: what is recorded comes out as checked samples, whatever the storage, the topics' names, or how
often the work was killed."""

import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_maker import MESSAGE_FOLDER, SECOND, STORE, aperture_state, cdr, cloud, header, image, message
from mcap.reader import make_reader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from typer.testing import CliRunner

from dfd_ros.cli import app
from dfd_ros.data.bags import BagReader, BagWriter
from dfd_ros.data.built import read_bags, read_calibration, read_lines
from dfd_ros.data.open import OpenOptions, open_dataset
from dfd_ros.datasets import build as building
from dfd_ros.datasets import files
from dfd_ros.datasets.fit import fit_to
from dfd_ros.datasets.info import describe, save_contact_sheet
from dfd_ros.datasets.options import build_settings
from dfd_ros.datasets.plan import joined_frames
from dfd_ros.datasets.scan import slices
from dfd_ros.datasets.settings import BuildSettings, PairSettings, SplitSettings
from dfd_ros.datasets.split import split_bags
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.lens_file import save_lens

IMAGE, INFO, STATE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo", "dfd_msgs/msg/ApertureState"
CLOUD, TRANSFORMS, PAIR = "sensor_msgs/msg/PointCloud2", "tf2_msgs/msg/TFMessage", "dfd_msgs/msg/ImagePair"
START = 1_700_000_000 * SECOND
MS = SECOND // 1000
PERIOD = 100 * MS  # of frames
HEIGHT, WIDTH = 144, 192
FOCAL, WALL = 180.0, 8.0  # pixels, metres
LENS = Lens("test", 5.0, 1.8, 4.0, 40.0, 1.0, 50.0)
SETTINGS = BuildSettings(lens=LENS, pairs_per_task=2, split=SplitSettings(validation=0.25, block=0.3, guard=0.1))


def textured(seed=0):
    noise = np.random.default_rng(seed).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.clip(128.0 + 500.0 * (blurred - 0.5), 20.0, 220.0).astype(np.uint8)


DEEP = textured()
SHALLOW = cv2.GaussianBlur(DEEP, (0, 0), 0.8)


def camera_info(stamp, width=WIDTH, height=HEIGHT):
    scale = width / WIDTH
    k = np.array([FOCAL * scale, 0, scale * WIDTH / 2 - 0.5, 0, FOCAL * scale, scale * HEIGHT / 2 - 0.5, 0, 0, 1])
    return message(INFO, header=header(stamp), width=width, height=height, k=k, distortion_model="plumb_bob")


def wall(stamp, z=WALL):
    """A wall straight ahead, seen by a LiDAR 0.1 m above the camera whose axes are the camera's."""
    x, y = np.meshgrid(np.linspace(-4, 4, 60), np.linspace(-3, 3, 30))
    return cloud(stamp, "xyz", np.stack([x, y + 0.1, np.full_like(x, z)], axis=-1).reshape(-1, 3))


def static_transforms():
    shift = message("geometry_msgs/msg/Vector3", y=-0.1)
    turn = message("geometry_msgs/msg/Quaternion", w=1.0)
    transform = message("geometry_msgs/msg/Transform", translation=shift, rotation=turn)
    stamped = message(
        "geometry_msgs/msg/TransformStamped", header=header(START), child_frame_id="lidar", transform=transform
    )
    return message(TRANSFORMS, transforms=[stamped])


def drive(frames=12, pictures=None, lidar=True, delay=5 * MS, late_settling=(), start=START):
    """What a vehicle records: (topic, type, message, time of receipt), shallow and deep frames in turn."""
    pictures = pictures or {}
    yield "/tf_static", TRANSFORMS, static_transforms(), start
    for i in range(frames):
        stamp = start + SECOND + i * PERIOD
        settled = stamp + (MS if i in late_settling else -5 * MS)
        picture = pictures.get(i, (SHALLOW, DEEP)[i % 2])
        yield "/cam/camera_info", INFO, camera_info(stamp, picture.shape[1], picture.shape[0]), stamp + delay
        yield "/cam/image_raw", IMAGE, image(stamp, picture, "rgb8"), stamp + delay
        yield (
            "/cam/aperture/state",
            STATE,
            aperture_state(i, stamp - 20 * MS, settled, stamp + 30 * MS),
            stamp + 30 * MS + delay,
        )
        if lidar and i % 2:
            yield "/cam/points", CLOUD, wall(stamp + 10 * MS), stamp + 40 * MS + delay


def pairs_of(frames=4):
    """Recorded pairs, as the pair node makes them."""
    for i in range(frames):
        stamp = START + i * PERIOD
        lens = message("dfd_msgs/msg/LensInfo", name="recorded", focus_distance=5.0, f_number_shallow=1.5,
                       f_number_deep=3.0, coc_scale=30.0, min_depth=1.0, max_depth=50.0, psf="disk", magnification=1.0,
                       focal_length=float("nan"), pixel_pitch=float("nan"))  # fmt: skip
        pair = message(PAIR, header=header(stamp), shallow=image(stamp - 50 * MS, SHALLOW, "rgb8"), lens=lens,
                       deep=image(stamp, DEEP, "rgb8"), shallow_gain=1.0, gamma=2.2, motion=(0.5, 20.0)[i == 3],
                       camera_info=camera_info(stamp))  # fmt: skip
        yield "/cam/pair", PAIR, pair, stamp + 60 * MS


def write(path, content, rename=None):
    """With our writer."""
    with BagWriter(path, [MESSAGE_FOLDER]) as bag:
        for topic, type_name, one, received in content:
            bag.write((rename or {}).get(topic, topic), type_name, cdr(one), received)
    return path


def write_with_rosbags(path, content, plugin, compression=None):
    """With a writer that is not ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bag = Writer(path, version=9, storage_plugin=plugin)
    if compression:
        bag.set_compression(compression, CompressionFormat.ZSTD)
    topics = {}
    with bag:
        for topic, type_name, one, received in content:
            if topic not in topics:
                topics[topic] = bag.add_connection(topic, type_name, typestore=STORE)
            bag.write(topics[topic], received, cdr(one))
    return path


def digest(folder, work=True):
    """The hash of every file by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (work or path.relative_to(folder).parts[0] != "work")
    }


def index_of(folder):
    return read_lines(folder / "index.jsonl")


def causes(folder):
    return [line["rejected"] for line in read_lines(folder / "rejected.jsonl")]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bags") / "drive", drive())


@pytest.fixture(scope="module")
def built(bag, tmp_path_factory):
    """The data set of `bag`, built without interruption."""
    out = tmp_path_factory.mktemp("built") / "set"
    report = building.build([bag], out, SETTINGS)
    assert not report.failed
    return out


def test_frames_and_aperture_states_become_pairs_with_depth(built):
    samples = index_of(built)
    assert [sample["stamp"] for sample in samples] == [START + SECOND + i * PERIOD for i in range(1, 12, 2)]
    assert causes(built) == []
    for sample in samples:
        assert sample["shallow_stamp"] == sample["stamp"] - PERIOD
        assert sample["lidar_skew"] == pytest.approx(0.01)
    content = read_calibration(built / samples[0]["calibration"])
    assert Lens(**content["lens"]) == replace(LENS)
    assert (content["camera"]["fx"], content["camera"]["width"]) == (FOCAL, WIDTH)


def test_a_built_set_is_read_as_samples(built):
    dataset = open_dataset(built)  # its kind is told by its files
    assert len(dataset) == 6
    sample = open_dataset(f"built:{built}")[0]
    assert sample.shallow.shape == (HEIGHT, WIDTH, 3)
    assert sample.lens == LENS
    np.testing.assert_array_equal(np.rint(255 * sample.deep).astype(np.uint8), DEEP)
    seen = np.isfinite(sample.depth)
    assert seen.mean() > 0.9
    assert abs(sample.depth[seen] - WALL).max() < 0.05
    assert 0.5 < sample.weight[HEIGHT // 2, WIDTH // 2] <= 1.0
    parts = [set(open_dataset(built, OpenOptions(split=split)).names) for split in ("train", "test")]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_its_samples_train(built):
    """What a recipe asks of a data set: lens, weight and sizes fit together."""
    for sample in open_dataset(built):
        assert sample.weight.shape == sample.depth.shape == sample.deep.shape[:2]
        assert sample.gamma == 2.2


@pytest.mark.parametrize(
    ("plugin", "compression"),
    [
        (StoragePlugin.SQLITE3, None),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    ],
    ids=str,
)
def test_an_independent_writers_bag_gives_the_same_set(built, tmp_path, plugin, compression):
    """Other storage, other delays of receipt, the same bytes."""
    path = write_with_rosbags(tmp_path / "drive", sorted(drive(delay=9 * MS), key=lambda m: m[3]), plugin, compression)
    assert not building.build([path], tmp_path / "set", SETTINGS).failed
    assert digest(tmp_path / "set", work=False) == digest(built, work=False)


def test_a_bag_that_does_not_define_its_types_is_read(built, tmp_path):
    """As rosbag2 wrote them before Iron."""
    ordered = sorted(drive(), key=lambda m: m[3])
    path = write_with_rosbags(tmp_path / "drive", ordered, StoragePlugin.SQLITE3)
    (file,) = path.glob("*.db3")
    with closing(sqlite3.connect(file)) as database:
        database.execute("DELETE FROM message_definitions")
        database.commit()
    assert not building.build([path], tmp_path / "set", SETTINGS).failed
    assert digest(tmp_path / "set", work=False) == digest(built, work=False)


def test_recorded_pairs_are_taken_as_they_are(tmp_path):
    path = write(tmp_path / "drive", pairs_of())
    report = building.build([path], tmp_path / "set", SETTINGS)
    assert report.notes["drive"] == ("no LiDAR: pairs without depth",)
    samples = index_of(tmp_path / "set")
    assert len(samples) == 3
    assert causes(tmp_path / "set") == ["motion"]
    content = read_calibration(tmp_path / "set" / samples[0]["calibration"])
    assert content["lens"]["name"] == "recorded"
    assert content["camera"]["fx"] == FOCAL


def test_every_rejection_has_its_cause(tmp_path):
    clipped = np.full_like(DEEP, 255)
    clipped[:, ::3] = 0
    pictures = {
        3: clipped,
        4: np.roll(SHALLOW, 20, axis=1),
        9: (DEEP * 0.2).astype(np.uint8),
        12: cv2.resize(SHALLOW, (96, 72)),
    }
    content = [m for m in drive(16, pictures, late_settling=[6]) if m[:2] != ("/cam/points", CLOUD) or
               m[3] != START + SECOND + 13 * PERIOD + 45 * MS]  # fmt: skip
    path = write(tmp_path / "drive", content)
    settings = replace(SETTINGS, depth=replace(SETTINGS.depth, max_skew=0.05))
    assert not building.build([path], tmp_path / "set", settings).failed
    by_frame = {
        (line["stamp"] - START - SECOND) // PERIOD: line["rejected"]
        for line in read_lines(tmp_path / "set" / "rejected.jsonl")
    }
    # The transition at 6 leaves 7 to 8, and so on: who is whose neighbour has changed from there.
    assert by_frame == {
        3: "saturation",
        5: "motion",
        6: "transition",
        9: "exposure",
        11: "size_mismatch",
        12: "size_mismatch",
        13: "no_lidar",
        15: "unpaired",
    }


def test_without_a_lidar_there_are_pairs_only(tmp_path):
    path = write(tmp_path / "drive", drive(4, lidar=False))
    report = building.build([path], tmp_path / "set", SETTINGS)
    assert report.notes["drive"] == ("no LiDAR: pairs without depth",)
    assert [sample["depth"] for sample in index_of(tmp_path / "set")] == [None, None]
    with pytest.raises(InputError, match="expected samples with depth"):
        open_dataset(tmp_path / "set")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_of_a_truncated_bag_all_before_the_cut_is_used(built, bag, tmp_path, storage):
    if storage == "sqlite3":
        ordered = sorted(drive(), key=lambda m: m[3])
        (whole,) = write_with_rosbags(tmp_path / "whole", ordered, StoragePlugin.SQLITE3).glob("*.db3")
    else:
        (whole,) = bag.glob("*.mcap")
    (tmp_path / "drive").mkdir()
    content = whole.read_bytes()
    (tmp_path / "drive" / whole.name).write_bytes(content[: int(0.8 * len(content))])
    report = building.build([tmp_path / "drive"], tmp_path / "set", SETTINGS)
    (note,) = report.notes["drive"]
    assert "cut short" in note
    assert "before the cut" in read_bags(tmp_path / "set")[0]["cut"]
    samples, all_samples = index_of(tmp_path / "set"), index_of(built)
    assert 1 <= len(samples) < len(all_samples)
    for sample, same in zip(samples, all_samples, strict=False):
        assert sample["stamp"] == same["stamp"]
        for key in ("shallow", "deep", "depth", "confidence"):
            assert (tmp_path / "set" / sample[key]).read_bytes() == (built / same[key]).read_bytes()


def test_of_a_bag_damaged_within_all_before_the_damage_is_used(tmp_path):
    ordered = sorted(drive(40), key=lambda m: m[3])
    path = write_with_rosbags(tmp_path / "drive", ordered, StoragePlugin.MCAP, CompressionMode.STORAGE)
    (file,) = path.glob("*.mcap")
    with file.open("rb") as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
    content = bytearray(file.read_bytes())
    # Past the chunk's head: its compressed messages are none.
    content[chunks[2].chunk_start_offset + 60 : chunks[2].chunk_start_offset + 360] = bytes(300)
    file.write_bytes(content)
    building.build([path], tmp_path / "set", SETTINGS)
    assert "cannot be read on" in read_bags(tmp_path / "set")[0]["cut"]
    assert 4 <= len(index_of(tmp_path / "set")) < 20


def test_one_bags_failure_does_not_stop_the_others(bag, built, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.mcap").write_bytes(b"no bag")
    report = building.build([tmp_path / "broken", bag], tmp_path / "set", SETTINGS)
    assert list(report.failed) == ["broken"]
    assert index_of(tmp_path / "set") == index_of(built)
    assert [entry["error"] != "" for entry in read_bags(tmp_path / "set")] == [False, True]
    with pytest.raises(InputError, match="expected MCAP data"):
        building.build([tmp_path / "broken"], tmp_path / "other", SETTINGS)


def test_a_later_bag_is_added_and_moves_nothing(bag, built, tmp_path):
    out = tmp_path / "set"
    building.build([bag], out, SETTINGS)
    later = write(tmp_path / "later", drive(4, start=START + 100 * SECOND))
    building.build([later], out, SETTINGS)
    assert [sample["bag"] for sample in index_of(out)] == ["drive"] * 6 + ["later"] * 2
    building.build([bag, later], out, SETTINGS)
    again = digest(out)
    building.build([bag, later], out, SETTINGS)
    assert digest(out) == again


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from dfd_ros.datasets import build, files, index, task
from test_dataset_build import SETTINGS
left = int(sys.argv[3])
def dying(path, content, write=files.write_whole):
    global left
    left -= 1
    if left == 0:
        path.with_name(path.name + files.UNFINISHED).write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
build.write_whole = index.write_whole = task.write_whole = dying
def torn(self, record, add=files.Ledger.add):
    global left
    left -= 1
    if left == 0:
        os.write(self._file.fileno(), files.json_line(record)[:40])
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, record)
files.Ledger.add = torn
build.build([Path(sys.argv[1])], Path(sys.argv[2]), SETTINGS)
"""


def test_killed_at_any_write_it_goes_on_to_the_same_bytes(bag, built, tmp_path):
    """Four kills in a row: at the manifest, at a plan, at a picture, and later."""
    script = KILLED.format(tests=str(Path(__file__).parent))
    for left in (1, 2, 8, 15):
        done = subprocess.run([sys.executable, "-c", script, str(bag), str(tmp_path / "set"), str(left)])
        assert done.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "samples").rglob("*.png")}
    assert before
    building.build([bag], tmp_path / "set", SETTINGS)
    assert digest(tmp_path / "set") == digest(built)
    noted = [path for path, mtime in before.items() if path.stat().st_mtime_ns == mtime]
    assert len(noted) >= len(before) - 4  # only the pair that was in work is made again


def test_workers_make_the_same_bytes_and_die_with_their_parent(bag, built, tmp_path):
    command = [
        sys.executable,
        "-c",
        WITH_WORKERS.format(tests=str(Path(__file__).parent)),
        str(bag),
        str(tmp_path / "set"),
    ]
    parent = subprocess.Popen(command)
    deadline = time.monotonic() + 60.0
    while not list((tmp_path / "set").glob("samples/*/*_deep.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert subprocess.run(command).returncode == 0
    assert digest(tmp_path / "set") == digest(built)


WITH_WORKERS = """
import sys
from pathlib import Path
if __name__ == "__main__":
    sys.path.insert(0, {tests!r})
    from dfd_ros.datasets.build import build
    from test_dataset_build import SETTINGS
    assert not build([Path(sys.argv[1])], Path(sys.argv[2]), SETTINGS, workers=2).failed
"""


def test_a_cluster_makes_the_same_bytes(bag, built, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        report = building.build([bag], tmp_path / "set", SETTINGS, scheduler=cluster.scheduler_address)
    assert not report.failed
    assert digest(tmp_path / "set") == digest(built)


def test_a_scheduler_that_is_none_is_told(bag, tmp_path):
    with pytest.raises(InputError, match=r"expected Dask|does not answer"):
        building.build([bag], tmp_path / "set", SETTINGS, scheduler="no address")


@pytest.mark.parametrize("refused", [0, 1, 10], ids=["manifest", "plan", "picture"])
def test_a_full_disk_stops_it_and_it_goes_on(bag, built, tmp_path, monkeypatch, refused):
    replace_file, count = Path.replace, itertools.count()

    def full(self, target):
        if next(count) == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(files.StorageError, match=r"No space left on device.*the same command again goes on"):
        building.build([bag], tmp_path / "set", SETTINGS)
    monkeypatch.undo()
    building.build([bag], tmp_path / "set", SETTINGS)
    assert digest(tmp_path / "set") == digest(built)


def test_a_folder_of_other_settings_or_version_is_refused(bag, built, tmp_path):
    with pytest.raises(InputError, match=r"expected the settings that it was begun with.*: image_format, size"):
        building.build([bag], built, replace(SETTINGS, image_format="jpeg", size=(64, 48)))
    (tmp_path / "old").mkdir()
    manifest = json.loads((built / "dataset.json").read_text())
    (tmp_path / "old" / "dataset.json").write_text(json.dumps({**manifest, "version": 0}))
    with pytest.raises(InputError, match="expected layout version 1, got 0"):
        building.build([bag], tmp_path / "old", SETTINGS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(InputError, match="expected a new or empty folder"):
        building.build([bag], tmp_path / "mine", SETTINGS)
    with files.locked(built / "work" / "lock", "it"), pytest.raises(InputError, match="no other process at work"):
        building.build([bag], built, SETTINGS)


def test_another_bag_of_the_same_name_is_told(bag, tmp_path):
    out = tmp_path / "set"
    building.build([bag], out, SETTINGS)
    other = write(tmp_path / "drive", drive(4))
    with pytest.raises(InputError, match="another bag of that name"):
        building.build([other], out, SETTINGS)
    with pytest.raises(InputError, match="expected different names"):
        building.name_bags([bag, other])
    assert list(building.name_bags([tmp_path / "run7" / "bag"])) == ["run7"]


OTHER_NAMES = {"/cam/image_raw": "/front/image", "/cam/aperture/state": "/iris", "/cam/points": "/os/cloud",
               "/cam/camera_info": "/front/info"}  # fmt: skip


def test_topics_of_other_names_are_found_by_a_mapping(built, tmp_path):
    path = write(tmp_path / "drive", drive(), OTHER_NAMES)
    names = {
        "image_raw": "/front/image",
        "aperture/state": "/iris",
        "points": "/os/cloud",
        "camera_info": "/front/info",
    }
    assert not building.build([path], tmp_path / "set", replace(SETTINGS, topics=names)).failed
    assert digest(tmp_path / "set" / "samples") == digest(built / "samples")


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({}, "got no image_raw among .*; other names: --topic image_raw=TOPIC"),
        ({"image_raw": "/none"}, "expected the topic /none for image_raw, got"),
        ({"image_raw": "/iris"}, "expected sensor_msgs/msg/Image on /iris, got dfd_msgs/msg/ApertureState"),
    ],
)
def test_a_mapping_that_does_not_fit_is_told(tmp_path, mapping, sentence):
    path = write(tmp_path / "drive", drive(2), OTHER_NAMES)
    with pytest.raises(InputError, match=sentence):
        building.build([path], tmp_path / "set", replace(SETTINGS, topics=mapping))


def test_of_several_cameras_one_has_to_be_named(tmp_path):
    other = [("/rear/image_raw", *rest) for topic, *rest in drive(2) if topic == "/cam/image_raw"]
    path = write(tmp_path / "drive", sorted([*drive(2), *other], key=lambda m: m[3]))
    with pytest.raises(InputError, match="of one camera, got /cam/image_raw, /rear/image_raw"):
        building.build([path], tmp_path / "set", SETTINGS)


def test_smaller_samples_keep_lens_and_camera_true(bag, tmp_path):
    """A wall straight ahead stays at its distance, and blur stays the same share of the picture."""
    settings = replace(SETTINGS, size=(96, 54), image_format="webp", depth_format="npy")
    building.build([bag], tmp_path / "set", settings)
    sample = open_dataset(tmp_path / "set")[0]
    assert sample.depth.shape == (54, 96)
    assert np.nanmax(abs(sample.depth - WALL)) < 0.05
    assert sample.lens.coc_scale == pytest.approx(0.5 * LENS.coc_scale)
    camera = read_calibration(tmp_path / "set" / index_of(tmp_path / "set")[0]["calibration"])["camera"]
    assert (camera["fx"], camera["cx"], camera["cy"]) == (FOCAL / 2, 47.5, 26.5)


def test_a_wide_picture_is_cut_evenly_and_reduced():
    fit = fit_to((1080, 1920, 3), (640, 480))
    assert (fit.column, fit.row, fit.part) == (240, 0, (1440, 1080))
    camera = fit.camera(Camera(1920, 1080, 1500.0, 1500.0, 959.5, 539.5))
    assert (camera.width, camera.height, camera.cx, camera.cy) == (640, 480, 319.5, 239.5)
    assert camera.fx == pytest.approx(1500.0 / 2.25)
    lens = fit.lens(replace(LENS, coc_field=0.2, focal_length=0.05, pixel_pitch=3e-6))
    assert lens.coc(20.0) == pytest.approx(LENS.coc(20.0) / 2.25)
    assert lens.pixel_pitch == pytest.approx(3e-6 * 2.25)
    # The factor at a point of the scene: the new corner lies at 900 of the old one's 1101 pixels.
    assert lens.coc_field == pytest.approx(0.2 * (1440**2 + 1080**2) / (1920**2 + 1080**2))
    grey = fit.picture(np.full((1080, 1920, 3), 77, np.uint8), 2.2)
    assert (grey == 77).all()
    checker = np.indices((4, 4)).sum(axis=0) % 2 * np.uint8(255)
    half = fit_to((4, 4), (2, 2)).picture(checker.astype(np.uint8), 2.2)
    assert (half == round(255 * 0.5 ** (1 / 2.2))).all()
    with pytest.raises(InputError, match="expected at least 640x480 pixels, got 320x240"):
        fit_to((240, 320), (640, 480))


def test_neighbours_are_never_on_both_sides():
    rng = np.random.default_rng(3)
    stamps = {}
    for bag in ("a", "b", "c"):
        steps = rng.choice([0.1, 8.0], 3000, p=[0.998, 0.002])  # with pauses
        stamps[bag] = (START + SECOND * np.cumsum(steps)).astype(np.int64).tolist()
    settings = SplitSettings(validation=0.2, block=20.0, guard=1.5)
    places = split_bags(stamps, settings)
    sides = [place.split for each in places.values() for place in each]
    assert 0.1 < sides.count("validation") / len(sides) < 0.3
    for bag, each in places.items():
        times = {s: np.array([t for t, p in zip(stamps[bag], each, strict=True) if p.split == s]) for s in set(sides)}
        assert np.abs(times["train"][:, None] - times["validation"]).min() >= 1.5 * SECOND
        assert (
            len({p.scene for p in each if p.split == "validation"} & {p.scene for p in each if p.split == "train"}) == 0
        )
    assert split_bags({"a": stamps["a"]}, settings)["a"] == places["a"]
    assert {p.split for p in split_bags(stamps, replace(settings, validation=0.0))["a"]} == {"train"}


def test_a_short_recording_has_its_validation_too():
    stamps = {"short": [START + i * PERIOD for i in range(60)]}
    sides = [place.split for place in split_bags(stamps, SplitSettings())["short"]]
    assert 0 < sides.count("validation") <= 30
    assert sides.count("train") >= 20


def test_a_clock_that_jumped_makes_no_flood_of_parts(tmp_path):
    state_at_0 = ("/cam/aperture/state", STATE, aperture_state(0, START, START, START), 0)
    with BagReader(write(tmp_path / "drive", [state_at_0, *drive(4)])) as opened:
        parts = list(slices(opened))
    assert len(parts) <= 2000
    assert parts[0][0] == 0
    assert parts[-1][1] > START
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(parts))


def test_static_transforms_are_joined_either_way():
    up, back = Transform(translation=np.array([0.0, -1.0, 0.0])), Transform(translation=np.array([0.0, 0.0, -2.0]))
    joined = joined_frames({("base", "camera"): up, ("base", "lidar"): back}, "camera", "lidar")
    np.testing.assert_allclose(joined.translation, [0.0, 1.0, -2.0])
    assert joined_frames({("base", "camera"): up}, "camera", "lidar") is None


def test_a_lidar_without_a_place_is_told(tmp_path):
    path = write(tmp_path / "drive", (m for m in drive(4) if m[0] != "/tf_static"))
    with pytest.raises(InputError, match=r"expected /tf_static to join 'lidar' to 'camera'.*--extrinsics"):
        building.build([path], tmp_path / "set", SETTINGS)


def test_info_counts_and_draws(built, tmp_path):
    info = describe(built)
    assert sum(info.splits.values()) == 6
    bins = np.flatnonzero(info.histogram)
    assert set(bins) <= {11, 12, 13}  # about 8 m
    save_contact_sheet(info, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (6 * (HEIGHT + 4), 4 * (WIDTH + 4), 3)
    assert sheet.std() > 10.0


def test_options_are_understood_or_refused():
    given = {"size": "640x480", "topics": ["image_raw=/front/image", "pair="], "lens": "lenses/street.yaml",
             "extrinsics": "vehicle_extrinsics.yaml", "images": ("jpeg", 90), "depth": ("npy", "exact", True),
             "pairs": (1.0, "refuse", 4.0), "validation": 0.2}  # fmt: skip
    settings = build_settings(**given)
    assert settings.size == (640, 480)
    assert settings.topics == {"image_raw": "/front/image", "pair": ""}
    assert settings.pairs == PairSettings(gamma=1.0, motion="refuse", max_motion=4.0)
    assert settings.digest() == build_settings(**given).digest() != SETTINGS.digest()
    for change in (
        {"size": "640"},
        {"size": "0x4"},
        {"topics": ["/front/image"]},
        {"topics": ["colour=/front/image"]},
        {"images": ("gif", 90)},
        {"depth": ("exr", "nyu", False)},
        {"depth": ("png", "guess", False)},
        {"pairs": (2.2, "maybe", 8.0)},
        {"validation": 0.9},
    ):
        with pytest.raises(InputError, match=r"expected|must be one of"):
            build_settings(**{**given, **change})


def test_the_commands_build_and_describe(bag, tmp_path, capsys):
    lens = tmp_path / "lens.yaml"
    save_lens(LENS, lens)
    command = ["dataset", "build", str(bag), "--out", str(tmp_path / "set"), "--lens", str(lens), "--images", "jpeg"]
    runner = CliRunner()
    for words, said in ((command, "written: "), (["dataset", "info", str(tmp_path / "set")], "sheet.png")):
        result = runner.invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0
        assert said in result.output
    assert (tmp_path / "set" / "sheet.png").is_file()
    with pytest.raises(InputError, match="settings that it was begun with"):
        runner.invoke(app, [*command, "--quality", "80"], catch_exceptions=False)


def test_the_build_starts_no_ros_and_no_torch():
    code = "import sys, dfd_ros.datasets.build, dfd_ros.datasets.info; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & {"rclpy", "sensor_msgs", "dfd_msgs", "torch"}
    assert multiprocessing.active_children() == []
