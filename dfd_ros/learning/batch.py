"""Samples side by side, as a network sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfd_ros.data.samples import LEAST_TRUST, Sample
from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens


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
class Patch:
    """A part of a sample with the field radius of its pixels, (H, W)."""

    sample: Sample
    field: NDArray[np.float32]


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
