"""The two operators of ours as kernels: which one a node's attributes and types ask for, whatever form its plugin has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dfd_ros.errors import InputError
from dfd_ros.inference.functions import BOUNDARY_CUE, PSF_CONV
from dfd_ros.optics.kernels.cuda import Kernel
from dfd_ros.optics.kernels.cue import CueKernel
from dfd_ros.optics.kernels.settings import PsfSettings

TYPES: Mapping[str, torch.dtype] = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}
"""What tensors of the operators may be made of: TensorRT's names and torch's."""
Attribute = int | float | str


@dataclass(frozen=True)
class Operator:
    """
    Attributes:
        name: Of the node and of its plugin.
        inputs: How many tensors.
        attributes: Name -> type, in order.
        alike: Tensors, inputs before the output, that are of one type, group by group.
        output_like: Of which input's type the output is.
    """

    name: str
    inputs: int
    attributes: Mapping[str, type[Attribute]]
    alike: tuple[tuple[int, ...], ...]
    output_like: int

    def takes(self, types: tuple[str, ...]) -> bool:
        """Whether there is a kernel for the first tensors being of these types."""
        known = all(name in TYPES for name in types)
        groups = ([types[at] for at in group if at < len(types)] for group in self.alike)
        return known and all(len(set(group)) <= 1 for group in groups)


OPERATORS: Mapping[str, Operator] = {
    PSF_CONV: Operator(
        PSF_CONV, 2, {"window": int, "kind": str, "coc_at": str, "spread": float}, alike=((0, 1, 2),), output_like=0
    ),
    # Pictures stay in single precision where features are in half: their difference is small.
    BOUNDARY_CUE: Operator(BOUNDARY_CUE, 4, {}, alike=((0, 1), (2, 3, 4)), output_like=2),
}


def psf_kernel(attributes: Mapping[str, Any], channels: int, element: str) -> Kernel:
    """The kernel of a PsfConv node for images of so many channels; raises InputError where there can be none."""
    values = {name: read_attribute(attributes[name], kind) for name, kind in OPERATORS[PSF_CONV].attributes.items()}
    # Of the kinds that the operator's attributes name; PsfSettings checks their values.
    settings = PsfSettings(**values)  # type: ignore[arg-type]
    return Kernel("forward", settings, channels, _dtype(PSF_CONV, element), weight_sum=False)


def cue_kernel(features: int, picture: str, element: str) -> CueKernel:
    """The kernel of a BoundaryCue node of so many features; raises InputError where there can be none."""
    return CueKernel(features, _dtype(BOUNDARY_CUE, picture), _dtype(BOUNDARY_CUE, element))


def read_attribute(value: Any, kind: type[Attribute]) -> Attribute:
    """An attribute as TensorRT hands it over: a number, an array of one, text, or its bytes."""
    if kind is str:
        text = value if isinstance(value, str) else np.asarray(value).tobytes().decode()
        return text.rstrip("\0")
    return kind(np.asarray(value).reshape(-1)[0])


def _dtype(operator: str, element: str) -> torch.dtype:
    if element not in TYPES:
        raise InputError(f"plugin {operator}: expected tensors of {', '.join(TYPES)}, got {element}")
    return TYPES[element]
