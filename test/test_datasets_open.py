"""Samples by number, data sets by one line, and recorded pairs as samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_maker import SECOND, STORE, cdr, header, image, message
from rosbags.rosbag2 import StoragePlugin, Writer

from dfd_ros.data.bag_samples import BagPairs
from dfd_ros.data.dslr import DslrPairs
from dfd_ros.data.open import KINDS, OpenOptions, detect_kind, open_dataset
from dfd_ros.data.rendered import RenderedPairs
from dfd_ros.data.samples import Dataset, MissingSampleError, Sample, Selection, Window, check_depth, resized
from dfd_ros.data.synthetic import SyntheticSettings
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens

H, W = 24, 32
LENS = Lens("test", 1.0, 2.0, 8.0, 20.0, 0.5, 9.0, focal_length=0.01, pixel_pitch=1e-4, focus_blur=1.0)
RNG = np.random.default_rng(3)


def sample(name: str = "a") -> Sample:
    pictures = RNG.random((3, H, W, 3), np.float32)
    depth = RNG.uniform(1.0, 5.0, (H, W)).astype(np.float32)
    return Sample(name, pictures[0], pictures[1], depth, LENS, pictures[2], np.ones((H, W), np.float32))


class Letters(Dataset):
    names = tuple("abcde")

    def read(self, index: int) -> Sample:
        return sample(self.names[index])


# --- samples by number ---


def test_a_dataset_is_a_sequence() -> None:
    letters = Letters()
    assert len(letters) == 5
    assert letters[1].name == letters[-4].name == "b"
    assert [one.name for one in letters] == list("abcde")
    for index in (5, -6):
        with pytest.raises(MissingSampleError, match=f"0 to 4, got {index}"):
            letters[index]
    assert issubclass(MissingSampleError, IndexError)


def test_a_selection_keeps_its_order() -> None:
    some = Selection(Letters(), (3, 0))
    assert some.names == ("d", "a")
    assert [one.name for one in some] == ["d", "a"]
    with pytest.raises(InputError, match="0 to 4, got 7"):
        Selection(Letters(), (7,))


def test_a_window_is_a_part_of_a_stream() -> None:
    class Numbers:
        def sample(self, index: int) -> Sample:
            return sample(str(index))

    window = Window(Numbers(), 3, start=10)
    assert [one.name for one in window] == list(window.names) == ["10", "11", "12"]
    with pytest.raises(InputError, match="1 or more"):
        Window(Numbers(), 0)


def test_half_the_pixels_halve_the_coc_and_keep_the_light() -> None:
    whole = sample()
    half = resized(whole, (H // 2, W // 2))
    assert half.lens is not None
    assert half.lens.coc(5.0) == pytest.approx(0.5 * LENS.coc(5.0))
    assert half.lens.focal_length**2 / (half.lens.pixel_pitch * (1.0 - 0.01)) == pytest.approx(
        0.5 * LENS.focal_length**2 / (LENS.pixel_pitch * (1.0 - 0.01))
    )
    assert half.lens.focus_blur == 0.5
    for name in ("shallow", "deep", "all_in_focus"):
        blocks = getattr(whole, name).reshape(H // 2, 2, W // 2, 2, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(getattr(half, name), blocks, atol=1e-5)
    assert np.isin(half.depth, whole.depth).all()
    assert half.weight is not None
    assert half.weight.shape == half.depth.shape == (H // 2, W // 2)
    assert resized(whole, (H, W)) is whole


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ([2000.0, 3000.0], r"got 2500 \(looks like millimetres\)"),
        ([0.001, 0.002], r"got 0\.0015 \(looks like kilometres"),
        ([-1.0, 2.0], "positive depths in metres"),
        ([np.nan, np.nan], "at some pixel at least, got none of 2"),
    ],
)
def test_depth_of_another_unit_is_refused_with_a_hint(depth: list[float], message: str) -> None:
    with pytest.raises(InputError, match=f"scene 1: .*{message}"):
        check_depth("scene 1", np.array(depth))
    check_depth("scene 1", np.array([0.3, 60.0, np.nan]))


# --- bags ---


def write_bag(path: Path, *, depths: tuple[str, ...] = ("lidar/depth", "ground_truth/depth")) -> np.ndarray:
    """Three pairs; depth of the first and the third."""
    pictures = RNG.integers(0, 256, (3, H, W, 3), np.uint8)
    lens = message("dfd_msgs/msg/LensInfo", **vars(LENS))
    written = []
    for i in range(3):
        stamp = (10 + i) * SECOND
        pair = message("dfd_msgs/msg/ImagePair", header=header(stamp), lens=lens, gamma=2.0)
        pair.shallow = image(stamp, pictures[i], "rgb8", padding=5)
        pair.deep = image(stamp + 1000, pictures[i][::-1], "bgr8")
        written.append((stamp + 5, "/camera/pair", pair))
        for topic in depths:
            depth = np.full((H, W), 2.0 + i if topic.startswith("ground") else 9.0, np.float32)
            depth[0, 0] = np.nan
            if i != 1:
                written.append((stamp + 9, f"/camera/{topic}", image(stamp, depth, "32FC1")))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topics: dict = {}
        for time, topic, content in written:
            if topic not in topics:
                topics[topic] = bag.add_connection(topic, content.__msgtype__, typestore=STORE)
            bag.write(topics[topic], time, cdr(content))
    return pictures


def test_recorded_pairs_come_with_the_depth_of_their_stamp(tmp_path: Path) -> None:
    pictures = write_bag(tmp_path / "bag")
    pairs = BagPairs(tmp_path / "bag")
    assert pairs.names == (str(10 * SECOND), str(12 * SECOND))
    second = pairs[1]
    np.testing.assert_allclose(second.shallow, pictures[2] / 255.0, atol=1e-6)
    np.testing.assert_allclose(second.deep, pictures[2][::-1, :, ::-1] / 255.0, atol=1e-6)
    assert second.depth[1, 1] == 4.0  # the truth, rather than the LiDAR's
    assert np.isnan(second.depth[0, 0])
    assert second.gamma == pytest.approx(2.0)
    assert second.lens is not None
    assert replace(second.lens, prior_depth=1.0, prior_log_sigma=1.0) == replace(
        LENS, prior_depth=1.0, prior_log_sigma=1.0
    )
    assert BagPairs(tmp_path / "bag", "lidar/depth")[0].depth[1, 1] == 9.0


def test_a_bag_without_pairs_or_depth_says_so(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", depths=())
    with pytest.raises(InputError, match="expected the topic ground_truth/depth or lidar/depth or"):
        BagPairs(tmp_path / "bag")
    with pytest.raises(InputError, match="a path that does not exist"):
        BagPairs(tmp_path / "none")


# --- by one line ---


def photographs(folder: Path) -> Path:
    folder.mkdir()
    for f_number in ("2.8", "8.0"):
        cv2.imwrite(str(folder / f"a_f{f_number}.jpg"), RNG.integers(0, 256, (H, W, 3), np.uint8))
    cv2.imwrite(str(folder / "a_depth_mm.png"), np.full((H, W), 2000, np.uint16))
    return folder


def test_a_line_names_kind_and_path(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "set")
    assert isinstance(open_dataset(f"dslr:{folder}"), DslrPairs)
    assert isinstance(open_dataset(folder), DslrPairs)
    rendered = open_dataset(f"dslr-rendered:{folder}")
    assert isinstance(rendered, RenderedPairs)
    assert rendered[0].lens is not None
    assert rendered[0].lens.f_number_deep == 14.0
    write_bag(tmp_path / "bag")
    assert isinstance(open_dataset(str(tmp_path / "bag")), BagPairs)
    settings = SyntheticSettings(shape=(H, W))
    scenes = open_dataset("synthetic:7", OpenOptions(synthetic=settings, lens=LENS))
    assert len(scenes) == 7
    assert scenes[6].shallow.shape == (H, W, 3)
    assert scenes[6].lens == LENS


def test_files_tell_their_kind(tmp_path: Path) -> None:
    files = {
        "nyu": "nyu_depth_v2_labeled.mat",
        "bag": "metadata.yaml",
        "dslr": "dfd_dataset_indoor_N2_8/rgb/train/x.JPG",
        "kitti": "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png",
        "flowers": "test/IMG_1_eslf.png",
        "make3d": "Train400Depth/depth_sph_corr-a.mat",
    }
    for kind, name in files.items():
        path = tmp_path / kind / name
        path.parent.mkdir(parents=True)
        path.touch()
        assert detect_kind(tmp_path / kind) == kind
    (tmp_path / "rgbd").mkdir()
    (tmp_path / "rgbd/a.jpg").touch()
    (tmp_path / "rgbd/a_depth.npy").touch()
    assert detect_kind(tmp_path / "rgbd") == "rgbd"
    assert {*files, "rgbd"} <= set(KINDS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing:here", "with KIND one of synthetic, dslr.*got 'nothing'"),
        ("/no/such/path", "got no such path"),
        ("synthetic:many", "how many scenes, 1 or more, got 'many'"),
        ("synthetic:0", "how many scenes"),
        ("nyu:/no/such/path", r"expected nyu_depth_v2_labeled\.mat"),
        ("rgbd:/no/such/path", "got no such folder"),
    ],
)
def test_a_line_that_names_nothing_says_what_was_expected(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_dataset(line)


def test_a_folder_of_no_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected files of one of the kinds synthetic, dslr"):
        open_dataset(tmp_path)
