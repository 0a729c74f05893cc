"""How samples are changed before a network learns from them, so that it cannot know them by heart: cut, mirrored, darkened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from dfd_ros.data.samples import Sample
from dfd_ros.errors import InputError
from dfd_ros.learning.batch import Patch
from dfd_ros.optics.lens import field_radius


class Augmentation(BaseModel):
    """How samples are cut and changed; a part of a recipe.

    Attributes:
        crop: Height and width of the patches; None for the whole picture.
        patches: Patches taken of each sample read.
        mirror: Whether half of them are mirrored, left for right.
        upend: Whether half of them are turned upside down.
        light: Standard deviation of the brightness of both pictures together, in ln; of each channel half as much. They
            get darker only: what is clipped tells no blur.
        zoom: Least and greatest size that whole samples are brought to before anything else, as a factor; their CoC goes
            along. One for a batch, even in its logarithm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: tuple[int, int] | None = None
    patches: PositiveInt = 1
    mirror: bool = False
    upend: bool = False
    light: NonNegativeFloat = 0.0
    zoom: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> Augmentation:
        if self.zoom[0] > self.zoom[1]:
            raise ValueError(f"zoom must be the least and the greatest factor, got {self.zoom}")
        return self


def augment(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Patch:
    """A patch of the sample; the same one for the same generator.

    Raises:
        InputError: The sample is smaller than the patch.
    """
    height, width = sample.depth.shape
    rows, columns = augmentation.crop or (height, width)
    if rows > height or columns > width:
        raise InputError(f"sample {sample.name}: expected {columns}x{rows} pixels to crop, got {width}x{height}")
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    mirrored = augmentation.mirror and rng.random() < 0.5
    upended = augmentation.upend and rng.random() < 0.5
    gain = np.exp(augmentation.light * (rng.standard_normal() + 0.5 * rng.standard_normal(3)))
    gain = (gain / max(1.0, gain.max())).astype(np.float32)
    index = (slice(top, top + rows), slice(left, left + columns))

    def cut(array: NDArray[np.float32]) -> NDArray[np.float32]:
        part = array[index][:, ::-1] if mirrored else array[index]
        return part[::-1] if upended else part

    def lit(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return cut(picture) * gain if augmentation.light else cut(picture)

    part = replace(
        sample,
        shallow=lit(sample.shallow),
        deep=lit(sample.deep),
        all_in_focus=None if sample.all_in_focus is None else lit(sample.all_in_focus),
        depth=cut(sample.depth),
        weight=None if sample.weight is None else cut(sample.weight),
    )
    return Patch(part, cut(field_radius((height, width)).astype(np.float32, copy=False)))
