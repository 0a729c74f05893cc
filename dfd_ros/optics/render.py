"""Defocus from an all-in-focus picture and its depth: a layered renderer that knows occlusion.

After Hasinoff & Kutulakos, "A Layer-Based Restoration Framework for Variable-Aperture Photography" (ICCV 2007): the
scene is cut into layers by depth, each layer is blurred, and a layer is seen through what the nearer ones leave open,

    L = Σ_k T_k · [(A_k L_k + A*_k L*_k) ⊛ h] / Σ_k T_k · [(A_k + A*_k) ⊛ h],    T_k = 1 − Σ_{k' nearer} A_k' ⊛ h,

A_k being the mask of layer k and A*_k L*_k its extension behind nearer layers. Five things differ from the paper.
The layers only order the pixels: every pixel is spread by the kernel of its own CoC, so depth is not quantised. The
masks are disjoint, so the transmittance is one minus their sum and not the product of (1 − A ⊛ h), which lets the
background shine through a slanted surface that is cut into layers. Neighbouring layers do not occlude each other but
share the pixel by weight, so that the cuts leave no seams. A layer is extended only behind a step in depth, not
behind the next piece of its own surface. And a pixel on an edge, where two surfaces mix, belongs to both by its shares
(see `dfd_ros.optics.occlusion`). The picture's border is one more thing that hides: what lies beyond repeats it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.errors import InputError
from dfd_ros.optics.disks import kernel_table
from dfd_ros.optics.layers import cut
from dfd_ros.optics.lens import Lens, field_radius
from dfd_ros.optics.spread import STRIP_ROWS, Kernels, View, render_strip, workspace

MAX_COC = 128
"""Largest CoC rendered, pixels: a bound on the kernels' memory (30 MB)."""


def render_defocus(
    image: NDArray[np.float32],
    depth: NDArray[np.floating],
    lens: Lens,
    f_numbers: Sequence[float] | float,
    focus_distances: Sequence[float] | float | None = None,
    *,
    threads: int = 1,
) -> list[NDArray[np.float32]]:
    """Photograph a scene at several apertures, focus distances, or both.

    Args:
        image: All-in-focus picture, (H, W, 3) or (H, W) float32, linear in light (any scale). A pixel that is not
            finite lends no light and is NaN in the pictures.
        depth: Depth (z) at the pixel centres, (H, W), metres; NaN or infinite where there is only sky.
        lens: Focus distance, CoC scale and PSF.
        f_numbers: Apertures of the pictures.
        focus_distances: Their focus distances, metres, one for each f-number (a single one of either goes with all of
            the other); the lens's own if None.
        threads: How many threads share the work.

    Returns:
        One float32 picture of the image's shape for each f-number and focus distance, all of equal exposure.

    Raises:
        InputError: Shapes do not fit, a depth is not positive, an f-number is not positive, or a focus distance is at
            or inside the focal length.
    """
    lenses = _lenses(lens, f_numbers, focus_distances)
    _check(image, depth, lens)
    inverse_depth = np.zeros(depth.shape, np.float32)
    np.divide(1.0, depth, out=inverse_depth, where=np.isfinite(depth), casting="same_kind")
    largest, cocs = _largest_cocs(inverse_depth, lenses, lens)
    table = kernel_table(max(cocs), lens.psf)
    views = [
        View(np.float32(a), np.float32(b), np.float32(lens.coc_field), last, int(table.radius[last]))
        for (a, b), last in zip(lenses, table.index(cocs).tolist(), strict=True)
    ]
    margin = max(view.reach for view in views)

    colour = np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2), np.float32)
    lends: NDArray[np.bool_] | None = None if cv2.checkRange(colour)[0] else np.all(np.isfinite(colour), axis=2)
    layers = cut(colour, inverse_depth, largest, max(slope for _, slope in lenses), margin, lends)
    visible, hidden = (layers.visible, layers.visible_sources), (layers.hidden, layers.hidden_sources)

    kernels = Kernels(table.taps, table.first, table.radius, table.lanes)
    pictures = [np.empty((*depth.shape, 3), np.float32) for _ in views]
    strips = iter(itertools.product(range(len(views)), range(0, depth.shape[0], STRIP_ROWS)))

    def work() -> None:
        space = workspace(depth.shape[1], margin)
        for view, top in strips:
            render_strip(top, layers.count, margin, views[view], kernels, visible, hidden, space, pictures[view])

    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(work) for _ in range(threads)]:
            job.result()
    if lends is not None:
        for picture in pictures:
            picture[~lends] = np.nan
    return pictures if image.ndim == 3 else [picture[..., 0].copy() for picture in pictures]


def _lenses(
    lens: Lens, f_numbers: Sequence[float] | float, focus_distances: Sequence[float] | float | None
) -> list[tuple[float, float]]:
    """CoC at infinity (pixels) and its slope with inverse depth (pixels · m) of each picture."""
    apertures = [float(n) for n in np.atleast_1d(f_numbers)]
    if not apertures or not all(math.isfinite(n) and n > 0 for n in apertures):
        raise InputError(f"f_numbers must be one or more positive numbers, got {f_numbers}")
    focused = [lens] if focus_distances is None else [lens.refocused(float(z)) for z in np.atleast_1d(focus_distances)]
    count = max(len(apertures), len(focused))
    if not focused or {len(apertures), len(focused)} - {1, count}:
        raise InputError(
            f"focus_distances must be as many as f_numbers, or one of either, got {len(focused)} and {len(apertures)}"
        )
    if len(apertures) < count:
        apertures *= count
    if len(focused) < count:
        focused *= count
    scales = [one.coc_scale / n for one, n in zip(focused, apertures, strict=True)]
    return [(scale, scale * one.focus_distance) for scale, one in zip(scales, focused, strict=True)]


def _largest_cocs(
    inverse_depth: NDArray[np.float32], lenses: list[tuple[float, float]], lens: Lens
) -> tuple[NDArray[np.float32], list[float]]:
    """The largest CoC of each pixel in any picture, (H, W), and of any pixel in each picture; pixels."""
    largest, coc = np.zeros_like(inverse_depth), np.empty_like(inverse_depth)
    gain = lens.coc_gain(field_radius(inverse_depth.shape)).astype(np.float32) if lens.coc_field else None
    maxima = []
    for at_infinity, slope in lenses:
        np.multiply(inverse_depth, np.float32(-slope), out=coc)
        np.add(coc, np.float32(at_infinity), out=coc)
        np.abs(coc, out=coc)
        if gain is not None:
            coc *= gain
        maxima.append(float(coc.max()))
        np.maximum(largest, coc, out=largest)
    if max(maxima) > MAX_COC:
        z = 1.0 / float(inverse_depth.flat[largest.argmax()]) if inverse_depth.flat[largest.argmax()] else math.inf
        raise InputError(f"depth {z:g} m has a CoC of {max(maxima):.0f} pixels, expected at most {MAX_COC}")
    return largest, maxima


def _check(image: NDArray[np.float32], depth: NDArray[np.floating], lens: Lens) -> None:
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(f"the picture to defocus must be HxWx3 or HxW, got shape {image.shape}")
    if depth.shape != image.shape[:2] or not depth.size:
        raise InputError(f"depth must have the picture's shape {image.shape[:2]}, got {depth.shape}")
    least = max(0.0, lens.focal_length)  # 0 where it is not known
    if bool(np.any(depth <= least)):
        raise InputError(
            f"depths must be positive metres beyond the focal length (NaN or inf for sky), got {float(np.nanmin(depth)):g}"
        )
