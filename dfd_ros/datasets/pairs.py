"""A pair's pictures: matched to each other, checked, and brought to the samples' size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfd_ros.capture.matching import MotionError, match_pair
from dfd_ros.capture.registration import measure_gain
from dfd_ros.data.image_messages import picture_array
from dfd_ros.data.vehicle_messages import camera_from_info, lens_from_message
from dfd_ros.datasets.fit import fit_to
from dfd_ros.datasets.plan import Job
from dfd_ros.datasets.settings import BuildSettings, CheckSettings
from dfd_ros.errors import InputError
from dfd_ros.geometry import Camera
from dfd_ros.optics.lens import Lens
from dfd_ros.stamps import nanoseconds
from dfd_ros.tone import linear_grey

CLIPPED = 250
"""8-bit value from which a channel counts as clipped."""


class RejectedError(InputError):
    """Why nothing is made of a pair: in a word that is counted, and in a sentence."""

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(cause, why)
        self.cause, self.why = cause, why

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class MadePair:
    """
    Attributes:
        shallow, deep: (H, W) or (H, W, 3) uint8, red first, of the samples' size; the shallow one matched.
        shallow_stamp: Nanoseconds.
        gamma: Their encoding.
        gain: Factor that the shallow image's light was multiplied by.
        motion: Largest displacement between the two as taken, recorded pixels; NaN where not measured.
        compensated: Whether the shallow image was warped.
        exposure_times: Shallow and deep, seconds; NaN where not known.
        lens: Of these pictures; None where not known.
        camera: Of these pictures; None where not calibrated.
    """

    shallow: NDArray[np.uint8]
    deep: NDArray[np.uint8]
    shallow_stamp: int
    gamma: float
    gain: float
    motion: float
    compensated: bool
    exposure_times: tuple[float, float]
    lens: Lens | None
    camera: Camera | None


def recorded_pair(message: Any, settings: BuildSettings) -> MadePair:
    """The pair of a decoded dfd_msgs/ImagePair.

    Raises:
        RejectedError: It fails a check, or its pictures cannot be used.
    """
    shallow, deep = (_picture(image, what) for image, what in ((message.shallow, "shallow"), (message.deep, "deep")))
    _check_clipping(shallow, deep, settings.checks)
    motion, limit = float(message.motion), settings.pairs.max_motion
    if motion > limit:
        raise RejectedError("motion", f"expected {limit:g} px of motion or less, got {motion:.1f} px")
    lens = lens_from_message(message.lens)
    match = (float(message.shallow_gain), motion, bool(message.compensated))
    times = (float(message.shallow_exposure_time), float(message.deep_exposure_time))
    stamp = nanoseconds(message.shallow.header.stamp)
    return _finished(shallow, deep, stamp, float(message.gamma), match, times, lens, message.camera_info, settings)


def paired(shallow: Any, deep: Any, info: Any | None, job: Job, settings: BuildSettings) -> MadePair:
    """The pair of two decoded sensor_msgs/Image, matched as the pair node does.

    Raises:
        RejectedError: As `recorded_pair`.
    """
    pictures = _picture(shallow, "shallow"), _picture(deep, "deep")
    _check_size(*pictures)
    # Before matching: what was clipped as taken may no longer look so once darkened.
    _check_clipping(*pictures, settings.checks)
    try:
        match = match_pair(*pictures, settings.pairs.matching(settings.lens), job.light_ratio)
    except MotionError as error:
        raise RejectedError("motion", str(error)) from error
    except InputError as error:
        raise RejectedError("unmatched", str(error)) from error
    done = (match.gain, match.motion, match.compensated)
    stamp, gamma = nanoseconds(shallow.header.stamp), settings.pairs.gamma
    return _finished(match.shallow, pictures[1], stamp, gamma, done, job.exposure_times, settings.lens, info, settings)


def _finished(
    shallow: NDArray[np.uint8],
    deep: NDArray[np.uint8],
    shallow_stamp: int,
    gamma: float,
    match: tuple[float, float, bool],
    exposure_times: tuple[float, float],
    lens: Lens | None,
    info: Any | None,
    settings: BuildSettings,
) -> MadePair:
    gain, motion, compensated = match
    _check_size(shallow, deep)
    _check_exposure(shallow, deep, gamma, gain, settings.checks)
    try:
        fit = fit_to(deep.shape, settings.size)
        camera = _camera(info, deep.shape)
        return MadePair(
            fit.picture(shallow, gamma),
            fit.picture(deep, gamma),
            shallow_stamp,
            gamma,
            gain,
            motion,
            compensated,
            exposure_times,
            None if lens is None else fit.lens(lens),
            None if camera is None else fit.camera(camera),
        )
    except InputError as error:
        raise RejectedError("size", str(error)) from error


def _picture(message: Any, what: str) -> NDArray[np.uint8]:
    try:
        return picture_array(message, what)
    except InputError as error:
        raise RejectedError("bad_image", str(error)) from error


def _camera(info: Any | None, shape: tuple[int, ...]) -> Camera | None:
    """The camera of a camera_info; None for one of zeros, which says that it was not calibrated."""
    return None if info is None or not info.k[0] > 0.0 else camera_from_info(info, shape)


def _check_size(shallow: NDArray[np.uint8], deep: NDArray[np.uint8]) -> None:
    if shallow.shape != deep.shape:
        raise RejectedError("size", f"expected two pictures of one shape, got {shallow.shape} and {deep.shape}")


def _check_clipping(shallow: NDArray[np.uint8], deep: NDArray[np.uint8], checks: CheckSettings) -> None:
    for name, picture in (("shallow", shallow), ("deep", deep)):
        brightest = picture if picture.ndim == 2 else picture.max(axis=2)
        share = np.count_nonzero(brightest >= CLIPPED) / brightest.size
        if share > checks.max_saturated:
            why = f"expected {checks.max_saturated:.0%} of the {name} image clipped or less, got {share:.0%}"
            raise RejectedError("saturation", why)


def _check_exposure(
    shallow: NDArray[np.uint8], deep: NDArray[np.uint8], gamma: float, gain: float, checks: CheckSettings
) -> None:
    if not 1.0 / checks.max_gain <= gain <= checks.max_gain:
        why = f"expected a shallow image within {checks.max_gain:g} times the deep one's brightness, got {gain:.3g}"
        raise RejectedError("exposure", why)
    try:
        left = measure_gain(linear_grey(shallow, gamma), linear_grey(deep, gamma))
    except InputError as error:
        raise RejectedError("exposure", str(error)) from error
    if abs(math.log(left)) > math.log1p(checks.max_gain_error):
        why = f"expected the two images within {checks.max_gain_error:.0%} of one brightness, got {left - 1.0:+.0%}"
        raise RejectedError("exposure", why)
