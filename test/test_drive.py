"""The main job from end to end, as a user runs it: every source, Ctrl-C, and sources that can't be used."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import shared_data
from dfd_msgs.msg import ImagePair
from rclpy.serialization import deserialize_message

from dfd_ros.data.bags import BagReader
from dfd_ros.data.image_messages import header_stamp
from dfd_ros.drive import first_answer_of
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.nodes.monitor_node import NodeStatus
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file
from dfd_ros.sim.vehicle import SimSettings, SimulatedVehicle, camera_of

pytestmark = pytest.mark.live

DFD = [sys.executable, "-m", "dfd_ros.cli"]


def dfd(*words, timeout=180):
    return subprocess.run([*DFD, *map(str, words)], capture_output=True, text=True, timeout=timeout, check=False)


def run_vehicle(out, *words):
    done = dfd("vehicle", "--out", out, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "panel.png").stat().st_size > 20_000
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def sim_run(tmp_path_factory):
    """Six seconds of the simulated vehicle."""
    out = tmp_path_factory.mktemp("runs") / "sim"
    return out, run_vehicle(out, "--duration", 6)


def stamps(bag, topic):
    return [header_stamp(message.data) for message in bag.messages([topic])]


def test_every_pair_is_answered_once_or_counted(sim_run):
    out, summary = sim_run
    pairs = summary["pairs"]
    assert pairs["published"] == pairs["answered"] + sum(pairs["dropped"].values())
    with BagReader(out / "bag") as bag:
        published, answered = stamps(bag, "/camera/pair"), stamps(bag, "/camera/depth/image_rect")
    assert len(published) == pairs["published"] > 10
    assert len(answered) == len(set(answered)) == pairs["answered"]
    assert set(answered) <= set(published)


def test_confident_depth_is_right_and_everything_is_recorded(sim_run):
    out, summary = sim_run
    street = [b for b in summary["scores"]["bins"] if 6 <= b["from"] and b["to"] <= 25]
    assert len(street) == 2
    for bin_ in street:
        assert bin_["confident"]["median_rel"] < 0.06
    assert summary["scores"]["objects"]
    assert summary["lidar"]["all"]["median_rel"] < 0.15
    with BagReader(out / "bag") as bag:
        recorded = {topic.removeprefix("/camera/") for topic, count in bag.counts.items() if count}
    assert recorded >= {
        "image_raw", "camera_info", "exposure", "points", "aperture/state", "pair", "lidar/sparse_depth", "lidar/depth",
        "depth/image_rect", "depth/confidence", "depth/camera_info", "depth/points", "depth/preview",
        "ground_truth/depth", "ground_truth/objects", "/diagnostics",
    }  # fmt: skip


def test_pairs_are_made_of_whole_frames(sim_run):
    """Each picture of a pair shows one aperture: the deep one is sharper, the same in every pair."""
    out, _ = sim_run
    ratios = []
    with BagReader(out / "bag") as bag:
        for message in bag.messages(["/camera/pair"]):
            pair = deserialize_message(bytes(message.data), ImagePair)
            sharpness = [
                cv2.Laplacian(np.frombuffer(image.data, np.uint8).reshape(480, 640, 3)[..., 1], cv2.CV_32F).std()
                for image in (pair.shallow, pair.deep)
            ]
            ratios.append(sharpness[1] / sharpness[0])
    assert min(ratios) > 1.1
    assert max(ratios) < 1.1 * min(ratios)


def test_the_bag_is_replayed_through_the_nodes(sim_run, tmp_path):
    out, original = sim_run
    summary = run_vehicle(tmp_path / "again", "--source", out / "bag")
    assert summary["pairs"]["published"] > 0.8 * original["pairs"]["published"]
    pairs = summary["pairs"]
    assert pairs["published"] == pairs["answered"] + sum(pairs["dropped"].values())
    confident = [run["scores"]["confident"]["median_rel"] for run in (original, summary)]
    assert confident[0] == pytest.approx(confident[1], rel=0.2)


def test_a_bag_cut_short_is_replayed_as_far_as_it_goes(sim_run, tmp_path):
    out, _ = sim_run
    (whole,) = (out / "bag").glob("*.mcap")
    cut = tmp_path / "cut.mcap"
    with whole.open("rb") as source:
        cut.write_bytes(source.read(whole.stat().st_size // 3))
    summary = run_vehicle(tmp_path / "run", "--source", cut)
    assert summary["pairs"]["answered"] > 0


def make_photographs(folder, count, size=(320, 240)):
    """Dual-aperture photographs of as many lots, with depth, in the true layout."""
    lens = load_lens(config_file("lenses/street.yaml"))
    mounting = load_extrinsics(config_file("vehicle_extrinsics.yaml")).camera_from_lidar
    folder.mkdir()
    for seed in range(count):
        vehicle = SimulatedVehicle(SimSettings(seed=seed), lens, camera_of(lens, *size), mounting)
        vehicle.prepare()
        for name, shares, exposure in (("f1.8", (1.0, 0.0), 1e-3), ("f4.0", (0.0, 1.0), 4e-3)):
            picture = vehicle.photograph(0.0, exposure, shares)
            cv2.imwrite(str(folder / f"{seed:03d}_{name}.png"), picture[..., ::-1])
        depth = np.nan_to_num(vehicle.ground_truth(0.0) * 1000, nan=0.0)
        cv2.imwrite(str(folder / f"{seed:03d}_depth_mm.png"), np.where(depth < 65535, depth, 0).astype(np.uint16))


def test_photographs_with_a_lens_file_are_all_answered(tmp_path):
    make_photographs(tmp_path / "photographs", count=6)
    summary = run_vehicle(tmp_path / "run", "--source", tmp_path / "photographs", "--lens", "lenses/street.yaml")
    assert summary["pairs"] == {"published": 6, "answered": 6, "dropped": {}}
    assert summary["scores"]["confident"]["median_rel"] < 0.1


def test_real_photographs_are_calibrated_on_half_and_beat_the_constant_on_the_other(tmp_path):
    source = shared_data("dslr_dfd")
    summary = run_vehicle(tmp_path / "run", "--source", source)
    assert summary["pairs"]["published"] == summary["pairs"]["answered"] == 41
    depths = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 1000 for path in sorted(source.glob("*_depth_mm.png"))]
    guess = np.median(np.concatenate([depth[depth > 0] for depth in depths[:40]]))
    truth = np.concatenate([depth[depth > 0] for depth in depths[40:]])
    constant = np.mean(np.abs(guess - truth) / truth)
    assert summary["scores"]["all"]["rel"] < 0.75 * constant
    assert summary["scores"]["confident"]["rel"] < 0.4 * constant
    assert (tmp_path / "run" / "lens.yaml").is_file()
    assert (tmp_path / "run" / "calibration.png").is_file()


def test_real_street_frames_become_dense_depth(tmp_path):
    summary = run_vehicle(tmp_path / "run", "--source", shared_data("kitti"))
    assert summary["lidar_images"] == 2


def test_the_first_answer_is_depth_from_blur_where_a_node_makes_it():
    def status(answered):
        return NodeStatus(0, "", {"answered": answered})

    quick_lidar = {"/camera/lidar_depth": status("3"), "/camera/depth": status("0")}
    assert not first_answer_of(quick_lidar, ["depth", "lidar_depth"])
    assert first_answer_of({**quick_lidar, "/camera/depth": status("1")}, ["depth", "lidar_depth"]) == "depth"
    assert first_answer_of(quick_lidar, ["lidar_depth"]) == "LiDAR depth"
    assert not first_answer_of({}, ["lidar_depth"])


def test_a_network_is_waited_for_however_short_the_run(tmp_path):
    """Back ends are measured before the first answer, which takes longer than this run."""
    summary = run_vehicle(tmp_path / "run", "--duration", 1, "--model", "ours")
    assert summary["pairs"]["answered"] > 1


def test_ctrl_c_ends_it_with_everything_written(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*DFD, "vehicle", "--duration", "90", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if line.startswith("first depth"):
                break
        time.sleep(2)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
    text = process.stdout.read()
    assert process.wait(60) == 0, text
    assert "Traceback" not in text
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pairs"]["answered"] > 0
    assert (out / "panel.png").is_file()
    assert (out / "bag" / "metadata.yaml").is_file()


def test_ctrl_c_while_rendering_ahead_ends_at_once(tmp_path):
    process = subprocess.Popen(
        [*DFD, "vehicle", "--moving", "--duration", "600", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert any(line.startswith("starting the nodes") for line in process.stdout)
    time.sleep(6)
    os.killpg(process.pid, signal.SIGINT)
    text = process.stdout.read()
    assert process.wait(20) != 0
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--source", "/no/such/place"], "source: expected sim, camera, or the path"),
        (["--source", "EMPTY"], "expected"),
        (["--lens", "broken.yaml"], "lens file"),
        (["--params-file", "none.yaml"], "none.yaml: expected a file, found none"),
        (["--driver", "magic"], "node aperture: could not be started"),
        (["--out", "EXISTS"], "out: expected a new folder"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, words, sentence):
    (tmp_path / "empty").mkdir()
    words = [{"EMPTY": str(tmp_path / "empty"), "EXISTS": str(tmp_path)}.get(word, word) for word in words]
    if "--out" not in words:
        words += ["--out", str(tmp_path / "run")]
    done = dfd("vehicle", "--duration", 1, *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert sentence in " ".join(done.stderr.split())


def test_a_broken_picture_costs_one_scene(tmp_path):
    folder = tmp_path / "photographs"
    make_photographs(folder, count=3)
    shutil.copy(__file__, folder / "001_f1.8.png")
    summary = run_vehicle(tmp_path / "run", "--source", folder, "--lens", "lenses/street.yaml")
    assert summary["pairs"]["answered"] == 2


def test_calibrate_writes_a_lens_that_nodes_take(tmp_path):
    make_photographs(tmp_path / "photographs", count=3, size=(640, 480))
    done = dfd("calibrate", tmp_path / "photographs", "--out", tmp_path / "lens.yaml")
    assert done.returncode == 0, done.stderr
    lens = load_lens(tmp_path / "lens.yaml")
    assert lens.focus_distance == pytest.approx(5.0, rel=0.03)
    assert lens.coc_scale == pytest.approx(load_lens(config_file("lenses/street.yaml")).coc_scale, rel=0.03)
    assert Path(tmp_path / "lens.png").stat().st_size > 10_000
