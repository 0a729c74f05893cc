"""Several trainings made one network: the mean of their weights.

Networks tuned from the same weights, each otherwise (other data, other augmentation, another seed), lie in one basin, and their
mean tends to err less on new scenes than any of them, at the cost of one (Wortsman et al., "Model soups", ICML 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dfd_ros.errors import InputError
from dfd_ros.inference.lens_range import ranges_of
from dfd_ros.inference.weights import ModelCard, load_weights
from dfd_ros.learning.weights import save_weights


def average_weights(paths: Sequence[Path], out: Path) -> ModelCard:
    """Write the mean of files of weights as another one, and return its card; a file given twice counts twice.

    The card is the first one's with the data and the range of lenses of all. It has no metrics, since nobody has measured the
    mean yet; the recipes of the others stand in `averaged_with`.

    Raises:
        InputError: Fewer than two files; one that cannot be read, or that is of another model than the first, was trained for
            another lens or may be used for something else.
    """
    if len(paths) < 2:
        raise InputError(f"average: expected two files of weights or more, got {len(paths)}")
    models, cards = zip(*(load_weights(path) for path in paths), strict=True)
    mean, card = models[0], cards[0]
    for path, other in zip(paths, cards, strict=True):
        for what in ("model", "options", "only_lens", "use"):
            wanted, got = getattr(card, what), getattr(other, what)
            if repr(got) != repr(wanted):  # by their text, in which NaN equals NaN
                raise InputError(f"weights {path}: expected the {what} of {paths[0]}, {wanted!r}, got {got!r}")
    states = [model.state_dict() for model in models]
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0) if first.is_floating_point() else first
            for name, first in states[0].items()
        }
    )
    data = tuple(dict.fromkeys(source for one in cards for source in one.data))
    recipes = tuple(other.recipe for other in cards[1:])
    lens = ranges_of((name, end) for one in cards for name, ends in one.lens.items() for end in ends)
    card = replace(card, data=data, lens=lens, metrics={}, averaged_with=recipes)
    save_weights(mean, card, out, half=bool(card.recipe.get("train", {}).get("half", False)))
    return card
