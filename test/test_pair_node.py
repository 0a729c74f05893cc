"""The pair node over real DDS: good frames become pairs, bad input costs itself only and is counted."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from conftest import wait_until
from dfd_msgs.msg import ApertureState, ImagePair
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dfd_ros.capture.aperture import Aperture, ApertureReport, Mode
from dfd_ros.data.image_messages import image_view
from dfd_ros.nodes.base import latched_qos
from dfd_ros.nodes.convert import image_message, report_message, time_message
from dfd_ros.nodes.pair_node import PairNode

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
RNG = np.random.default_rng(0)
SCENE = np.kron(RNG.integers(40, 216, (60, 80, 3)), np.ones((4, 4, 1))).astype(np.uint8)


class Camera:
    """A camera and its aperture, publishing by hand."""

    def __init__(self, bench):
        self.image = bench.publisher(Image, "image_raw")
        self.info = bench.publisher(CameraInfo, "camera_info")
        self.state = bench.publisher(ApertureState, "aperture/state", latched_qos(10))
        self.transitions = 0

    def set(self, aperture, at, known_until):
        self.transitions += 1
        report = ApertureReport(aperture, T0 + at * MS, T0 + (at + 2) * MS, T0 + known_until * MS, self.transitions)
        self.state.publish(
            report_message(report, 1.8 if aperture == Aperture.SHALLOW else 4.0, Mode.ALTERNATE, "camera")
        )

    def take(self, at, picture=SCENE, **changes):
        header = Header(stamp=time_message(T0 + at * MS), frame_id="camera")
        encoding = changes.pop("encoding", "rgb8" if picture.ndim == 3 else "mono8")
        message = image_message(picture, encoding, header)
        for name, value in changes.items():
            setattr(message, name, value)
        self.image.publish(message)

    def pair(self, at, shallow=SCENE, deep=SCENE):
        """A shallow frame, then a deep one, 60 ms in all."""
        self.set(Aperture.SHALLOW, at, at + 20)
        self.take(at + 5, shallow)
        self.set(Aperture.DEEP, at + 30, at + 60)
        self.take(at + 35, deep)


@pytest.fixture
def camera(bench):
    bench.node = bench.start(PairNode)
    bench.pairs = bench.listen(ImagePair, "pair")
    return Camera(bench)


def dropped(bench, cause):
    return bench.node.diagnostics.total(f"dropped/{cause}")


def test_a_pair_carries_the_deep_stamp_both_images_and_the_lens(bench, camera):
    camera.pair(0)
    assert wait_until(lambda: bench.pairs)
    (pair,) = bench.pairs
    assert pair.header.stamp == Time(sec=1_700_000_000, nanosec=35 * MS)
    assert pair.shallow.header.stamp == Time(sec=1_700_000_000, nanosec=5 * MS)
    assert (pair.shallow_f_number, pair.deep_f_number) == pytest.approx((1.8, 4.0))
    assert pair.lens.focus_distance > 0
    np.testing.assert_array_equal(image_view(pair.deep, "deep"), SCENE)


def test_the_shallow_image_is_brought_to_the_deep_ones_exposure(bench, camera):
    gamma, gain = 2.2, 0.7
    darker = np.round(255 * (gain * (SCENE / 255) ** gamma) ** (1 / gamma)).astype(np.uint8)
    camera.pair(0, shallow=SCENE, deep=darker)
    assert wait_until(lambda: bench.pairs)
    (pair,) = bench.pairs
    assert pair.shallow_gain == pytest.approx(gain, rel=0.02)
    difference = image_view(pair.shallow, "shallow").astype(int) - darker
    assert np.abs(difference).mean() < 1.0


def test_motion_between_the_two_is_compensated(bench, camera):
    moved = np.roll(SCENE, 3, axis=1)
    camera.pair(0, shallow=moved, deep=SCENE)
    assert wait_until(lambda: bench.pairs)
    (pair,) = bench.pairs
    assert pair.compensated
    assert pair.motion == pytest.approx(3.0, abs=0.3)
    inside = np.s_[20:-20, 20:-20]
    before = np.abs(moved[inside].astype(int) - SCENE[inside]).mean()
    after = np.abs(image_view(pair.shallow, "shallow")[inside].astype(int) - SCENE[inside]).mean()
    assert after < 0.2 * before


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "jpeg"},
        {"step": 10},
        {"height": 10_000},
        {"height": 0, "width": 0, "step": 0, "data": []},
        {"data": [1, 2, 3]},
    ],
    ids=["encoding", "step", "size", "empty", "short"],
)
def test_a_bad_image_is_counted_and_the_next_pair_comes(bench, camera, changes):
    camera.take(0, **changes)
    assert wait_until(lambda: dropped(bench, "bad_image") == 1)
    camera.pair(100)
    assert wait_until(lambda: bench.pairs)


def test_two_sizes_make_no_pair(bench, camera):
    camera.pair(0, shallow=SCENE[:120])
    assert wait_until(lambda: dropped(bench, "size_mismatch") == 1)
    assert not bench.pairs


def test_a_frame_that_saw_the_transition_is_refused(bench, camera):
    camera.set(Aperture.SHALLOW, 0, 9)
    camera.set(Aperture.DEEP, 10, 60)
    camera.take(9)
    assert wait_until(lambda: dropped(bench, "transition") == 1)
    assert not bench.pairs


def test_frames_without_aperture_states_are_dropped_not_kept(bench, camera):
    for index in range(12):
        camera.take(50 * index)
        wait_until(lambda index=index: bench.node.diagnostics.total("received") == index + 1, 5)
    assert dropped(bench, "aperture_unknown") == 4


def test_stamps_that_go_backwards_are_counted(bench, camera):
    camera.pair(0)
    assert wait_until(lambda: bench.pairs)
    camera.take(10)
    assert wait_until(lambda: dropped(bench, "stamp_backwards") == 1)


def test_a_camera_info_of_another_size_refuses_the_pair(bench, camera):
    camera.info.publish(CameraInfo(width=100, height=100))
    wait_until(lambda: bench.node._camera_info is not None)
    camera.pair(0)
    assert wait_until(lambda: dropped(bench, "camera_info_size") == 2)
    assert not bench.pairs


def test_an_uncalibrated_camera_still_makes_pairs(bench, camera):
    camera.info.publish(CameraInfo(width=SCENE.shape[1], height=SCENE.shape[0]))
    camera.pair(0)
    assert wait_until(lambda: bench.pairs)


def test_a_bayer_camera_is_converted(bench, camera):
    raw = np.ascontiguousarray(SCENE[..., 1])
    camera.set(Aperture.SHALLOW, 0, 20)
    camera.take(5, raw, encoding="bayer_rggb8")
    camera.set(Aperture.DEEP, 30, 60)
    camera.take(35, raw, encoding="bayer_rggb8")
    assert wait_until(lambda: bench.pairs)
    assert bench.pairs[0].deep.encoding == "rgb8"
    np.testing.assert_allclose(
        image_view(bench.pairs[0].deep, "deep")[8:-8, 8:-8, 1].mean(), raw[8:-8, 8:-8].mean(), rtol=0.02
    )
