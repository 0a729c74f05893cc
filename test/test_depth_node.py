"""The depth node over real DDS: every pair is answered once with its stamp, or counted with its cause."""

import re
import time
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import wait_until
from dfd_msgs.msg import ImagePair, LensInfo
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from test_estimate import FAR, INSIDE, SHAPE, photograph, texture
from test_estimators import weights_file

from dfd_ros.data.image_messages import image_view
from dfd_ros.data.vehicle_messages import camera_from_info, lens_from_message
from dfd_ros.geometry import Camera
from dfd_ros.inference.lens_range import figures
from dfd_ros.nodes.clouds import points_array
from dfd_ros.nodes.convert import image_message, info_from_camera, lens_message, resized_info, time_message
from dfd_ros.nodes.depth_node import DepthNode
from dfd_ros.nodes.depth_outputs import COLOURS, DepthLimits, DepthOutputs
from dfd_ros.optics.estimate import DepthEstimate
from dfd_ros.optics.lens import Lens
from dfd_ros.stamps import nanoseconds

DEPTH = 5.0
MODEL_SECONDS = 90.0  # for a model to be made ready on a slow machine: torch is loaded, the network exported
CAMERA = Camera(SHAPE[1], SHAPE[0], 300.0, 300.0, 120.0, 80.0)


@pytest.fixture(scope="module")
def pictures():
    """A plane at 5 m, shallow and deep, 8-bit linear."""
    return [
        np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
        for image in photograph(FAR, np.full(SHAPE, DEPTH), texture())
    ]


def make_pair(pictures, sequence=0, time_ns=1_700_000_000_000_000_000, info=None, **changes):
    header = Header(stamp=time_message(time_ns), frame_id="camera")
    shallow, deep = (image_message(picture, "mono8", header) for picture in pictures)
    pair = ImagePair(header=header, sequence=sequence, shallow=shallow, deep=deep, gamma=1.0, lens=lens_message(FAR))
    pair.camera_info = info_from_camera(CAMERA, header) if info is None else info
    for name, value in changes.items():
        setattr(pair, name, value)
    return pair


@pytest.fixture
def depth(bench):
    bench.node = bench.start(DepthNode)
    bench.depths = bench.listen(Image, "depth/image_rect")
    bench.pairs = bench.publisher(ImagePair, "pair")
    assert wait_until(lambda: bench.node._depth.get_subscription_count() == 1)
    return bench


def total(bench, what):
    return bench.node.diagnostics.total(what)


def test_a_pair_is_answered_with_its_depth_and_stamp(depth, pictures):
    confidences = depth.listen(Image, "depth/confidence")
    assert wait_until(lambda: depth.node._confidence.get_subscription_count() == 1)
    pair = make_pair(pictures)
    depth.pairs.publish(pair)
    assert wait_until(lambda: depth.depths and confidences)
    (answer,), (confidence,) = depth.depths, confidences
    assert answer.header == pair.header
    assert answer.encoding == confidence.encoding == "32FC1"
    assert np.median(image_view(answer, "depth")[INSIDE]) == pytest.approx(DEPTH, rel=0.03)
    trust = image_view(confidence, "confidence")
    assert 0 <= trust.min() <= trust.max() <= 1


def test_points_lie_on_the_plane_and_wear_its_colours(depth, pictures):
    clouds = depth.listen(PointCloud2, "depth/points")
    assert wait_until(lambda: depth.node._points.get_subscription_count() == 1)
    depth.pairs.publish(make_pair(pictures))
    assert wait_until(lambda: clouds)
    (cloud,) = clouds
    assert (cloud.height, cloud.width, cloud.is_dense) == (*SHAPE, False)
    points = points_array(cloud).reshape(*SHAPE, 3)
    rays = (np.indices(SHAPE)[::-1].transpose(1, 2, 0) - (CAMERA.cx, CAMERA.cy)) / (CAMERA.fx, CAMERA.fy)
    np.testing.assert_allclose(points[..., :2], rays * points[..., 2:], rtol=1e-4, atol=1e-4)
    colours = np.frombuffer(cloud.data, np.uint32).reshape(*SHAPE, 4)[..., 3]
    np.testing.assert_array_equal(colours, pictures[1] * np.uint32(0x010101))


def test_nothing_is_computed_for_nobody(depth, pictures):
    assert depth.node._points.get_subscription_count() == 0
    depth.pairs.publish(make_pair(pictures, info=CameraInfo(height=SHAPE[0], width=SHAPE[1])))
    assert wait_until(lambda: total(depth, "answered") == 1)
    assert total(depth, "points_uncalibrated") == 0


def test_an_uncalibrated_camera_gets_depth_but_no_points(depth, pictures):
    clouds = depth.listen(PointCloud2, "depth/points")
    assert wait_until(lambda: depth.node._points.get_subscription_count() == 1)
    depth.pairs.publish(make_pair(pictures, info=CameraInfo(height=SHAPE[0], width=SHAPE[1])))
    assert wait_until(lambda: depth.depths)
    assert total(depth, "points_uncalibrated") == 1
    assert not clouds


@pytest.mark.parametrize(
    "changes",
    [{"lens": LensInfo()}, {"shallow": Image()}, {"shallow": "smaller"}, {"deep": "deeper"}],
    ids=["no lens", "empty image", "two sizes", "float image"],
)
def test_a_bad_pair_is_counted_and_the_next_is_answered(depth, pictures, changes):
    header = Header(stamp=time_message(1))
    replaced = {
        "smaller": image_message(pictures[0][:100], "mono8", header),
        "deeper": image_message(pictures[0].astype(np.float32), "32FC1", header),
    }
    changes = {name: replaced[value] if isinstance(value, str) else value for name, value in changes.items()}
    depth.pairs.publish(make_pair(pictures, 0, **changes))
    assert wait_until(lambda: total(depth, "dropped/bad_pair") == 1)
    depth.pairs.publish(make_pair(pictures, 1))
    assert wait_until(lambda: depth.depths)


def test_every_pair_is_answered_once_or_counted(depth, pictures):
    """More pairs than it can answer, and a gap in their sequence."""
    for sequence in (*range(12), *range(15, 25)):
        depth.pairs.publish(make_pair(pictures, sequence, 1_700_000_000_000_000_000 + sequence))
        time.sleep(0.005)
    assert wait_until(lambda: total(depth, "received") + total(depth, "dropped/lost_in_transport") == 25)
    assert depth.node.drain(20)
    causes = ("superseded", "lost_in_transport", "bad_pair")
    assert total(depth, "answered") + sum(total(depth, f"dropped/{cause}") for cause in causes) == 25
    assert total(depth, "dropped/lost_in_transport") >= 3
    assert wait_until(lambda: len(depth.depths) == total(depth, "answered"))
    stamps = [nanoseconds(message.header.stamp) for message in depth.depths]
    assert len(set(stamps)) == len(stamps)
    assert stamps[-1] == 1_700_000_000_000_000_024, "the newest pair wins"


def test_the_message_carries_all_of_the_lens():
    known = {"name": "test", "psf": "gaussian", "focus_distance": 5.0}
    lens = Lens(**{field.name: known.get(field.name, number / 64) for number, field in enumerate(fields(Lens))})
    assert lens_from_message(lens_message(lens)) == lens
    assert LensInfo().parallax_aspect == Lens.parallax_aspect  # of one who does not know of it


def test_a_new_lens_makes_a_new_estimator(depth, pictures):
    depth.pairs.publish(make_pair(pictures, 0))
    assert wait_until(lambda: len(depth.depths) == 1)
    lens = lens_message(FAR)
    lens.focus_distance, lens.min_depth = 4.0, 4.0
    depth.pairs.publish(make_pair(pictures, 1, lens=lens))
    assert wait_until(lambda: len(depth.depths) == 2)
    first, second = (np.median(image_view(message, "depth")[INSIDE]) for message in depth.depths)
    assert second == pytest.approx(2 * first, rel=0.1), "depth scales with the focus distance"


# Models.


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network, made for the lens."""
    ranges = {key: (value, value) for key, value in figures(FAR).items()}
    return str(weights_file(tmp_path_factory.mktemp("weights"), "physics_net", lens=ranges))


def start(bench, **parameters):
    bench.node = bench.start(DepthNode, **parameters)
    bench.depths = bench.listen(Image, "depth/image_rect")
    bench.pairs = bench.publisher(ImagePair, "pair")
    assert wait_until(lambda: bench.node._depth.get_subscription_count() == 1)


@pytest.mark.parametrize("backend", ["auto", "torch", "onnxruntime", "openvino", "classical"])
def test_each_back_end_answers_and_says_so(bench, weights, pictures, capfd, backend):
    start(bench, backend=backend, model="" if backend == "classical" else weights, threads=1)
    bench.pairs.publish(make_pair(pictures))
    assert wait_until(lambda: bench.depths)
    answer = image_view(bench.depths[0], "depth")
    assert answer.shape == SHAPE
    assert np.isfinite(answer).all()
    log = capfd.readouterr().err
    assert "ms a pair" in log if backend == "auto" else f"back end {backend}" in log
    assert "halved" not in log
    values = {row.key for row in bench_values(bench)}
    assert {"prepare_ms_p50", "infer_ms_p50", "finish_ms_p95", "latency_ms_p95"} <= values


def bench_values(bench):
    arrays = bench.listen(DiagnosticArray, "/diagnostics")
    assert wait_until(lambda: any("infer_ms_p50" in {v.key for v in a.status[0].values} for a in arrays))
    return arrays[-1].status[0].values


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"backend": "openvino"}, "backend openvino: expected a model to run, got none"),
        ({"backend": "classical", "model": "ours"}, "backend classical: expected no model"),
        ({"model": "no_such"}, r"weights no_such: expected a file or a name of the zoo \(.*\), got neither"),
        ({"model": "ours", "backend": "onnxruntime", "precision": "bf16"}, "expected device cpu and precision fp32"),
        ({"size": [640, 0]}, r"parameter size: expected width and height, or \[0, 0\], got \[640, 0\]"),
        ({"size": [640]}, "parameter size: expected width and height"),
        ({"encoding": "8UC1"}, "parameter encoding: expected one of 32FC1, 16UC1, got '8UC1'"),
    ],
)
def test_what_cannot_run_is_refused_with_one_sentence(bench, capfd, parameters, sentence):
    node = bench.make(DepthNode, **parameters)
    assert node.trigger_configure().name == "FAILURE"
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "not configured" in line)
    assert re.search(sentence, line)


def test_a_model_is_swapped_while_pairs_flow(bench, pictures, weights):
    """Every pair is answered or counted; the old model answers until the new one is ready."""
    start(bench, threads=1)
    sequence = 0

    def send():
        nonlocal sequence
        bench.pairs.publish(make_pair(pictures, sequence, 1_700_000_000_000_000_000 + sequence))
        sequence += 1
        time.sleep(0.05)

    send()
    assert wait_until(lambda: total(bench, "answered") == 1)
    for taken, (model, asked) in enumerate([(weights, 1), ("", 2)], 1):
        (result,) = bench.node.set_parameters([Parameter("model", value=model)])
        assert result.successful
        before = total(bench, "answered")
        taken_now = lambda taken=taken: send() or total(bench, "models_taken") == taken  # noqa: E731
        assert wait_until(taken_now, MODEL_SECONDS), asked
        assert total(bench, "answered") > before
    for _ in range(3):
        send()
    causes = ("superseded", "lost_in_transport", "bad_pair", "failed")
    assert wait_until(lambda: total(bench, "received") + total(bench, "dropped/lost_in_transport") == sequence)
    assert bench.node.drain(20)
    assert total(bench, "answered") + sum(total(bench, f"dropped/{cause}") for cause in causes) == sequence
    assert total(bench, "dropped/bad_pair") == total(bench, "dropped/failed") == 0
    assert wait_until(lambda: len(bench.depths) == total(bench, "answered"))
    stamps = [nanoseconds(message.header.stamp) for message in bench.depths]
    assert stamps == sorted(set(stamps))
    last, first = (np.median(image_view(bench.depths[i], "depth")[INSIDE]) for i in (-1, 0))
    assert last == pytest.approx(first)


def test_a_model_that_cannot_be_taken_leaves_the_old_one(bench, pictures, tmp_path, capfd):
    start(bench)
    (result,) = bench.node.set_parameters([Parameter("model", value="no_such")])
    assert not result.successful
    assert "weights no_such: expected a file" in result.reason
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    (result,) = bench.node.set_parameters([Parameter("model", value=str(damaged))])
    assert result.successful
    assert wait_until(lambda: total(bench, "models_refused") == 1)
    assert "is not taken, classical stays: weights" in capfd.readouterr().err
    bench.pairs.publish(make_pair(pictures))
    assert wait_until(lambda: bench.depths)


def test_a_lens_outside_the_range_is_warned_of_once(bench, pictures, weights, capfd):
    start(bench, model=weights, backend="onnxruntime", threads=1)
    for sequence, focus in enumerate((2.0, 3.0, 4.0)):
        lens = lens_message(replace(FAR, focus_distance=focus))
        bench.pairs.publish(make_pair(pictures, sequence, lens=lens))
        assert wait_until(lambda sequence=sequence: len(bench.depths) == sequence + 1)
    log = capfd.readouterr().err
    assert log.count("confidence is halved") == 1
    assert "expected focus_distance 2 to 2 m, got 3 m" in log


# What is published.


def test_pictures_that_show_nothing_have_no_depth(depth, pictures):
    confidences = depth.listen(Image, "depth/confidence")
    assert wait_until(lambda: depth.node._confidence.get_subscription_count() == 1)
    depth.pairs.publish(make_pair([np.full_like(pictures[0], 90), pictures[1]]))
    assert wait_until(lambda: depth.depths and confidences)
    assert np.isnan(image_view(depth.depths[0], "depth")).all()
    assert not image_view(confidences[0], "confidence").any()


def test_millimetres_and_limits_that_change_live(bench, pictures):
    start(bench, encoding="16UC1")
    bench.pairs.publish(make_pair(pictures, 0))
    assert wait_until(lambda: len(bench.depths) == 1)
    assert bench.depths[0].encoding == "16UC1"
    depth = image_view(bench.depths[0], "depth")
    assert depth.dtype == np.uint16
    assert np.median(depth[INSIDE]) == pytest.approx(1000 * DEPTH, rel=0.03)
    for sequence, (name, value) in enumerate([("max_range", 3.0), ("min_confidence", 1.0)], 1):
        assert all(r.successful for r in bench.node.set_parameters([Parameter(name, value=value)]))
        bench.pairs.publish(make_pair(pictures, sequence))
        assert wait_until(lambda sequence=sequence: len(bench.depths) == sequence + 1)
        assert image_view(bench.depths[sequence], "depth").max() <= (3000 if sequence == 1 else 0)
        assert np.median(image_view(bench.depths[sequence], "depth")[INSIDE]) == 0


def test_the_preview_is_red_where_near_and_black_where_unknown():
    outputs = DepthOutputs((1, 4), "32FC1")
    depth = np.array([[2.0, 4.0, 100.0, np.nan]], np.float32)
    outputs.take(DepthEstimate(depth, np.ones_like(depth)), DepthLimits(1000.0, 0.0))
    header = Header(stamp=time_message(7), frame_id="camera")
    message = outputs.preview(2.0, 100.0, "turbo", header)
    assert (message.header, message.encoding) == (header, "rgb8")
    near, middle, far, unknown = image_view(message, "preview")[0].astype(int)
    assert near[0] > 2 * near[2]
    assert middle[1] > middle[0] > middle[2], "green: a third of the way in inverse depth"
    assert far[2] > far[1]
    assert not unknown.any()
    assert len({outputs.preview(2.0, 100.0, name, header).data.tobytes() for name in COLOURS}) == len(COLOURS)
    assert image_view(outputs.preview(50.0, 20.0, "turbo", header), "preview").any(), "an empty range is none"


def test_preview_colours_and_range_change_live(bench, pictures):
    start(bench)
    previews = bench.listen(Image, "depth/preview")
    assert wait_until(lambda: bench.node._preview.get_subscription_count() == 1)
    changes = [("preview_colours", "viridis"), ("preview_range", [4.9, 5.1])]
    for sequence in range(3):
        bench.pairs.publish(make_pair(pictures, sequence))
        assert wait_until(lambda sequence=sequence: len(previews) == sequence + 1)
        if sequence < len(changes):
            name, value = changes[sequence]
            assert all(r.successful for r in bench.node.set_parameters([Parameter(name, value=value)]))
    first, other, narrow = (image_view(message, "preview").astype(int) for message in previews)
    assert np.abs(other - first).mean() > 20
    assert narrow.std() > other.std(), "a plane told apart to millimetres"
    for value in ([5.0, 3.0], [1.0]):
        (result,) = bench.node.set_parameters([Parameter("preview_range", value=value)])
        assert not result.successful
        assert "parameter preview_range: expected a near and a far depth" in result.reason


def test_a_network_that_restores_the_picture_publishes_it(bench, pictures, tmp_path):
    start(bench, model=str(weights_file(tmp_path, "focus_defocus")), backend="onnxruntime")
    sharp = bench.listen(Image, "all_in_focus")
    assert wait_until(lambda: bench.node._all_in_focus.get_subscription_count() == 1)
    pair = make_pair(pictures)
    bench.pairs.publish(pair)
    assert wait_until(lambda: bench.depths and sharp)
    assert (sharp[0].header, sharp[0].encoding) == (pair.header, "rgb8")
    assert image_view(sharp[0], "all_in_focus").shape == (*SHAPE, 3)


def test_the_picture_all_in_focus_is_rounded_not_wrapped():
    outputs = DepthOutputs((1, 3), "32FC1")
    planes = np.array([[[-0.2, 0.5, 1.3]], [[0.0, 1.0, 0.25]], [[1.0, 0.0, 0.0]]], np.float32)
    found = image_view(outputs.all_in_focus(planes, Header()), "all_in_focus")
    assert found[0].tolist() == [[0, 0, 255], [128, 255, 0], [255, 64, 0]]


def test_another_size_comes_with_its_own_camera(bench, pictures):
    height, width = SHAPE[0] // 2, SHAPE[1] // 2
    start(bench, size=[width, height])
    infos, clouds = bench.listen(CameraInfo, "depth/camera_info"), bench.listen(PointCloud2, "depth/points")
    assert wait_until(
        lambda: bench.node._points.get_subscription_count() and bench.node._camera_info.get_subscription_count()
    )
    bench.pairs.publish(make_pair(pictures))
    assert wait_until(lambda: bench.depths and infos and clouds)
    depth = image_view(bench.depths[0], "depth")
    assert depth.shape == (height, width)
    assert np.median(depth[8:-8, 8:-8]) == pytest.approx(DEPTH, rel=0.05), "the lens's blur shrinks with the picture"
    assert camera_from_info(infos[0], depth.shape).resized(*SHAPE[::-1]).matrix == pytest.approx(CAMERA.matrix)
    assert (clouds[0].height, clouds[0].width) == (height, width)


def test_a_size_of_another_aspect_is_refused_pair_by_pair(bench, pictures):
    start(bench, size=[100, 100])
    bench.pairs.publish(make_pair(pictures))
    assert wait_until(lambda: total(bench, "dropped/bad_pair") == 1)


def test_a_camera_that_is_cropped_binned_and_rectified_is_resized():
    """The projection goes through what the pixels went through."""
    info = info_from_camera(Camera(640, 480, 600.0, 610.0, 330.0, 250.0), Header())
    info.p[0], info.p[2], info.p[3] = 580.0, 320.0, -58.0
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 40, 20, 400, 200
    info.binning_x = info.binning_y = 2
    small = resized_info(info, (50, 100), (100, 200))
    assert (small.height, small.width, small.roi.width, small.binning_x) == (50, 100, 0, 0)
    point = np.array([0.3, -0.2, 2.0, 1.0])
    whole, part = (np.asarray(i.p).reshape(3, 4) @ point for i in (info, small))
    expected = (whole[:2] / whole[2] - (40, 20) + 0.5) / 4 - 0.5
    assert part[:2] / part[2] == pytest.approx(expected)
    blank = resized_info(CameraInfo(width=640, height=480), (50, 100), (480, 640))
    assert (blank.width, blank.height, blank.k[0]) == (100, 50, 0.0)
