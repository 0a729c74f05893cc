"""Defocus from an all-in-focus picture and its depth: a layered renderer that knows occlusion.

After Hasinoff & Kutulakos, "A Layer-Based Restoration Framework for Variable-Aperture Photography" (ICCV 2007): the
scene is cut into layers by depth, each layer is blurred, and a layer is seen through what the nearer ones leave open,

    L = Σ_k T_k · [(A_k L_k + A*_k L*_k) ⊛ h],    T_k = 1 − Σ_{k' nearer} A_k' ⊛ h,

A_k being the mask of layer k and A*_k L*_k its extension behind nearer layers. Three things differ from the paper.
The layers only order the pixels: every pixel is spread by the kernel of its own CoC, so depth is not quantised. The
masks are disjoint, so the transmittance is one minus their sum and not the product of (1 − A ⊛ h), which lets the
background shine through a slanted surface that is cut into layers. And neighbouring layers do not occlude each other
but share the pixel by weight, so that the cuts leave no seams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.disks import kernel_table
from dfd_ros.optics.lens import Lens

LAYER_COC_STEP = 1.0
"""CoC difference between neighbouring layers, pixels: half of it is the most that occlusion can be off."""
MAX_LAYERS = 40
_STRIP_ROWS = 48  # rows rendered together: their buffers stay in a second-level cache


def render_defocus(
    image: NDArray[np.float32],
    depth: NDArray[np.floating],
    lens: Lens,
    f_numbers: Sequence[float],
    *,
    threads: int = 1,
) -> list[NDArray[np.float32]]:
    """Photograph a scene at several apertures.

    Args:
        image: All-in-focus picture, (H, W, 3) float32, linear in light (any scale).
        depth: Depth (z) at the pixel centres, (H, W), metres; NaN or infinite where there is only sky.
        lens: Focus distance, CoC scale and PSF.
        f_numbers: Apertures to render.
        threads: How many threads share the work.

    Returns:
        One (H, W, 3) float32 picture per f-number, of equal exposure.

    Raises:
        InputError: Shapes do not fit, a depth is not positive, or an f-number is not positive.
    """
    _check(image, depth, f_numbers)
    with np.errstate(divide="ignore"):
        inverse_depth = np.where(np.isfinite(depth), 1.0 / depth, 0.0).astype(np.float32)
    # |1 − z_f / z|: CoC is this times coc_scale / N.
    defocus = np.abs(1.0 - lens.focus_distance * inverse_depth)
    widest = lens.coc_scale / min(f_numbers)
    layers = _cut(inverse_depth, defocus, widest, lens.focus_distance)

    pictures = []
    image = np.ascontiguousarray(image, np.float32)
    with ThreadPoolExecutor(threads) as pool:
        for f_number in f_numbers:
            coc = defocus * np.float32(lens.coc_scale / f_number)
            table = kernel_table(float(coc.max()), lens.psf)
            index = table.index(coc)
            picture = np.empty_like(image)
            fixed = (image, index, table.weights, table.radius, layers, picture)
            jobs = [
                pool.submit(_render_strip, top, min(top + _STRIP_ROWS, len(image)), *fixed)
                for top in range(0, len(image), _STRIP_ROWS)
            ]
            for job in jobs:
                job.result()
            pictures.append(picture)
    return pictures


@dataclass(frozen=True)
class _Layers:
    """Pixels in the order of their layers, nearest layer first.

    Samples bounds[k] to extension[k] are layer k itself, from there to bounds[k + 1] its extension behind nearer
    layers; both run row by row. `rows`, `columns` (n,) say where a sample lies, `sources` (n,) the flat index of the
    pixel whose colour and CoC it has.
    """

    bounds: NDArray[np.int64]
    extension: NDArray[np.int64]
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    sources: NDArray[np.int32]


def _cut(
    inverse_depth: NDArray[np.float32], defocus: NDArray[np.float32], widest: float, focus_distance: float
) -> _Layers:
    """Cut the scene into layers of equal steps of signed CoC (it is linear in inverse depth)."""
    height, width = inverse_depth.shape
    far, near = float(inverse_depth.min()), float(inverse_depth.max())
    span = widest * focus_distance * (near - far)
    count = int(np.clip(math.ceil(span / LAYER_COC_STEP), 1, MAX_LAYERS))
    layer = np.zeros((height, width), np.int32)
    if count > 1:
        layer = np.minimum((near - inverse_depth) * (count / (near - far)), count - 1).astype(np.int32)

    nearest_blur = 0.0  # the largest CoC of the layers so far: how far into this one they can reach
    bounds, extension, samples = [0], [], []
    for k in range(count):
        mask = layer == k
        found = np.flatnonzero(mask).astype(np.int32)
        samples.append((found, found))
        extension.append(bounds[-1] + len(found))
        if len(found):
            blur = widest * float(defocus.reshape(-1)[found].max())
            hidden = (np.empty(0, np.int32),) * 2
            if k > 1:
                hidden = _extend(mask, layer < k - 1, math.ceil((blur + nearest_blur) / 2.0 + 1.0))
            samples.append(hidden)
            nearest_blur = max(nearest_blur, blur)
            bounds.append(extension[-1] + len(hidden[0]))
        else:
            bounds.append(extension[-1])
    place = np.concatenate([where for where, _ in samples])
    return _Layers(
        bounds=np.array(bounds, np.int64),
        extension=np.array(extension, np.int64),
        rows=place // width,
        columns=place % width,
        sources=np.concatenate([source for _, source in samples]),
    )


def _extend(
    mask: NDArray[np.bool_], hider: NDArray[np.bool_], reach: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pixels of `hider` within `reach` of `mask`, and for each the nearest pixel of `mask` (flat indices)."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = max(rows[0] - reach, 0), min(rows[-1] + reach + 1, height)
    left, right = max(columns[0] - reach, 0), min(columns[-1] + reach + 1, width)
    window = mask[top:bottom, left:right]
    flat = np.arange(top, bottom, dtype=np.int32)[:, None] * width + np.arange(left, right, dtype=np.int32)
    distance, label = cv2.distanceTransformWithLabels(
        np.logical_not(window).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    hidden = hider[top:bottom, left:right] & (distance <= reach)
    pixel_of_label = np.zeros(int(label.max()) + 1, np.int32)
    pixel_of_label[label[window]] = flat[window]
    return flat[hidden], pixel_of_label[label[hidden]]


def _render_strip(
    top: int,
    bottom: int,
    image: NDArray[np.float32],
    kernel_index: NDArray[np.int32],
    weights: NDArray[np.float32],
    radius: NDArray[np.int32],
    layers: _Layers,
    picture: NDArray[np.float32],
) -> None:
    """Render rows top to bottom of `picture`."""
    _render_rows(
        *(top, bottom, image, kernel_index, weights, radius, layers.bounds, layers.extension),
        *(layers.rows, layers.columns, layers.sources, picture),
    )


@njit(cache=True, nogil=True, fastmath=True)
def _render_rows(  # type: ignore[no-untyped-def]
    top, bottom, image, kernel_index, weights, radius, bounds, extension, rows, columns, sources, picture
):
    """Render rows top to bottom of `picture`, layer by layer from the nearest."""
    width = image.shape[1]
    height = bottom - top
    reach = weights.shape[1] // 2
    colours = image.reshape(-1, 3)
    kernels = kernel_index.reshape(-1)
    # A layer being spread: its light and (channel 3) its weight, with room for the kernels left and right.
    spread = np.zeros((height, width + 2 * reach, 4), np.float32)
    total = np.zeros((height, width, 4), np.float32)
    transmittance = np.ones((height, width), np.float32)
    covered = np.zeros((height, width), np.float32)  # A ⊛ h of the layer before: it will hide from the next on
    touched = np.zeros(4, np.int64)  # rows from, to; columns from, to that `spread` holds
    for k in range(len(bounds) - 1):
        touched[0], touched[1], touched[2], touched[3] = height, 0, width, 0
        _spread_samples(
            *(spread, touched, bounds[k], extension[k], top, bottom, colours, kernels),
            *(weights, radius, rows, columns, sources),
        )
        first, last, left, right = touched[0], touched[1], max(touched[2], 0), min(touched[3], width)
        coverage = np.zeros((height, width), np.float32)
        for j in range(first, last):
            for x in range(left, right):
                coverage[j, x] = min(max(spread[j, x + reach, 3], np.float32(0.0)), np.float32(1.0))
        _spread_samples(
            *(spread, touched, extension[k], bounds[k + 1], top, bottom, colours, kernels),
            *(weights, radius, rows, columns, sources),
        )
        for j in range(touched[0], touched[1]):
            for x in range(max(touched[2], 0), min(touched[3], width)):
                seen = transmittance[j, x]
                for c in range(4):
                    total[j, x, c] += seen * spread[j, x + reach, c]
            spread[j, touched[2] + reach : touched[3] + reach] = 0.0
        for j in range(height):
            for x in range(width):
                transmittance[j, x] = max(transmittance[j, x] - covered[j, x], np.float32(0.0))
        covered = coverage
    for j in range(height):
        for x in range(width):
            scale = np.float32(1.0) / max(total[j, x, 3], np.float32(1e-3))
            for c in range(3):
                picture[top + j, x, c] = max(total[j, x, c] * scale, np.float32(0.0))


@njit(cache=True, nogil=True, fastmath=True, _nrt=False)  # allocates nothing: no reference counting
def _spread_samples(  # type: ignore[no-untyped-def]
    spread, touched, start, stop, top, bottom, colours, kernels, weights, radius, rows, columns, sources
):
    """Add the kernels of samples start to stop, which run row by row, to the strip; note where in `touched`."""
    reach = weights.shape[1] // 2
    first = start + np.searchsorted(rows[start:stop], top - reach)
    last = start + np.searchsorted(rows[start:stop], bottom + reach)
    for i in range(first, last):
        source = sources[i]
        kernel = kernels[source]
        r = radius[kernel]
        y, x = rows[i], columns[i]
        row_from, row_to = max(y - r, top), min(y + r + 1, bottom)
        if row_from >= row_to:
            continue
        touched[0] = min(touched[0], row_from - top)
        touched[1] = max(touched[1], row_to - top)
        touched[2] = min(touched[2], x - r)
        touched[3] = max(touched[3], x + r + 1)
        red, green, blue = colours[source, 0], colours[source, 1], colours[source, 2]
        for row in range(row_from, row_to):
            # Unsigned: they need no check for indices that count from the end.
            j, k = np.uintp(row - top), np.uintp(row - y + reach)
            for q in range(np.uintp(reach - r), np.uintp(reach + r + 1)):
                weight, column = weights[np.uintp(kernel), k, q], np.uintp(x) + q
                spread[j, column, 0] += weight * red
                spread[j, column, 1] += weight * green
                spread[j, column, 2] += weight * blue
                spread[j, column, 3] += weight


def _check(image: NDArray[np.float32], depth: NDArray[np.floating], f_numbers: Sequence[float]) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the picture to defocus must be HxWx3, got shape {image.shape}")
    if depth.shape != image.shape[:2]:
        raise InputError(f"depth must have the picture's shape {image.shape[:2]}, got {depth.shape}")
    if bool(np.any(depth <= 0)):
        raise InputError(f"depths must be positive metres (NaN or inf for sky), got {float(np.nanmin(depth)):g}")
    if not f_numbers or not all(math.isfinite(n) and n > 0 for n in f_numbers):
        raise InputError(f"f_numbers must be one or more positive numbers, got {list(f_numbers)}")
