"""How a data set is made of bags; two with the same settings make the same bytes of the same bags."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dfd_ros.capture.matching import ExposureMatch, MatchSettings, MotionHandling
from dfd_ros.capture.pairing import StampAt
from dfd_ros.datasets.topics import check_mapping
from dfd_ros.errors import InputError
from dfd_ros.lidar.calibration import Extrinsics
from dfd_ros.lidar.colorize import ColorizeSettings
from dfd_ros.optics.lens import Lens

IMAGE_FORMATS = ("png", "jpeg", "webp")
DEPTH_FORMATS = ("png", "npy")
HASH_DIGITS = 16


@dataclass(frozen=True)
class PairSettings:
    """How frames become pairs, as in the pair node; times in seconds.

    Attributes:
        max_skew: Longest time between a pair's exposures.
        clock_tolerance: How far the clocks of camera and aperture may disagree.
        stamp_at: What an image's stamp marks of its exposure.
        exposure_times: Shallow and deep, where no exposure was recorded.
        gamma: Encoding of the images, value = light ** (1 / gamma).
        exposure_match, motion, max_motion: As in `MatchSettings`.
    """

    max_skew: float = 0.2
    clock_tolerance: float = 0.001
    stamp_at: StampAt = "start"
    exposure_times: tuple[float, float] = (0.001, 0.004)
    gamma: float = 2.2
    exposure_match: ExposureMatch = "measured"
    motion: MotionHandling = "compensate"
    max_motion: float = 8.0

    def matching(self, lens: Lens | None) -> MatchSettings:
        """How a pair of this lens is matched."""
        return MatchSettings(
            gamma=self.gamma,
            exposure=self.exposure_match,
            motion=self.motion,
            max_motion=self.max_motion,
            magnification=1.0 if lens is None else lens.magnification,
            keep_magnification=lens is not None and lens.parallax != 0.0,
        )


@dataclass(frozen=True)
class CheckSettings:
    """What a pair must be like.

    Attributes:
        max_gain: The shallow image may have been brightened or darkened so many times at most.
        max_gain_error: How far the two images' brightness may differ after that, as a fraction.
        max_saturated: Share of clipped pixels that either image may have.
        min_returns: LiDAR returns in view.
    """

    max_gain: float = 4.0
    max_gain_error: float = 0.05
    max_saturated: float = 0.25
    min_returns: int = 50


@dataclass(frozen=True)
class DepthSettings:
    """How a sweep becomes dense depth.

    Attributes:
        method: `nyu`, `exact` or `fast` (`lidar.colorize`).
        plain: The toolbox's own answer; otherwise 1/z, doubtful returns and steps of depth are heeded, as the vehicle does.
        min_confidence: Depth below it is left out, in [0, 1].
        max_depth: Returns beyond are left out, metres.
        max_skew: Longest time between sweep and deep image, seconds.
        deskew: Bring each point to the image's time where twist and the points' times were recorded.
        max_twist_skew: Longest time between twist and image, seconds.
    """

    method: str = "nyu"
    plain: bool = False
    min_confidence: float = 0.0
    max_depth: float = 120.0
    max_skew: float = 0.1
    deskew: bool = True
    max_twist_skew: float = 0.1

    def colorization(self) -> ColorizeSettings:
        """For one thread: the tasks are what runs side by side."""
        heed = not self.plain
        return ColorizeSettings(
            method=self.method,
            inverse_depth=heed,
            robust=heed,
            depth_edges=heed,
            min_confidence=self.min_confidence,
            threads=1,
        )


@dataclass(frozen=True)
class SplitSettings:
    """What is kept for validation.

    Attributes:
        validation: Share of the recorded time, 0 to 0.5.
        gap: A new scene begins after so many seconds without a pair.
        block: Scenes longer than this are cut into blocks, seconds.
        guard: Training pairs so near in time to validation, seconds, belong to neither.
    """

    validation: float = 0.1
    gap: float = 5.0
    block: float = 30.0
    guard: float = 1.0


@dataclass(frozen=True)
class BuildSettings:
    """
    Attributes:
        size: (width, height) of the samples, pixels; None: as recorded. What is too wide or too high is cut off evenly.
        image_format: `png`, `jpeg` or `webp`.
        image_quality: Of JPEG and WebP, 1 to 100.
        depth_format: `png` (16-bit millimetres) or `npy` (float16 metres).
        topics: Recorded topic by the vehicle's name for it (`topics`).
        lens: Of bags without recorded pairs; None: not known.
        extrinsics: Of the LiDAR; None: by the bag's /tf_static.
        pairs_per_task: How many pairs one task makes.
        pairs, checks, depth, split: See there.

    Raises:
        InputError: A value is out of range.
    """

    size: tuple[int, int] | None = None
    image_format: Literal["png", "jpeg", "webp"] = "png"
    image_quality: int = 95
    depth_format: Literal["png", "npy"] = "png"
    topics: dict[str, str] = field(default_factory=dict)
    lens: Lens | None = None
    extrinsics: Extrinsics | None = None
    pairs_per_task: int = 64
    pairs: PairSettings = PairSettings()
    checks: CheckSettings = CheckSettings()
    depth: DepthSettings = DepthSettings()
    split: SplitSettings = SplitSettings()

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"size: expected a positive width and height, got {self.size[0]}x{self.size[1]}")
        if self.image_format not in IMAGE_FORMATS:
            raise InputError(f"image format: expected one of {', '.join(IMAGE_FORMATS)}, got {self.image_format!r}")
        if self.depth_format not in DEPTH_FORMATS:
            raise InputError(f"depth format: expected one of {', '.join(DEPTH_FORMATS)}, got {self.depth_format!r}")
        if not 1 <= self.image_quality <= 100:
            raise InputError(f"image quality: expected 1 to 100, got {self.image_quality}")
        if self.pairs_per_task < 1:
            raise InputError(f"pairs per task: expected 1 or more, got {self.pairs_per_task}")
        if not 0.0 <= self.split.validation <= 0.5:
            raise InputError(f"validation: expected a share of 0 to 0.5, got {self.split.validation:g}")
        if min(self.split.gap, self.split.block) <= 0.0 or self.split.guard < 0.0:
            raise InputError("gap, block and guard: expected positive seconds, got others")
        check_mapping(self.topics)
        self.depth.colorization()

    def content(self) -> dict[str, Any]:
        """All of it as plain values, lens and extrinsics by what they say and not where it stands."""
        content = {key: value for key, value in asdict(self).items() if key not in ("lens", "extrinsics")}
        content["lens"] = None if self.lens is None else plain_lens(self.lens)
        content["extrinsics"] = None
        if self.extrinsics is not None:
            pose = self.extrinsics.camera_from_lidar
            content["extrinsics"] = {
                "camera_frame": self.extrinsics.camera_frame,
                "lidar_frame": self.extrinsics.lidar_frame,
                "rotation": pose.rotation.tolist(),
                "translation": pose.translation.tolist(),
            }
        return content

    def digest(self) -> str:
        """The hash of `content`."""
        text = json.dumps(self.content(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def plain_lens(lens: Lens) -> dict[str, Any]:
    """The fields of a lens less those not known."""
    return {k: v for k, v in asdict(lens).items() if not (isinstance(v, float) and math.isnan(v))}
