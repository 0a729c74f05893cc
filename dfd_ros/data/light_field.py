"""Light-field photographs of flowers (Srinivasan, Wang, Sreelal, Ramamoorthi and Ng, ICCV 2017).

    NAME_eslf.png    the picture behind a lens array, raster of 14 x 14 views: view (v, u) is pixels v::14, u::14

A lens of full aperture, focused where disparity between neighbouring views is d, sees the mean of the views, each
shifted by −d times its place (shear and add: Ng et al., Stanford Tech Report CSTR 2005-02, equation 4.1, discrete). The
centre view stands for the sharp picture, a lens of a view's aperture. There is no depth. The files hold linear light.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.pictures import read_rgb
from dfd_ros.data.samples import GAMMA, Dataset, Image, Sample, as_values, encode
from dfd_ros.errors import InputError

WHERE = "the flowers of `Learning to Synthesize a 4D RGBD Light Field`, https://github.com/pratulsrinivasan/Local_Light_Field_Synthesis"
GRID = 14
"""Views along each side in the file."""
VIEWS = 8
"""Views along each side that are used, the middle ones: those at the rim of the lens are dark."""


class LightFieldPairs(Dataset):
    """Refocused pictures (shallow) with centre views (deep and all-in-focus); depth is NaN, the lens is None.

    Args:
        path: The folder.
        disparity: Pixels between neighbouring views of what is in focus.
        views: Views along each side that make up the aperture.
        gamma: Encoding exponent to give the pictures.

    Raises:
        InputError: The folder is missing or holds no such pictures, or `views` is not 1 to 14.
    """

    def __init__(self, path: str | Path, disparity: float = 0.0, *, views: int = VIEWS, gamma: float = GAMMA) -> None:
        self.path = Path(path)
        if not 1 <= views <= GRID:
            raise InputError(f"light fields: expected 1 to {GRID} views a side, got {views}")
        if not self.path.is_dir():
            raise InputError(f"light fields {path}: expected a folder, got no such folder; get it from {WHERE}")
        self._files = sorted(self.path.rglob("*_eslf.png"))
        if not self._files:
            raise InputError(f"light fields {path}: expected pictures NAME_eslf.png, got none; get them from {WHERE}")
        self._disparity, self._views, self._gamma = disparity, views, gamma
        self.names = tuple(file.stem.removesuffix("_eslf") for file in self._files)

    def read(self, index: int) -> Sample:
        views = read_views(self._files[index], self._views)
        shallow = encode(refocus(views, self._disparity), self._gamma)
        sharp = encode(as_values(views[self._views // 2, self._views // 2]), self._gamma)
        unknown = np.full(sharp.shape[:2], np.nan, np.float32)
        return Sample(self.names[index], shallow, sharp, unknown, None, sharp, gamma=self._gamma)


def read_views(path: Path, views: int = VIEWS) -> NDArray[np.uint8]:
    """The middle views of a light field, (views, views, H, W, 3) uint8.

    Raises:
        InputError: The picture cannot be read, or is no raster of 14 x 14 views.
    """
    raster = read_rgb(path)
    height, width = raster.shape[0] // GRID, raster.shape[1] // GRID
    if min(height, width) < 2:
        raise InputError(
            f"light field {path}: expected a raster of {GRID}x{GRID} views, got {raster.shape[1]}x{raster.shape[0]} pixels"
        )
    # What is left over at the right and below belongs to no whole lens.
    lenses = raster[: height * GRID, : width * GRID].reshape(height, GRID, width, GRID, 3)
    first = (GRID - views) // 2
    return lenses.transpose(1, 3, 0, 2, 4)[first : first + views, first : first + views]


def refocus(views: NDArray[np.uint8], disparity: float) -> Image:
    """The picture (H, W, 3), linear light, in focus where neighbouring views differ by `disparity` pixels.

    Args:
        views: (n, n, H, W, 3) uint8, linear light; view [v, u] has at x + disparity · (u − n // 2) what the centre has at x.
    """
    count, (height, width) = len(views), views.shape[2:4]
    total = np.zeros((height, width, 3), np.float32)
    for v in range(count):
        for u in range(count):
            light = as_values(views[v, u])
            # Output pixel x shows the view's pixel x + d · (u − centre).
            shift = np.array([[1.0, 0.0, disparity * (u - count // 2)], [0.0, 1.0, disparity * (v - count // 2)]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            total += cv2.warpAffine(light, shift, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return total / np.float32(count * count)
