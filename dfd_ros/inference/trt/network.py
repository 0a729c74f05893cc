"""An exported graph as TensorRT shall build it: with or without plugins, and in the types it shall compute in.

TensorRT's networks are strongly typed: what a tensor is made of stands in the graph, and precision is not a switch. So for
half precision what is learned (`segments`) is written in half, with casts around it; evidence before and answers after
it stay in single, and so do the graph's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from dfd_ros.inference.backend import Precision
from dfd_ros.inference.functions import BOUNDARY_CUE, DOMAIN
from dfd_ros.inference.rewrite import replace_nodes
from dfd_ros.inference.segments import ANSWER, EVIDENCE, NETWORK

HALF: dict[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
# Inputs that an operator wants in single precision, or that lose by being rounded: pictures before their difference.
_SINGLE = {"Resize": (1, 2), BOUNDARY_CUE: (0, 1)}
_PARTS = {BOUNDARY_CUE: (EVIDENCE, NETWORK, NETWORK)}  # of the nodes of a function; elsewhere its node's own


def typed_network(content: bytes, precision: Precision, *, plugins: bool = True) -> ModelProto:
    """The model to build.

    Args:
        content: Of an exported file.
        precision: Of what is learned.
        plugins: Whether nodes of ours are left to plugins; else they are spelled out in standard operators.
    """
    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {})
    if not plugins:
        model = _spelled_out(model)
    types = _types(model)
    del model.functions[:]
    if precision in HALF:
        _Halved(model, HALF[precision], types).run()
        # Before opset 22 ONNX has no bfloat16 for many operators, but TensorRT's parser does.
        model = shape_inference.infer_shapes(model)
    return model


def needs_plugins(model: ModelProto) -> bool:
    """Whether nodes of ours are in it."""
    return any(node.domain == DOMAIN for node in model.graph.node)


def _spelled_out(model: ModelProto) -> ModelProto:
    """Nodes of ours replaced by their functions, in the part that each belongs to."""
    called = {node.op_type: node.doc_string for node in model.graph.node if node.domain == DOMAIN}
    for function in model.functions:
        own = called.get(function.name, ANSWER)
        parts = _PARTS.get(function.name, ()) or (own,) * len(function.node)
        for node, part in zip(function.node, parts, strict=True):
            node.doc_string = part
    return onnx.inliner.inline_local_functions(model)


def _types(model: ModelProto) -> dict[str, int]:
    """What each tensor is made of."""
    graph = shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types.update((entry.name, entry.data_type) for entry in graph.initializer)
    for node in graph.node:
        if node.domain == DOMAIN:  # all of them give what they take
            types.setdefault(node.output[0], TensorProto.FLOAT)
    return types


class _Halved:
    """Writes the learned part of a model in half, in place."""

    def __init__(self, model: ModelProto, half: int, types: dict[str, int]) -> None:
        self._graph, self._half, self._types = model.graph, half, types
        self._weights = {entry.name: entry for entry in model.graph.initializer}
        learned = [node for node in model.graph.node if node.doc_string == NETWORK]
        self._made = {name for node in learned for name in node.output if self._is_single(name)}
        self._copies: dict[str, str] = {}  # tensors of the other parts in half
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            if node.doc_string == NETWORK:
                self._halve(node)
            else:  # what it takes of the learned part is in single again, under another name
                for at, name in enumerate(node.input):
                    if name in self._made and name not in outputs:
                        node.input[at] = f"{name}_single"
                self._nodes.append(node)
        replace_nodes(self._graph, self._nodes)
        del self._graph.value_info[:]

    def _halve(self, node: NodeProto) -> None:
        single = _SINGLE.get(node.op_type, ())
        for at, name in enumerate(node.input):
            if at in single:
                node.input[at] = self._single_again(name)
            elif self._is_single(name):
                node.input[at] = self._in_half(name)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self._half
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(self._converted(attribute.t, attribute.t.name))
        self._nodes.append(node)
        outputs = {value.name for value in self._graph.output}
        used = {name for other in self._graph.node if other.doc_string != NETWORK for name in other.input}
        for at, name in enumerate(node.output):
            if name not in self._made:
                continue
            if name in outputs:
                node.output[at] = f"{name}_half"
                self._cast(f"{name}_half", name, TensorProto.FLOAT)
            elif name in used:
                self._cast(name, f"{name}_single", TensorProto.FLOAT)

    def _in_half(self, name: str) -> str:
        if name in self._made:
            return f"{name}_half" if any(name == value.name for value in self._graph.output) else name
        if name not in self._copies:
            self._copies[name] = f"{name}_half"
            if name in self._weights:
                self._graph.initializer.append(self._converted(self._weights[name], f"{name}_half"))
            else:
                self._cast(name, f"{name}_half", self._half)
        return self._copies[name]

    def _single_again(self, name: str) -> str:
        if name not in self._made or any(name == value.name for value in self._graph.output):
            return name
        if not any(f"{name}_single" in node.output for node in self._nodes):
            self._cast(name, f"{name}_single", TensorProto.FLOAT)
        return f"{name}_single"

    def _cast(self, name: str, to: str, type_: int) -> None:
        self._nodes.append(helper.make_node("Cast", [name], [to], name=f"cast_{to}", to=type_))

    def _converted(self, tensor: TensorProto, name: str) -> TensorProto:
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(self._half))
        return numpy_helper.from_array(values, name)

    def _is_single(self, name: str) -> bool:
        return self._types.get(name) == TensorProto.FLOAT


def nodes_in_half(model: ModelProto) -> Iterator[NodeProto]:
    """The nodes that compute in half, for people."""
    graph = shape_inference.infer_shapes(model).graph
    halves = set(HALF.values())
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    return (node for node in graph.node if types.get(node.output[0]) in halves)
