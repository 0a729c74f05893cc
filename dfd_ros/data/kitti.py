"""Frames in the layout of the KITTI object benchmark (Geiger, Lenz and Urtasun, CVPR 2012).

    image_2/NNNNNN.png      the left colour camera, rectified
    velodyne/NNNNNN.bin     float32 x, y, z (metres, LiDAR frame), reflectance
    calib/NNNNNN.txt        pixel ~ P2 R0_rect Tr_velo_to_cam x

P2 = K [I | t] with t = K⁻¹ P2's fourth column: the camera's own offset from the rectified frame. It is folded into the
extrinsics, so that K alone is the camera and depth is measured from its own centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.pictures import PICTURE_SUFFIXES, read_rgb
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera, Transform

LAYOUT = "folders image_2, velodyne and calib"
_POINT_BYTES = 16  # four float32
_MATRICES = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
_ROTATION_TOLERANCE = 1e-3  # the files' own rotations are orthonormal to 1e-6


@dataclass(frozen=True)
class KittiFrame:
    """One frame.

    Attributes:
        id: Its number, as in the file names.
        image: (H, W, 3) uint8 RGB.
        camera: The left colour camera, without distortion.
        points: (N, 4) float32: x, y, z in metres in the LiDAR frame, reflectance in [0, 1].
        camera_from_lidar: The extrinsics.
    """

    id: str
    image: NDArray[np.uint8]
    camera: Camera
    points: NDArray[np.float32]
    camera_from_lidar: Transform


class KittiFrames:
    """The frames of a folder, in the order of their names.

    Raises:
        InputError: The folder or one of its three parts is missing, or it holds no picture.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for part in ("image_2", "velodyne", "calib"):
            if not (self.path / part).is_dir():
                raise InputError(f"KITTI frames {self.path}: expected {LAYOUT}, got no {part}")
        self._images = sorted(p for p in (self.path / "image_2").iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not self._images:
            raise InputError(f"KITTI frames {self.path}: expected pictures in image_2, got none")
        self.ids = tuple(path.stem for path in self._images)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> KittiFrame:
        """Read one frame.

        Raises:
            InputError: There is no such frame, or one of its files is missing or broken.
        """
        if not 0 <= index < len(self):
            raise InputError(f"KITTI frames {self.path}: frames are 0 to {len(self) - 1}, got {index}")
        frame = self.ids[index]
        image = read_rgb(self._images[index])
        points = read_points(self.path / "velodyne" / f"{frame}.bin")
        camera, camera_from_lidar = read_calibration(self.path / "calib" / f"{frame}.txt", image.shape[:2])
        return KittiFrame(frame, image, camera, points, camera_from_lidar)


def read_points(path: Path) -> NDArray[np.float32]:
    """A sweep of `velodyne`, (N, 4) float32; raises InputError if it is unreadable."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"sweep {path}: cannot be read ({error.strerror})") from error
    if not content or len(content) % _POINT_BYTES:
        raise InputError(
            f"sweep {path}: expected points of {_POINT_BYTES} bytes (x, y, z, reflectance), got {len(content)} bytes"
        )
    return np.frombuffer(content, np.dtype("<f4")).astype(np.float32, copy=False).reshape(-1, 4)


def read_calibration(path: Path, shape: tuple[int, ...]) -> tuple[Camera, Transform]:
    """The camera, of this (height, width), and camera_from_lidar of a file of `calib`; InputError if it is unusable."""
    matrices = _read_matrices(path)
    projection = matrices["P2"]
    matrix = projection[:, :3]
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and np.allclose(matrix, _pinhole(matrix), atol=1e-6)):
        raise InputError(f"calibration {path}: P2 must be K [I | t] with K a pinhole camera, got {projection.tolist()}")
    height, width = shape
    camera = Camera(width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    offset = Transform(translation=np.linalg.solve(matrix, projection[:, 3]).astype(np.float64))
    rectification = Transform(_rotation(path, "R0_rect", matrices["R0_rect"]))
    velodyne = matrices["Tr_velo_to_cam"]
    extrinsics = Transform(_rotation(path, "Tr_velo_to_cam", velodyne[:, :3]), velodyne[:, 3])
    return camera, offset @ rectification @ extrinsics


def _pinhole(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The camera matrix that keeps only what a pinhole camera has."""
    return np.array([[matrix[0, 0], 0.0, matrix[0, 2]], [0.0, matrix[1, 1], matrix[1, 2]], [0.0, 0.0, 1.0]])


def _rotation(path: Path, key: str, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    is_orthonormal = np.allclose(matrix @ matrix.T, np.eye(3), atol=_ROTATION_TOLERANCE)
    if not (is_orthonormal and np.linalg.det(matrix) > 0):
        raise InputError(f"calibration {path}: {key} must hold a rotation, got {matrix.tolist()}")
    return matrix


def _read_matrices(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"calibration {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"calibration {path}: expected lines of `key: numbers`, got bytes that are not text"
        ) from error
    entries = dict(line.split(":", 1) for line in lines if ":" in line)
    matrices = {}
    for key, shape in _MATRICES.items():
        if key not in entries:
            raise InputError(f"calibration {path}: expected {', '.join(_MATRICES)}, got no {key}")
        try:
            numbers = np.array(entries[key].split(), np.float64)
        except ValueError as error:
            raise InputError(f"calibration {path}: {key} must hold numbers, got {entries[key].strip()!r}") from error
        if numbers.size != shape[0] * shape[1] or not np.isfinite(numbers).all():
            raise InputError(
                f"calibration {path}: {key} must hold {shape[0]}x{shape[1]} finite numbers, got {numbers.size}"
            )
        matrices[key] = numbers.reshape(shape)
    return matrices
