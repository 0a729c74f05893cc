"""The extrinsics file: where the LiDAR sits relative to the camera.

camera_frame: camera_optical_frame
lidar_frame: lidar
camera_from_lidar:
  translation: [x, y, z]        # the LiDAR's origin in the camera's optical frame, metres
  quaternion: [x, y, z, w]      # of unit length

All three keys are required, and no others are taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from dfd_ros.errors import InputError
from dfd_ros.geometry import Transform

_UNIT_TOLERANCE = 1e-3  # a quaternion written with four decimals is unit within this


@dataclass(frozen=True)
class Extrinsics:
    """`camera_from_lidar` and the names of its two frames."""

    camera_from_lidar: Transform
    camera_frame: str
    lidar_frame: str


def transform_from_quaternion(translation: Sequence[float], quaternion: Sequence[float]) -> Transform:
    """The transform with translation (x, y, z), metres, and unit quaternion (x, y, z, w).

    Raises:
        InputError: A number is missing or not finite, or the quaternion is not of unit length.
    """
    shift = _numbers("translation", translation, 3)
    turn = _numbers("quaternion", quaternion, 4)
    length = math.hypot(*turn)
    if abs(length - 1.0) > _UNIT_TOLERANCE:
        raise InputError(f"quaternion must have unit length, got length {length:g}")
    return Transform(Rotation.from_quat(turn).as_matrix(), np.array(shift))


def load_extrinsics(path: str | Path) -> Extrinsics:
    """Read an extrinsics file.

    Raises:
        InputError: The file is missing, is not YAML, or a key is missing or malformed.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"extrinsics file {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"extrinsics file {path}: expected YAML, got {str(error).splitlines()[0]}") from error
    try:
        pose = _mapping(content, "the file", ("camera_from_lidar", "camera_frame", "lidar_frame"))["camera_from_lidar"]
        pose = _mapping(pose, "camera_from_lidar", ("translation", "quaternion"))
        transform = transform_from_quaternion(pose["translation"], pose["quaternion"])
        return Extrinsics(transform, _name(content, "camera_frame"), _name(content, "lidar_frame"))
    except InputError as error:
        raise InputError(f"extrinsics file {path}: {error}") from error


def save_extrinsics(extrinsics: Extrinsics, path: str | Path) -> None:
    """Write a file that `load_extrinsics` reads back."""
    transform = extrinsics.camera_from_lidar
    quaternion = Rotation.from_matrix(transform.rotation).as_quat()
    if quaternion[3] < 0.0:
        quaternion = -quaternion  # the same rotation, written one way only
    content = {
        "camera_frame": extrinsics.camera_frame,
        "lidar_frame": extrinsics.lidar_frame,
        "camera_from_lidar": {
            "translation": transform.translation.tolist(),
            "quaternion": quaternion.tolist(),
        },
    }
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _mapping(content: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """`content`, if it is a mapping with exactly these keys."""
    if not isinstance(content, dict):
        raise InputError(f"expected {what} to be a mapping with {', '.join(keys)}, got {type(content).__name__}")
    for key in keys:
        if key not in content:
            raise InputError(f"expected {what} to have {', '.join(keys)}, got no {key}")
    unknown = [str(key) for key in content if key not in keys]
    if unknown:
        raise InputError(f"expected {what} to have {', '.join(keys)}, got unknown {unknown[0]!r}")
    return content


def _name(content: dict[str, Any], key: str) -> str:
    name = content[key]
    if not (isinstance(name, str) and name):
        raise InputError(f"{key} must be a frame's name, got {name!r}")
    return name


def _numbers(what: str, values: Any, count: int) -> list[float]:
    is_list = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) and len(values) == count
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)] if is_list else []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"{what} must be {count} finite numbers, got {values!r}")
    return [float(number) for number in numbers]
