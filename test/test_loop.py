"""The loop closed: recorded, built, trained, scored, exported and driven again, by one command that goes on where it was."""

import io
import json
import shutil
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dfd_ros import recording
from dfd_ros.cli import app
from dfd_ros.data.bags import BagReader
from dfd_ros.data.built import BAGS
from dfd_ros.drive import DriveSettings, drive
from dfd_ros.errors import InputError
from dfd_ros.loop import LoopSettings, run_loop, stages
from dfd_ros.recording import NoPairError, RecordSettings

pytestmark = pytest.mark.live

WORDS = [
    "loop", "--drives", "2", "--held-out", "1", "--duration", "0.5", "--steps", "4", "--vehicle-duration", "1.5",
    "--workers", "1", "--set", "train.batch=1", "--set", "data.augment.crop=[96, 128]", "--set", "data.workers=0",
]  # fmt: skip


def run(out, *words):
    command = [sys.executable, "-m", "dfd_ros.cli", *WORDS, "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    log = (out / "loop.log").read_text() if (out / "loop.log").is_file() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    return done.stdout


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    out = tmp_path_factory.mktemp("loop") / "loop"
    return out, run(out)


def test_one_command_goes_from_bag_to_network_and_back(looped):
    out, said = looped
    found = json.loads((out / "loop.json").read_text())
    assert found["held_out"].keys() == {"before", "after", "classical"}
    for scores in found["held_out"].values():
        assert scores["n"] > 100_000
        assert 0.0 < scores["rel"] < 3.0
    assert found["held_out"]["before"]["rel"] != found["held_out"]["after"]["rel"]
    for summary in found["vehicle"].values():
        assert summary["pairs"]["answered"] > 0
        assert summary["scores"]["all"]["n"] > 100_000
    assert "trained here" in said
    assert found["met"] == (found["gain"] >= 0.2)


def test_the_bags_are_gone_and_what_was_made_of_them_is_there(looped):
    out, _ = looped
    assert not list(out.rglob("*.mcap"))
    names = {entry["name"] for entry in json.loads((out / "train" / BAGS).read_text())}
    assert names == {"drive_1000", "drive_1001"}
    assert (out / "scores" / "report.html").is_file()
    card = json.loads((out / "training" / "ours-vehicle.json").read_text())
    assert card["lens"]["focus_distance"] == [5.0, 5.0]
    assert str(out) not in json.dumps(card)


def test_what_is_done_is_not_done_again(looped):
    out, _ = looped
    before = {path: path.stat().st_mtime_ns for path in (out / "training").rglob("*") if path.is_file()}
    scores = json.loads((out / "scores" / "scores.json").read_text())
    shutil.rmtree(out / "scores")
    said = run(out)
    assert said.count("done before") == 8
    assert "$ dfd eval ours" in said
    assert json.loads((out / "scores" / "scores.json").read_text())["scores"] == scores["scores"]
    assert {path: path.stat().st_mtime_ns for path in (out / "training").rglob("*") if path.is_file()} == before


def test_other_settings_and_other_folders_are_refused(looped, tmp_path):
    out, _ = looped
    settings = LoopSettings(2, 1, 0.5, 4, 1.5)
    with pytest.raises(InputError, match=r"expected the settings that .* was begun with"):
        run_loop(out, settings, 1, False, Console(quiet=True))
    (tmp_path / "letter.txt").touch()
    with pytest.raises(InputError, match="expected a new or empty folder"):
        run_loop(tmp_path, settings, 1, False, Console(quiet=True))


def test_a_stage_that_fails_says_why_and_the_bags_stay(tmp_path, monkeypatch):
    """A stage is a command: this one's recipe has a key that is none."""
    settings = LoopSettings(2, 1, 0.5, 4, 1.5, ("train.stepz=1",))
    found = {stage.title: stage for stage in stages(tmp_path, settings, 1)}
    monkeypatch.setattr("dfd_ros.loop.stages", lambda *arguments: [found["training"]])
    with pytest.raises(InputError, match=r"training: failed.*\n(.*\n)*.*unknown key 'train.stepz'"):
        run_loop(tmp_path, settings, 1, False, Console(quiet=True))


def test_recorded_is_what_a_data_set_is_made_of(tmp_path):
    """One process records several drives, and the second call finds them there."""
    command = [sys.executable, "-m", "dfd_ros.cli", "record", "--out", str(tmp_path), "--drives", "2", "--seed", "7"]
    command += ["--duration", "0.6"]
    subprocess.run(command, check=True, timeout=120)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mcap")}
    assert len(stamps) == 2
    for name in ("drive_0007", "drive_0008"):
        with BagReader(tmp_path / name) as bag:
            assert bag.recovered is None
            assert {topic.removeprefix("/camera/") for topic in bag.topics} == {
                "pair",
                "camera_info",
                "points",
                "twist",
            }
            assert bag.counts["/camera/pair"] >= 2
    (tmp_path / "drive_0008" / "metadata.yaml").unlink()  # as after a kill
    subprocess.run(command, check=True, timeout=120)
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mcap")}
    assert [again[path] == stamps[path] for path in sorted(stamps)] == [True, False]


def test_a_drive_without_a_pair_is_recorded_once_more_and_never_kept(tmp_path, monkeypatch):
    results = [NoPairError("/camera/pair: none"), None, NoPairError("/camera/pair: none"), NoPairError("still none")]

    def record(bag, *arguments):
        bag.mkdir(parents=True)  # fails where something is left
        (bag / "metadata.yaml").touch()
        if result := results.pop(0):
            raise result

    monkeypatch.setattr(recording, "_record", record)
    console = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    settings = RecordSettings(tmp_path, drives=2, duration=1.0)
    with pytest.raises(NoPairError, match="still none"):
        recording.record_drives(settings, console)
    assert [path.name for path in tmp_path.iterdir()] == ["drive_0000"]
    assert console.export_text().count("starting the nodes again") == 2


def test_what_cannot_be_recorded_or_run_is_told(tmp_path):
    with pytest.raises(InputError, match="source: expected sim or camera, got 'bag'"):
        RecordSettings(tmp_path, source="bag")
    with pytest.raises(InputError, match="drives: expected 1 of a camera, got 2"):
        RecordSettings(tmp_path, source="camera", drives=2)
    (tmp_path / "image_2").mkdir()
    (tmp_path / "velodyne").mkdir()
    (tmp_path / "calib").mkdir()
    with pytest.raises(InputError, match="model: expected a source of pairs"):
        drive(DriveSettings(str(tmp_path), tmp_path / "run", model="ours"), Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_the_help_names_the_model():
    assert "--model" in CliRunner().invoke(app, ["vehicle", "--help"], env={"COLUMNS": "200"}).output
