"""A pair's shallow image brought to the exposure and the place of its deep image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dfd_ros.capture.fine_registration import refine_motion
from dfd_ros.capture.registration import Motion, measure_gain, register_pair, warp
from dfd_ros.errors import InputError
from dfd_ros.tone import apply_gain, linear_grey

ExposureMatch = Literal["measured", "nominal", "off"]
MotionHandling = Literal["compensate", "refuse", "ignore"]

# A gain below this is within what the estimator takes without harm, so the pixels stay as they are.
NEGLIGIBLE_GAIN = 0.005
# Likewise for motion, pixels: resampling costs more sharpness than it wins.
NEGLIGIBLE_MOTION = 0.05
# Below this registration quality nothing in the image told of the motion.
MIN_REGISTRATION_QUALITY = 0.1


class MotionError(InputError):
    """The two images of a pair show too different places."""


@dataclass(frozen=True)
class MatchSettings:
    """
    Attributes:
        gamma: Encoding of both images, value = light ** (1 / gamma).
        exposure: Where the gain comes from: the images, the cameras' settings, or nowhere.
        motion: What is done about motion.
        max_motion: Largest displacement of a pixel that is compensated or let pass, pixels.
        magnification: Size of the shallow image over the deep one's that the lens is known to have. It is undone
            whatever is done about motion, and does not count as such.
        keep_magnification: Whether no other size is looked for in the images. A lens with parallax shows what is near
            in another size than what is far, which must not be undone; to tell this, the rest of the motion is measured
            more finely.
    """

    gamma: float = 2.2
    exposure: ExposureMatch = "measured"
    motion: MotionHandling = "compensate"
    max_motion: float = 8.0
    magnification: float = 1.0
    keep_magnification: bool = False


@dataclass(frozen=True)
class Match:
    """
    Attributes:
        shallow: The shallow image (H, W) or (H, W, 3) uint8, the very array that came where nothing had to be done.
        gain: Factor applied to its linear light.
        motion: Largest displacement of a pixel between the two as taken, pixels; NaN where not measured.
        scale: Size of the shallow image over the deep one's as measured; NaN where not.
        compensated: Whether it was warped.
    """

    shallow: NDArray[np.uint8]
    gain: float
    motion: float
    scale: float
    compensated: bool


def match_pair(
    shallow: NDArray[np.uint8], deep: NDArray[np.uint8], settings: MatchSettings, nominal_gain: float
) -> Match:
    """Match the shallow image to the deep one; both 8-bit, of one size.

    `nominal_gain` is the deep exposure's light over the shallow one's by f-number and exposure time, NaN if not known;
    it also serves where the images show nothing to measure a gain by.

    Raises:
        MotionError: A pixel moved by more than `max_motion`.
    """
    grey_shallow, grey_deep = (linear_grey(image, settings.gamma) for image in (shallow, deep))
    gain = _gain(grey_shallow, grey_deep, settings, nominal_gain)
    lens = Motion(scale=settings.magnification)
    applied, motion, scale = lens, math.nan, math.nan
    if settings.motion != "ignore":
        measured = register_pair(grey_shallow, grey_deep, lens.scale if settings.keep_magnification else None)
        if measured.quality >= MIN_REGISTRATION_QUALITY:
            if settings.keep_magnification:
                measured = refine_motion(grey_shallow * np.float32(gain), grey_deep, measured)
            scale = measured.scale
            motion = replace(measured, scale=scale / lens.scale).largest_shift(grey_deep.shape)
            if motion > settings.max_motion:
                raise MotionError(
                    f"pair: expected {settings.max_motion:g} px of motion or less between its images, got {motion:.1f} px"
                )
            if settings.motion == "compensate":
                applied = measured
    compensated = applied.largest_shift(grey_deep.shape) > NEGLIGIBLE_MOTION
    if compensated:
        shallow = warp(shallow, applied)
    if abs(gain - 1.0) > NEGLIGIBLE_GAIN:
        shallow = apply_gain(shallow, gain, settings.gamma)
    else:
        gain = 1.0
    return Match(shallow, gain, motion, scale, compensated)


def _gain(
    shallow: NDArray[np.float32], deep: NDArray[np.float32], settings: MatchSettings, nominal_gain: float
) -> float:
    known = nominal_gain if math.isfinite(nominal_gain) else 1.0
    if settings.exposure == "off":
        return 1.0
    if settings.exposure == "nominal":
        return known
    try:
        return measure_gain(shallow, deep)
    except InputError:
        return known  # all black or all white: no picture tells its gain
