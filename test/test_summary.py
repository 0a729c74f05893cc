"""The summary of a run and its panel, from bags made message by message, so that every figure is known beforehand."""

import json

import numpy as np
import pytest
from bag_maker import SECOND, STORE, cdr, header, image, message
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console
from rosbags.rosbag2 import StoragePlugin, Writer

from dfd_ros.errors import InputError
from dfd_ros.inference.pictures import keeps_aspect
from dfd_ros.scoring.panel import MAX_BYTES, WIDTH, PanelContent, draw_panel, panel_from_bag
from dfd_ros.scoring.sizes import at_size
from dfd_ros.scoring.summary import TYPES, find_topics, print_table, summarise_bag

START = 1_700_000_000 * SECOND
PERIOD = SECOND // 10
MILLISECOND = SECOND // 1000
H, W = 48, 64
CAR = {"x_offset": 20, "y_offset": 20, "width": 16, "height": 12}
CAR_DISTANCE = 10.0


def truth_image():
    """A slope from 3 to 60 m under a sky of unknown depth, and a car."""
    truth = np.repeat(np.geomspace(60, 3, H, dtype=np.float32)[:, None], W, axis=1)
    truth[:6] = np.nan
    truth[20:32, 20:36] = CAR_DISTANCE
    return truth


def diagnostics(**nodes):
    """`node={key: value}`."""
    statuses = [
        message(
            "diagnostic_msgs/msg/DiagnosticStatus",
            name=f"cam/{name}",
            values=[message("diagnostic_msgs/msg/KeyValue", key=key, value=str(v)) for key, v in values.items()],
        )
        for name, values in nodes.items()
    ]
    return message("diagnostic_msgs/msg/DiagnosticArray", header=header(START), status=statuses)


def write_run(path, pairs=10, unanswered=(3,), factor=1.1, prefix="/cam/", leave_out=(), shrink=1):
    """A run whose depth is `factor` times the truth and 80 + index ms late, with a sure half and a silent strip.

    It is `shrink` times as small as the truth.
    """
    truth = truth_image()
    estimate = factor * truth
    estimate[-4:] = np.nan
    confidence = np.repeat((np.arange(H) >= H // 2).astype(np.float32)[:, None], W, axis=1)
    blocks = (H // shrink, shrink, W // shrink, shrink)
    estimate, confidence = (part.reshape(blocks).mean(axis=(1, 3)) for part in (estimate, confidence))
    picture = np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8)
    sparse = np.where(np.arange(H)[:, None] % 4 == 0, truth, np.nan).astype(np.float32)
    written = []

    def put(name, content, time):
        if name not in leave_out:
            topic = name if name.startswith("/") else prefix + name
            written.append((time, topic, content.__msgtype__, cdr(content)))

    for i in range(pairs):
        stamp = START + i * PERIOD
        box = message(
            "dfd_msgs/msg/ObjectBox", kind="car", id=7, roi=message("sensor_msgs/msg/RegionOfInterest", **CAR)
        )
        put("ground_truth/depth", image(stamp, truth, "32FC1"), stamp + 1)
        put("ground_truth/objects", message("dfd_msgs/msg/ObjectBoxes", header=header(stamp), objects=[box]), stamp + 2)
        shot = image(stamp, picture, "rgb8")
        pair = message("dfd_msgs/msg/ImagePair", header=header(stamp), sequence=i, shallow=shot, deep=shot)
        pair.shallow_f_number, pair.deep_f_number = 1.8, 4.0
        put("pair", pair, stamp + 10 * MILLISECOND)
        put("lidar/sparse_depth", image(stamp, sparse, "32FC1"), stamp + 20 * MILLISECOND)
        put("lidar/depth", image(stamp, 0.98 * truth, "32FC1"), stamp + 30 * MILLISECOND)
        if i not in unanswered:
            late = stamp + (80 + i) * MILLISECOND
            put("depth/image_rect", image(stamp, estimate, "32FC1"), late)
            put("depth/confidence", image(stamp, confidence, "32FC1"), late + 1)
    # A truth without a depth, and a depth of a picture that is in no pair.
    put("ground_truth/depth", image(START - 1, truth, "32FC1"), START)
    for count in (1, len(unanswered)):
        put(
            "/diagnostics",
            diagnostics(
                pair={"received": 25, "published": pairs, "dropped/transition": 5},
                depth={"answered": pairs - count, "dropped/superseded": count},
                lidar_depth={"dropped/no_image": 99},
            ),
            START + pairs * PERIOD + count,
        )
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topics = {}
        for time, topic, type_name, content in sorted(written):
            if topic not in topics:
                topics[topic] = bag.add_connection(topic, type_name, typestore=STORE)
            bag.write(topics[topic], time, content)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("bags") / "run", unanswered=(3, 6))


def test_pairs_rates_latency_and_drops(run):
    summary = summarise_bag(run)
    assert (summary.published, summary.answered, summary.depth_images) == (10, 8, 8)
    assert summary.dropped == {"superseded": 2}
    assert vars(summary.frames) == {"received": 25, "paired": 20, "dropped": {"transition": 5}}
    answered = [i for i in range(10) if i not in (3, 6)]
    late = [80 + i for i in answered]
    assert vars(summary.latency) == pytest.approx({f"p{p}": np.percentile(late, p) for p in (50, 95, 99)})
    assert summary.rate_hz == pytest.approx(7 / (0.9 + 0.009))
    assert summary.recovered is None


def test_scores_against_the_ground_truth(run):
    summary = summarise_bag(run)
    truth = truth_image()
    known = int(np.isfinite(truth).sum())
    scored = known - 4 * W
    everything = summary.scores["all"]
    assert everything["n"] == 8 * scored
    assert everything["coverage"] == pytest.approx(scored / known)
    assert everything["rel"] == pytest.approx(0.1, rel=1e-4)
    assert everything["log10"] == pytest.approx(np.log10(1.1), rel=1e-4)
    assert everything["rms"] == pytest.approx(0.1 * np.sqrt(np.nanmean(truth[:-4] ** 2)), rel=1e-4)
    assert (everything["d1"], summary.scores["frames"]) == (1.0, 8)
    assert summary.scores["confident"]["n"] == 8 * (H // 2 - 4) * W
    assert summary.scores["confident"]["coverage"] == pytest.approx((H // 2 - 4) * W / known)
    assert [(b["from"], b["to"]) for b in summary.scores["bins"]] == [(2, 6), (6, 12), (12, 25), (25, 45), (45, 70)]
    (car,) = summary.objects
    assert (car.kind, car.id, car.frames) == ("car", 7, 8)
    assert (car.distance, car.estimate, car.rel) == pytest.approx((10.0, 11.0, 0.1), rel=1e-4)


def test_the_lidar_branch_is_scored_for_every_pair(run):
    lidar = summarise_bag(run).lidar
    assert lidar["all"]["rel"] == pytest.approx(0.02, rel=1e-3)
    assert lidar["frames"] == 10
    assert lidar["confident"] is None


def test_the_json_has_the_agreed_form(run, tmp_path):
    summarise_bag(run).save(tmp_path / "summary.json")
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["pairs"] == {"published": 10, "answered": 8, "dropped": {"superseded": 2}}
    assert content["rate_hz"] > 0
    assert list(content["latency_ms"]) == ["p50", "p95", "p99"]
    form = {"rel", "log10", "rms", "d1", "d2", "d3", "n"}
    scores = content["scores"]
    assert form <= scores["all"].keys()
    assert form | {"coverage"} <= scores["confident"].keys()
    assert all(form | {"from", "to"} <= bin_.keys() for bin_ in scores["bins"])
    assert scores["objects"][0]["kind"] == "car"
    assert content["bag"] == str(run)


def test_a_stride_scores_fewer_frames_and_counts_them_all(run):
    summary = summarise_bag(run, stride=3)
    assert (summary.scores["frames"], summary.depth_images) == (3, 8)
    assert summary.scores["all"]["rel"] == pytest.approx(0.1, rel=1e-4)
    with pytest.raises(InputError, match="stride"):
        summarise_bag(run, stride=0)


def test_without_ground_truth_the_lidars_points_are_the_reference(tmp_path):
    path = write_run(tmp_path / "run", leave_out=("ground_truth/depth", "ground_truth/objects"))
    summary = summarise_bag(path)
    assert summary.reference == "lidar/sparse_depth"
    assert summary.scores["all"]["rel"] == pytest.approx(0.1, rel=1e-4)
    assert summary.scores["all"]["n"] == 9 * np.isfinite(truth_image()[::4]).sum() - 9 * W
    assert (summary.lidar, summary.objects) == (None, ())


def test_without_any_reference_there_are_no_scores(tmp_path):
    left_out = ("ground_truth/depth", "ground_truth/objects", "lidar/sparse_depth", "lidar/depth", "/diagnostics")
    summary = summarise_bag(write_run(tmp_path / "run", leave_out=left_out))
    assert (summary.scores, summary.reference, summary.dropped) == (None, None, {})
    assert summary.frames.received is None
    print_table(summary, Console(file=None, quiet=True))


def test_a_run_without_a_single_depth_is_summed_up_too(tmp_path):
    summary = summarise_bag(write_run(tmp_path / "run", unanswered=range(10)))
    assert (summary.published, summary.answered, summary.rate_hz, summary.latency) == (10, 0, 0.0, None)
    assert summary.scores is None
    json.dumps(summary.to_dict(), allow_nan=False)


def test_a_run_cut_short_is_summed_up_and_says_so(tmp_path):
    path = write_run(tmp_path / "run", pairs=40)
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (path / "metadata.yaml").unlink()
    summary = summarise_bag(path)
    assert summary.recovered > 50
    assert 10 < summary.answered < 30


def test_topics_are_found_under_any_namespace():
    recorded = {f"/a/{name}": TYPES[name] for name in ("depth/image_rect", "lidar/depth")}
    recorded |= {"/b/pair": TYPES["pair"], "/repair": "x/msg/X", "/diagnostics": TYPES["diagnostics"]}
    assert find_topics(recorded, ["depth/image_rect", "pair", "diagnostics"], "a") == {
        "depth/image_rect": "/a/depth/image_rect",
        "diagnostics": "/diagnostics",
    }
    assert find_topics(recorded, ["pair"]) == {"pair": "/b/pair"}
    with pytest.raises(InputError, match="give the camera's namespace"):
        find_topics({"/a/pair": TYPES["pair"], "/b/pair": TYPES["pair"]}, ["pair"])


def test_depth_of_a_smaller_size_is_scored_at_the_truths(tmp_path):
    """As the depth node's parameter `size` makes it: what is smooth scores alike, unknown stays unknown."""
    full, small = summarise_bag(write_run(tmp_path / "full")), summarise_bag(write_run(tmp_path / "run", shrink=2))
    assert small.scores["frames"] == full.scores["frames"]
    assert small.scores["all"]["rel"] == pytest.approx(full.scores["all"]["rel"], abs=0.02)
    assert small.scores["all"]["coverage"] == pytest.approx(full.scores["all"]["coverage"], abs=0.06)
    assert small.objects[0].estimate == pytest.approx(full.objects[0].estimate, rel=0.02)
    panel_from_bag(tmp_path / "run", tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 1000


def test_a_panel_of_smaller_depth_needs_no_pair(tmp_path):
    """It is drawn beside the truth, at the truth's size."""
    panel_from_bag(write_run(tmp_path / "run", shrink=2, leave_out=("pair",)), tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 1000


def test_a_depth_that_the_node_stretched_a_little_is_brought_back():
    depth = np.full((340, 448), 2.0, np.float32)
    found, _ = at_size((480, 640), depth, None)
    assert found.shape == (480, 640)


@given(st.integers(40, 700), st.integers(40, 700), st.floats(0.2, 2.0))
@settings(max_examples=30, deadline=None)
def test_a_depth_of_any_size_of_the_same_aspect_is_brought_back(height, width, factor):
    size = (round(factor * height), round(factor * width))
    assume(keeps_aspect(size, (height, width)))  # the node makes no other
    depth = np.full(size, 2.0, np.float32)
    found, confidence = at_size((height, width), depth, 0.25 * depth)
    assert found.shape == confidence.shape == (height, width)
    assert (found == 2.0).all()
    assert (confidence == 0.5).all()


def test_an_image_of_another_aspect_than_the_truth_is_named(tmp_path):
    path = tmp_path / "run"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for name, shape in (("depth/image_rect", (4, 9)), ("ground_truth/depth", (8, 12))):
            topic = bag.add_connection(f"/cam/{name}", "sensor_msgs/msg/Image", typestore=STORE)
            bag.write(topic, START, cdr(image(START, np.ones(shape, np.float32), "32FC1")))
    with pytest.raises(InputError, match=r"\(8, 12\), got \(4, 9\)"):
        summarise_bag(path)


def test_a_count_that_is_none_is_named(tmp_path):
    path = tmp_path / "run"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topic = bag.add_connection("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", typestore=STORE)
        bag.write(topic, START, cdr(diagnostics(depth={"dropped/superseded": "many"})))
    with pytest.raises(InputError, match=r"dropped/superseded: expected a count, got 'many'"):
        summarise_bag(path)


def test_a_topic_of_another_type_is_named(tmp_path):
    path = tmp_path / "run"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topic = bag.add_connection("/cam/depth/image_rect", "sensor_msgs/msg/CompressedImage", typestore=STORE)
        bag.write(topic, START, cdr(message("sensor_msgs/msg/CompressedImage", header=header(START))))
    with pytest.raises(InputError, match="expected sensor_msgs/msg/Image"):
        summarise_bag(path)


def test_the_table_tells_a_person_the_same(run):
    console = Console(width=140, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(summarise_bag(run), console)
    text = console.export_text()
    for expected in ("10 published, 8 answered", "2 superseded", "25 received", "6 to 12 m", "car 7", "LiDAR depth"):
        assert expected in text


def test_the_panel_of_a_bag_is_one_small_picture(run, tmp_path):
    panel_from_bag(run, tmp_path / "panel.png")
    picture = imread(tmp_path / "panel.png")
    assert picture.shape[1] == WIDTH
    assert (tmp_path / "panel.png").stat().st_size < MAX_BYTES
    assert np.unique(picture.reshape(-1, picture.shape[-1]), axis=0).shape[0] > 50


def test_missing_parts_make_a_smaller_panel(tmp_path):
    truth = truth_image()
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    draw_panel(PanelContent(deep=noise), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size < MAX_BYTES  # even of noise
    draw_panel(PanelContent(dense_depth=truth, estimate=1.1 * truth), tmp_path / "three.png")
    draw_panel(PanelContent(estimate=np.full((H, W), np.nan, np.float32)), tmp_path / "unknown.png")
    content = PanelContent(noise, noise, *(np.full((480, 640), 5.0, np.float32) for _ in range(5)), title="All")
    draw_panel(content, tmp_path / "all.png")
    assert imread(tmp_path / "all.png").shape[0] > imread(tmp_path / "three.png").shape[0]


def test_the_panel_names_what_it_cannot_draw(run, tmp_path):
    with pytest.raises(InputError, match="at least one"):
        draw_panel(PanelContent(), tmp_path / "panel.png")
    content = PanelContent(deep=np.zeros((2, 3, 3), np.uint8), estimate=np.ones((4, 4), np.float32))
    with pytest.raises(InputError, match="deep 3x2, estimate 4x4"):
        draw_panel(content, tmp_path / "panel.png")
    with pytest.raises(InputError, match="cannot be written"):
        panel_from_bag(run, tmp_path / "no" / "panel.png")
