"""What the depth node publishes of an estimate, in messages that are made once for a size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dfd_ros.nodes.convert import ImageBuffer
from dfd_ros.optics.estimate import DepthEstimate

METRES, MILLIMETRES = "32FC1", "16UC1"
"""Encodings of depth (REP 118): float32 metres with NaN unknown, uint16 millimetres with 0 unknown."""
_MOST_MILLIMETRES = np.float32(65535.0)


@dataclass(frozen=True)
class DepthLimits:
    """What is published as unknown: depth beyond `max_range` metres or below `min_confidence`."""

    max_range: float
    min_confidence: float


class DepthOutputs:
    """Depth and confidence as messages for one size of pictures.

    Attributes:
        metres: Depth as limited, (H, W) float32, NaN unknown.

    Args:
        shape: Height and width.
        encoding: `METRES` or `MILLIMETRES`.
    """

    def __init__(self, shape: tuple[int, int], encoding: str) -> None:
        self.shape = shape
        self._depth, self._confidence = ImageBuffer(shape, encoding), ImageBuffer(shape, METRES)
        self._millimetres = encoding == MILLIMETRES
        self.metres: NDArray[np.float32] = np.empty(shape, np.float32) if self._millimetres else self._depth.pixels
        self._scaled = np.empty(shape, np.float32) if self._millimetres else None
        self._unknown = np.empty(shape, bool)

    def take(self, estimate: DepthEstimate, limits: DepthLimits) -> None:
        """Write the estimate into the messages, as far as it is within the limits."""
        np.copyto(self.metres, estimate.depth)
        np.copyto(self._confidence.pixels, estimate.confidence)
        unknown = np.greater(self.metres, np.float32(limits.max_range), out=self._unknown)
        np.copyto(self.metres, np.float32(np.nan), where=unknown)
        if limits.min_confidence > 0.0:
            np.less(estimate.confidence, np.float32(limits.min_confidence), out=unknown)
            np.copyto(self.metres, np.float32(np.nan), where=unknown)
        if self._scaled is not None:
            np.rint(np.multiply(self.metres, np.float32(1e3), out=self._scaled), out=self._scaled)
            known = np.less_equal(self._scaled, _MOST_MILLIMETRES, out=self._unknown)  # NaN is not
            np.copyto(self._scaled, np.float32(0.0), where=np.logical_not(known, out=known))
            np.copyto(self._depth.pixels, self._scaled, casting="unsafe")

    def depth(self, header: Header) -> Image:
        """The depth's message, good until the next `take`."""
        return self._depth.stamped(header)

    def confidence(self, header: Header) -> Image:
        """The confidence's, likewise."""
        return self._confidence.stamped(header)


def colour_depth(depth: NDArray[np.float32], near: float, far: float) -> NDArray[np.uint8]:
    """Depth as RGB, near red and far blue, even in inverse depth between the two (metres); unknown is black."""
    nearest, farthest = 1.0 / near, 1.0 / far
    with np.errstate(divide="ignore", invalid="ignore"):
        level = (1.0 / depth - farthest) * (255.0 / (nearest - farthest))
    known = np.isfinite(level)
    level8 = np.where(known, np.clip(level, 0.0, 255.0), 0.0).astype(np.uint8)
    colours = cv2.applyColorMap(level8, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(known[..., None], colours, np.uint8(0))
