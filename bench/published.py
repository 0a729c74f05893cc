"""The layered defocus formula as published (Hasinoff & Kutulakos, ICCV 2007, equations 7 to 10), to compare with.

    L = Σ_k M_k · [(A_k L_k + A*_k L*_k) ⊛ h_k],    M_k = Π_{j nearer than k} (1 − A'_j ⊛ h_j),    A'_j = A_j + A*_j

with layers of equal steps of CoC, each blurred by the disk of its mean CoC, and each continued (A*) behind all that is
nearer by its nearest pixel. PSF, layers and border are those of `dfd_ros.optics.render`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from dfd_ros.optics.disks import kernel_table
from dfd_ros.optics.layers import LAYER_COC_STEP
from dfd_ros.optics.lens import Lens


def render_published(
    image: NDArray[np.float32], depth: NDArray[np.float32], lens: Lens, f_number: float
) -> NDArray[np.float32]:
    """One picture (H, W, 3) of an all-in-focus picture and its depth in metres."""
    coc = lens.signed_coc(depth, f_number)
    margin = math.ceil(np.abs(coc).max() / 2) + 2
    image, coc = (np.pad(x, ((margin, margin),) * 2 + ((0, 0),) * (x.ndim - 2), mode="edge") for x in (image, coc))
    count = max(math.ceil(np.ptp(coc) / LAYER_COC_STEP), 1)
    layer = np.minimum(((coc - coc.min()) / np.ptp(coc) * count).astype(int), count - 1) if count > 1 else 0 * coc
    total, seen = np.zeros_like(image), np.ones(coc.shape, np.float32)
    for k in np.unique(layer):
        mask = layer == k
        mean = float(np.abs(coc[mask]).mean())
        kernel = kernel_table(mean).kernel(mean)
        row, column = distance_transform_edt(~mask, return_distances=False, return_indices=True)
        continued = (layer <= k).astype(np.float32)
        light = continued[..., None] * image[row, column]
        total += seen[..., None] * cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REPLICATE)
        seen *= 1.0 - cv2.filter2D(continued, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return total[margin:-margin, margin:-margin]
