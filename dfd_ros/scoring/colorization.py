"""One LiDAR sweep made dense against its picture: the numbers, the picture of it, and the files.

Besides what is asked for, a fifth of the returns is hidden and predicted from the others: the error of that is the one
that dense depth has between returns.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.data.kitti import KittiFrame
from dfd_ros.errors import InputError
from dfd_ros.lidar.colorize import Colorizer, ColorizeSettings, DenseDepth
from dfd_ros.lidar.projection import SparseDepth, project
from dfd_ros.metrics import CONFIDENCE_THRESHOLD, is_known
from dfd_ros.scoring.panel import PanelContent, draw_panel

_HIDDEN = 0.2  # share of the returns that are predicted from the others
_MILLIMETRES = 1000.0
_FARTHEST_PNG = 65.535  # metres: what 16 bits of millimetres hold


@dataclass(frozen=True)
class Colorization:
    """A frame's dense depth.

    Attributes:
        frame: What went in.
        sparse: The sweep in the picture.
        dense: The answer.
        settings: How it was found.
        seconds: That it took, the method's plan and compilation not counted.
        left_out_rel, left_out_mae: Mean relative and absolute (metres) error at returns that were hidden; NaN where
            there were none.
    """

    frame: KittiFrame
    sparse: SparseDepth
    dense: DenseDepth
    settings: ColorizeSettings
    seconds: float
    left_out_rel: float
    left_out_mae: float

    def figures(self) -> dict[str, str]:
        """Names and values, as printed."""
        dense, settings = self.dense, self.settings
        pixels = dense.depth.size
        # fast has 1/z and depth edges always, and as its own
        options = (
            ("for 1/z", settings.inverse_depth and dense.is_toolbox_system),
            ("robust", settings.robust),
            ("depth edges", settings.depth_edges and dense.is_toolbox_system),
        )
        answer = "the toolbox's system" if dense.is_toolbox_system else "not the toolbox's system"
        method = ", ".join([f"{dense.method}: {answer}", *(name for name, on in options if on)])
        return {
            "points": f"{len(self.frame.points)}",
            "points in view": f"{self.sparse.in_view}",
            "pixels culled as hidden": f"{self.sparse.occluded}",
            "pixels with a return": f"{dense.known} ({100 * dense.known / pixels:.2f} %)",
            "pixels with dense depth": f"{100 * float(np.isfinite(dense.depth).mean()):.1f} %",
            f"of confidence {CONFIDENCE_THRESHOLD:g} or more": (
                f"{100 * float((dense.confidence >= CONFIDENCE_THRESHOLD).mean()):.1f} %"
            ),
            "method": method,
            "time": f"{1e3 * self.seconds:.1f} ms",
            f"error at {100 * _HIDDEN:.0f} % of returns left out": (
                f"{100 * self.left_out_rel:.2f} %, {self.left_out_mae:.3f} m"
                if math.isfinite(self.left_out_rel)
                else "unknown: too few returns"
            ),
        }


def colorize_frame(frame: KittiFrame, settings: ColorizeSettings, *, cull: bool = True) -> Colorization:
    """Project a frame's sweep and make it dense; `cull` drops the returns that the camera cannot see.

    Raises:
        InputError: The picture is smaller than 2x2, or the camera's distortion cannot be used.
    """
    sparse = project(frame.points[:, :3], frame.camera_from_lidar, frame.camera, cull=cull)
    grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    colorizer = Colorizer(frame.camera.shape, settings)
    rel, mae = _left_out(colorizer, grey, sparse.depth)  # first: it also makes the plan
    start = time.perf_counter()
    dense = colorizer.solve(grey, sparse.depth)
    return Colorization(frame, sparse, dense, settings, time.perf_counter() - start, rel, mae)


def save_colorization(colorization: Colorization, folder: Path) -> tuple[Path, Path, Path]:
    """Write the files of one frame, named by its picture:

    - `_dense.png`: the returns over the picture, the dense depth, its confidence.
    - `_depth.png`: the dense depth in 16-bit millimetres (REP 118), 0 where unknown or beyond 65.535 m.
    - `_depth.npz`: float32 metres `depth` and `sparse`, NaN where unknown, and `confidence`, (H, W) each.

    Raises:
        InputError: They cannot be written.
    """
    name = colorization.frame.id
    picture, depth_png, arrays = (folder / f"{name}_{end}" for end in ("dense.png", "depth.png", "depth.npz"))
    dense, sparse = colorization.dense, colorization.sparse.depth
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draw_panel(
            PanelContent(
                image=colorization.frame.image,
                sparse_depth=sparse,
                dense_depth=dense.depth,
                confidence=dense.confidence,
                title=f"{name}: a LiDAR sweep made dense ({dense.method})",
            ),
            picture,
        )
        depth_png.write_bytes(_png(dense.depth))
        np.savez_compressed(arrays, depth=dense.depth, confidence=dense.confidence, sparse=sparse)
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be written ({error.strerror})") from error
    return picture, depth_png, arrays


def _left_out(colorizer: Colorizer, grey: NDArray[np.float32], sparse: NDArray[np.float32]) -> tuple[float, float]:
    """Mean relative and absolute error at returns drawn by chance, predicted from the others."""
    hidden = is_known(sparse) & (np.random.default_rng(0).random(sparse.shape) < _HIDDEN)
    dense = colorizer.solve(grey, np.where(hidden, np.float32(np.nan), sparse)).depth
    asked = hidden & np.isfinite(dense)
    if not asked.any():
        return math.nan, math.nan
    error = np.abs(dense - sparse)[asked].astype(np.float64)
    return float((error / sparse[asked]).mean()), float(error.mean())


def _png(depth: NDArray[np.float32]) -> bytes:
    known = is_known(depth) & (depth <= _FARTHEST_PNG)
    millimetres = np.round(np.where(known, depth, 0.0) * _MILLIMETRES).astype(np.uint16)
    return bytes(cv2.imencode(".png", millimetres)[1])
