"""Constants are computed when a model is exported, not when it runs: a tracer leaves much arithmetic on shapes behind.

With fixed shapes half of the nodes is enough, and runtimes that know fewer operators read them.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from dfd_ros.inference.rewrite import replace_entries, replace_nodes

MOST_NUMBERS = 1 << 16
"""Larger results stay computed: they would make the file larger."""


def fold_constants(model: ModelProto) -> ModelProto:
    """The same model with shapes, and nodes whose inputs are all known, replaced by what they come to.

    The model's inputs are of fixed shape. Its functions, and nodes of other domains, stay as they are.
    """
    # Weights stand aside as inputs meanwhile: each look at the shapes copies the model.
    weights = [entry for entry in model.graph.initializer if math.prod(entry.dims) > MOST_NUMBERS]
    small = [entry for entry in model.graph.initializer if math.prod(entry.dims) <= MOST_NUMBERS]
    inputs = list(model.graph.input)
    replace_entries(model.graph.initializer, small)
    model.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    count = len(model.graph.node) + 1
    while len(model.graph.node) < count:  # what is folded lets more shapes be inferred
        count = len(model.graph.node)
        model = _fold_once(shape_inference.infer_shapes(model, data_prop=True))
    model = shape_inference.infer_shapes(model, data_prop=True)
    replace_entries(model.graph.input, inputs)
    model.graph.initializer.extend(weights)
    return model


def _fold_once(model: ModelProto) -> ModelProto:
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    known: dict[str, NDArray[np.generic]] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    kept, made = [], set()
    for node in graph.node:
        if node.domain:
            kept.append(node)
            continue
        values = _value(node, known, shapes, opset)
        if values is None:
            kept.append(node)
        else:
            made.update(node.output)
            known.update(zip(node.output, values, strict=True))
    outputs = {value.name for value in graph.output}
    used = {name for node in kept for name in node.input}
    replace_nodes(graph, kept)
    for name in sorted(made & used):
        graph.initializer.append(numpy_helper.from_array(np.asarray(known[name]), name))
    for name in sorted(made & outputs):
        graph.node.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(known[name])))
    del graph.value_info[:]
    return model


def _value(
    node: NodeProto,
    known: dict[str, NDArray[np.generic]],
    shapes: dict[str, tuple[int, ...] | None],
    opset: int,
) -> list[NDArray[np.generic]] | None:
    """What a node comes to; None where that depends on the inputs, or is large."""
    if node.op_type == "Shape" and not node.attribute:
        shape = known[node.input[0]].shape if node.input[0] in known else shapes.get(node.input[0])
        return None if shape is None else [np.array(shape, np.int64)]
    if any(name and name not in known for name in node.input):
        return None
    sizes = [known[name].size for name in node.input if name]
    if max(sizes, default=0) > MOST_NUMBERS:
        return None
    one = helper.make_graph([node], "one", [], [helper.make_empty_tensor_value_info(name) for name in node.output])
    model = helper.make_model(one, opset_imports=[helper.make_opsetid("", opset)])
    model.graph.input.extend(helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(node.input) if name)
    feeds = {name: known[name] for name in node.input if name}
    values = [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
    return None if max(value.size for value in values) > MOST_NUMBERS else values


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)
