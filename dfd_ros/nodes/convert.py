"""Between messages and arrays or plain records. Images are viewed, not copied, wherever the message allows."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from dfd_msgs.msg import ApertureState, LensInfo
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dfd_ros.capture.aperture import ApertureReport, Mode
from dfd_ros.compat.cv_bridge import CvBridge
from dfd_ros.data.image_messages import ENCODINGS, PLAIN_ENCODINGS, converted, image_view
from dfd_ros.data.vehicle_messages import camera_from_info
from dfd_ros.geometry import Camera
from dfd_ros.optics.lens import Lens
from dfd_ros.stamps import NANOSECONDS

_BRIDGE = CvBridge()


def time_message(time: int) -> Time:
    """Integer nanoseconds as a stamp."""
    sec, nanosec = divmod(time, NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def colour_or_grey(message: Image, what: str) -> Image:
    """The image itself if it is rgb8, bgr8 or mono8, else its conversion to rgb8 (mono16: mono8) by cv_bridge.

    Raises:
        InputError: Empty, of an encoding that no camera sends, or with a step or size that does not fit.
    """
    if message.encoding in PLAIN_ENCODINGS:
        image_view(message, what)
        return message
    array, encoding = converted(message, what, _BRIDGE)
    return image_message(array, encoding, message.header)


def grey_array(message: Image) -> NDArray[np.float32]:
    """The encoded luma of an rgb8, bgr8 or mono8 image, (H, W) float32 in [0, 1], as colorization takes it."""
    array = image_view(message, "image")
    if array.ndim == 3:
        code = cv2.COLOR_BGR2GRAY if message.encoding == "bgr8" else cv2.COLOR_RGB2GRAY
        array = cv2.cvtColor(array, code)
    return array.astype(np.float32) * np.float32(1.0 / 255.0)


def image_message(array: NDArray[Any], encoding: str, header: Header) -> Image:
    """An image message of an array (H, W) or (H, W, C)."""
    array = np.ascontiguousarray(array)
    message = Image(header=header, height=array.shape[0], width=array.shape[1], encoding=encoding)
    message.step = array.strides[0]
    message.data.frombytes(array.reshape(-1).view(np.uint8))
    return message


class ImageBuffer:
    """An image message whose pixels are written in place, picture after picture; publishing copies them.

    Args:
        shape: Height and width.
        encoding: One of `ENCODINGS`.
    """

    def __init__(self, shape: tuple[int, int], encoding: str) -> None:
        code, channels = ENCODINGS[encoding]
        pixels = np.zeros(shape if channels == 1 else (*shape, channels), code)
        self.message = image_message(pixels, encoding, Header())
        self.pixels = image_view(self.message, encoding)

    def stamped(self, header: Header) -> Image:
        """The message with this header."""
        self.message.header = header
        return self.message


def resized_info(info: CameraInfo, shape: tuple[int, int], image: tuple[int, int]) -> CameraInfo:
    """The CameraInfo of a camera's image after it was resized to `shape` (height, width).

    Args:
        info: The camera's, with its region of interest and binning.
        shape: The size wanted.
        image: The size as it came.

    Raises:
        InputError: The info is not of such an image.
    """
    resized = CameraInfo(header=info.header, height=shape[0], width=shape[1], distortion_model=info.distortion_model)
    resized.d, resized.r = info.d, info.r
    if info.k[0] > 0.0 and info.k[4] > 0.0:  # else not calibrated, and it stays so
        K = np.asarray(info.k).reshape(3, 3)
        small = camera_from_info(info, image).resized(shape[1], shape[0]).matrix
        small[0, 1] = K[0, 1] * small[0, 0] / K[0, 0]
        # What the pixels went through, the projection went through, too.
        P = small @ np.linalg.inv(K) @ np.asarray(info.p).reshape(3, 4)
        resized.k, resized.p = small.reshape(-1).tolist(), P.reshape(-1).tolist()
    return resized


def info_from_camera(camera: Camera, header: Header) -> CameraInfo:
    """The CameraInfo of a camera."""
    info = CameraInfo(header=header, height=camera.height, width=camera.width)
    info.distortion_model = camera.distortion_model
    info.d = list(camera.distortion) or [0.0] * 5
    info.k = camera.matrix.reshape(-1).tolist()
    info.r = np.eye(3).reshape(-1).tolist()
    info.p = np.hstack([camera.matrix, np.zeros((3, 1))]).reshape(-1).tolist()
    return info


def lens_message(lens: Lens) -> LensInfo:
    """A lens as message."""
    return LensInfo(**{name: getattr(lens, name) for name in LensInfo.get_fields_and_field_types()})


def report_message(report: ApertureReport, f_number: float, mode: Mode, frame_id: str) -> ApertureState:
    """An aperture report as message."""
    message = ApertureState(
        index=int(report.aperture),
        f_number=f_number,
        transition_start=time_message(report.transition_start),
        settled_at=time_message(report.settled_at),
        mode=int(mode),
        transitions=report.transitions,
        fault=report.fault,
    )
    message.header.stamp = time_message(report.known_until)
    message.header.frame_id = frame_id
    return message
