"""Trained weights: a safetensors file whose header holds its model card, and the card as JSON beside it for people.

The card says which network it is, with which options, how and on what it was trained, for which lenses, how well it did
and what it may be used for. A file alone is enough to run a model; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.tensors import read_tensors
from dfd_ros.models.base import DepthModel
from dfd_ros.models.registry import build, default_options
from dfd_ros.optics.lens import Lens

FORMAT = "dfd_ros weights 1"
CARD_KEY, FORMAT_KEY = "card", "format"
"""Of the header."""


@dataclass(frozen=True)
class ModelCard:
    """What a file of weights is.

    Attributes:
        name: Of the weights.
        model, options: The network, as for `dfd_ros.models.registry.build`.
        inputs, outputs: Of the network.
        parameters: How many.
        use: What the weights may be used for.
        data: The data sets trained on.
        lens: Ranges of the lenses trained for: metres, f-numbers, and CoC at infinity in pixels.
        only_lens: The fields of the one lens trained for, in pixels of the pictures trained on; empty where they differ.
        metrics: On the data validated on.
        steps: Optimiser steps.
        commit: Of the program that trained it, empty where it is not known.
        recipe: The whole recipe.
        averaged_with: Recipes of further trainings, whose weights these are the mean of, too.
        versions: Of the libraries.
    """

    name: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    parameters: int = 0
    use: str = ""
    data: tuple[str, ...] = ()
    lens: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    only_lens: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    commit: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    averaged_with: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def lens_used(self) -> Lens | None:
        """The one lens trained for."""
        return Lens(**self.only_lens) if self.only_lens else None

    def size(self) -> tuple[int, int] | None:
        """Height and width that the pictures were brought to; None for their own."""
        size = self._first_data().get("size")
        return None if size is None else (size[0], size[1])

    def registered(self) -> bool:
        """Whether pairs are to be brought to one exposure and place first: made-up ones are from the start."""
        data = self._first_data()
        made_up = str(data.get("spec", "synthetic")).partition(":")[0] == "synthetic"
        return made_up or bool(data.get("register_pairs", False))

    def _first_data(self) -> Mapping[str, Any]:
        return self.recipe["data"]["train"][0] if self.recipe else {}

    def describe(self) -> str:
        """One line."""
        rel = f", rel {self.metrics['rel']:.3f}" if "rel" in self.metrics else ""
        return (
            f"{self.name}: {self.model}, {self.parameters / 1e6:.3g} M parameters{rel}; {self.use or 'use not stated'}"
        )


def load_card(path: Path) -> ModelCard:
    """The card of a file of weights; errors as for `load_weights`."""
    return _read(path)[1]


def load_weights(path: Path) -> tuple[DepthModel, ModelCard]:
    """The model of a file, with its weights, in evaluation mode, and its card.

    Raises:
        InputError: The file is missing, damaged, has no card, or its tensors are not those of the card's model.
    """
    tensors, card = _read(path)
    try:
        model = build(card.model, **card.options)
    except InputError as error:
        raise InputError(f"weights {path}: {error}") from error
    _fill(model, tensors, path, card)
    return model.eval(), card


def start_from(model: DepthModel, name: str, options: Mapping[str, Any], path: Path) -> None:
    """Give a model the weights of a file of the same model.

    Raises:
        InputError: As for `load_weights`, or the file is of another model, or of options that make other tensors.
    """
    tensors, card = _read(path)
    if card.model != name:
        raise InputError(f"weights {path}: expected weights of {name}, got {card.model}")
    wanted, given = ({**default_options(name), **chosen} for chosen in (options, card.options))
    differing = [key for key in wanted if _plain(wanted[key]) != _plain(given.get(key))]
    own = _shapes(model)
    if differing and any(own.get(key) != tuple(tensor.shape) for key, tensor in tensors.items()):
        key = differing[0]
        raise InputError(
            f"weights {path}: expected weights of {name} with {key}={wanted[key]!r}, got {key}={given.get(key)!r}"
        )
    _fill(model, tensors, path, card)


def _read(path: Path) -> tuple[dict[str, Tensor], ModelCard]:
    tensors, header = read_tensors(path)
    if header.get(FORMAT_KEY) != FORMAT:
        hint = "a training's checkpoint" if "training_state" in header else "tensors without a model card"
        raise InputError(f"weights {path}: expected weights that `dfd train` wrote, got {hint}")
    try:
        content = json.loads(header[CARD_KEY])
        lists = {key: tuple(content.get(key, ())) for key in ("inputs", "outputs", "data", "averaged_with")}
        lens = {name: tuple(ends) for name, ends in content.get("lens", {}).items()}
        card = ModelCard(**{**content, **lists, "lens": lens})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"weights {path}: its model card is damaged ({error})") from error
    return tensors, card


def _fill(model: DepthModel, tensors: Mapping[str, Tensor], path: Path, card: ModelCard) -> None:
    own = _shapes(model)
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    if wrong:
        raise InputError(
            f"weights {path}: expected the {len(own)} tensors of {card.model}, got {len(given)}, of which {wrong[0]} has "
            f"shape {given.get(wrong[0])} where {own.get(wrong[0])} is wanted"
        )
    model.load_state_dict(dict(tensors))


def _shapes(model: DepthModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
