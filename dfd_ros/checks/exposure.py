"""Images that are clipped or black."""

from __future__ import annotations

from collections.abc import Iterator

from dfd_ros.checks.drawing import side_by_side
from dfd_ros.checks.findings import Finding, Picture, Severity, Spells
from dfd_ros.checks.samples import PairSample
from dfd_ros.datasets.pairs import CLIPPED

STRIDE = 4
"""Every so many rows and columns are looked at."""
DARK = 8
"""8-bit value up to which a pixel counts as black."""
MAX_CLIPPED = 0.25
"""Share of clipped pixels that an image may have."""
MAX_BLACK = 0.9
"""Share of black pixels that an image may have."""


def clipped_share(picture: Picture) -> float:
    """Share of a picture's pixels of which a channel is clipped."""
    part = picture[::STRIDE, ::STRIDE]
    return float(((part if part.ndim == 2 else part.max(axis=2)) >= CLIPPED).mean())


def black_share(picture: Picture) -> float:
    """Share of a picture's pixels of which all channels are black."""
    part = picture[::STRIDE, ::STRIDE]
    return float(((part if part.ndim == 2 else part.max(axis=2)) <= DARK).mean())


def is_exposed(picture: Picture) -> bool:
    """Whether a picture is neither clipped nor black."""
    return clipped_share(picture) <= MAX_CLIPPED and black_share(picture) <= MAX_BLACK


class Exposures:
    """Clipped and black images of pairs. Frames that saw the aperture move are in none, and may be clipped."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._clipped, self._black = Spells(), Spells()

    def see(self, seen: PairSample) -> None:
        for spells, measure, limit in (
            (self._clipped, clipped_share, MAX_CLIPPED),
            (self._black, black_share, MAX_BLACK),
        ):
            share = max(measure(seen.shallow), measure(seen.deep))
            if share > limit:
                spells.add(seen.at, share, side_by_side(seen.shallow, seen.deep))

    def findings(self) -> Iterator[Finding]:
        for spells, kind, what, limit in (
            (self._clipped, "overexposed", "clipped", MAX_CLIPPED),
            (self._black, "underexposed", "black", MAX_BLACK),
        ):
            for spell in spells:
                sentence = f"expected {limit:.0%} of an image {what} or less, got up to {spell.worst:.0%} {spell.where}"
                yield Finding(kind, Severity.WARNING, self._topic, spell.first, sentence, spell.picture)
