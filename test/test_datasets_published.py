"""Readers of published data sets, on small files in their true formats: what they give, and what they say when broken."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from dfd_ros.data.dslr import DslrFrames, DslrPairs
from dfd_ros.data.kitti_depth import KittiDepthFrames
from dfd_ros.data.light_field import GRID, LightFieldPairs, read_views, refocus
from dfd_ros.data.make3d import Make3dFrames
from dfd_ros.data.nyu import NyuFrames
from dfd_ros.data.rendered import RenderedPairs, RenderedStacks, filled, protocol_lens
from dfd_ros.data.rgbd import RgbdFolder
from dfd_ros.data.samples import RgbdFrame, RgbdFrames, decode
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens

SHARED = Path(__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the data folder beside the checkout is missing")
RNG = np.random.default_rng(7)


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# --- NYU Depth V2 ---


@pytest.fixture
def nyu(tmp_path: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    images = RNG.integers(0, 256, (5, 3, 32, 24), np.uint8)
    depths = RNG.uniform(1.0, 9.0, (5, 32, 24)).astype(np.float32)
    raw = np.where(RNG.random(depths.shape) < 0.2, 0.0, depths).astype(np.float32)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as content:
        content["images"], content["depths"], content["rawDepths"] = images, depths, raw
    with (tmp_path / "nyu_depth_v2_labeled.mat").open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[1], [4], [5]]), "testNdxs": np.array([[2], [3]])})
    return tmp_path


def test_nyu_frames_are_the_transposed_arrays_of_the_split(nyu: Path) -> None:
    import h5py

    with h5py.File(nyu / "nyu_depth_v2_labeled.mat") as content:
        image, depth, raw = (np.array(content[name][2]) for name in ("images", "depths", "rawDepths"))
    frames = NyuFrames(nyu, "test")
    assert frames.names == ("0002", "0003")
    frame = frames[1]
    assert frame.image.shape == (24, 32, 3)
    np.testing.assert_array_equal(frame.image[5, 7], image[:, 7, 5])
    np.testing.assert_array_equal(frame.depth, depth.T)
    np.testing.assert_array_equal(frame.weight, raw.T > 0)
    assert NyuFrames(nyu / "nyu_depth_v2_labeled.mat", "train").names == ("0001", "0004", "0005")
    assert len(NyuFrames(nyu, "all")) == 5


def test_missing_nyu_files_say_where_they_are_to_be_had(nyu: Path) -> None:
    (nyu / "splits.mat").unlink()
    with pytest.raises(InputError, match=r"splits\.mat: expected.*no such file; get it from NYU Depth V2, https"):
        NyuFrames(nyu)
    (nyu / "nyu_depth_v2_labeled.mat").unlink()
    with pytest.raises(InputError, match=r"expected nyu_depth_v2_labeled\.mat in .*get it from NYU"):
        NyuFrames(nyu)


@pytest.mark.parametrize("name", ["nyu_depth_v2_labeled.mat", "splits.mat"])
def test_a_truncated_nyu_file_is_named(nyu: Path, name: str) -> None:
    cut_short(nyu / name)
    with pytest.raises(InputError, match=f"{name}: expected a whole"):
        NyuFrames(nyu)


def test_nyu_depth_in_millimetres_is_refused(nyu: Path) -> None:
    import h5py

    with h5py.File(nyu / "nyu_depth_v2_labeled.mat", "r+") as content:
        content["depths"][...] *= 1000.0
    with pytest.raises(InputError, match=r"frame 0002: expected metres.*looks like millimetres"):
        NyuFrames(nyu)[0]


def test_nyu_arrays_that_do_not_fit_each_other_are_refused(nyu: Path) -> None:
    import h5py

    with h5py.File(nyu / "nyu_depth_v2_labeled.mat", "r+") as content:
        del content["depths"]
        content["depths"] = np.ones((5, 30, 24), np.float32)
    with pytest.raises(InputError, match=r"\(n, W, H\), got \(5, 3, 32, 24\) and \(5, 30, 24\)"):
        NyuFrames(nyu)


# --- rendering ---


class OneFrame(RgbdFrames):
    names = ("one",)

    def __init__(self, image: np.ndarray, depth: np.ndarray) -> None:
        self.frame = RgbdFrame("one", image, depth)

    def read(self, index: int) -> RgbdFrame:
        return self.frame


def test_a_wall_is_blurred_as_its_coc_says() -> None:
    """A step edge on a wall: the width of its blurred image is that of the disk, in linear light."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = 200
    lens = protocol_lens(2.0)
    depth = np.full((64, 96), 5.0, np.float32)
    sample = RenderedPairs(OneFrame(image, depth), lens)[0]
    white = decode(np.array([200.0 / 255.0]))[0]
    for taken, f_number in ((sample.shallow, 2.0), (sample.deep, 14.0)):
        profile = decode(taken)[32, :, 0] / white
        slope = np.diff(profile)
        place = np.arange(len(slope))
        variance = np.sum(slope * (place - np.sum(slope * place)) ** 2)
        coc = lens.coc(5.0, f_number)
        assert variance == pytest.approx(coc**2 / 16.0, rel=0.05, abs=0.05)


def test_the_wall_in_focus_is_the_sharp_picture_again() -> None:
    image = picture()
    depth = np.full(image.shape[:2], 4.0, np.float32)
    stack = RenderedStacks(OneFrame(image, depth), protocol_lens())[0]
    assert stack.focus_distances == (2.0, 4.0, 8.0)
    assert stack.pictures.shape == (3, *image.shape)
    errors = [float(np.abs(one - stack.all_in_focus).mean()) for one in stack.pictures]
    assert errors[1] < 0.02 < min(errors[0], errors[2])


def test_unknown_depth_stays_unknown_and_does_not_count_as_sky() -> None:
    image = picture()
    depth = np.full(image.shape[:2], 3.0, np.float32)
    whole = RenderedPairs(OneFrame(image, depth), protocol_lens())[0]
    holes = depth.copy()
    holes[4:9, 6:20] = np.nan
    sample = RenderedPairs(OneFrame(image, holes), protocol_lens())[0]
    np.testing.assert_array_equal(np.isnan(sample.depth), np.isnan(holes))
    np.testing.assert_array_equal(sample.shallow, whole.shallow)


@pytest.mark.parametrize("fill", ["nearest", "colorize"])
def test_filled_depth_keeps_what_is_known(fill: str) -> None:
    depth = np.where(RNG.random((24, 32)) < 0.2, RNG.uniform(2, 5, (24, 32)), np.nan).astype(np.float32)
    dense = filled(picture(), depth, fill)
    assert np.isfinite(dense).all()
    assert np.nanmin(depth) - 0.01 <= dense.min()
    assert dense.max() <= np.nanmax(depth) + 0.01
    if fill == "nearest":
        known = np.isfinite(depth)
        np.testing.assert_array_equal(dense[known], depth[known])
        places = np.argwhere(known)
        for row, column in np.argwhere(~known)[::37]:
            distance = np.hypot(*(places - (row, column)).T)
            near = places[distance < distance.min() + 0.3]  # OpenCV's distance is right to a few hundredths
            assert any(dense[row, column] == depth[tuple(place)] for place in near)


def test_a_way_of_filling_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="fill: expected one of nearest, colorize, got 'guess'"):
        RenderedPairs(OneFrame(picture(), np.ones((24, 32), np.float32)), protocol_lens(), fill="guess")  # type: ignore[arg-type]


# --- Make3D ---


@pytest.fixture
def make3d(tmp_path: Path) -> Path:
    for folder, name in (("Train400", "train-1p-000t000"), ("Test134", "10.21op2-p-046t000"), ("Test134", "z")):
        write(tmp_path / f"{folder}Img/img-{name}.jpg", picture(64, 48))
        grid = np.zeros((55, 305, 4))
        grid[..., 3] = RNG.uniform(2, 70, (55, 305))
        grid[:10, :, 3] = 81.0
        (tmp_path / f"{folder}Depth").mkdir(exist_ok=True)
        savemat(tmp_path / f"{folder}Depth/depth_sph_corr-{name}.mat", {"Position3DGrid": grid})
    return tmp_path


def test_make3d_depth_is_the_grid_brought_to_the_picture(make3d: Path) -> None:
    frames = Make3dFrames(make3d, "test", (110, 61))
    assert frames.names == ("10.21op2-p-046t000", "z")
    frame = frames[0]
    assert frame.image.shape == (110, 61, 3)
    assert frame.depth.shape == (110, 61)
    assert np.isnan(frame.depth[:20]).all()  # beyond the scanner's range
    assert np.isfinite(frame.depth[20:]).all()
    np.testing.assert_array_equal(frame.depth[20::2], frame.depth[21::2])  # two rows of the picture for one of the grid
    assert Make3dFrames(make3d, "train").names == ("train-1p-000t000",)
    assert len(Make3dFrames(make3d, "all")) == 3
    assert Make3dFrames(make3d / "Test134Img" / "..", "all", None)[0].image.shape == (64, 48, 3)


def test_broken_make3d_files_are_named(make3d: Path) -> None:
    depth = make3d / "Test134Depth/depth_sph_corr-z.mat"
    cut_short(depth)
    with pytest.raises(InputError, match=r"depth_sph_corr-z\.mat: expected a whole MATLAB 5 file"):
        Make3dFrames(make3d, "test")[1]
    savemat(depth, {"Position3DGrid": np.ones((55, 305))})
    with pytest.raises(InputError, match=r"grid \(rows, columns, 4\), got \(55, 305\)"):
        Make3dFrames(make3d, "test")[1]
    savemat(depth, {"depth": np.ones(3)})
    with pytest.raises(InputError, match="the variable Position3DGrid, got none"):
        Make3dFrames(make3d, "test")[1]
    depth.unlink()
    with pytest.raises(InputError, match=r"expected depth_sph_corr-z\.mat beside it, got none; get it from Make3D"):
        Make3dFrames(make3d, "test")
    with pytest.raises(InputError, match="below a folder Train"):
        Make3dFrames(make3d / "Test134Img", "train")


# --- KITTI ---

DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0002_sync"
FOCAL, CX, CY = 40.0, 29.5, 19.5


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Two frames; the LiDAR sits in the camera, its axes turned as KITTI's are."""
    raw = tmp_path / "raw" / DATE
    projection = f"{FOCAL} 0 {CX} 0 0 {FOCAL} {CY} 0 0 0 1 0"
    raw.mkdir(parents=True)
    (raw / "calib_cam_to_cam.txt").write_text(
        f"calib_time: 09-Jan-2012 13:57:47\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {projection}\nP_rect_03: {projection}\n"
    )
    (raw / "calib_velo_to_cam.txt").write_text("calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    for number in (5, 69):
        frame = f"{number:010d}"
        write(raw / DRIVE / f"image_02/data/{frame}.png", picture(40, 60))
        sweep = raw / DRIVE / f"velodyne_points/data/{frame}.bin"
        sweep.parent.mkdir(parents=True, exist_ok=True)
        # Ahead, left, up: at pixel (29.5 - 40 * left / ahead, 19.5 - 40 * up / ahead).
        points = [[10.0, 2.375, -0.125, 0.1], [20.0, 4.75, -0.25, 0.1], [8.0, -2.1, 1.9, 0.1], [-5.0, 0, 0, 0.1]]
        np.array(points, np.float32).tofile(sweep)
    map_ = np.zeros((40, 60), np.uint16)
    map_[10, 20], map_[11, 20] = 256 * 12, 128
    write(tmp_path / f"depth/val/{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png", map_)
    return tmp_path


def test_a_sweep_lands_where_the_matrices_say_the_nearest_first(kitti: Path) -> None:
    frames = KittiDepthFrames(kitti / "raw")
    assert frames.names == (f"{DRIVE}/image_02/0000000005", f"{DRIVE}/image_02/0000000069")
    depth = frames[0].depth
    assert depth[20, 20] == pytest.approx(10.0)  # not the return at 20 m behind it
    assert depth[10, 40] == pytest.approx(8.0)
    assert np.isfinite(depth).sum() == 2


def test_the_benchmarks_maps_are_256ths_of_a_metre(kitti: Path) -> None:
    frames = KittiDepthFrames(kitti / "raw", depth_maps=kitti / "depth")
    assert frames.names == (f"{DRIVE}/image_02/0000000069",)
    assert frames.without_depth == (f"{DRIVE}/image_02/0000000005",)
    depth = frames[0].depth
    assert (depth[10, 20], depth[11, 20]) == (12.0, 0.5)
    assert np.isfinite(depth).sum() == 2
    assert len(KittiDepthFrames(kitti / "raw", depth_maps=kitti / "depth/val")) == 1


@pytest.mark.parametrize(
    "line",
    [
        f"{DATE}/{DRIVE}/image_02/data/0000000069.png",
        f"{DATE}/{DRIVE}/image_02/data/0000000069.jpg {DRIVE}/proj_depth/groundtruth/image_02/0000000069.png 721.5",
        f"{DATE}/{DRIVE} 0000000069 l",
        f"{DATE}/{DRIVE} 69",
    ],
)
def test_the_split_comes_in_the_three_ways_in_use(kitti: Path, line: str) -> None:
    (kitti / "test.txt").write_text(f"{line}\n\n")
    assert KittiDepthFrames(kitti / "raw", kitti / "test.txt").names == (f"{DRIVE}/image_02/0000000069",)


def test_broken_kitti_files_are_named(kitti: Path) -> None:
    split = kitti / "test.txt"
    with pytest.raises(InputError, match=r"test\.txt: expected a text file.*697"):
        KittiDepthFrames(kitti / "raw", split)
    split.write_text("somewhere/else.png\n")
    with pytest.raises(InputError, match=r"test\.txt, line 1: expected DATE/DRIVE/image_02"):
        KittiDepthFrames(kitti / "raw", split)
    with pytest.raises(InputError, match=r"got no such folder; get it from KITTI raw data"):
        KittiDepthFrames(kitti / "nowhere")
    split.write_text(f"{DATE}/{DRIVE} 69 l\n")
    (kitti / f"raw/{DATE}/{DRIVE}/image_02/data/0000000069.png").unlink()
    with pytest.raises(InputError, match=r"expected 0000000069\.png, got no such picture"):
        KittiDepthFrames(kitti / "raw", split)
    (kitti / f"raw/{DATE}/calib_velo_to_cam.txt").write_text("R: 1 0\n")
    with pytest.raises(InputError, match="expected R with 9 finite numbers, got 2"):
        KittiDepthFrames(kitti / "raw")[0]
    (kitti / f"raw/{DATE}/calib_velo_to_cam.txt").unlink()
    with pytest.raises(InputError, match=r"calib_velo_to_cam\.txt: cannot be read; get it from"):
        KittiDepthFrames(kitti / "raw")[0]


def test_a_map_of_another_size_or_kind_is_refused(kitti: Path) -> None:
    path = kitti / f"depth/val/{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png"
    write(path, np.full((40, 58), 2560, np.uint16))
    with pytest.raises(InputError, match=r"expected 60x40 pixels as in 0000000069\.png, got 58x40"):
        KittiDepthFrames(kitti / "raw", depth_maps=kitti / "depth")[0]
    write(path, np.full((40, 60), 20, np.uint8))
    with pytest.raises(InputError, match="16-bit single-channel PNG of 1/256 m, got uint8"):
        KittiDepthFrames(kitti / "raw", depth_maps=kitti / "depth")[0]


# --- light fields ---


def light_field(disparity: int, height: int = 20, width: int = 30) -> np.ndarray:
    """A raster of views of one plane: view (v, u) sees the scene moved by the disparity."""
    scene = cv2.GaussianBlur(RNG.integers(0, 256, (height + 60, width + 60, 3), np.uint8), (3, 3), 0)
    raster = np.zeros((height * GRID + 3, width * GRID + 5, 3), np.uint8)
    for v in range(GRID):
        for u in range(GRID):
            top, left = 30 - disparity * (v - GRID // 2), 30 - disparity * (u - GRID // 2)
            raster[v : height * GRID : GRID, u : width * GRID : GRID] = scene[top : top + height, left : left + width]
    return raster


def test_a_plane_is_sharp_where_the_lens_is_focused_and_blurred_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "IMG_0001_eslf.png", light_field(2))
    views = read_views(path)
    assert views.shape == (8, 8, 20, 30, 3)
    centre = views[4, 4] / 255.0
    middle = np.s_[8:12, 9:21]
    np.testing.assert_allclose(refocus(views, 2.0)[middle], centre[middle], atol=2e-3)
    assert np.abs(refocus(views, 0.0) - centre)[middle].mean() > 0.05
    sample = LightFieldPairs(tmp_path, 2.0)[0]
    assert sample.name == "IMG_0001"
    np.testing.assert_allclose(decode(sample.shallow)[middle], centre[middle], atol=3e-3)
    np.testing.assert_array_equal(sample.deep, sample.all_in_focus)
    assert sample.lens is None
    assert np.isnan(sample.depth).all()


def test_what_is_no_light_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected pictures NAME_eslf\.png, got none; get them from the flowers"):
        LightFieldPairs(tmp_path)
    write(tmp_path / "a_eslf.png", picture(16, 16))
    with pytest.raises(InputError, match="raster of 14x14 views, got 16x16"):
        LightFieldPairs(tmp_path)[0]
    with pytest.raises(InputError, match="1 to 14 views a side, got 15"):
        LightFieldPairs(tmp_path, views=15)


# --- dual-aperture photographs ---


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for split, time in (
        ("train", "2018-04-26T16:38:31"),
        ("test", "2018-04-26T17:26:34"),
        ("test", "2018-04-26T17:29:21"),
    ):
        for aperture in ("N2_8", "N8"):
            folder = tmp_path / f"dfd_dataset_indoor_{aperture}"
            write(folder / f"rgb/{split}/{time}.505212.JPG", picture())
            write(folder / f"depth/{split}/{time}.375157.png", np.full((24, 32), int(time[-2:]) * 100, np.uint16))
    return tmp_path


def test_the_published_layout_pairs_pictures_by_name_and_depth_by_time(published: Path) -> None:
    pairs = DslrPairs(published, "test")
    assert pairs.names == ("2018-04-26T17:26:34.505212", "2018-04-26T17:29:21.505212")
    assert [float(pair.depth[0, 0]) for pair in pairs] == pytest.approx([3.4, 2.1])
    folder = published / "dfd_dataset_indoor_N8/rgb/test"
    expected = cv2.imread(str(folder / "2018-04-26T17:29:21.505212.JPG"))[..., ::-1] / 255.0
    np.testing.assert_allclose(pairs[1].deep, expected, atol=1e-6)
    assert pairs[0].lens is None
    assert DslrPairs(published, "train").names == ("2018-04-26T16:38:31.505212",)
    assert len(DslrPairs(published)) == 3
    assert DslrFrames(published, "test")[0].image.shape == (24, 32, 3)


def test_a_picture_without_partner_or_depth_is_named(published: Path) -> None:
    for aperture in ("N2_8", "N8"):
        (published / f"dfd_dataset_indoor_{aperture}/depth/test/2018-04-26T17:29:21.375157.png").unlink()
    with pytest.raises(InputError, match=r"17:29:21\.505212\.JPG: expected its depth within 2 s, got none"):
        DslrPairs(published, "test")
    (published / "dfd_dataset_indoor_N8/rgb/test/2018-04-26T17:29:21.505212.JPG").unlink()
    with pytest.raises(InputError, match=r"at both apertures, got 2018-04-26T17:29:21\.505212 once"):
        DslrPairs(published, "test")


def test_the_lens_must_be_the_photographs(published: Path) -> None:
    lens = Lens("other", 2.0, 1.8, 8.0, 20.0, 0.5, 9.0)
    with pytest.raises(InputError, match=r"f-numbers of the photographs, 2\.8 and 8, got 1\.8 and 8"):
        DslrPairs(published, "test", lens=lens)[0]


def test_photographs_in_another_place_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; get it from the DFD indoor data set"):
        DslrPairs(tmp_path / "none")
    with pytest.raises(InputError, match=r"NAME_f<f-number>\.jpg.*or folders"):
        DslrPairs(tmp_path)
    write(tmp_path / "a_f2.8.jpg", picture())
    write(tmp_path / "a_f8.0.jpg", picture())
    with pytest.raises(InputError, match="the split all, the only one of this layout, got 'test'"):
        DslrPairs(tmp_path, "test")
    assert np.isnan(DslrPairs(tmp_path)[0].depth).all()
    with pytest.raises(InputError, match="photograph a: expected its depth, got none"):
        DslrFrames(tmp_path)[0]
    write(tmp_path / "a_depth_mm.png", np.full((24, 32), 30, np.uint16))
    with pytest.raises(InputError, match=r"median of 0\.1 to 200, got 0\.03 \(looks like"):
        DslrPairs(tmp_path)[0]


def test_registration_brings_the_shallow_picture_to_the_deep_one(tmp_path: Path) -> None:
    scene = cv2.GaussianBlur(RNG.integers(0, 256, (180, 240, 3), np.uint8), (0, 0), 1.5)
    scene = cv2.normalize(scene, None, 20, 235, cv2.NORM_MINMAX)
    write(tmp_path / "a_f2.8.png", scene[10:170, 13:213])
    write(tmp_path / "a_f8.0.png", scene[10:170, 10:210])
    middle = np.s_[20:-20, 20:-20]

    def difference(register: bool) -> float:
        sample = DslrPairs(tmp_path, register=register)[0]
        return float(np.abs(sample.shallow - sample.deep)[middle].mean())

    assert difference(True) < 0.1 * difference(False)


@needs_shared
def test_the_real_photographs_are_read_with_their_depth() -> None:
    pairs = DslrPairs(SHARED / "dslr_dfd")
    assert len(pairs) == 81
    sample = pairs[40]
    assert sample.shallow.shape == sample.deep.shape == (432, 645, 3)
    assert 0.3 < np.nanmin(sample.depth) < np.nanmax(sample.depth) < 10.0
    rendered = RenderedPairs(DslrFrames(SHARED / "dslr_dfd"), protocol_lens())[40]
    np.testing.assert_array_equal(rendered.all_in_focus, sample.deep)
    assert np.abs(rendered.shallow - rendered.deep).mean() > 0.002


# --- folders of RGB-D ---


def test_names_that_match_make_frames(tmp_path: Path) -> None:
    depth = RNG.uniform(0.5, 4.0, (24, 32)).astype(np.float32)
    depth[0, 0] = np.nan
    np.save(tmp_path / "b_depth.npy", depth)
    write(tmp_path / "b.jpg", picture())
    write(tmp_path / "a_rgb.png", picture())
    write(tmp_path / "a_depth.png", (1000 * np.nan_to_num(depth)).astype(np.uint16))
    write(tmp_path / "lonely.png", picture())
    frames = RgbdFolder(tmp_path)
    assert frames.names == ("a", "b")
    np.testing.assert_array_equal(frames[1].depth, depth)
    np.testing.assert_allclose(frames[0].depth, depth, atol=1e-3)
    write(tmp_path / "other/rgb/x.jpg", picture())
    (tmp_path / "other/depth").mkdir()
    np.save(tmp_path / "other/depth/x.npy", depth)
    assert RgbdFolder(tmp_path / "other").names == ("x",)


def test_broken_frames_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected NAME\.jpg with NAME_depth\.png"):
        RgbdFolder(tmp_path)
    write(tmp_path / "a.png", picture())
    np.save(tmp_path / "a_depth.npy", np.full((24, 30), 2.0))
    with pytest.raises(InputError, match=r"a_depth\.npy: expected 32x24 pixels as in a\.png, got 30x24"):
        RgbdFolder(tmp_path)[0]
    np.save(tmp_path / "a_depth.npy", np.full((24, 32), 2000.0))
    with pytest.raises(InputError, match=r"a_depth\.npy: expected metres.*got 2000 \(looks like millimetres\)"):
        RgbdFolder(tmp_path)[0]
    np.save(tmp_path / "a_depth.npy", np.zeros((24, 32)))
    with pytest.raises(InputError, match="expected a depth at some pixel"):
        RgbdFolder(tmp_path)[0]
    (tmp_path / "a_depth.npy").write_bytes(b"junk")
    with pytest.raises(InputError, match="expected a whole array"):
        RgbdFolder(tmp_path)[0]
    np.save(tmp_path / "a_depth.npy", np.array([{}], object))
    with pytest.raises(InputError, match="expected a whole array"):  # nothing is ever unpickled
        RgbdFolder(tmp_path)[0]
