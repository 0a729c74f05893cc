"""Calibrating a lens on a folder of dual-aperture photographs with depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfd_ros.capture.matching import MatchSettings, MotionError, match_pair
from dfd_ros.data.photographs import PhotographFolder
from dfd_ros.errors import InputError
from dfd_ros.optics.calibrate import Calibration, Pair, fit_coc_curve
from dfd_ros.tone import linear_grey

# Photographs may come from a camera that was touched between the two; more than this is another picture.
MAX_MOTION = 20.0  # pixels


def calibrate_folder(
    path: str | Path,
    scenes: Sequence[int],
    progress: Callable[[float], None] | None = None,
    *,
    gamma: float = 2.2,
    name: str = "calibrated",
) -> Calibration:
    """Fit the blur curve of the lens that took the scenes; those without depth or with too much motion are left out.

    The lens's magnification between the apertures is the median of what registration finds. `progress` is told the
    share that is done.

    Raises:
        InputError: The folder or a picture cannot be used, or the scenes do not tell the lens.
    """
    folder = PhotographFolder(path)
    if not scenes:
        raise InputError(f"calibration: expected scenes of {path} to calibrate on, got none")
    settings = MatchSettings(gamma=gamma, max_motion=MAX_MOTION)
    scales: list[float] = []

    def pairs() -> Iterator[Pair]:
        for done, index in enumerate(scenes, start=1):
            scene = folder.load(index)
            if scene.depth is not None:
                try:
                    match = match_pair(scene.shallow, scene.deep, settings, nominal_gain=float("nan"))
                except MotionError:
                    continue
                scales.append(match.scale)
                yield linear_grey(match.shallow, gamma), linear_grey(scene.deep, gamma), scene.depth
            if progress is not None:
                progress(done / len(scenes))

    calibration = fit_coc_curve(pairs(), folder.load(scenes[0]).f_numbers, name)
    if not np.isfinite(scales).any():
        return calibration
    magnification = round(float(np.nanmedian(scales)), 5)
    return replace(calibration, lens=replace(calibration.lens, magnification=magnification))
