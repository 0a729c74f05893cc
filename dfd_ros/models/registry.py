"""The networks by name, as recipes, weights and the command line ask for them.

    model = build("dual_aperture", inputs=["shallow"], features=32)

How a model is called, and what its signature says, is in `base`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import torch

from dfd_ros.errors import InputError
from dfd_ros.models.base import DepthModel, Signature
from dfd_ros.models.d3net import D3Net
from dfd_ros.models.dense_aspp import DenseAspp
from dfd_ros.models.dual_aperture import DualAperture
from dfd_ros.models.focus import FocusDefocus
from dfd_ros.models.physics_net import PhysicsNet
from dfd_ros.models.two_headed import TwoHeaded

MODELS: Mapping[str, type[DepthModel]] = MappingProxyType(
    {
        "dual_aperture": DualAperture,
        "d3net": D3Net,
        "focus_defocus": FocusDefocus,
        "dense_aspp": DenseAspp,
        "two_headed": TwoHeaded,
        "physics_net": PhysicsNet,
    }
)


@dataclass(frozen=True)
class Description:
    """What a model is before it is built: its name, all its options, its signature, and how many parameters it has."""

    name: str
    options: Mapping[str, Any]
    signature: Signature
    parameters: int


def build(name: str, **options: Any) -> DepthModel:
    """A model with fresh weights, drawn from torch's random numbers.

    Args:
        name: One of `MODELS`.
        options: Keyword arguments of that class; a list will do for a tuple and a whole number for a float.

    Raises:
        InputError: Unknown name or option, or a value that is not of the option's type or out of range.
    """
    return _class(name)(**_checked(name, options))


def describe(name: str, **options: Any) -> Description:
    """What `build` would give; nothing is allocated. Errors as for `build`."""
    with torch.device("meta"):
        model = build(name, **options)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Description(name, default_options(name) | _checked(name, options), model.signature, parameters)


def default_options(name: str) -> dict[str, Any]:
    """The options of a model and their defaults.

    Raises:
        InputError: Unknown name.
    """
    return {key: option.default for key, option in inspect.signature(_class(name)).parameters.items()}


def _class(name: str) -> type[DepthModel]:
    if name not in MODELS:
        raise InputError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name]


def _checked(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with lists made tuples, after a look at their names and types."""
    hints = get_type_hints(_class(name).__init__)
    known = default_options(name)
    checked = {}
    for key, value in options.items():
        if key not in known:
            raise InputError(f"model {name} has no option {key!r}, only {', '.join(known)}")
        value = tuple(value) if isinstance(value, list) else value
        if not _is_a(value, hints[key]):
            wanted = getattr(hints[key], "__name__", hints[key]) if hints[key] in (bool, int, float) else hints[key]
            raise InputError(f"model {name}: option {key} must be {wanted}, got {value!r}")
        checked[key] = value
    return checked


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of an option's type: the five kinds that options have."""
    if hint in (tuple[str, ...], tuple[int, ...]):
        return isinstance(value, tuple) and all(_is_a(item, get_args(hint)[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)
