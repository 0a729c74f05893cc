"""Checks of recordings: each planted fault is found, and nothing on drives without one."""

import html
import json
from dataclasses import replace

import numpy as np
import pytest
from bag_maker import MESSAGE_FOLDER, SECOND, message
from drives import (
    EXPOSURE,
    IMAGE,
    INFO,
    MS,
    PERIOD,
    POINTS,
    START,
    STATE,
    STATIC,
    TWIST,
    Recorded,
    array_of,
    copied,
    record,
    repainted,
    restamped,
    stamp_of,
    write_bag,
)
from rosbags.rosbag2 import StoragePlugin
from scipy.spatial.transform import Rotation
from test_dataset_build import pairs_of, write_with_rosbags
from typer.testing import CliRunner

from dfd_ros.checks.check import CheckSettings, check_bag
from dfd_ros.checks.edges import edge_strength, outlines, score_map
from dfd_ros.checks.findings import KINDS, Spells
from dfd_ros.cli import app
from dfd_ros.data.bags import BagReader, BagWriter
from dfd_ros.datasets.scan import Reference
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.share import config_file

SETTINGS = CheckSettings(samples=6)
FRAMES = 60


@pytest.fixture(scope="module")
def clean():
    """Six seconds of a standing vehicle."""
    return record(seed=1, frames=FRAMES)


@pytest.fixture(scope="module")
def clean_bag(clean, tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "clean", clean)


def found(messages, tmp_path, settings=SETTINGS):
    return check_bag(write_bag(tmp_path / "bag", messages), settings)


def kinds(report):
    return {finding.kind for finding in report.findings}


def changed(messages, topics, change):
    """The messages, those of some topics put through `change`, which may leave them out by None."""
    for one in messages:
        result = change(one) if one.topic in topics else one
        if result is not None:
            yield result


def number_of(one):
    """Which frame a message belongs to."""
    return (stamp_of(one.content) - START - SECOND) // PERIOD


def turned(one, degrees):
    """A sweep turned about the LiDAR's upward axis."""
    changed_one = copied(one)
    rows = np.array(changed_one.content.data).view("<f4").reshape(-1, 4)
    rows[:, :3] = rows[:, :3] @ Rotation.from_euler("z", degrees, degrees=True).as_matrix().T.astype(np.float32)
    changed_one.content.data = rows.reshape(-1).view(np.uint8)
    return changed_one


def test_nothing_is_found_on_a_clean_drive(clean_bag):
    report = check_bag(clean_bag, replace(SETTINGS, samples=20))
    assert report.findings == ()
    assert report.notes == ()
    assert (report.pairs, report.sweeps, report.exit_code) == (20, 20, 0)


@pytest.mark.parametrize(("seed", "moving"), [(5, False), (2, True)])
def test_nor_on_others_standing_or_moving(seed, moving, tmp_path):
    report = found(record(seed, frames=6, moving=moving), tmp_path)
    assert report.findings == ()
    assert report.pairs == report.sweeps == 3


@pytest.mark.parametrize(
    ("topic", "code", "named"),
    [(IMAGE, 2, "image_raw"), (STATE, 2, "aperture/state"), (INFO, 1, "camera_info"), (POINTS, 1, "points"),
     (EXPOSURE, 0, ""), (TWIST, 0, "")],
)  # fmt: skip
def test_a_missing_topic(clean, tmp_path, topic, code, named):
    report = found(changed(clean, {topic}, lambda one: None), tmp_path, replace(SETTINGS, samples=2))
    assert report.exit_code == code
    assert kinds(report) == ({"missing_topic"} if code else set())
    assert [finding.topic for finding in report.findings] == ([named] if code else [])


def test_a_lidar_whose_place_nobody_tells_is_noted(clean, tmp_path):
    report = found(changed(clean, {STATIC}, lambda one: None), tmp_path, replace(SETTINGS, samples=2))
    assert (report.exit_code, report.findings) == (0, ())
    (note,) = report.notes
    assert "place was not checked: expected /tf_static to join 'lidar' to 'camera'" in note


def test_extrinsics_that_are_given_need_not_be_recorded(clean, tmp_path):
    pose = load_extrinsics(config_file("vehicle_extrinsics.yaml"))
    report = found(changed(clean, {STATIC}, lambda one: None), tmp_path, replace(SETTINGS, extrinsics=pose))
    assert report.findings == ()
    assert report.sweeps == SETTINGS.samples


@pytest.mark.parametrize("topics", [{POINTS}, {IMAGE, INFO, EXPOSURE}])
def test_two_seconds_cut_out_of_a_stream(clean, tmp_path, topics):
    report = found(changed(clean, topics, lambda one: None if 20 <= number_of(one) < 40 else one), tmp_path)
    (gap,) = report.findings
    assert gap.kind == "gap"
    assert set(gap.topic.split(", ")) == topics
    assert "2.1" in gap.sentence
    assert report.seconds(gap) == pytest.approx(1 + 1.9, abs=0.1)


def test_a_stream_that_ends_early(clean, tmp_path):
    report = found(changed(clean, {POINTS}, lambda one: one if number_of(one) < 35 else None), tmp_path)
    (gap,) = report.findings
    assert (gap.kind, gap.topic) == ("gap", POINTS)
    assert "in the last 2." in gap.sentence


@pytest.mark.parametrize("by", [-3.0, 3.0])
def test_a_clock_that_jumps(clean, tmp_path, by):
    """The camera's, with all that it stamps."""
    camera = {IMAGE, INFO, EXPOSURE}
    report = found(
        changed(clean, camera, lambda one: one if number_of(one) < 30 else restamped(one, by * SECOND)), tmp_path
    )
    assert kinds(report) == {"clock_jump"}
    (jump,) = report.findings
    assert set(jump.topic.split(", ")) == camera
    assert report.seconds(jump) == pytest.approx(4.0, abs=0.1)


def test_two_senders_of_one_topic_are_told_once(clean, tmp_path):
    """A second vehicle in the same domain, half a second behind."""
    second = [restamped(one, -SECOND // 2) for one in clean if one.topic == POINTS]
    for one in second:
        one.received += 45 * MS
    report = found([*clean, *second], tmp_path, replace(SETTINGS, samples=2))
    (jumps,) = report.findings
    assert (jumps.kind, jumps.topic) == ("clock_jump", POINTS)
    assert "two senders of one topic?" in jumps.sentence


def test_a_recorder_that_is_held_up_is_no_fault(clean, tmp_path):
    """What waited is received all at once."""
    until = START + 5 * SECOND

    def late(one):
        return replace(one, received=until) if until - SECOND < one.received < until else one

    assert found([late(one) for one in clean], tmp_path).findings == ()


def test_a_lidar_clock_that_drifts_or_stands_apart(clean, tmp_path):
    drifting = changed(clean, {POINTS}, lambda one: restamped(one, -0.03 * (one.received - START)))
    report = found(drifting, tmp_path)
    assert kinds(report) == {"clock_drift"}
    assert report.findings[0].topic == POINTS
    (tmp_path / "apart").mkdir()
    apart = found(changed(clean, {POINTS}, lambda one: restamped(one, -1.5 * SECOND)), tmp_path / "apart")
    assert kinds(apart) == {"clock_offset"}
    assert "-1.5" in apart.findings[0].sentence


def test_stamps_that_are_repeated(clean, tmp_path):
    def same(one):
        return restamped(one, -PERIOD) if number_of(one) == 33 else one

    report = found(changed(clean, {POINTS}, same), tmp_path)
    assert kinds(report) == {"duplicate_stamps"}


def test_aperture_states_that_are_swapped(clean, tmp_path):
    def swapped(one):
        other = copied(one)
        other.content.index, other.content.f_number = 1 - other.content.index, 5.8 - other.content.f_number
        return other

    report = found(changed(clean, {STATE}, swapped), tmp_path)
    assert kinds(report) == {"aperture_mismatch"}
    assert report.findings[0].picture is not None


def test_aperture_states_that_are_a_frame_late(clean, tmp_path):
    def late(one):
        moved = restamped(one, PERIOD)
        for name in ("transition_start", "settled_at"):
            stamp = getattr(moved.content, name)
            total = stamp.sec * SECOND + stamp.nanosec + PERIOD
            setattr(moved.content, name, type(stamp)(sec=total // SECOND, nanosec=total % SECOND))
        moved.received += PERIOD
        return moved

    assert kinds(found(changed(clean, {STATE}, late), tmp_path)) == {"aperture_mismatch"}


def test_states_that_cover_no_frame(clean, tmp_path):
    def moving(one):
        other = copied(one)
        other.content.settled_at = message("builtin_interfaces/msg/Time", sec=START // SECOND + 100)
        return other

    report = found(changed(clean, {STATE}, moving), tmp_path)
    assert kinds(report) == {"unlabelled"}
    assert "transition" in report.findings[0].sentence
    assert report.notes == ("no pair could be looked at: apertures, motion and the LiDAR's place were not checked",)


def test_exposures_that_do_not_fit_the_brightness(clean, tmp_path):
    def longer(one):
        other = copied(one)
        other.content.exposure_time *= 1 + 2 * (number_of(one) % 2)
        return other

    assert kinds(found(changed(clean, {EXPOSURE}, longer), tmp_path)) == {"brightness_mismatch"}


def test_a_vehicle_that_moves_between_shallow_and_deep(clean, tmp_path):
    def shifted(one):
        moved = number_of(one) % 2 == 0 and 20 <= number_of(one) < 40
        return repainted(one, np.roll(array_of(one.content), 15, axis=1)) if moved else one

    report = found(changed(clean, {IMAGE}, shifted), tmp_path, replace(SETTINGS, samples=30))
    (motion,) = report.findings
    assert motion.kind == "motion"
    assert "got up to 15 px in 10 pairs" in motion.sentence
    assert motion.picture.shape == (480, 640, 3)


@pytest.mark.parametrize(("kind", "factor"), [("overexposed", 4.0), ("underexposed", 0.02)])
def test_exposures_that_fail(clean, tmp_path, kind, factor):
    def exposed(one):
        if not 20 <= number_of(one) < 30:
            return one
        return repainted(one, np.clip(factor * array_of(one.content).astype(float), 0, 255).astype(np.uint8))

    report = found(changed(clean, {IMAGE}, exposed), tmp_path, replace(SETTINGS, samples=30))
    (finding,) = report.findings
    assert finding.kind == kind
    assert "in 5 pairs" in finding.sentence


def test_a_lidar_that_slips(clean, tmp_path):
    def slipping(one):
        return turned(one, 1.2 * number_of(one) / FRAMES)

    report = found(changed(clean, {POINTS}, slipping), tmp_path, replace(SETTINGS, samples=18))
    (drift,) = report.findings
    assert drift.kind == "alignment_drift"
    assert drift.picture.shape == (480, 640, 3)


@pytest.mark.parametrize("degrees", [-1.5, 0.6])
def test_extrinsics_that_are_wrong(clean, tmp_path, degrees):
    report = found(changed(clean, {POINTS}, lambda one: turned(one, degrees)), tmp_path)
    (wrong,) = report.findings
    assert wrong.kind == "extrinsics"
    assert f"turned by {abs(degrees)}" in wrong.sentence
    # Turned to the left about its upward axis, the sweep has to go to the right.
    assert ("+" if degrees > 0 else "-") in wrong.sentence.partition("(")[2][:2]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_that_was_cut_short(clean, tmp_path, storage):
    plugin = StoragePlugin[storage.upper()]
    content = [(one.topic, one.content.__msgtype__, one.content, one.received) for one in clean[:200]]
    whole = write_with_rosbags(tmp_path / "whole", content, plugin)
    (file,) = [*whole.glob("*.mcap"), *whole.glob("*.db3")]
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / file.name).write_bytes(file.read_bytes()[: int(0.7 * file.stat().st_size)])
    report = check_bag(tmp_path / "bag", SETTINGS)
    assert kinds(report) == {"truncated"}
    assert report.pairs == SETTINGS.samples


def other_camera(one):
    changed_one = copied(one)
    changed_one.content.width, changed_one.content.height = 1280, 960
    changed_one.content.k = changed_one.content.k * [2, 1, 2, 1, 2, 2, 1, 1, 1]
    return changed_one


def test_camera_infos_of_two_cameras(clean, tmp_path):
    report = found(changed(clean, {INFO}, lambda one: other_camera(one) if number_of(one) >= 30 else one), tmp_path)
    (mixed,) = report.findings
    assert (mixed.kind, mixed.topic) == ("camera_mixed", INFO)
    assert "640x480" in mixed.sentence
    assert "1280x960" in mixed.sentence


def test_images_of_two_sizes(clean, tmp_path):
    smaller = changed(
        clean, {IMAGE}, lambda one: repainted(one, array_of(one.content)[::2, ::2]) if number_of(one) >= 30 else one
    )
    assert kinds(found(smaller, tmp_path)) == {"camera_mixed"}


def test_a_camera_info_that_does_not_fit(clean, tmp_path):
    def cropped(one):
        other = copied(one)
        other.content.width = 600
        return other

    def unknown(one):
        other = copied(one)
        other.content.k = 0 * other.content.k
        return other

    for name, change in (("cropped", cropped), ("unknown", unknown)):
        (tmp_path / name).mkdir()
        report = found(changed(clean, {INFO}, change), tmp_path / name)
        assert kinds(report) == {"camera_mismatch"}


def test_the_command_prints_writes_and_exits(clean, clean_bag, tmp_path):
    runner = CliRunner()
    result = runner.invoke(app, ["bag", "check", str(clean_bag), "--samples", "2"])
    assert result.exit_code == 0
    assert "nothing found" in result.output
    turned_bag = write_bag(tmp_path / "turned", changed(clean[:150], {POINTS}, lambda one: turned(one, 1.0)))
    out = tmp_path / "report"
    result = runner.invoke(app, ["bag", "check", str(turned_bag), "--samples", "4", "--json", "--out", str(out)])
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    (finding,) = content["findings"]
    assert (finding["kind"], finding["severity"], finding["topic"]) == ("extrinsics", "error", POINTS)
    assert (out / "01_extrinsics.png").stat().st_size > 10_000
    assert json.loads((out / "findings.json").read_text())["findings"][0]["picture"] == "01_extrinsics.png"
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert html.escape(KINDS["extrinsics"]) in page
    result = runner.invoke(app, ["bag", "check", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_of_a_long_bag_excerpts_are_read(clean, tmp_path):
    """Pairs are taken from its beginning, its middle and its end, not from all of it."""

    def later(one, seconds):
        moved = restamped(one, seconds * SECOND)
        moved.received += seconds * SECOND
        if one.topic == STATE:
            for name in ("transition_start", "settled_at"):
                stamp = getattr(moved.content, name)
                setattr(moved.content, name, type(stamp)(sec=stamp.sec + seconds, nanosec=stamp.nanosec))
            moved.content.transitions += 100 * seconds
        return moved

    pieces = [clean, [later(one, 500) for one in clean if one.topic != STATIC]]
    report = found([one for piece in pieces for one in piece], tmp_path, replace(SETTINGS, samples=24))
    assert kinds(report) == {"gap"}
    # Ten of twelve excerpts lie in the pause.
    assert report.pairs == report.sweeps == 4


def test_recorded_pairs_are_checked_where_there_are_no_raw_images(clean, tmp_path):
    recorded = [Recorded(topic, content, received) for topic, _, content, received in pairs_of()]
    report = found(recorded, tmp_path)
    # As test_dataset_build has it: without a LiDAR, and the fourth moved by 20 pixels.
    assert {(f.kind, f.topic) for f in report.findings} == {("missing_topic", "points"), ("motion", "/cam/pair")}


def test_two_cameras_have_to_be_told_apart(clean, tmp_path):
    both = [*clean, *(Recorded("/rear/image_raw", one.content, one.received) for one in clean if one.topic == IMAGE)]
    with pytest.raises(InputError, match="of one camera"):
        found(both, tmp_path)


def test_outlines_fit_best_where_the_edge_is():
    """A pillar 5 m away before a wall at 20 m, seen by a camera and by a LiDAR in its place."""
    camera = Camera(640, 480, 600.0, 600.0, 319.5, 239.5)
    angles = np.radians(np.arange(-20, 20, 0.2))
    x, y = np.meshgrid(np.tan(angles), np.tan(np.radians(np.arange(-12, 12, 0.6))))
    distance = np.where(np.abs(x) < 0.1, 5.0, 20.0)
    points = np.stack([x * distance, y * distance, distance], axis=-1).reshape(-1, 3)
    picture = np.full(camera.shape, 0.2, np.float32)
    picture[:, 260:380] = 0.7
    found_outlines = outlines(points, Transform(), camera)
    assert np.unique(np.rint(found_outlines.points[:, 2])).tolist() == [5.0]
    scores = score_map(edge_strength(picture), found_outlines, camera)
    assert abs(scores.max(axis=0).argmax() - scores.shape[1] // 2) <= 1
    moved = score_map(edge_strength(np.roll(picture, 20, axis=1)), found_outlines, camera)
    assert abs(moved.max(axis=0).argmax() - scores.shape[1] // 2 - 20) <= 1
    assert score_map(edge_strength(picture), outlines(points[:30], Transform(), camera), camera) is None


def test_spells_join_what_is_near_in_time():
    spells = Spells()
    for second in (0, 0.5, 1.2, 9, 9.3):
        at = Reference(round(second * SECOND), 0)
        spells.add(at, badness=second)
    assert [(spell.count, spell.worst) for spell in spells] == [(3, 1.2), (2, 9.3)]


def test_a_topic_of_another_name_is_mapped(clean, tmp_path):
    renamed = [replace(one, topic={POINTS: "/os/cloud"}.get(one.topic, one.topic)) for one in clean[:100]]
    report = found(renamed, tmp_path, replace(SETTINGS, topics={"points": "/os/cloud"}))
    assert report.findings == ()
    assert report.sweeps > 0


def test_a_message_that_is_none_is_told(clean, tmp_path):
    bag = write_bag(tmp_path / "bag", clean[:100])
    with BagReader(bag) as opened:
        stored = list(opened.messages())
    with BagWriter(tmp_path / "broken", [MESSAGE_FOLDER]) as writer:
        for number, one in enumerate(stored):
            data = bytes(one.data)[:30] if one.topic == INFO and number > 50 else bytes(one.data)
            writer.write(one.topic, one.type_name, data, one.receive_time_ns)
    assert kinds(check_bag(tmp_path / "broken", SETTINGS)) == {"unreadable"}
