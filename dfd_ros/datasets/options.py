"""The settings of `dfd dataset build` from what the command line says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from dfd_ros.capture.matching import MotionHandling
from dfd_ros.datasets.settings import BuildSettings, DepthSettings, PairSettings, SplitSettings
from dfd_ros.errors import InputError
from dfd_ros.geometry import parse_size
from dfd_ros.lidar.calibration import load_extrinsics
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file


def build_settings(
    *,
    size: str,
    topics: Sequence[str],
    lens: str,
    extrinsics: str,
    images: tuple[str, int],
    depth: tuple[str, str, bool],
    pairs: tuple[float, str, float],
    validation: float,
) -> BuildSettings:
    """Settings from text.

    Args:
        size: `WIDTHxHEIGHT`, or nothing.
        topics: `NAME=TOPIC`, the topic empty for one not to be used.
        lens, extrinsics: Files, by path or by their names in config/; or nothing.
        images: Format and quality.
        depth: Format, method, and whether it is the toolbox's own.
        pairs: Gamma, what is done about motion, and the largest of it in pixels.
        validation: Its share.

    Raises:
        InputError: One of them cannot be understood, or a file is missing or malformed.
    """
    choices: dict[str, Any] = {"image_format": images[0], "depth_format": depth[0], "motion": pairs[1]}
    if choices["motion"] not in get_args(MotionHandling):
        raise InputError(f"motion: expected one of {', '.join(get_args(MotionHandling))}, got {pairs[1]!r}")
    return BuildSettings(
        size=parse_size(size) if size else None,
        image_format=choices["image_format"],
        image_quality=images[1],
        depth_format=choices["depth_format"],
        topics=dict(map(parse_topic, topics)),
        lens=load_lens(config_file(lens)) if lens else None,
        extrinsics=load_extrinsics(config_file(extrinsics)) if extrinsics else None,
        pairs=PairSettings(gamma=pairs[0], motion=choices["motion"], max_motion=pairs[2]),
        depth=DepthSettings(method=depth[1], plain=depth[2]),
        split=SplitSettings(validation=validation),
    )


def parse_topic(text: str) -> tuple[str, str]:
    """Name and topic of `NAME=TOPIC`; raises InputError."""
    name, separator, topic = text.partition("=")
    if not separator:
        raise InputError(f"topic: expected NAME=TOPIC such as image_raw=/front/image, got {text!r}")
    return name, topic
