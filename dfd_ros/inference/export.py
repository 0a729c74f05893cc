"""Export: a network as one ONNX file that ONNX Runtime, OpenVINO and TensorRT run, and that says what it is.

The file holds one graph of fixed shapes (`graph`), `dfd::BoundaryCue` and `dfd::PsfConv` with their functions
(`functions`), and a record of what is in it (`metadata`). All that depends on shapes alone is computed here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from dfd_ros.errors import InputError
from dfd_ros.inference.files import EXPORT_SUFFIX, write_whole
from dfd_ros.inference.fold import fold_constants
from dfd_ros.inference.functions import add_functions
from dfd_ros.inference.graph import DepthGraph, GraphSettings
from dfd_ros.inference.metadata import ExportInfo, read_model, weights_stamp, write_info
from dfd_ros.inference.powers import spell_out_powers
from dfd_ros.inference.segments import mark_parts
from dfd_ros.inference.weights import ModelCard
from dfd_ros.models.base import DepthModel

OPSET = 17
OPSETS = range(17, 21)
"""Standard operator sets to write: what TensorRT from 10.3 on, ONNX Runtime and OpenVINO all read."""
SUFFIX = EXPORT_SUFFIX
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_TRACERS = "onnx::"  # how the names begin that the exporter gives to weights that it computed


@dataclass(frozen=True)
class Program:
    """What back ends run.

    Attributes:
        onnx: The exported file's content.
        info: What it says of itself.
        graph: The same as a torch module; None where it was read from a file.
    """

    onnx: bytes
    info: ExportInfo
    graph: DepthGraph | None = None


def export_model(model: DepthModel, card: ModelCard, settings: GraphSettings, opset: int = OPSET) -> Program:
    """A network as an ONNX program.

    Args:
        model: With its weights.
        card: What it is.
        settings: Size, lens, and whether confidence heeds consistency.
        opset: Of the standard operators, one of `OPSETS`.

    Raises:
        InputError: An opset or a size that is not supported, or settings that do not suit the network.
    """
    if opset not in OPSETS:
        raise InputError(f"opset: expected one from {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    graph = DepthGraph(model, settings)
    proto = fold_constants(_trace(graph, opset))
    spell_out_powers(proto)
    mark_parts(proto, _learned(proto, graph))
    add_functions(proto)
    lens = settings.lens
    info = ExportInfo(
        name=card.name,
        model=card.model,
        options=card.options,
        pictures=model.signature.inputs,
        inputs=graph.inputs,
        outputs=graph.outputs,
        gamma=graph.gamma,
        weights=weights_stamp(model.state_dict()),
        opset=opset,
        lens=card.lens,
        only_lens={} if lens is None else asdict(lens),
        consistency=settings.consistency,
        use=card.use,
    )
    proto.producer_name, proto.producer_version = "dfd_ros", ""
    write_info(proto, info)
    onnx.checker.check_model(proto, full_check=True)
    return Program(proto.SerializeToString(), info, graph)


def save_program(program: Program, path: Path) -> None:
    """Write the file, all or nothing.

    Raises:
        InputError: The suffix is another, or it cannot be written; what stood there before is whole.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"model {path}: expected a name that ends in {SUFFIX}")
    try:
        write_whole(path, program.onnx)
    except OSError as error:
        raise InputError(f"model {path}: cannot be written ({error.strerror})") from error


def load_program(path: Path, model: str = "") -> Program:
    """The program of an exported file.

    Args:
        path: The file.
        model: Of which network it must be; empty for any.

    Raises:
        InputError: It is missing, truncated, changed, not one of ours, or of another network.
    """
    _, info = read_model(path, model)
    return Program(path.read_bytes(), info)


def _trace(graph: DepthGraph, opset: int) -> onnx.ModelProto:
    """The graph in standard operators and `dfd` nodes, as torch writes it."""
    stream = io.BytesIO()
    options: Mapping[str, Any] = {
        "f": stream,
        "input_names": list(graph.inputs),
        "output_names": list(graph.outputs),
        "opset_version": opset,
        # The other exporter mistakes the types of some constants, and is ten times as slow.
        "dynamo": False,
    }
    with warnings.catch_warnings(), torch.no_grad():
        # Checks of shapes are done once, here: shapes are fixed.
        warnings.simplefilter("ignore")
        torch.onnx.export(graph, graph.example(), **options)
    return onnx.load_model_from_string(stream.getvalue())


def _learned(proto: onnx.ModelProto, graph: DepthGraph) -> list[str]:
    """Initializers of learned weights: under their names, or where a normalisation went into them under the tracer's."""
    weights = set(graph.state_dict())
    for node in proto.graph.node:
        if node.op_type in _WEIGHTED:
            weights.update(name for name in node.input[1:] if name.startswith(_TRACERS))
    return [initializer.name for initializer in proto.graph.initializer if initializer.name in weights]
