"""Trained weights are written: what `dfd_ros.inference.weights` reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from dfd_ros.errors import InputError
from dfd_ros.inference.tensors import SUFFIX, write_tensors
from dfd_ros.inference.weights import CARD_KEY, FORMAT, FORMAT_KEY, ModelCard
from dfd_ros.models.base import DepthModel


def save_weights(model: DepthModel, card: ModelCard, path: Path, *, half: bool = False) -> None:
    """Write weights and their card: `path`, and its `.json`.

    Args:
        model: Whose state is written.
        card: What it is.
        path: The file, ending in .safetensors.
        half: Whether to keep numbers in 16 bits.

    Raises:
        InputError: The suffix is another, or the file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"weights {path}: expected a name that ends in {SUFFIX}")
    state = {
        name: tensor.half() if half and tensor.dtype == torch.float32 else tensor
        for name, tensor in model.state_dict().items()
    }
    text = json.dumps(asdict(card))
    write_tensors(state, path, {FORMAT_KEY: FORMAT, CARD_KEY: text})
    path.with_suffix(".json").write_text(json.dumps(asdict(card), indent=2) + "\n")
