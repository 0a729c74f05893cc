"""A training's whole state as one safetensors file: nothing in it can run, and a write that fails harms nothing.

Lightning hands over a tree of dictionaries, lists, numbers and tensors. The tensors go into the file by number, the tree
with their numbers into its header as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.tensors import read_tensors, write_tensors

_TREE = "training_state"  # key of the header


class SafetensorsIO(CheckpointIO):
    """What Lightning saves and loads checkpoints with."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        tensors: dict[str, Tensor] = {}
        tree = _pack(checkpoint, tensors)
        write_tensors(tensors, Path(path), {_TREE: json.dumps(tree)})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        tensors, header = read_tensors(Path(path))
        if _TREE not in header:
            raise InputError(f"checkpoint {path}: expected the state of a training, got other tensors")
        return _unpack(json.loads(header[_TREE]), tensors)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON; each collection a mapping of one key that names its kind."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # The format wants each tensor in memory of its own; what shares any here are views of single numbers.
        tensors[name] = value.detach().clone() if value._base is not None or value.numel() == 1 else value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"checkpoint: expected numbers, text and tensors, got {type(value).__name__} {value!r}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
