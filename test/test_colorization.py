"""`dfd colorize`: one frame from files to the picture, the depth and the numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from conftest import shared_data
from typer.testing import CliRunner

from dfd_ros.cli import app
from dfd_ros.data.lidar_frame import load_frame
from dfd_ros.errors import InputError
from dfd_ros.lidar.colorize import ColorizeSettings
from dfd_ros.scoring.colorization import colorize_frame, save_colorization

CAMERA = {"fx": 60.0, "fy": 60.0, "cx": 39.5, "cy": 29.5}
POSE = {"translation": [0.0, 0.0, 0.0], "quaternion": [0.0, 0.0, 0.0, 1.0]}
FAST = ColorizeSettings(method="fast")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A wall 5 m away, in the camera's own frame."""
    rng = np.random.default_rng(0)
    paths = tmp_path / "wall.png", tmp_path / "wall.npy", tmp_path / "wall.yaml"
    cv2.imwrite(str(paths[0]), rng.integers(90, 110, (60, 80, 3), dtype=np.uint8))
    v, u = (values.ravel() for values in np.mgrid[2:60:4, 2:80:4])
    points = np.stack([(u - 39.5) / 60 * 5, (v - 29.5) / 60 * 5, np.full(len(u), 5.0)], axis=1)
    np.save(paths[1], points)
    paths[2].write_text(yaml.safe_dump({"camera": CAMERA, "camera_from_lidar": POSE}))
    return paths


def test_a_frame_is_written_as_millimetres_and_as_metres(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    colorization = colorize_frame(load_frame(*files), FAST)
    assert colorization.left_out_rel < 1e-3
    picture, png, arrays = save_colorization(colorization, tmp_path / "out")
    assert picture.stat().st_size > 1000
    millimetres = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16
    np.testing.assert_allclose(millimetres, 5000, atol=3)
    with np.load(arrays) as content:
        np.testing.assert_array_equal(content["depth"], colorization.dense.depth)
        np.testing.assert_array_equal(content["confidence"], colorization.dense.confidence)
        assert np.isfinite(content["sparse"]).sum() == colorization.dense.known == 15 * 20


def test_what_is_unknown_or_too_far_for_16_bits_is_zero(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    wall = np.load(files[1])
    for distance, filled in ((66.0, False), (65.0, True)):
        np.save(files[1], distance / 5.0 * wall)
        png = save_colorization(colorize_frame(load_frame(*files), FAST), tmp_path)[1]
        assert (cv2.imread(str(png), cv2.IMREAD_UNCHANGED) > 0).all() == filled


def test_a_sweep_that_the_camera_does_not_see_gives_nothing(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    np.save(files[1], -np.load(files[1]))
    colorization = colorize_frame(load_frame(*files), FAST)
    assert (colorization.sparse.in_view, colorization.dense.known) == (0, 0)
    assert np.isnan(colorization.dense.depth).all()
    save_colorization(colorization, tmp_path)
    assert colorization.figures()["error at 20 % of returns left out"] == "unknown: too few returns"


def test_points_come_in_an_npz_too(files: tuple[Path, Path, Path]) -> None:
    points = np.load(files[1])
    archive = files[1].with_suffix(".npz")
    np.savez(archive, points=points, other=1)
    np.testing.assert_allclose(load_frame(files[0], archive, files[2]).points, points, rtol=1e-6)
    np.savez(archive, sweep=points)
    np.testing.assert_allclose(load_frame(files[0], archive, files[2]).points, points, rtol=1e-6)
    np.savez(archive, sweep=points, other=1)
    with pytest.raises(InputError, match="expected an array named points, got sweep, other"):
        load_frame(files[0], archive, files[2])
    np.savez(archive)
    with pytest.raises(InputError, match="expected an array named points, got none"):
        load_frame(files[0], archive, files[2])


def test_points_come_as_a_structured_array_too(files: tuple[Path, Path, Path]) -> None:
    """Organised or not, with whatever fields besides."""
    points = np.load(files[1])
    structured = np.zeros((15, 20), [("ring", "u2"), ("z", "f4"), ("y", "f8"), ("x", "f4")])
    for name, column in zip("xyz", points.T, strict=True):
        structured[name] = column.reshape(15, 20)
    np.save(files[1], structured)
    np.testing.assert_allclose(load_frame(*files).points, points, rtol=1e-6)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"camera": CAMERA}, "expected camera_from_lidar with translation, quaternion, got none"),
        ({"camera_from_lidar": POSE}, "expected camera with fx, fy, cx, cy, got none"),
        ({"camera": {"fx": 1.0}, "camera_from_lidar": POSE}, "expected camera to have fx, fy, cx, cy, got no fy"),
        ({"camera": CAMERA | {"fx": "wide"}, "camera_from_lidar": POSE}, "must have finite numbers, got 'wide'"),
        ({"camera": CAMERA | {"distortion": 0.1}, "camera_from_lidar": POSE}, "must be a list of numbers, got 0.1"),
        ({"camera": CAMERA, "camera_from_lidar": POSE | {"quaternion": [1, 1, 0, 0]}}, "must have unit length"),
        (None, "expected camera with"),
    ],
)
def test_a_broken_calibration_is_named(files: tuple[Path, Path, Path], calibration: object, message: str) -> None:
    files[2].write_text(yaml.safe_dump(calibration))
    with pytest.raises(InputError, match=message) as caught:
        load_frame(*files)
    assert str(files[2]) in str(caught.value)


def test_broken_points_are_named(files: tuple[Path, Path, Path]) -> None:
    image, points, calibration = files
    for content, message in (
        (np.zeros((4, 2)), r"shape \(N, 3\) or more, or fields x, y, z, got float64 of shape \(4, 2\)"),
        (np.zeros(3), "shape"),
        (np.zeros((4, 3), complex), "got complex128"),
        (np.zeros((4, 3), bool), "got bool"),
        (np.zeros(4, [("x", "f4"), ("y", "f4")]), "got fields x, y"),
        (np.array([{}], object), "expected a NumPy array of numbers, got none"),
    ):
        np.save(points, content)
        with pytest.raises(InputError, match=message):
            load_frame(*files)
    for garbage in (b"", b"not an array", b"PK\x03\x04 cut short"):
        for path in (points, points.with_suffix(".npz")):
            path.write_bytes(garbage)
            with pytest.raises(InputError, match="expected a NumPy array of numbers, got none"):
                load_frame(image, path, calibration)
    with pytest.raises(InputError, match="cannot be read"):
        load_frame(image, points.with_name("missing.npy"), calibration)
    with pytest.raises(InputError, match=r"expected a .bin, .npy or .npz file, got .txt"):
        load_frame(image, points.with_name("points.txt"), calibration)
    np.save(points, np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"expected a .txt or .yaml file, got .json"):
        load_frame(image, points, calibration.with_name("calibration.json"))


def test_the_command_prints_the_numbers_and_names_the_files(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "made"
    result = CliRunner().invoke(app, ["colorize", *map(str, files), "--out", str(out), "--method", "fast"])
    assert result.exit_code == 0, result.output
    assert "not the toolbox's system" in result.output
    assert {path.name for path in out.iterdir()} == {"wall_dense.png", "wall_depth.png", "wall_depth.npz"}


def test_kittis_files_are_read_as_they_are() -> None:
    folder = shared_data("kitti")
    paths = [folder / part for part in ("image_2/000001.png", "velodyne/000001.bin", "calib/000001.txt")]
    colorization = colorize_frame(load_frame(*paths), ColorizeSettings(method="fast", robust=True))
    assert colorization.sparse.in_view > 15_000
    assert colorization.left_out_rel < 0.03
    assert 0.7 < np.isfinite(colorization.dense.depth).mean() < 0.9  # the rest is sky
