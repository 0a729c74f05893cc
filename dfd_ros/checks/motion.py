"""Pairs between whose images the scene moved."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dfd_ros.capture.matching import MIN_REGISTRATION_QUALITY
from dfd_ros.capture.registration import TILE, register_pair
from dfd_ros.checks.drawing import overlay
from dfd_ros.checks.exposure import is_exposed
from dfd_ros.checks.findings import Finding, Severity, Spells
from dfd_ros.checks.samples import PairSample
from dfd_ros.tone import linear_grey


class Motions:
    """Pairs that moved by more than `limit` pixels, which data sets leave out."""

    def __init__(self, topic: str, limit: float) -> None:
        self._topic, self._limit = topic, limit
        self._spells = Spells()

    def see(self, seen: PairSample) -> None:
        moved = seen.motion if math.isfinite(seen.motion) else _measured(seen)
        if moved > self._limit:
            self._spells.add(seen.at, moved, overlay(seen.shallow, seen.deep))

    def findings(self) -> Iterator[Finding]:
        for spell in self._spells:
            sentence = (
                f"expected {self._limit:g} px of motion or less between a pair's images, got up to {spell.worst:.0f} px "
                f"{spell.where}"
            )
            yield Finding("motion", Severity.WARNING, self._topic, spell.first, sentence, spell.picture)


def _measured(seen: PairSample) -> float:
    """Largest displacement of a pixel, pixels; 0 where nothing tells."""
    if min(seen.deep.shape[:2]) < TILE or not (is_exposed(seen.shallow) and is_exposed(seen.deep)):
        return 0.0
    shallow, deep = (linear_grey(image, seen.gamma) for image in (seen.shallow, seen.deep))
    motion = register_pair(shallow, deep)
    return motion.largest_shift((deep.shape[0], deep.shape[1])) if motion.quality >= MIN_REGISTRATION_QUALITY else 0.0
