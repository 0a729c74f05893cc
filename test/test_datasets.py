"""Readers of photographs and KITTI frames, and the guess which of them a path holds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dfd_ros.data.kitti import KittiFrames
from dfd_ros.data.photographs import PhotographFolder
from dfd_ros.data.sources import detect
from dfd_ros.errors import InputError
from dfd_ros.lidar.colorize import colorize
from dfd_ros.lidar.field import lidar_field
from dfd_ros.lidar.projection import project

SHARED = Path(__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data folder beside the checkout is missing")


def write_picture(path: Path, shape: tuple[int, ...] = (12, 16, 3), dtype: type = np.uint8) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(len(str(path))).integers(0, 250, shape).astype(dtype)
    cv2.imwrite(str(path), picture)
    return picture


# --- photographs ---


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for scene in ("b", "a"):
        for f_number in ("11", "1.8"):
            write_picture(tmp_path / f"{scene}_f{f_number}.png")
    write_picture(tmp_path / "a_depth_mm.png", (12, 16), np.uint16)
    return tmp_path


def test_scenes_come_by_name_with_the_smaller_f_number_shallow(photographs: Path) -> None:
    folder = PhotographFolder(photographs)
    assert len(folder) == 2
    assert folder.ids == ("a", "b")
    scene = folder.load(0)
    assert scene.id == "a"
    assert scene.f_numbers == (1.8, 11.0)
    np.testing.assert_array_equal(scene.shallow, cv2.imread(str(photographs / "a_f1.8.png"))[..., ::-1])
    np.testing.assert_array_equal(scene.deep, cv2.imread(str(photographs / "a_f11.png"))[..., ::-1])


def test_depth_is_metres_and_nan_where_zero(photographs: Path) -> None:
    millimetres = np.array([[0, 1500], [65535, 1]], np.uint16).repeat(6, 0).repeat(8, 1)
    cv2.imwrite(str(photographs / "a_depth_mm.png"), millimetres)
    folder = PhotographFolder(photographs)
    depth = folder.load(0).depth
    assert depth is not None
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[[0, 0, -1, -1], [0, -1, 0, -1]], [np.nan, 1.5, 65.535, 0.001])
    assert folder.load(1).depth is None


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        PhotographFolder(tmp_path / "none")


def test_a_folder_without_pictures_says_what_it_should_hold(tmp_path: Path) -> None:
    write_picture(tmp_path / "holiday.jpg")
    with pytest.raises(InputError, match=r"NAME_f<f-number>\.jpg"):
        PhotographFolder(tmp_path)


def test_a_picture_without_its_partner_is_named(photographs: Path) -> None:
    (photographs / "b_f11.png").unlink()
    with pytest.raises(InputError, match=r"two apertures of scene b, got b_f1\.8\.png"):
        PhotographFolder(photographs)


def test_the_same_aperture_twice_is_refused(photographs: Path) -> None:
    write_picture(photographs / "b_f1.80.png")
    (photographs / "b_f11.png").unlink()
    with pytest.raises(InputError, match=r"two different apertures of scene b, got f/1\.8 twice"):
        PhotographFolder(photographs)


@pytest.mark.parametrize("name", ["a_f11.png", "a_depth_mm.png"])
def test_sizes_that_differ_are_named(photographs: Path, name: str) -> None:
    is_depth = "depth" in name
    write_picture(photographs / name, (12, 18) if is_depth else (12, 18, 3), np.uint16 if is_depth else np.uint8)
    with pytest.raises(InputError, match=f"{name}: expected 16x12 pixels.*got 18x12"):
        PhotographFolder(photographs).load(0)


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_an_unreadable_picture_is_named(photographs: Path, content: bytes) -> None:
    (photographs / "a_f11.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a_f11\.png: expected a JPEG or PNG"):
        PhotographFolder(photographs).load(0)


def test_depth_of_eight_bits_is_refused(photographs: Path) -> None:
    write_picture(photographs / "a_depth_mm.png", (12, 16))
    with pytest.raises(InputError, match="16-bit single-channel millimetres, got uint8"):
        PhotographFolder(photographs).load(0)


def test_a_scene_that_is_not_there_is_refused(photographs: Path) -> None:
    with pytest.raises(InputError, match="scenes are 0 to 1, got 2"):
        PhotographFolder(photographs).load(2)


@needs_shared
def test_real_photographs_are_read() -> None:
    folder = PhotographFolder(SHARED / "dslr_dfd")
    scene = folder.load(0)
    assert len(folder) == 81
    assert scene.f_numbers == (2.8, 8.0)
    assert scene.shallow.shape == scene.deep.shape == (432, 645, 3)
    assert scene.depth is not None
    assert 0.3 < np.nanmin(scene.depth) < np.nanmax(scene.depth) < 10.0


# --- KITTI ---

P2 = np.array([[700.0, 0.0, 600.0, 45.0], [0.0, 700.0, 180.0, -0.3], [0.0, 0.0, 1.0, 0.005]])
RECTIFICATION = cv2.Rodrigues(np.array([0.01, -0.02, 0.005]))[0]
VELODYNE = np.c_[
    cv2.Rodrigues(np.array([0.0, 0.01, 0.0]))[0] @ [[0, -1, 0], [0, 0, -1], [1, 0, 0]], [-0.004, -0.07, -0.27]
]


def calibration_text() -> str:
    rows = {"P0": P2, "P2": P2, "R0_rect": RECTIFICATION, "Tr_velo_to_cam": VELODYNE}
    return "".join(f"{key}: {' '.join(f'{v:.12e}' for v in matrix.ravel())}\n" for key, matrix in rows.items()) + "\n"


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    write_picture(tmp_path / "image_2/000007.png", (40, 60, 3))
    for part in ("velodyne", "calib"):
        (tmp_path / part).mkdir()
    points = np.random.default_rng(0).uniform(5, 30, (50, 4)).astype(np.float32)
    points.tofile(tmp_path / "velodyne/000007.bin")
    (tmp_path / "calib/000007.txt").write_text(calibration_text())
    return tmp_path


def test_a_kitti_frame_projects_by_the_products_of_its_matrices(kitti: Path) -> None:
    frame = KittiFrames(kitti).load(0)
    assert frame.id == "000007"
    assert frame.camera.shape == frame.image.shape[:2] == (40, 60)
    points = frame.points[:, :3].astype(np.float64)
    homogeneous = P2 @ np.vstack(
        [RECTIFICATION @ (VELODYNE @ np.c_[points, np.ones(len(points))].T), np.ones(len(points))]
    )
    ours = frame.camera.matrix @ frame.camera_from_lidar.apply(points).T
    np.testing.assert_allclose(ours, homogeneous, rtol=1e-9)


def test_a_broken_sweep_is_named(kitti: Path) -> None:
    (kitti / "velodyne/000007.bin").write_bytes(b"0" * 33)
    with pytest.raises(InputError, match=r"000007\.bin: expected points of 16 bytes.*got 33 bytes"):
        KittiFrames(kitti).load(0)


def test_a_missing_sweep_is_named(kitti: Path) -> None:
    (kitti / "velodyne/000007.bin").unlink()
    with pytest.raises(InputError, match=r"000007\.bin: cannot be read"):
        KittiFrames(kitti).load(0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("R0_rect", "R0", "got no R0_rect"),
        ("P2: 7", "P2: seven", "P2 must hold numbers"),
        ("P2:", "P2: 1", "P2 must hold 3x4 finite numbers, got 13"),
        ("R0_rect:", "R0_rect: 1 0 0 0 1 0 0 0 2\nR1:", "R0_rect must hold a rotation"),
        ("P2:", "P2: 7 5 6 4 0 7 1 0 0 0 1 0\nP9:", "K a pinhole camera"),
    ],
)
def test_a_broken_calibration_is_named(kitti: Path, old: str, new: str, message: str) -> None:
    path = kitti / "calib/000007.txt"
    path.write_text(calibration_text().replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        KittiFrames(kitti).load(0)
    assert str(path) in str(caught.value)


def test_a_folder_without_its_parts_is_named(kitti: Path) -> None:
    (kitti / "calib/000007.txt").unlink()
    (kitti / "calib").rmdir()
    with pytest.raises(InputError, match="got no calib"):
        KittiFrames(kitti)


@needs_shared
def test_a_real_sweep_projects_and_its_held_out_returns_come_back() -> None:
    frame = KittiFrames(SHARED / "kitti").load(0)
    sparse = project(frame.points[:, :3], frame.camera_from_lidar, frame.camera)
    assert sparse.in_view > 15_000
    assert 0.002 < sparse.occluded / sparse.in_view < 0.08  # bushes and windows before walls
    # A window around the picture's middle, where there are returns, keeps this quick.
    window = np.s_[170:330, 400:800]
    depth = sparse.depth[window]
    grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)[window].astype(np.float32) / 255
    held_out = np.isfinite(depth) & (np.random.default_rng(0).random(depth.shape) < 0.2)
    dense = colorize(grey, np.where(held_out, np.nan, depth)).depth
    assert lidar_field(depth).mean() > 0.9
    assert np.mean(abs(dense - depth)[held_out] / depth[held_out]) < 0.05


# --- sources ---


def test_sources_are_told_apart(tmp_path: Path) -> None:
    write_picture(tmp_path / "photographs/a_f2.8.jpg")
    for part in ("image_2", "velodyne", "calib"):
        (tmp_path / "kitti" / part).mkdir(parents=True)
    for name in ("bag/metadata.yaml", "cut/cut_0.mcap", "sqlite/bag_0.db3"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert detect(tmp_path / "photographs") == "photographs"
    assert detect(tmp_path / "kitti") == "kitti"
    for bag in ("bag", "cut", "sqlite", "cut/cut_0.mcap"):
        assert detect(tmp_path / bag) == "bag"


def test_an_unknown_source_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such path"):
        detect(tmp_path / "none")
    with pytest.raises(InputError, match=r"metadata\.yaml.*image_2.*NAME_f<f-number>"):
        detect(tmp_path)
