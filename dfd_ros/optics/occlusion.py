"""What an all-in-focus picture does not show at its depth steps: the parts of mixed pixels, and what is hidden.

A pixel on the edge of an object holds light of the object and of what is behind it, but has one depth. It is taken
apart into a near share and a far one, with colours from the nearest pixels that are not mixed (as trimaps are solved;
Wang & Cohen, "Image and Video Matting", 2007, section 2). Behind the edge the far surface goes on for as far as the
lens can look around it: its hidden samples (A*_k L*_k of Hasinoff & Kutulakos, ICCV 2007) are grown ring by ring from
the edge, each the mean of its neighbours (as in Telea, "An Image Inpainting Technique Based on the Fast Marching
Method", 2004).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

_NEAR_SIDE, _FAR_SIDE = 1, 2
_WINDOW = 2  # pixels around a mixed one in which its two colours are looked for
_LEAST_MIXING = 0.1  # mean share of the other side: 0 in a picture of point samples, 1/4 where pixels hold their area
_LEAST_CONTRAST = 1e-3  # of the colours' squares: below it the share is not read from the colour


class Sources(NamedTuple):
    """Where light comes from.

    Attributes:
        light: (n, 4) float32, colour times weight, and weight.
        inverse_depth: (n,) float32, 1/m.
        before: (n,) float32, inverse depth of what hides it; empty where nothing does.
        distance: (n,) float32, how far it is from what the picture shows of it, pixels; empty likewise.
    """

    light: NDArray[np.float32]
    inverse_depth: NDArray[np.float32]
    before: NDArray[np.float32]
    distance: NDArray[np.float32]


def take_apart(
    image: NDArray[np.float32],
    inverse_depth: NDArray[np.float32],
    coc: NDArray[np.float32],
    lends: NDArray[np.bool_] | None,
    gap: float,
) -> tuple[Sources, NDArray[np.int32], Sources, NDArray[np.int32]]:
    """What is visible and what is hidden.

    Args:
        image: (H, W, 3) float32.
        inverse_depth: (H, W), 1/m.
        coc: The largest CoC that each pixel will have, (H, W), pixels.
        lends: Pixels whose colour is known, (H, W); None for all.
        gap: Difference in inverse depth that makes a step, 1/m.

    Returns:
        The visible sources: the pixels, row by row, then the near shares of mixed pixels of the far side; which of the
        latter lies at each pixel, (H, W), -1 for none; the hidden sources; and which of them lies at each pixel.
    """
    height, width = inverse_depth.shape
    pixels, step = height * width, np.float32(gap)
    around = np.ones((3, 3), np.uint8)
    far_side = cv2.dilate(inverse_depth, around) - inverse_depth >= step
    near_side = inverse_depth - cv2.erode(inverse_depth, around) >= step
    side = np.where(far_side, np.uint8(_FAR_SIDE), near_side.view(np.uint8))
    mixed, edge = np.flatnonzero(side), np.flatnonzero(near_side)

    sources = np.empty((pixels + len(mixed), 4), np.float32)
    depths = np.empty(pixels + len(mixed), np.float32)
    light = sources[:pixels].reshape(height, width, 4)
    cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=light)
    depths[:pixels] = inverse_depth.reshape(-1)
    if lends is not None:
        light[~lends] = 0.0
    share = np.full((height, width), -1, np.int32)
    part, other, mixing = _measure_shares(light, inverse_depth, side, mixed, step)
    count = pixels
    if mixing > _LEAST_MIXING:
        count += _unmix(light, side, mixed, part, other, sources[pixels:], depths[pixels:], share)
    nothing = np.empty(0, np.float32)
    hidden, behind = _grow(light, inverse_depth, coc, edge, step)
    return Sources(sources[:count], depths[:count], nothing, nothing), share, Sources(*hidden), behind


@njit(cache=True, nogil=True)
def _measure_shares(light, inverse_depth, side, mixed, gap):  # type: ignore[no-untyped-def]
    """How much of each pixel's light is of the other surface, and that surface's colour and inverse depth.

    Also how mixed the picture is on the whole: the mean share, before it is clipped.
    """
    height, width = inverse_depth.shape
    share, other = np.zeros(len(mixed), np.float32), np.empty((len(mixed), 4), np.float32)
    sums = np.empty((2, 5), np.float32)  # of the other surface and the own: light times weight, weight, depth times it
    all_along, all_contrast = 0.0, 0.0
    for i in range(len(mixed)):
        y, x = mixed[i] // width, mixed[i] % width
        here, sign = inverse_depth[y, x], 1 if side[y, x] == _FAR_SIDE else -1
        sums[:] = 0.0
        for row in range(max(y - _WINDOW, 0), min(y + _WINDOW + 1, height)):
            for column in range(max(x - _WINDOW, 0), min(x + _WINDOW + 1, width)):
                step = inverse_depth[row, column] - here
                own = abs(step) < np.float32(0.5) * gap
                if side[row, column] == 0 and (own or sign * step >= gap):
                    weight = np.float32(1.0) / np.float32(((row - y) ** 2 + (column - x) ** 2) ** 2)
                    surface = sums[int(own)]
                    for c in range(4):
                        surface[c] += weight * light[row, column, c]
                    surface[4] += weight * light[row, column, 3] * inverse_depth[row, column]
        if sums[0, 3] == 0.0 or sums[1, 3] == 0.0 or light[y, x, 3] == 0.0:
            continue
        along, contrast, scale = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for c in range(3):
            other[i, c], own_colour = sums[0, c] / sums[0, 3], sums[1, c] / sums[1, 3]
            along += (light[y, x, c] - own_colour) * (other[i, c] - own_colour)
            contrast += (other[i, c] - own_colour) ** 2
            scale += other[i, c] ** 2 + own_colour**2
        other[i, 3] = sums[0, 4] / sums[0, 3]
        if contrast > np.float32(_LEAST_CONTRAST) * scale:
            # The pixel's centre, where its depth was measured, is on its own side.
            share[i] = min(max(along / contrast, np.float32(0.0)), np.float32(0.5))
            all_along += along
            all_contrast += contrast
    return share, other, all_along / max(all_contrast, 1e-30)


@njit(cache=True, nogil=True)
def _unmix(light, side, mixed, share, other, extra, extra_depth, near_share):  # type: ignore[no-untyped-def]
    """Leave mixed pixels the light of their own surface; add the near shares of those of the far side; how many."""
    height, width = side.shape
    found = 0
    for i in range(len(mixed)):
        y, x, part = mixed[i] // width, mixed[i] % width, share[i]
        if part == 0.0:
            continue
        for c in range(3):
            light[y, x, c] -= part * other[i, c]
        if side[y, x] == _NEAR_SIDE:
            light[y, x, 3] = np.float32(1.0) - part
            continue
        for c in range(3):
            light[y, x, c] /= np.float32(1.0) - part  # the far surface goes on behind
            extra[found, c] = part * other[i, c]
        extra[found, 3], extra_depth[found] = part, other[i, 3]
        near_share[y, x] = height * width + found
        found += 1
    return found


@njit(cache=True, nogil=True)
def _grow(light, inverse_depth, coc, edge, gap):  # type: ignore[no-untyped-def]
    """Grow the far surfaces behind the near ones, ring by ring from the pixels at an edge."""
    height, width = inverse_depth.shape
    behind = np.full((height, width), -1, np.int32)
    # Rooms for as many as there are pixels: what is not written costs nothing.
    room = height * width if len(edge) else 0
    colour, depth = np.empty((room, 4), np.float32), np.empty(room, np.float32)
    before, distance, blur = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, np.float32)
    place, ring = np.empty(room, np.int32), np.empty(room, np.int32)
    waiting = np.zeros((height, width), np.bool_)
    ring[: len(edge)] = edge
    length, done = len(edge), 0
    while length:
        start = done
        for i in range(length):
            y, x = ring[i] // width, ring[i] % width
            nearest, beyond, its_coc = np.float32(np.inf), np.float32(0.0), np.float32(0.0)
            for row in range(max(y - 1, 0), min(y + 2, height)):
                for column in range(max(x - 1, 0), min(x + 2, width)):
                    step = np.float32(math.sqrt((row - y) ** 2 + (column - x) ** 2))
                    k = behind[row, column]
                    if inverse_depth[y, x] - inverse_depth[row, column] >= gap:
                        if step < nearest:
                            nearest, beyond, its_coc = step, inverse_depth[row, column], coc[row, column]
                    elif 0 <= k < start and inverse_depth[y, x] - depth[k] >= gap and distance[k] + step < nearest:
                        nearest, beyond, its_coc = distance[k] + step, depth[k], blur[k]
            if not nearest <= np.float32(0.5) * (its_coc + coc[y, x]) + np.float32(1.0):
                continue
            for c in range(4):
                colour[done, c] = 0.0
            for row in range(max(y - 1, 0), min(y + 2, height)):
                for column in range(max(x - 1, 0), min(x + 2, width)):
                    k = behind[row, column]
                    square = (row - y) ** 2 + (column - x) ** 2
                    if inverse_depth[y, x] - inverse_depth[row, column] >= gap:
                        if abs(inverse_depth[row, column] - beyond) < np.float32(0.5) * gap:
                            for c in range(4):
                                colour[done, c] += light[row, column, c] / np.float32(square)
                    elif 0 <= k < start and abs(depth[k] - beyond) < np.float32(0.5) * gap:
                        for c in range(4):
                            colour[done, c] += colour[k, c] / np.float32(square)
            weight = colour[done, 3]
            for c in range(4 if weight > 0.0 else 0):
                colour[done, c] /= weight
            depth[done], before[done], distance[done] = beyond, inverse_depth[y, x], nearest
            blur[done], place[done] = its_coc, ring[i]
            behind[y, x] = done
            done += 1
        length = 0
        for k in range(start, done):
            y, x = place[k] // width, place[k] % width
            for row in range(max(y - 1, 0), min(y + 2, height)):
                for column in range(max(x - 1, 0), min(x + 2, width)):
                    fresh = behind[row, column] < 0 and not waiting[row, column]
                    if fresh and inverse_depth[row, column] - depth[k] >= gap:
                        waiting[row, column] = True
                        ring[length] = row * width + column
                        length += 1
    return (colour[:done], depth[:done], before[:done], distance[:done]), behind
