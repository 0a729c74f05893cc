"""Pairs as they would be with every depth on the other side of the focus.

A CoC c has two depths, 1/z = (1 ∓ c/c_∞) / z_f, and the pictures of either are blurred alike. What differs is where the
shallow picture's blur lies: as the lens's parallax has it (`dfd_ros.optics.lens`), on one side outwards, on the other inwards.
So a photographed scene, its shallow picture moved by twice that, is one of mirrored depths, with all that is real in it,
noise and aberrations. A network that learns from such scenes, too, cannot know their side by heart and has to look.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dfd_ros.data.samples import Dataset, Sample
from dfd_ros.data.synthetic import displaced
from dfd_ros.errors import InputError


class OtherSide(Dataset):
    """The samples of a data set on the other side of the focus.

    Depths without one there (too near the lens) or outside the lens's range are unknown.

    Raises:
        InputError: On reading, a sample without a lens, or one whose lens has no parallax: nothing would tell its side.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.names, self._dataset = tuple(f"{name}, other side" for name in dataset.names), dataset

    def read(self, index: int) -> Sample:
        return on_other_side(self._dataset.read(index))


def on_other_side(sample: Sample) -> Sample:
    """The sample as `OtherSide` has it, named likewise; errors as there."""
    lens = sample.lens
    if lens is None or not lens.parallax:
        got = "none" if lens is None else f"{lens.name}, which has none"
        raise InputError(f"sample {sample.name}: expected a lens with a parallax, got {got}")
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.float32(2.0 / lens.focus_distance) - 1.0 / sample.depth
        depth = np.where((inverse >= 1.0 / lens.max_depth) & (inverse <= 1.0 / lens.min_depth), 1.0 / inverse, np.nan)
    opposite = replace(lens, parallax=-2.0 * lens.parallax)
    return replace(
        sample,
        name=f"{sample.name}, other side",
        shallow=displaced(sample.shallow, np.nan_to_num(sample.depth), opposite, np.zeros(2), 1.0).clip(max=1.0),
        depth=depth.astype(np.float32),
    )
