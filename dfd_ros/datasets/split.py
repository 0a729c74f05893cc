"""Training and validation apart by scene, so that no sample has a neighbour in time on the other side.

A scene ends where nothing was recorded for a while; long ones are cut into blocks. Of a bag's blocks every so many is
for validation, from one that the bag's name decides: bags that come later move none. Training pairs near in time to
validation are on neither side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfd_ros.data.built import GUARD, TRAIN, VALIDATION
from dfd_ros.datasets.settings import SplitSettings
from dfd_ros.stamps import NANOSECONDS

LEAST_BLOCK = 2.0
"""Guards that a block is long at least, so that most of what is recorded is of use."""


@dataclass(frozen=True)
class Place:
    """Where a sample belongs: its scene, and its side of the split."""

    scene: str
    split: str


def split_bags(stamps: Mapping[str, Sequence[int]], settings: SplitSettings) -> dict[str, list[Place]]:
    """The place of each pair of each bag, from the pairs' stamps, nanoseconds."""
    scenes = {bag: _scenes(np.asarray(times, np.int64), settings) for bag, times in stamps.items()}
    chosen = {bag: _chosen(bag, count, settings) for bag, (_, count) in scenes.items()}
    counts = {bag: count for bag, (_, count) in scenes.items() if count}
    if settings.validation and not any(chosen.values()) and sum(counts.values()) > 1:
        last = max(counts)
        chosen[last] = {counts[last] - 1}
    return {
        bag: _places(bag, np.asarray(stamps[bag], np.int64), numbers, chosen[bag], settings)
        for bag, (numbers, _) in scenes.items()
    }


def _scenes(stamps: np.ndarray, settings: SplitSettings) -> tuple[np.ndarray, int]:
    """Each pair's scene by number, in the order of time, and how many there are."""
    numbers = np.zeros(len(stamps), np.int64)
    if not len(stamps):
        return numbers, 0
    order = np.argsort(stamps, kind="stable")
    times = (stamps[order] - stamps[order[0]]) / NANOSECONDS
    breaks = np.flatnonzero(np.diff(times) > settings.gap) + 1
    runs = np.split(np.arange(len(times)), breaks)
    recorded = sum(float(times[run[-1]] - times[run[0]]) for run in runs)
    # A short recording is cut finer, so that it has its share of validation, too.
    longest = max(min(settings.block, recorded * settings.validation or math.inf), LEAST_BLOCK * settings.guard, 1e-3)
    count = 0
    for run in runs:
        begin, span = times[run[0]], float(times[run[-1]] - times[run[0]])
        blocks = max(1, math.ceil(span / longest - 1e-9))
        within = np.minimum(((times[run] - begin) / (span or 1.0) * blocks).astype(np.int64), blocks - 1)
        _, within = np.unique(within, return_inverse=True)  # blocks may be empty
        numbers[order[run]] = count + within
        count += int(within[-1]) + 1
    return numbers, count


def _chosen(bag: str, count: int, settings: SplitSettings) -> set[int]:
    """The numbers of a bag's scenes that are for validation."""
    if not settings.validation:
        return set()
    every = round(1.0 / settings.validation)
    first = int.from_bytes(hashlib.sha256(bag.encode()).digest()[:8], "big") % every
    return set(range(first, count, every))


def _places(
    bag: str, stamps: np.ndarray, numbers: np.ndarray, chosen: set[int], settings: SplitSettings
) -> list[Place]:
    validation = np.isin(numbers, list(chosen))
    held = np.sort(stamps[validation])
    places = []
    for stamp, number, is_held in zip(stamps, numbers, validation, strict=True):
        split = VALIDATION if is_held else TRAIN
        if not is_held and len(held):
            after = int(np.searchsorted(held, stamp))
            near = min(abs(int(held[i]) - int(stamp)) for i in (after - 1, after) if 0 <= i < len(held))
            split = GUARD if near < settings.guard * NANOSECONDS else TRAIN
        places.append(Place(f"{bag}/{number:03d}", split))
    return places
