"""Powers of what lies in [0, 1], as gamma has them, spelled out: runtimes take a general power one number at a time.

x ** g is a polynomial of the root of x, which is as smooth there as the power of 2 g. A vector unit evaluates it at the
speed of memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from dfd_ros.inference.rewrite import replace_nodes

DEGREE = 8
"""Of the polynomial: wrong by 5e-7 for a gamma of 2.2, a tenth of the first step of 8 bits."""
LARGEST_ERROR = 5e-6
"""Powers that the polynomial meets less well are left as they are."""

Array = NDArray[np.float64]


def spell_out_powers(model: ModelProto) -> None:
    """Replace each constant power of a tensor that was clipped to [0, 1], in place."""
    graph = model.graph
    constants = {entry.name: entry for entry in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def number(name: str) -> float:
        """A constant's value; NaN where it is not known, or not one number."""
        value = numpy_helper.to_array(constants[name]) if name in constants else np.empty(0)
        return float(value.reshape(-1)[0]) if value.size == 1 else np.nan

    def in_unit_range(name: str) -> bool:
        node = makers.get(name)
        return node is not None and node.op_type == "Clip" and [number(end) for end in node.input[1:]] == [0.0, 1.0]

    nodes: list[NodeProto] = []
    for node in graph.node:
        fits = node.op_type == "Pow" and in_unit_range(node.input[0])
        coefficients = polynomial(number(node.input[1])) if fits else None
        if coefficients is None:
            nodes.append(node)
        else:
            nodes += _nodes(model, node, coefficients)
    replace_nodes(graph, nodes)


def polynomial(exponent: float) -> Array | None:
    """Coefficients (DEGREE,) of t, t², … with t² = x, that come to x ** exponent on [0, 1]; None where they do not."""
    if not exponent > 0.0:
        return None
    angle = np.pi * (np.arange(50 * DEGREE) + 0.5) / (50 * DEGREE)
    root = 0.5 - 0.5 * np.cos(angle)
    terms = root[:, None] ** np.arange(1, DEGREE + 1)
    coefficients = np.linalg.lstsq(terms, root ** (2.0 * exponent), rcond=None)[0]
    error = np.abs(terms @ coefficients - root ** (2.0 * exponent)).max()
    return np.asarray(coefficients) if error <= LARGEST_ERROR else None


def _nodes(model: ModelProto, power: NodeProto, coefficients: Array) -> list[NodeProto]:
    """Horner's scheme in place of a power."""
    (out,) = power.output
    names = [f"{out}_coefficient_{k}" for k in range(len(coefficients))]
    for name, value in zip(names, coefficients, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    root = f"{out}_root"
    nodes = [helper.make_node("Sqrt", [power.input[0]], [root])]
    value = names[-1]
    for k in reversed(range(len(coefficients) - 1)):
        nodes.append(helper.make_node("Mul", [value, root], [f"{out}_product_{k}"]))
        value = f"{out}_sum_{k}"
        nodes.append(helper.make_node("Add", [nodes[-1].output[0], names[k]], [value]))
    return [*nodes, helper.make_node("Mul", [value, root], [out])]
