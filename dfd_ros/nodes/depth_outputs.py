"""What the depth node publishes of an estimate, in messages that are made once for a size.

Each message is good until the next of its kind is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dfd_ros.nodes.convert import ImageBuffer
from dfd_ros.optics.estimate import DepthEstimate

METRES, MILLIMETRES = "32FC1", "16UC1"
"""Encodings of depth (REP 118): float32 metres with NaN unknown, uint16 millimetres with 0 unknown."""
COLOURS = {
    "turbo": cv2.COLORMAP_TURBO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "magma": cv2.COLORMAP_MAGMA,
    "inferno": cv2.COLORMAP_INFERNO,
    "cividis": cv2.COLORMAP_CIVIDIS,
}
"""Of previews, by name; from far to near."""
_MOST_MILLIMETRES = np.float32(65535.0)


@dataclass(frozen=True)
class DepthLimits:
    """What is published as unknown: depth beyond `max_range` metres or below `min_confidence`."""

    max_range: float
    min_confidence: float


class DepthOutputs:
    """Depth, confidence and pictures as messages for one size of pictures.

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
        self._preview, self._all_in_focus = (ImageBuffer(shape, "rgb8") for _ in range(2))
        self._level, self._level8 = np.empty(shape, np.float32), np.empty(shape, np.uint8)

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
        """Depth as it was taken."""
        return self._depth.stamped(header)

    def confidence(self, header: Header) -> Image:
        """Confidence, likewise."""
        return self._confidence.stamped(header)

    def preview(self, near: float, far: float, colours: str, header: Header) -> Image:
        """Depth in one of `COLOURS`, even in inverse depth from far to near (metres); unknown is black."""
        farthest = np.float32(1.0 / far)
        nearest = max(np.float32(1.0 / near), np.float32(1.001) * farthest)  # a range may be empty
        level = np.divide(np.float32(1.0), self.metres, out=self._level)
        level -= farthest
        level *= np.float32(254.0) / (nearest - farthest)
        np.clip(level, 0.0, 254.0, out=level)
        level += np.float32(1.0)  # 0 is unknown
        np.copyto(level, np.float32(0.0), where=np.isnan(self.metres, out=self._unknown))
        np.copyto(self._level8, level, casting="unsafe")
        cv2.applyColorMap(self._level8, _rgb_table(colours), dst=self._preview.pixels)
        return self._preview.stamped(header)

    def all_in_focus(self, planes: NDArray[np.float32], header: Header) -> Image:
        """The picture all in focus, of RGB planes (3, H, W) about [0, 1]."""
        for channel, plane in enumerate(planes):
            np.multiply(plane, np.float32(255.0), out=self._level)
            np.clip(np.rint(self._level, out=self._level), 0.0, 255.0, out=self._level)
            np.copyto(self._all_in_focus.pixels[..., channel], self._level, casting="unsafe")
        return self._all_in_focus.stamped(header)


@cache
def _rgb_table(colours: str) -> NDArray[np.uint8]:
    """256 colours, (256, 1, 3), the first one black."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), COLOURS[colours])[..., ::-1].copy()
    table[0] = 0
    return table
