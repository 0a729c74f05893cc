"""Calibrating a lens on a folder of dual-aperture photographs with depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfd_ros.capture.matching import MatchSettings, MotionError, match_pair
from dfd_ros.data.photographs import PhotographFolder
from dfd_ros.errors import InputError
from dfd_ros.optics.calibrate import Calibration, Pair, fit_coc_curve
from dfd_ros.optics.parallax import Displacements, fit_parallax, measure_displacements
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

    Its parallax is measured, too, and its magnification with it; where the scenes show no parallax, magnification is the
    median of what registration finds. `progress` is told the share that is done.

    Raises:
        InputError: The folder or a picture cannot be used, or the scenes do not tell the lens.
    """
    folder = PhotographFolder(path)
    if not scenes:
        raise InputError(f"calibration: expected scenes of {path} to calibrate on, got none")
    settings = MatchSettings(gamma=gamma, max_motion=MAX_MOTION)
    scales: list[float] = []
    displacements: list[Displacements] = []

    def pairs() -> Iterator[Pair]:
        for done, index in enumerate(scenes, start=1):
            scene = folder.load(index)
            if scene.depth is not None:
                try:
                    match = match_pair(scene.shallow, scene.deep, settings, nominal_gain=float("nan"))
                except MotionError:
                    continue
                scales.append(match.scale)
                shallow, deep = linear_grey(match.shallow, gamma), linear_grey(scene.deep, gamma)
                if math.isfinite(match.scale):
                    displacements.append(measure_displacements(shallow, deep, scene.depth, match.scale))
                yield shallow, deep, scene.depth
            if progress is not None:
                progress(done / len(scenes))

    calibration = fit_coc_curve(pairs(), folder.load(scenes[0]).f_numbers, name)
    if not np.isfinite(scales).any():
        return calibration
    lens = replace(calibration.lens, magnification=round(float(np.nanmedian(scales)), 5))
    with suppress(InputError):  # too little to see a parallax by
        found = fit_parallax(displacements, lens)
        if found.significant:
            lens = replace(
                lens,
                parallax=round(found.parallax, 4),
                parallax_aspect=round(found.aspect, 3),
                magnification=round(found.magnification, 5),
            )
            calibration = replace(calibration, parallax_sigma=found.sigma)
    return replace(calibration, lens=lens)
