"""The depth node over real DDS: every pair is answered once with its stamp, or counted with its cause."""

import time

import numpy as np
import pytest
from conftest import wait_until
from dfd_msgs.msg import ImagePair, LensInfo
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from test_estimate import FAR, INSIDE, SHAPE, photograph, texture

from dfd_ros.data.image_messages import image_view
from dfd_ros.geometry import Camera
from dfd_ros.nodes.clouds import points_array
from dfd_ros.nodes.convert import image_message, info_from_camera, lens_message, time_message
from dfd_ros.nodes.depth_node import DepthNode
from dfd_ros.stamps import nanoseconds

DEPTH = 5.0
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


def test_a_new_lens_makes_a_new_estimator(depth, pictures):
    depth.pairs.publish(make_pair(pictures, 0))
    assert wait_until(lambda: len(depth.depths) == 1)
    lens = lens_message(FAR)
    lens.focus_distance, lens.min_depth = 4.0, 4.0
    depth.pairs.publish(make_pair(pictures, 1, lens=lens))
    assert wait_until(lambda: len(depth.depths) == 2)
    first, second = (np.median(image_view(message, "depth")[INSIDE]) for message in depth.depths)
    assert second == pytest.approx(2 * first, rel=0.1), "depth scales with the focus distance"
