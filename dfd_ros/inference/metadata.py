"""What an exported file says of itself: which network it holds, for which pictures, lenses and outputs.

It stands as JSON under one key of the ONNX file's metadata, beside a stamp of all else in the file, by which a file that
was cut short or changed is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.optics.lens import Lens

FORMAT = "dfd_ros export 1"
_KEY = "dfd_ros"
_CONTENT = "dfd_ros content"
_STAMP_LENGTH = 16


@dataclass(frozen=True)
class ExportInfo:
    """What is in an exported file.

    Attributes:
        name: Of the weights.
        model, options: The network, as for `dfd_ros.models.registry.build`.
        pictures: What `images` holds along its channels, in order.
        inputs: Name -> shape, all float32: `images` (1, 3 k, H, W); `lens` and `optics` where the lens is an input.
        outputs: Name -> shape, all float32: the network's, and `confidence`.
        gamma: Of the pictures, RGB in [0, 1]: light = value ** gamma.
        lens: Ranges of the lenses trained for, as in the model card.
        only_lens: The fields of the one lens that the file is for, in pixels of its pictures; empty where it is an input.
        consistency: Whether the confidence heeds how well the depth explains the pair.
        use: What the weights may be used for.
        weights: Stamp of the weights.
        opset: Of the standard operators.
        format: Of this record.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    pictures: tuple[str, ...]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    gamma: float
    weights: str
    opset: int
    lens: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    only_lens: Mapping[str, Any] = field(default_factory=dict)
    consistency: bool = False
    use: str = ""
    format: str = FORMAT

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.inputs["images"][-2:]
        return height, width

    def lens_used(self) -> Lens | None:
        """The lens that the file is for; None where it is an input."""
        return Lens(**self.only_lens) if self.only_lens else None

    def describe(self) -> str:
        """One line."""
        height, width = self.size
        lens = f"for {self.only_lens['name']}" if self.only_lens else "any lens"
        return f"{self.name}: {self.model} at {width}x{height}, {lens}, gives {', '.join(self.outputs)}"


def weights_stamp(state: Mapping[str, Tensor]) -> str:
    """A hash of weights, by their names and values."""
    total = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return total.hexdigest()[:_STAMP_LENGTH]


def write_info(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Put the record into a model, in place."""
    onnx.helper.set_model_props(model, {})
    stamp = _content_stamp(model)
    onnx.helper.set_model_props(model, {_KEY: json.dumps(asdict(info)), _CONTENT: stamp})


def read_info(path: Path, model: str = "") -> ExportInfo:
    """The record of a file; errors as for `read_model`."""
    return read_model(path, model)[1]


def read_model(path: Path, model: str = "") -> tuple[onnx.ModelProto, ExportInfo]:
    """An exported file and its record.

    Args:
        path: The file.
        model: Of which network it must be; empty for any.

    Raises:
        InputError: It is missing, truncated, changed, not one of ours, or of another network.
    """
    if not path.is_file():
        raise InputError(f"model {path}: expected an ONNX file, got no such file")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError, ValueError) as error:
        raise InputError(
            f"model {path}: expected a whole ONNX file, got one that is damaged or of another kind"
        ) from error
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    if not proto.HasField("graph"):
        raise InputError(f"model {path}: expected a whole ONNX file, got one that is damaged or of another kind")
    if _KEY not in properties:
        raise InputError(f"model {path}: expected an ONNX file that `dfd export` wrote, got one of {_producer(proto)}")
    info = _parse(properties[_KEY], path)
    onnx.helper.set_model_props(proto, {})
    if _content_stamp(proto) != properties.get(_CONTENT):
        raise InputError(f"model {path}: expected it as `dfd export` wrote it, got one that is truncated or changed")
    if model and info.model != model:
        raise InputError(f"model {path}: expected a network {model}, got {info.model}")
    return proto, info


def _parse(text: str, path: Path) -> ExportInfo:
    try:
        content = json.loads(text)
        given = content.get("format")
        if given != FORMAT:
            raise InputError(f"model {path}: expected a file of format {FORMAT!r}, got {given!r}; export it again")
        known = {entry.name for entry in fields(ExportInfo)}
        values = {key: value for key, value in content.items() if key in known}
        for key in ("inputs", "outputs", "lens"):
            values[key] = {name: tuple(entries) for name, entries in values[key].items()}
        return ExportInfo(**{**values, "pictures": tuple(values["pictures"])})
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"model {path}: what it says of itself is damaged ({error})") from error


def _producer(proto: onnx.ModelProto) -> str:
    return proto.producer_name or "unknown origin"


def _content_stamp(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()[:_STAMP_LENGTH]
