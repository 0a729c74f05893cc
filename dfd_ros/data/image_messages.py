"""Arrays out of messages, live or recorded: images as views of their bytes, and a header's stamp without decoding the rest."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.compat.images import CvBridge
from dfd_ros.errors import InputError
from dfd_ros.stamps import NANOSECONDS

MILLIMETRE = np.float32(1e-3)
CDR_LITTLE_ENDIAN = 1  # second byte of the encapsulation header, which is four bytes long
CDR_STAMP_OFFSET = 4
STAMP_BYTES = 8
# Encodings read here, with their little-endian dtype and channels.
ENCODINGS = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "8UC3": ("u1", 3),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "16UC1": ("<u2", 1),
    "mono16": ("<u2", 1),
    "32FC1": ("<f4", 1),
}
# The 8-bit encodings that need no conversion.
PLAIN_ENCODINGS = ("rgb8", "bgr8", "mono8")
# What cameras send besides; cv_bridge makes rgb8 of them.
CONVERTED_ENCODINGS = (
    "rgba8",
    "bgra8",
    "mono16",
    "bayer_rggb8",
    "bayer_bggr8",
    "bayer_gbrg8",
    "bayer_grbg8",
    "yuv422",
    "yuv422_yuy2",
    "uyvy",
    "yuyv",
)


def header_stamp(cdr: bytes | memoryview) -> int:
    """Stamp in nanoseconds of a serialised message whose first field is a std_msgs/Header.

    Raises:
        InputError: The bytes are too few to hold one.
    """
    if len(cdr) < CDR_STAMP_OFFSET + STAMP_BYTES:
        raise InputError(f"message: expected a header of {CDR_STAMP_OFFSET + STAMP_BYTES} bytes, got {len(cdr)} in all")
    order = "<" if cdr[1] == CDR_LITTLE_ENDIAN else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", cdr, CDR_STAMP_OFFSET)
    return sec * NANOSECONDS + nanosec


def image_view(message: Any, what: str) -> NDArray[Any]:
    """A view of a sensor_msgs/Image's bytes, whoever decoded it: (H, W) or (H, W, 3), as encoded.

    Raises:
        InputError: The encoding is not one of `ENCODINGS`, or as `check_layout`.
    """
    if message.encoding not in ENCODINGS:
        raise InputError(f"{what}: expected encoding {', '.join(ENCODINGS)}, got {message.encoding!r}")
    code, channels = ENCODINGS[message.encoding]
    dtype = np.dtype(code).newbyteorder(">") if message.is_bigendian else np.dtype(code)
    height, width, step = message.height, message.width, message.step
    row_bytes = width * channels * dtype.itemsize
    check_layout(message, what, row_bytes)
    rows = np.asarray(message.data)[: height * step].reshape(height, step)[:, :row_bytes].view(dtype)
    return rows if channels == 1 else rows.reshape(height, width, channels)


def check_layout(message: Any, what: str, row_bytes: int) -> None:
    """Check that an image holds rows of at least `row_bytes` bytes of pixels.

    Raises:
        InputError: It is empty, its step is too small, or its bytes are too few.
    """
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise InputError(f"{what}: expected an image, got an empty one ({width}x{height})")
    if step < row_bytes:
        raise InputError(
            f"{what}: expected a step of {row_bytes} bytes or more for {width} {message.encoding} pixels, got {step}"
        )
    if len(message.data) < height * step:
        raise InputError(f"{what}: expected {height} rows of {step} bytes, got {len(message.data)} bytes in all")


def depth_array(message: Any, what: str) -> NDArray[np.float32]:
    """Depth (H, W) in metres of a decoded 32FC1 or 16UC1 (millimetres, 0 unknown) image; NaN or 0 where unknown.

    Raises:
        InputError: Another encoding, or as `image_view`.
    """
    if message.encoding not in ("32FC1", "16UC1"):
        raise InputError(f"{what}: expected a 32FC1 or 16UC1 depth image, got {message.encoding!r}")
    depth = image_view(message, what)
    return depth * MILLIMETRE if message.encoding == "16UC1" else depth


def rgb_array(message: Any, what: str) -> NDArray[np.uint8]:
    """Colours (H, W, 3), red first, of a decoded rgb8, bgr8 or mono8 image.

    Raises:
        InputError: Another encoding, or as `image_view`.
    """
    image = image_view(message, what)
    if image.dtype != np.uint8:
        raise InputError(f"{what}: expected an image of 8 bits a channel, got {message.encoding!r}")
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image[..., ::-1] if message.encoding == "bgr8" else image


def picture_array(message: Any, what: str) -> NDArray[np.uint8]:
    """A recorded picture in whatever encoding cameras send: (H, W, 3) with red first, or (H, W) of a grey one.

    Raises:
        InputError: An encoding that no camera sends, or as `check_layout`.
    """
    if message.encoding in PLAIN_ENCODINGS:
        image = image_view(message, what)
        return np.ascontiguousarray(image[..., ::-1] if message.encoding == "bgr8" else image)
    return converted(message, what, CvBridge())[0]


def converted(message: Any, what: str, bridge: Any) -> tuple[NDArray[np.uint8], str]:
    """An image of `CONVERTED_ENCODINGS` as rgb8, or mono16 as mono8, and which of the two.

    Args:
        message: The image.
        what: Its name, for messages.
        bridge: A cv_bridge, which converts it.

    Raises:
        InputError: An encoding that no camera sends, or as `check_layout`.
    """
    if message.encoding not in CONVERTED_ENCODINGS:
        known = ", ".join([*PLAIN_ENCODINGS, *CONVERTED_ENCODINGS])
        raise InputError(f"{what}: expected encoding {known}, got {message.encoding!r}")
    check_layout(message, what, message.width)
    target = "mono8" if message.encoding == "mono16" else "rgb8"
    try:
        return bridge.imgmsg_to_cv2(message, target), target
    except (TypeError, ValueError) as error:  # CvBridgeError is a TypeError
        raise InputError(f"{what}: {message.encoding} cannot be converted to {target}: {error}") from error
