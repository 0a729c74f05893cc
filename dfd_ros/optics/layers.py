"""A picture cut into layers by depth: the samples that a defocus renderer spreads, in the order it wants them.

Signed CoC is linear in inverse depth, so layers of equal steps of inverse depth are of equal steps of CoC, whatever the
focus. Samples lie in a frame: the picture with a margin that repeats its border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.optics.occlusion import Sources, take_apart

LAYER_COC_STEP = 1.0
"""CoC difference between neighbouring layers, pixels: half of it is the most that occlusion can be off."""
MAX_LAYERS = 40
HIDING_LAYERS = 2
"""A layer hides those so many steps behind it or more; nearer ones may be the same slanted surface."""


class Samples(NamedTuple):
    """Points that lend light: layer by layer, nearest first, in a layer row by row of the frame.

    Attributes:
        first: (layers · rows + 1,) int32, the first sample of each row of each layer.
        column: (n,) int32, in the frame; it does not fall within a row.
        source: (n,) int32, which of the sources lies there.
    """

    first: NDArray[np.int32]
    column: NDArray[np.int32]
    source: NDArray[np.int32]


@dataclass(frozen=True)
class Layers:
    """A cut picture: how many layers, the margin of the frame in pixels, the samples and what they lend."""

    count: int
    margin: int
    visible: Samples
    visible_sources: Sources
    hidden: Samples
    hidden_sources: Sources


def cut(
    image: NDArray[np.float32],
    inverse_depth: NDArray[np.float32],
    coc: NDArray[np.float32],
    slope: float,
    margin: int,
    lends: NDArray[np.bool_] | None = None,
) -> Layers:
    """Cut a picture into layers.

    Args:
        image: (H, W, 3) float32.
        inverse_depth: (H, W), 1/m.
        coc: The largest CoC that each pixel has in any of the pictures to render, (H, W), pixels.
        slope: Largest change of CoC with inverse depth in any of them, pixels · m.
        margin: Width of the frame's margin, pixels: the reach of the largest kernel.
        lends: Pixels whose colour is known, (H, W); None for all.
    """
    near, far = float(inverse_depth.max()), float(inverse_depth.min())
    count = int(np.clip(math.ceil(slope * (near - far) / LAYER_COC_STEP), 1, MAX_LAYERS))
    # A trifle more, so that the farthest pixel falls into the last layer; never 0.
    per_layer = max((1.0 + 1e-6) * (near - far) / count, float(np.finfo(np.float32).tiny))
    gap = HIDING_LAYERS * per_layer if count > HIDING_LAYERS else math.inf
    visible, share, hidden, behind = take_apart(image, inverse_depth, coc, lends, gap)
    pixels = np.arange(coc.size, dtype=np.int32).reshape(coc.shape)
    return Layers(
        count,
        margin,
        Samples(*_sort(np.stack([pixels, share]), visible.inverse_depth, count, near, per_layer, margin)),
        visible,
        Samples(*_sort(behind[None], hidden.inverse_depth, count, near, per_layer, margin)),
        hidden,
    )


@njit(cache=True, nogil=True)
def _sort(sources, inverse_depth, count, near, per_layer, margin):  # type: ignore[no-untyped-def]
    """Counting sort of the frame's samples; `sources` (n, H, W) are the sources at each pixel, -1 for none."""
    height, width = sources.shape[1:]
    rows, columns = height + 2 * margin, width + 2 * margin
    layer = np.empty(len(inverse_depth), np.uint8)
    for i in range(len(layer)):
        layer[i] = np.uint8(min((np.float32(near) - inverse_depth[i]) / np.float32(per_layer), np.float32(count - 1)))
    counts = np.zeros((count, rows), np.int32)
    for y in range(rows):
        row = min(max(y - margin, 0), height - 1)
        for which in range(len(sources)):
            for x in range(columns):
                source = sources[which, row, min(max(x - margin, 0), width - 1)]
                if source >= 0:
                    counts[layer[source], y] += 1
    first = np.zeros(counts.size + 1, np.int32)
    first[1:] = np.cumsum(counts.ravel())
    place = first[:-1].copy().reshape(count, rows)
    column, sorted_source = np.empty(first[-1], np.int32), np.empty(first[-1], np.int32)
    for y in range(rows):
        row = min(max(y - margin, 0), height - 1)
        for x in range(columns):
            for which in range(len(sources)):
                source = sources[which, row, min(max(x - margin, 0), width - 1)]
                if source >= 0:
                    i = place[layer[source], y]
                    place[layer[source], y] = i + 1
                    column[i] = x
                    sorted_source[i] = source
    return first, column, sorted_source
