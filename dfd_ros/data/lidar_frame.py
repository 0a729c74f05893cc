"""One picture with one LiDAR sweep, from files: in KITTI's layout, or as arrays with a calibration file of ours.

    image    a JPEG or PNG picture
    points   .bin: float32 x, y, z, reflectance (KITTI); .npy or .npz: an array (N, 3) or more columns, x, y, z and
             intensity, or a structured one with fields x, y and z; metres in the LiDAR's frame (in an .npz its only
             array, or the one named points)
    calib    .txt: P2, R0_rect and Tr_velo_to_cam (KITTI); .yaml:

        camera: {fx: 500, fy: 500, cx: 319.5, cy: 239.5, distortion_model: plumb_bob, distortion: [0, 0, 0, 0, 0]}
        camera_from_lidar:
          translation: [x, y, z]        # the LiDAR's origin in the camera's optical frame, metres
          quaternion: [x, y, z, w]      # of unit length

The camera is as large as the picture; its distortion may be left out. Other keys are not read, so an extrinsics file
with a camera added will do.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml
from numpy.typing import NDArray

from dfd_ros.data.kitti import KittiFrame, read_calibration, read_points
from dfd_ros.data.pictures import read_rgb
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform
from dfd_ros.lidar.calibration import transform_from_quaternion


def load_frame(image: Path, points: Path, calibration: Path) -> KittiFrame:
    """Read the three files; the points have three columns or four.

    Raises:
        InputError: One of them is missing, of an unknown kind, or broken.
    """
    picture = read_rgb(image)
    camera, camera_from_lidar = _calibration(calibration, picture.shape[:2])
    return KittiFrame(image.stem, picture, camera, _points(points), camera_from_lidar)


def _points(path: Path) -> NDArray[np.float32]:
    if path.suffix == ".bin":
        return read_points(path)
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"points {path}: expected a .bin, .npy or .npz file, got {path.suffix or 'no suffix'}")
    try:
        content = np.load(path)
        if isinstance(content, np.lib.npyio.NpzFile):
            name = "points" if "points" in content.files or len(content.files) != 1 else content.files[0]
            if name not in content.files:
                raise InputError(
                    f"points {path}: expected an array named points, got {', '.join(content.files) or 'none'}"
                )
            content = content[name]
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"points {path}: cannot be read ({error.strerror or 'no NumPy file'})") from error
    except (ValueError, EOFError, BadZipFile) as error:  # NumPy takes what it does not know for pickled objects
        raise InputError(f"points {path}: expected a NumPy array of numbers, got none") from error
    names = content.dtype.names or ()
    if {"x", "y", "z"} <= set(names):
        content = np.stack([content[name].ravel() for name in "xyz"], axis=1)
    if content.ndim != 2 or content.shape[1] < 3 or content.dtype.kind not in "iuf":
        kind = f"fields {', '.join(names)}" if names else f"{content.dtype} of shape {content.shape}"
        raise InputError(f"points {path}: expected numbers of shape (N, 3) or more, or fields x, y, z, got {kind}")
    return np.ascontiguousarray(content[:, :4], np.float32)


def _calibration(path: Path, shape: tuple[int, ...]) -> tuple[Camera, Transform]:
    if path.suffix == ".txt":
        return read_calibration(path, shape)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"calibration {path}: expected a .txt or .yaml file, got {path.suffix or 'no suffix'}")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"calibration {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"calibration {path}: expected YAML, got bytes that are not text") from error
    except yaml.YAMLError as error:
        raise InputError(f"calibration {path}: expected YAML, got an error {str(error).splitlines()[0]}") from error
    try:
        camera = _mapping(content, "camera", ("fx", "fy", "cx", "cy"))
        pose = _mapping(content, "camera_from_lidar", ("translation", "quaternion"))
        return _camera(camera, shape), transform_from_quaternion(pose["translation"], pose["quaternion"])
    except InputError as error:
        raise InputError(f"calibration {path}: {error}") from error


def _camera(content: dict[str, Any], shape: tuple[int, ...]) -> Camera:
    distortion = content.get("distortion", [])
    numbers = [content[key] for key in ("fx", "fy", "cx", "cy")]
    if not isinstance(distortion, list):
        raise InputError(f"camera's distortion must be a list of numbers, got {distortion!r}")
    for number in (*numbers, *distortion):
        if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
            raise InputError(f"camera must have finite numbers, got {number!r}")
    height, width = shape
    fx, fy, cx, cy = map(float, numbers)
    model = str(content.get("distortion_model", "plumb_bob"))
    return Camera(width, height, fx, fy, cx, cy, tuple(map(float, distortion)), model)


def _mapping(content: Any, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """`content[name]`, if it is a mapping with these keys."""
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, dict):
        raise InputError(f"expected {name} with {', '.join(keys)}, got {'none' if value is None else repr(value)}")
    for key in keys:
        if key not in value:
            raise InputError(f"expected {name} to have {', '.join(keys)}, got no {key}")
    return value
