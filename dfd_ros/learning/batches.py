"""From samples to batches: which samples a training step sees, and what is done to them.

Batch number b is a function of the settings and of b alone: of the seed, the sample's turn and its place in the batch come
the sample's number, its patch and what is done to it. So workers share the numbers, ranks take every so-many-th one,
and a training that was killed goes on with the very batches that it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dfd_ros.data.samples import Dataset, Sample, resized
from dfd_ros.errors import InputError
from dfd_ros.learning.augment import Augmentation, augment
from dfd_ros.learning.batch import Batch, Patch, collate

_DRAW, _ORDER, _AUGMENT, _ZOOM = range(4)  # streams of random numbers


@dataclass(frozen=True)
class Source:
    """A dataset that samples are drawn from.

    Attributes:
        dataset: As it was opened.
        share: How often samples come from it, relative to other sources.
        shape: Height and width that they are brought to; None for their own.
    """

    dataset: Dataset
    share: float = 1.0
    shape: tuple[int, int] | None = None

    def read(self, index: int, zoom: float = 1.0) -> Sample:
        """A sample, brought to `zoom` times that shape in one step: what is shrunk and enlarged again has lost its detail."""
        sample = self.dataset.read(index)
        height, width = self.shape or sample.depth.shape
        return resized(sample, (round(zoom * height), round(zoom * width)))


class Batches(torch.utils.data.Dataset[Batch]):
    """Training's batches by number, without end.

    A dataset's samples come in another order each time around. Of several sources one is drawn for each sample.
    """

    def __init__(self, sources: Sequence[Source], size: int, augmentation: Augmentation, seed: int) -> None:
        if not sources:
            raise InputError("training data: expected one source or more, got none")
        if not any(source.share for source in sources):
            raise InputError("training data: expected a source with a share above 0, got none")
        if size % augmentation.patches:
            raise InputError(f"batch: expected a multiple of {augmentation.patches} patches a sample, got {size}")
        self.sources, self.size, self.augmentation, self.seed = tuple(sources), size, augmentation, seed
        shares = np.array([source.share for source in sources])
        self._shares = shares / shares.sum()
        self._kept: tuple[tuple[int, int], NDArray[np.int64]] = ((-1, -1), np.empty(0, np.int64))

    def __getitem__(self, number: int) -> Batch:
        samples = self.size // self.augmentation.patches
        zoom = math.exp(np.random.default_rng((self.seed, _ZOOM, number)).uniform(*np.log(self.augmentation.zoom)))
        return collate([patch for k in range(samples) for patch in self._patches(number * samples + k, zoom)])

    def _patches(self, turn: int, zoom: float) -> list[Patch]:
        """The patches of the sample whose turn it is, brought to another size."""
        which, index = self._sample_of(turn)
        sample = self.sources[which].read(index, zoom)
        rng = np.random.default_rng((self.seed, _AUGMENT, turn))
        return [augment(sample, self.augmentation, rng) for _ in range(self.augmentation.patches)]

    def _sample_of(self, turn: int) -> tuple[int, int]:
        """Source and number in it."""
        which = 0
        if len(self.sources) > 1:
            which = int(np.random.default_rng((self.seed, _DRAW, turn)).choice(len(self._shares), p=self._shares))
        count = len(self.sources[which].dataset)
        return which, int(self._order(which, turn // count)[turn % count])

    def _order(self, which: int, time_around: int) -> NDArray[np.int64]:
        """The order of a source's samples; the last one is kept."""
        if self._kept[0] != (which, time_around):
            rng = np.random.default_rng((self.seed, _ORDER, which, time_around))
            self._kept = (which, time_around), rng.permutation(len(self.sources[which].dataset))
        return self._kept[1]


def whole(sample: Sample) -> Batch:
    """One sample as a batch, uncut: for validation and evaluation."""
    return collate([augment(sample, Augmentation(), np.random.default_rng(0))])
