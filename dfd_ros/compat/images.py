"""Stand-in for cv_bridge: image messages to arrays and back, with the conversions between what cameras send.

Arrays are (H, W) for one channel and (H, W, C) for more, in the machine's byte order. Encodings are those of
sensor_msgs/image_encodings: mono, rgb, bgr, rgba, bgra and bayer_* with 8 or 16 bits, the two orders of packed YUV
4:2:2 under their old and new names, and OpenCV's types such as 32FC1.

cv_bridge itself (as of 3.4) also casts bare OpenCV types to one another, unscaled. It differs where it fails: it
misreads rows whose `step` is no multiple of the pixel, returns a narrower image where `step` is too short, raises
AttributeError on big-endian images under numpy 2, and does not know the names `uyvy` and `yuyv`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # what is recorded is read where there is no ROS
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

PASSTHROUGH = "passthrough"

_CHANNELS = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
_BAYER = ("rggb", "bggr", "gbrg", "grbg")  # the top left 2x2 pixels, row by row
_YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2"}  # encoding to OpenCV's FourCC
_CV_TYPES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
_CV_NAMES = {np.dtype(code): name for name, code in _CV_TYPES.items()}
_CV_TYPE = re.compile(f"({'|'.join(_CV_TYPES)})(?:C([0-9]+))?")
_SCALE_8_TO_16 = 65535 // 255


class CvBridgeError(TypeError):
    """An image that cannot be converted (a TypeError, as cv_bridge's own)."""


@dataclass(frozen=True)
class _Encoding:
    """What an encoding's name means; `colour` names OpenCV's colour space, or is None for a bare OpenCV type."""

    dtype: np.dtype[Any]
    channels: int
    colour: str | None = None


def _known_encodings() -> dict[str, _Encoding]:
    known = {name: _Encoding(np.dtype(np.uint8), 2, f"YUV_{fourcc}") for name, fourcc in _YUV.items()}
    for bits, dtype in ((8, np.dtype(np.uint8)), (16, np.dtype(np.uint16))):
        for name, channels in _CHANNELS.items():
            known[f"{name}{bits}"] = _Encoding(dtype, channels, "GRAY" if name == "mono" else name.upper())
        for pattern in _BAYER:
            known[f"bayer_{pattern}{bits}"] = _Encoding(dtype, 1, f"Bayer{pattern.upper()}")
    return known


_ENCODINGS = _known_encodings()


class CvBridge:
    """Converts between sensor_msgs/Image and arrays."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = PASSTHROUGH) -> NDArray[Any]:
        """The pixels of an image message in `desired_encoding`.

        With `passthrough` the array is a view of the message where its rows are not padded and its byte order is the
        machine's; otherwise it is a new one. 8 and 16 bit values are scaled into each other's full range.

        Raises:
            CvBridgeError: An encoding is unknown, there is no conversion, or step, size and data do not fit.
        """
        source = _encoding(img_msg.encoding)
        pixels = _pixels(img_msg, source)
        if desired_encoding == PASSTHROUGH:
            return pixels
        if desired_encoding == img_msg.encoding:
            return pixels.copy()
        target = _encoding(desired_encoding)
        if target.colour is None and (source.dtype, source.channels) == (target.dtype, target.channels):
            return pixels.copy()
        if source.colour is None or target.colour is None:
            raise CvBridgeError(f"no conversion from {img_msg.encoding} to {desired_encoding}")
        if source.colour != target.colour:
            code = getattr(cv2, _conversion(source.colour, target.colour), None)
            if code is None:
                raise CvBridgeError(f"no conversion from {img_msg.encoding} to {desired_encoding}")
            failure = f"cannot convert {img_msg.width}x{img_msg.height} {img_msg.encoding} to {desired_encoding}"
            if source.colour.startswith("YUV_") and img_msg.width % 2:  # some OpenCVs take it, and return garbage
                raise CvBridgeError(f"{failure}: two pixels share their colour, so the width must be even")
            try:
                pixels = cv2.cvtColor(pixels, code)
            except cv2.error as error:  # such as a Bayer image of one row
                raise CvBridgeError(f"{failure}: {error.err}") from error
        return _with_depth(pixels, target.dtype)

    def cv2_to_imgmsg(self, cvim: NDArray[Any], encoding: str = PASSTHROUGH, header: Header | None = None) -> Image:
        """An image message of an array; `passthrough` names its OpenCV type, such as 8UC3.

        Raises:
            CvBridgeError: The encoding is unknown, or the array is not of its type or number of channels.
        """
        if not isinstance(cvim, np.ndarray) or cvim.ndim not in (2, 3) or 0 in cvim.shape:
            shape = getattr(cvim, "shape", type(cvim).__name__)
            raise CvBridgeError(f"expected an array (H, W) or (H, W, C), got {shape}")
        dtype = cvim.dtype.newbyteorder("=")
        channels = cvim.shape[2] if cvim.ndim == 3 else 1
        if dtype not in _CV_NAMES:
            raise CvBridgeError(f"expected an array of {', '.join(map(str, _CV_NAMES))}, got {cvim.dtype}")
        cv_type = f"{_CV_NAMES[dtype]}C{channels}"
        if encoding != PASSTHROUGH:
            wanted = _encoding(encoding)
            if (wanted.dtype, wanted.channels) != (dtype, channels):
                raise CvBridgeError(
                    f"encoding {encoding} needs {_CV_NAMES[wanted.dtype]}C{wanted.channels}, got an array of {cv_type}"
                )
        from sensor_msgs.msg import Image

        rows = np.ascontiguousarray(cvim).reshape(len(cvim), -1)
        message = Image(height=cvim.shape[0], width=cvim.shape[1], step=rows.strides[0])
        message.encoding = cv_type if encoding == PASSTHROUGH else encoding
        message.is_bigendian = int(rows.dtype.str.startswith(">"))
        message.data.frombytes(rows.reshape(-1).view(np.uint8))
        if header is not None:
            message.header = header
        return message


def _encoding(name: str) -> _Encoding:
    if name in _ENCODINGS:
        return _ENCODINGS[name]
    match = _CV_TYPE.fullmatch(name)
    if match is None:
        raise CvBridgeError(f"expected an encoding of sensor_msgs/image_encodings, got {name!r}")
    return _Encoding(np.dtype(_CV_TYPES[match[1]]), int(match[2] or 1))


def _pixels(message: Image, encoding: _Encoding) -> NDArray[Any]:
    """The message's own pixels, contiguous and in the machine's byte order."""
    height, width, step = message.height, message.width, message.step
    dtype = encoding.dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixel_bytes = dtype.itemsize * encoding.channels
    if step < width * pixel_bytes:
        raise CvBridgeError(
            f"expected a step of {width * pixel_bytes} bytes or more for {width} {message.encoding} pixels, got {step}"
        )
    if len(message.data) < height * step:
        raise CvBridgeError(f"expected {height} rows of {step} bytes, got {len(message.data)} bytes")
    shape, strides = (height, width, encoding.channels), (step, pixel_bytes, dtype.itemsize)
    view = np.ndarray(shape, dtype, message.data, strides=strides)
    pixels = np.ascontiguousarray(view, dtype=encoding.dtype)
    return pixels[..., 0] if encoding.channels == 1 else pixels


def _conversion(source: str, target: str) -> str:
    """The name of OpenCV's constant for a conversion between two colour spaces; there need not be one."""
    if target.startswith("YUV_") or (source.startswith("Bayer") and target.endswith("A")):
        return ""  # newer OpenCVs can, cv_bridge does not
    if source.startswith("YUV_"):
        return f"COLOR_YUV2{target}_{source.removeprefix('YUV_')}"
    return f"COLOR_{source}2{target}"


def _with_depth(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Scale between the full ranges of 8 and 16 bits, to the nearest."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint16:
        return np.multiply(pixels, _SCALE_8_TO_16, dtype=np.uint16)
    return cv2.convertScaleAbs(pixels, alpha=1.0 / _SCALE_8_TO_16)
