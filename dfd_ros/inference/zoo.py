"""Weights by name: those that come with the package, in dfd_ros/zoo/, and any file. Names are looked up without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dfd_ros.errors import InputError
from dfd_ros.inference.files import WEIGHTS_SUFFIX as SUFFIX

if TYPE_CHECKING:
    from dfd_ros.inference.weights import ModelCard

ZOO = Path(__file__).resolve().parents[1] / "zoo"
MAX_BYTES = 5_000_000
"""Of all files there together."""


def zoo_names() -> tuple[str, ...]:
    """The names of the weights that come with the package."""
    return tuple(sorted(file.stem for file in ZOO.glob(f"*{SUFFIX}")))


def zoo_cards() -> tuple[ModelCard, ...]:
    """Their cards."""
    from dfd_ros.inference.weights import load_card

    return tuple(load_card(ZOO / f"{name}{SUFFIX}") for name in zoo_names())


def find_weights(name: str | Path) -> Path:
    """The file of weights: of a name of the zoo, or the path itself.

    Raises:
        InputError: It is neither.
    """
    named, path = ZOO / f"{name}{SUFFIX}", Path(name)
    if len(path.parts) == 1 and named.is_file():
        return named
    if path.is_file():
        return path
    names = ", ".join(zoo_names()) or "none yet"
    raise InputError(f"weights {name}: expected a file or a name of the zoo ({names}), got neither")
