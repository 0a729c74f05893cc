"""Plain records out of the vehicle's messages, live or recorded: camera, lens and aperture."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dfd_ros.capture.aperture import Aperture, ApertureReport
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera
from dfd_ros.optics.lens import Lens
from dfd_ros.stamps import nanoseconds


def camera_from_info(info: Any, shape: tuple[int, ...]) -> Camera:
    """The camera of a sensor_msgs/CameraInfo, for an image of `shape` (height, width): cropped, binned and resized as it was.

    The CameraInfo describes the sensor at full resolution, its `roi` and `binning` what the image shows of it
    (`Camera.for_image`).

    Raises:
        InputError: It is all zeros (not calibrated), or the image is neither of the size it tells nor a rescale of that.
    """
    K, roi = info.k, info.roi
    if not (K[0] > 0 and K[4] > 0):
        raise InputError(f"camera_info: expected positive focal lengths, got fx={K[0]:g}, fy={K[4]:g} (not calibrated)")
    camera = Camera(
        width=info.width,
        height=info.height,
        fx=float(K[0]),
        fy=float(K[4]),
        cx=float(K[2]),
        cy=float(K[5]),
        distortion=tuple(float(d) for d in info.d),
        distortion_model=info.distortion_model or "plumb_bob",
    )
    # Zero means all of the image, and no binning.
    part = (roi.x_offset, roi.y_offset, roi.width, roi.height) if roi.width and roi.height else None
    return camera.for_image((shape[0], shape[1]), part, (info.binning_x or 1, info.binning_y or 1))


def lens_from_message(message: Any) -> Lens:
    """The lens of a dfd_msgs/LensInfo; what a message of an earlier version does not tell is as by default.

    Raises:
        InputError: A field is missing (zero) or out of range.
    """
    return Lens(**{field.name: getattr(message, field.name) for field in fields(Lens) if hasattr(message, field.name)})


def report_from_message(message: Any) -> ApertureReport:
    """The aperture report of a dfd_msgs/ApertureState.

    Raises:
        InputError: The index is neither shallow nor deep, or it settled before it began.
    """
    if message.index not in (Aperture.SHALLOW, Aperture.DEEP):
        raise InputError(f"aperture/state: expected index 0 (shallow) or 1 (deep), got {message.index}")
    start, settled = nanoseconds(message.transition_start), nanoseconds(message.settled_at)
    if settled < start:
        raise InputError(
            f"aperture/state: expected settled_at after transition_start, got {start - settled} ns before it"
        )
    return ApertureReport(
        Aperture(message.index), start, settled, nanoseconds(message.header.stamp), message.transitions, message.fault
    )
