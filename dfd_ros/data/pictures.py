"""Reading picture files: 8-bit RGB and 16-bit depth, with clear errors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 RGB, grey ones with three equal channels; raises InputError if it is unreadable."""
    bgr = _decode(path, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_depth_mm(path: Path) -> NDArray[np.float32]:
    """A 16-bit PNG of millimetres (0 unknown) as (H, W) float32 metres, NaN unknown.

    Raises:
        InputError: The file is unreadable or not a 16-bit single-channel picture.
    """
    millimetres = _decode(path, cv2.IMREAD_UNCHANGED)
    if millimetres.dtype != np.uint16 or millimetres.ndim != 2:
        channels = 1 if millimetres.ndim == 2 else millimetres.shape[2]
        raise InputError(
            f"depth picture {path}: expected 16-bit single-channel millimetres, "
            f"got {millimetres.dtype} with {channels} channel(s)"
        )
    depth = millimetres.astype(np.float32) * np.float32(1e-3)
    depth[millimetres == 0] = np.nan
    return depth


def _decode(path: Path, flags: int) -> NDArray[np.generic]:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"picture {path}: cannot be read ({error.strerror or error})") from error
    picture = cv2.imdecode(content, flags) if len(content) else None
    if picture is None:
        raise InputError(f"picture {path}: expected a JPEG or PNG picture, got {len(content)} bytes that are neither")
    return np.asarray(picture)
