"""Whether the images agree with the aperture's states: the deep image is the sharper, and as bright as its settings say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_ros.capture.registration import measure_gain
from dfd_ros.checks.drawing import side_by_side
from dfd_ros.checks.exposure import is_exposed
from dfd_ros.checks.findings import Finding, Severity, Spells
from dfd_ros.checks.samples import PairSample, Sampling
from dfd_ros.datasets.plan import FRAME_CAUSES
from dfd_ros.errors import InputError
from dfd_ros.tone import linear_grey

CELL = 32
"""Side of the cells in which sharpness is compared, pixels."""
LEAST_CONTRAST = 0.01
"""Standard deviation in the band, of the mean light, below which a cell shows little but noise."""
LEAST_CELLS = 8
SWAPPED = 0.3
"""Logarithm of the energies' ratio from which the shallow image counts as the sharper."""
BRIGHTNESS = math.log(1.5)
"""Logarithm of the brightness that may be off."""
MAX_UNLABELLED = 0.75
"""Share of frames without a partner."""


def sharpness(shallow: NDArray[np.float32], deep: NDArray[np.float32]) -> float:
    """How much more fine contrast the deep image has: the median of ln(energy ratio) over textured cells.

    Args:
        shallow, deep: (H, W) in linear light, of one brightness.

    Returns:
        NaN where too little is textured.
    """
    size = (max(1, deep.shape[1] // CELL), max(1, deep.shape[0] // CELL))
    energies = []
    for image in (shallow, deep):
        band = cv2.GaussianBlur(image, (0, 0), 1.0) - cv2.GaussianBlur(image, (0, 0), 2.0)
        energies.append(cv2.resize(band * band, size, interpolation=cv2.INTER_AREA))
    light = cv2.resize(deep, size, interpolation=cv2.INTER_AREA)
    textured = np.maximum(*energies) > (LEAST_CONTRAST * light + 1e-4) ** 2
    if textured.sum() < LEAST_CELLS:
        return math.nan
    ratios = np.log((energies[1][textured] + 1e-12) / (energies[0][textured] + 1e-12))
    return float(np.median(ratios))


class Apertures:
    """Pairs whose images contradict what was reported of them."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._swapped, self._brightness = Spells(), Spells()

    def see(self, seen: PairSample) -> None:
        if not (is_exposed(seen.shallow) and is_exposed(seen.deep)):
            return
        shallow, deep = (linear_grey(image, seen.gamma) for image in (seen.shallow, seen.deep))
        try:
            gain = measure_gain(shallow, deep)
        except InputError:
            return  # nothing tells
        sharper = sharpness(gain * shallow, deep)
        off = math.log(gain * seen.applied_gain / seen.light_ratio) if seen.light_ratio > 0.0 else 0.0
        if sharper < -SWAPPED:
            self._swapped.add(seen.at, -sharper, side_by_side(seen.shallow, seen.deep))
        elif abs(off) > BRIGHTNESS:
            self._brightness.add(seen.at, abs(off), side_by_side(seen.shallow, seen.deep))

    def findings(self) -> Iterator[Finding]:
        for spell in self._swapped:
            sentence = (
                f"expected deep images sharper than shallow ones, got the converse {spell.where}: "
                "the states are swapped, or late by a frame"
            )
            yield Finding("aperture_mismatch", Severity.ERROR, self._topic, spell.first, sentence, spell.picture)
        for spell in self._brightness:
            off = f"{math.exp(spell.worst):.1f} times more or less"
            sentence = f"expected brightness as exposures and f-numbers say, got {off} {spell.where}"
            yield Finding("brightness_mismatch", Severity.WARNING, self._topic, spell.first, sentence, spell.picture)


def unlabelled(sampling: Sampling, topic: str) -> Iterator[Finding]:
    """Too many frames that are in no pair."""
    causes = Counter({cause: n for cause, n in sampling.dropped.items() if cause in FRAME_CAUSES})
    if sampling.frames and causes.total() > MAX_UNLABELLED * sampling.frames:
        named = ", ".join(f"{count} {cause.replace('_', ' ')}" for cause, count in causes.most_common())
        sentence = f"expected most frames in pairs, got {causes.total()} of {sampling.frames} in none ({named})"
        yield Finding("unlabelled", Severity.ERROR, topic, None, sentence)
