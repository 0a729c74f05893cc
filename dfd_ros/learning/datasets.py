"""What a recipe's data is: the data sets it names, opened, and training's batches of them."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dfd_ros.data.open import OpenOptions, open_dataset
from dfd_ros.data.samples import Dataset, Sample, Selection, resized
from dfd_ros.data.synthetic import LensRange, SyntheticSettings
from dfd_ros.errors import InputError
from dfd_ros.inference.lens_range import figures, ranges_of
from dfd_ros.learning.batches import Batches, Source
from dfd_ros.learning.kept import Kept
from dfd_ros.learning.recipe import DataRecipe, Recipe
from dfd_ros.optics.lens import Lens
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.share import config_file

_GIGABYTE = 1e9
_LENS_SAMPLES = 64  # of a source, looked at for the card: of random lenses it takes many to tell the range


class _Resized(Dataset):
    """A data set whose pictures are brought to one size."""

    def __init__(self, dataset: Dataset, shape: tuple[int, int]) -> None:
        self.names, self._dataset, self._shape = dataset.names, dataset, shape

    def read(self, index: int) -> Sample:
        return resized(self._dataset.read(index), self._shape)


def open_data(recipe: DataRecipe) -> Dataset:
    """The data set of a recipe.

    Raises:
        InputError: It cannot be opened, a setting is unknown, or no sample is left.
    """
    dataset = _of_its_own_size(recipe)
    return dataset if recipe.size is None else _Resized(dataset, recipe.size)


def open_batches(recipe: Recipe) -> Batches:
    """Training's batches; errors as for `open_data`."""
    room = recipe.data.keep * _GIGABYTE / len(recipe.data.train)
    sources = [Source(Kept(_of_its_own_size(data), room), data.share, data.size) for data in recipe.data.train]
    return Batches(sources, recipe.train.batch, recipe.data.augment, recipe.train.seed)


def _of_its_own_size(recipe: DataRecipe) -> Dataset:
    options = OpenOptions(
        split=recipe.split,
        lens=load_lens(config_file(recipe.lens)) if recipe.lens else None,
        register=recipe.register_pairs,
        synthetic=_synthetic(recipe.synthetic) if recipe.synthetic else None,
    )
    dataset = open_dataset(recipe.spec, options)
    numbers = _selected(recipe, len(dataset))
    if not numbers:
        raise InputError(
            f"data {recipe.spec}: expected samples from number {recipe.first} on, got {len(dataset)} in all"
        )
    if len(numbers) < len(dataset):
        dataset = Selection(dataset, numbers)
    return dataset


def lens_ranges(
    lenses: Iterable[Lens | None], zoom: tuple[float, float] = (1.0, 1.0)
) -> dict[str, tuple[float, float]]:
    """Least and greatest of what lenses are: f-numbers, distances in metres, CoC at infinity in pixels.

    `zoom`: least and greatest factor by which training changed the pictures' size, and so their CoC.
    """
    zoomed = (lens.zoomed(factor) for lens in lenses if lens is not None for factor in zoom)
    return ranges_of(figure for lens in zoomed for figure in figures(lens).items())


def only_lens(lenses: Iterable[Lens | None]) -> dict[str, Any]:
    """The fields of the one lens that all are, less those not known; empty where they differ."""
    fields = [None if lens is None else asdict(lens) for lens in lenses]
    if not fields or fields[0] is None or any(repr(lens) != repr(fields[0]) for lens in fields):
        return {}
    return {k: v for k, v in fields[0].items() if not (isinstance(v, float) and math.isnan(v))}


def some_lenses(batches: Batches) -> list[Lens | None]:
    """The lenses of samples of each source, evenly spread."""
    lenses = []
    for source in batches.sources:
        count = min(len(source.dataset), _LENS_SAMPLES)
        lenses += [source.read(k * len(source.dataset) // count).lens for k in range(count)]
    return lenses


def _selected(recipe: DataRecipe, count: int) -> list[int]:
    folds, k = recipe.folds, recipe.fold
    numbers: Sequence[int] = range(count)
    if folds:
        start, stop = k * count // folds, (k + 1) * count // folds
        numbers = range(start, stop) if recipe.held_out else [*range(start), *range(stop, count)]
    return list(numbers[recipe.first : recipe.first + recipe.count] if recipe.count else numbers[recipe.first :])


def _synthetic(content: dict[str, Any]) -> SyntheticSettings:
    """Settings from plain values: lists for tuples, a mapping or a lens file for the lens."""
    values = dict(content)
    lens = values.get("lens")
    if isinstance(lens, str):
        values["lens"] = load_lens(config_file(lens))
    elif isinstance(lens, dict):
        values["lens"] = _record(LensRange, lens)
    return _record(SyntheticSettings, values)


Record = typing.TypeVar("Record")


def _record(kind: type[Record], content: dict[str, Any]) -> Record:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(content) - known)
    if unknown:
        raise InputError(f"synthetic: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
    except TypeError as error:
        raise InputError(f"synthetic: expected numbers and ranges, got {content} ({error})") from error


def spec_of(recipe: DataRecipe) -> str:
    """In a line, for the card."""
    parts = [Path(recipe.spec).name if recipe.spec.startswith("/") else recipe.spec]
    if recipe.folds:
        parts.append(f"fold {recipe.fold} of {recipe.folds} {'only' if recipe.held_out else 'left out'}")
    if recipe.count:
        parts.append(f"samples {recipe.first} to {recipe.first + recipe.count - 1}")
    return ", ".join(parts)
