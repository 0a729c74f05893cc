"""The three parts of an exported graph: what comes before the first learned weight, what is learned, and what comes after.

Half precision suits the second alone: before, energies of flat walls would be lost in it, and after, differences of
pictures that are nearly equal. Each node says in its `doc_string` to which part it belongs, and a runtime whose precision
counts for a whole graph runs the parts one after another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
import onnx.inliner
import onnx.utils
from onnx import ModelProto, shape_inference

EVIDENCE, NETWORK, ANSWER = "evidence", "network", "answer"
PARTS = (EVIDENCE, NETWORK, ANSWER)
"""In the order in which they run."""


@dataclass(frozen=True)
class Segment:
    """A part as a model of its own.

    Attributes:
        part: One of `PARTS`.
        model: In standard operators alone.
        inputs, outputs: Names of its tensors; what one part gives another takes under the same name.
    """

    part: str
    model: ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def mark_parts(model: ModelProto, learned: Iterable[str]) -> None:
    """Mark the nodes of a model, in place; `learned` are the names of the initializers that hold learned weights."""
    weights = set(learned)
    nodes = list(model.graph.node)  # sorted: what is used comes before its use
    after = set(weights)
    for node in nodes:
        if after & set(node.input):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(nodes):
        if weights & set(node.input) or before & set(node.output):
            before.update(node.input)
            is_network = True
        else:
            is_network = False
        part = EVIDENCE if not after & set(node.output) else NETWORK if is_network else ANSWER
        node.doc_string = part


def split_parts(model: ModelProto) -> list[Segment]:
    """The parts of a model that was marked, in order; those without a node are left out."""
    graph = model.graph
    constants = {initializer.name for initializer in graph.initializer}
    needed = {part: _used(model, part) - constants for part in PARTS}
    made = {part: {name for node in graph.node if node.doc_string == part for name in node.output} for part in PARTS}
    wanted = {value.name for value in graph.output}
    plain = shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model))
    extractor = onnx.utils.Extractor(plain)
    segments = []
    for part in PARTS:
        elsewhere = wanted.union(*(needed[other] for other in PARTS if other != part))
        inputs, outputs = sorted(needed[part] - made[part]), sorted(made[part] & elsewhere)
        if outputs:
            segments.append(Segment(part, extractor.extract_model(inputs, outputs), tuple(inputs), tuple(outputs)))
    return segments


def _used(model: ModelProto, part: str) -> set[str]:
    return {name for node in model.graph.node if node.doc_string == part for name in node.input if name}
