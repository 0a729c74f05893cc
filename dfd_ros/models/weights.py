"""Weights for a network's encoder from a safetensors file, such as those of a classifier trained on ImageNet.

The format (https://github.com/huggingface/safetensors, section "Format"): eight bytes with the header's length n, little
endian; n bytes of JSON, name -> dtype, shape and the place of the data; the data. Nothing in it can run.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfd_ros.errors import InputError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LENGTH_BYTES = 8
# The DenseNets of torchvision were saved as `norm.1` before a dot in a name meant a module.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class LoadReport:
    """What became of the names: taken, wanted but not there (or of another shape), there but not wanted."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        for word in ("missing", "unused"):
            names = getattr(self, word)
            if names:
                text += f"; {len(names)} {word}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        return text


def load_encoder(encoder: nn.Module, path: str | Path) -> LoadReport:
    """Give an encoder the tensors of a file that have its names and shapes, and leave it the others it has.

    The names are torchvision's (`features.denseblock1.denselayer1.conv1.weight`, `layer1.0.conv1.weight`). What is
    often missing for good reason: the first convolution of an encoder with other than three channels or another
    kernel, and the layer that stands for the pooling.

    Args:
        encoder: Such as `D3Net.encoder`; changed in place.
        path: A safetensors file.

    Raises:
        InputError: The file cannot be read, or none of its tensors fits.
    """
    given = {_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in read_safetensors(path).items()}
    own = encoder.state_dict()
    fitting = {name: given[name] for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    if not fitting:
        raise InputError(f"{path}: none of its {len(given)} tensors has a name and shape of {type(encoder).__name__}")
    encoder.load_state_dict(fitting, strict=False)
    # Counters of batches matter to nothing here, and files from before they existed lack them.
    missing = (name for name in own if name not in fitting and not name.endswith("num_batches_tracked"))
    return LoadReport(tuple(fitting), tuple(missing), tuple(name for name in given if name not in fitting))


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        InputError: The file is missing, truncated, or none of that format.
    """
    try:
        data = bytearray(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        header: dict[str, Any] = json.loads(data[_LENGTH_BYTES:start].decode())
        entries = {name: _place(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a safetensors file, or its header is damaged") from error
    tensors = {}
    for name, (dtype, shape, begin, end) in entries.items():
        count = math.prod(shape)
        if end - begin != count * dtype.itemsize or not 0 <= begin <= end <= len(data) - start:
            raise InputError(f"{path}: the data of {name} are not all there; the file is truncated or damaged")
        if count:
            tensors[name] = torch.frombuffer(data, dtype=dtype, count=count, offset=start + begin).reshape(shape)
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
    return tensors


def _place(entry: dict[str, Any]) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """dtype, shape, first byte and byte after the last of a tensor, relative to the end of the header."""
    begin, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    if any(size < 0 for size in shape):
        raise ValueError("negative size")
    return _DTYPES[entry["dtype"]], shape, begin, end
