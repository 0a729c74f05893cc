"""From samples to batches: which sample a training step sees, and how it is cut, mirrored and lit.

Batch number b is a function of the settings and of b alone: of the seed, the sample's turn and its place in the batch come
the sample's number, its patch and what is done to it. So workers share the numbers, ranks take every so-many-th one,
and a training that was killed goes on with the very batches that it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfd_ros.data.samples import LEAST_TRUST, Dataset, Sample, resized
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens, field_radius

_DRAW, _ORDER, _AUGMENT, _ZOOM = range(4)  # streams of random numbers


@dataclass(frozen=True)
class Batch:
    """N samples of one size.

    Attributes:
        names: Of the samples.
        shallow, deep: (N, 3, H, W) in [0, 1], as photographed.
        all_in_focus: Likewise, NaN for samples that lack it; None where all do.
        depth: (N, 1, H, W) metres, NaN unknown.
        weight: (N, 1, H, W) in [0, 1], how far the depth is to be trusted; None for equally.
        field: (N, 1, H, W) distance from the centre of the uncut picture over that of its corner.
        gamma: (N, 1, 1, 1) encoding exponents.
        lenses: What took the pictures; None where that is not known.
    """

    names: tuple[str, ...]
    shallow: Tensor
    deep: Tensor
    depth: Tensor
    field: Tensor
    gamma: Tensor
    lenses: tuple[Lens | None, ...]
    all_in_focus: Tensor | None = None
    weight: Tensor | None = None

    def truth(self) -> Tensor:
        """As `Sample.truth`, (N, 1, H, W)."""
        return self.depth if self.weight is None else torch.where(self.weight >= LEAST_TRUST, self.depth, math.nan)

    def images(self, names: Sequence[str]) -> Tensor:
        """The pictures a model takes, (N, 3 k, H, W).

        Raises:
            InputError: The all-in-focus picture is asked for, and a sample has none.
        """
        return torch.cat([self._picture(name) for name in names], dim=1)

    def coc(self, depth: Tensor, f_number: str, focus_distance: float | None = None) -> Tensor:
        """CoC in pixels, (N, 1, H, W), of depths in metres (positive or NaN): at the `shallow` or the `deep` aperture.

        Args:
            depth: (N, 1, H, W).
            f_number: Which aperture.
            focus_distance: Metres, another one than the lens's.

        Raises:
            InputError: A sample's lens is not known.
        """
        rows = []
        for lens, z, rho in zip(self.known_lenses(), depth, self.field, strict=True):
            if focus_distance is not None:
                lens = lens.refocused(focus_distance)
            number = lens.f_number_shallow if f_number == "shallow" else lens.f_number_deep
            coc = lens.coc(z, number, rho, check=False)
            if f_number == "shallow" and lens.focus_blur > 0.0:
                coc = (coc.square() + lens.focus_blur**2).sqrt()
            rows.append(coc)
        return torch.stack(rows)

    def known_lenses(self) -> tuple[Lens, ...]:
        """The lenses, for what needs them all.

        Raises:
            InputError: A sample's lens is not known.
        """
        for name, lens in zip(self.names, self.lenses, strict=True):
            if lens is None:
                raise InputError(f"sample {name}: expected its lens to be known, got none (`dfd calibrate` fits one)")
        return cast(tuple[Lens, ...], self.lenses)

    @property
    def uncut(self) -> bool:
        """Whether the pictures are whole: their corners are the field's."""
        corners = self.field[..., :: self.field.shape[-2] - 1, :: self.field.shape[-1] - 1]
        return bool((corners > 1.0 - 1e-3).all())

    def single(self, index: int) -> Batch:
        """The batch of sample `index` alone."""
        only = slice(index, index + 1)
        return self._each(lambda tensor: tensor[only], names=self.names[only], lenses=self.lenses[only])

    def flipped(self) -> Batch:
        """The mirror images, left for right."""
        return self._each(lambda tensor: tensor.flip(-1))

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """As `Tensor.to`; what Lightning calls."""
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """In memory that a GPU reads directly; what torch's loader calls."""
        return self._each(Tensor.pin_memory)

    def __len__(self) -> int:
        return len(self.names)

    def _picture(self, name: str) -> Tensor:
        if name == "difference":
            return self.shallow - self.deep
        picture: Tensor | None = getattr(self, name)
        if picture is None:
            raise InputError(f"sample {self.names[0]}: expected an all-in-focus picture, which is wanted, got none")
        return picture

    def _each(self, change: Any, **others: Any) -> Batch:
        tensors = {k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors, **others)


@dataclass(frozen=True)
class Augmentation:
    """How samples are cut and changed.

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

    crop: tuple[int, int] | None = None
    patches: int = 1
    mirror: bool = False
    upend: bool = False
    light: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Source:
    """A dataset and how often samples come from it, relative to the others."""

    dataset: Dataset
    share: float = 1.0


class Batches(torch.utils.data.Dataset[Batch]):
    """Training's batches by number, without end.

    A dataset's samples come in another order each time around. Of several sources one is drawn for each sample.
    """

    def __init__(self, sources: Sequence[Source], size: int, augmentation: Augmentation, seed: int) -> None:
        if not sources:
            raise InputError("training data: expected one source or more, got none")
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
        sample = self.sources[which].dataset.read(index)
        height, width = sample.depth.shape
        sample = resized(sample, (round(zoom * height), round(zoom * width)))
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


@dataclass(frozen=True)
class Patch:
    """A part of a sample with the field radius of its pixels, (H, W)."""

    sample: Sample
    field: NDArray[np.float32]


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


def collate(patches: Sequence[Patch]) -> Batch:
    """Patches of one size as a batch.

    Raises:
        InputError: They differ in size.
    """
    samples = [patch.sample for patch in patches]
    shapes = {sample.depth.shape: sample.name for sample in samples}
    if len(shapes) > 1:
        (one, name), (other, its) = list(shapes.items())[:2]
        raise InputError(f"batch: expected pictures of one size, got {name} of {one} and {its} of {other}; set a crop")

    def stack(arrays: Sequence[NDArray[np.float32] | None]) -> Tensor | None:
        """(N, C, H, W), NaN for those that are None; None if all are."""
        some = next((array for array in arrays if array is not None), None)
        if some is None:
            return None
        missing = np.full(some.shape, np.nan, np.float32)
        stacked = np.stack([missing if array is None else array for array in arrays])
        channels = stacked[:, None] if stacked.ndim == 3 else np.moveaxis(stacked, -1, 1)
        return torch.from_numpy(np.ascontiguousarray(channels, np.float32))

    def stack_all(arrays: Sequence[NDArray[np.float32]]) -> Tensor:
        tensor = stack(arrays)
        assert tensor is not None
        return tensor

    weights = None
    if any(sample.weight is not None for sample in samples):
        weights = [np.ones_like(s.depth) if s.weight is None else s.weight for s in samples]
    return Batch(
        names=tuple(sample.name for sample in samples),
        shallow=stack_all([sample.shallow for sample in samples]),
        deep=stack_all([sample.deep for sample in samples]),
        depth=stack_all([sample.depth for sample in samples]),
        field=stack_all([patch.field for patch in patches]),
        gamma=torch.tensor([sample.gamma for sample in samples], dtype=torch.float32).view(-1, 1, 1, 1),
        lenses=tuple(sample.lens for sample in samples),
        all_in_focus=stack([sample.all_in_focus for sample in samples]),
        weight=None if weights is None else stack(weights),
    )


def whole(sample: Sample) -> Batch:
    """One sample as a batch, uncut: for validation and evaluation."""
    return collate([augment(sample, Augmentation(), np.random.default_rng(0))])
