"""`dfd::BoundaryCue` and `dfd::PsfConv` in an ONNX file: nodes that a plugin may take, spelled out for all who have none.

A runtime that knows no such operator finds a function of that name in the file and runs its standard operators;
TensorRT takes the plugin of the node's name, namespace and version, which stand in the node's attributes.

    BoundaryCue(shallow, deep, weight, bias) = relu(weight * (shallow − deep) + bias)
    PsfConv(image, coc) = the PSF layer (`dfd_ros.optics.psf`), by the settings in its attributes

The weight of a tap of the PSF layer depends on the CoC and on the tap's distance alone, and few distances differ: 15 in
a window of 9 x 9. So light is weighted once for each distance, and one grouped convolution with the rings of taps of
those distances adds it all up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from dfd_ros.errors import InputError
from dfd_ros.optics.kernels.settings import PsfSettings

DOMAIN = "dfd"
VERSION = 1
"""Of the domain's operators, and of the plugins."""
BOUNDARY_CUE, PSF_CONV = "BoundaryCue", "PsfConv"
_PLUGIN: dict[str, str | int] = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION), "aot": 1}
_SETTINGS = ("window", "kind", "coc_at", "spread")

Array = NDArray[np.generic]


def add_functions(model: onnx.ModelProto) -> None:
    """Give a model, in place, the functions of its `dfd` nodes, and these nodes what names their plugins.

    Raises:
        InputError: An unknown operator, or two PSF layers of different settings or channels: a name has one function.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    shapes = {value.name: value.type.tensor_type.shape for value in (*model.graph.value_info, *model.graph.input)}
    functions: dict[str, FunctionProto] = {}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        if node.op_type == BOUNDARY_CUE:
            function = boundary_cue_function(opset)
        elif node.op_type == PSF_CONV:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            values: Any = {key: v.decode() if isinstance(v := attributes[key], bytes) else v for key in _SETTINGS}
            function = psf_conv_function(PsfSettings(**values), shapes[node.input[0]].dim[1].dim_value, opset)
        else:
            raise InputError(f"export: expected nodes {BOUNDARY_CUE} and {PSF_CONV} of {DOMAIN}, got {node.op_type}")
        if functions.setdefault(node.op_type, function) != function:
            raise InputError(f"export: expected one form of {node.op_type} in a model, got two")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in _PLUGIN.items())
    model.functions.extend(functions.values())
    kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend([*kept, *([helper.make_opsetid(DOMAIN, VERSION)] if functions else [])])


def boundary_cue_function(opset: int) -> FunctionProto:
    """Shallow and deep (N, 3, H, W), weight (F, 3, 3, 3), bias (F,) -> cue (N, F, H, W)."""
    nodes = [
        helper.make_node("Sub", ["shallow", "deep"], ["difference"]),
        helper.make_node("Conv", ["difference", "weight", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["cue"]),
    ]
    return _function(BOUNDARY_CUE, ["shallow", "deep", "weight", "bias"], ["cue"], nodes, opset)


def psf_conv_function(settings: PsfSettings, channels: int, opset: int) -> FunctionProto:
    """Image (N, channels, H, W) and CoC (N, 1, H, W), pixels -> blurred (N, channels, H, W)."""
    distances, rings = _rings(settings.window)
    planes = channels + 1  # the last one counts the light
    body = _Body()
    body.constants(one=1.0, largest=float(settings.window), nan=np.nan, zero=0.0)
    body.add("IsNaN", "coc", out="unknown")
    body.add("Where", "unknown", "one", "coc", out="known_coc")
    body.add("Greater", "known_coc", "one", out="blurred")
    body.add("Clip", "known_coc", "one", "largest", out="diameter")
    if settings.coc_at == "source":
        body.add("Identity", "blurred", out="lends")
    else:
        body.add("Not", "unknown", out="lends")
    body.add("Cast", "lends", out="lent", to=TensorProto.FLOAT)
    body.add("Where", "lends", "image", "zero", out="light")
    body.add("Concat", "light", "lent", out="stack", axis=1)
    _weigh(body, settings, distances)
    if settings.coc_at == "source":  # weigh, then add up
        parts = body.split("stack", planes)
        for part in parts:
            body.add("Mul", part, "weight", out=f"{part}_lit")
        body.add("Concat", *(f"{part}_lit" for part in parts), out="lit", axis=1)
        body.constant("rings", np.tile(rings[None], (planes, 1, 1, 1)))
        body.convolve("lit", "rings", out="sums", window=settings.window, group=planes)
    else:  # add up, then weigh
        body.constant("rings", np.tile(rings[:, None], (planes, 1, 1, 1)))
        body.convolve("stack", "rings", out="ring_sums", window=settings.window, group=planes)
        body.constant("channel_axis", np.array([1], np.int64))
        parts = body.split("ring_sums", planes, len(distances))
        for part in parts:
            body.add("Mul", part, "weight", out=f"{part}_lit")
            body.add("ReduceSum", f"{part}_lit", "channel_axis", out=f"{part}_sum", keepdims=1)
        body.add("Concat", *(f"{part}_sum" for part in parts), out="sums", axis=1)
    body.constant("shares", np.array([channels, 1], np.int64))
    body.nodes.append(helper.make_node("Split", ["sums", "shares"], ["total", "weight_sum"], axis=1))
    body.add("Where", "blurred", "weight_sum", "one", out="divisor")
    body.add("Div", "total", "divisor", out="mean")
    body.add("Where", "blurred", "mean", "image", out="passed")
    body.add("Where", "unknown", "nan", "passed", out="out")
    return _function(PSF_CONV, ["image", "coc"], ["out"], body.nodes, opset, _SETTINGS)


class _Body:
    """The nodes of a function in the making."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def add(self, operator: str, *inputs: str, out: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))

    def constant(self, name: str, value: Array) -> None:
        self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))

    def constants(self, **values: float) -> None:
        for name, value in values.items():
            self.constant(name, np.array(value, np.float32))

    def split(self, name: str, count: int, channels: int = 1) -> list[str]:
        """`count` parts of so many channels each, and their names."""
        parts = [f"{name}_{i}" for i in range(count)]
        self.constant(f"{name}_shares", np.full(count, channels, np.int64))
        self.nodes.append(helper.make_node("Split", [name, f"{name}_shares"], parts, axis=1))
        return parts

    def convolve(self, name: str, kernels: str, out: str, window: int, group: int) -> None:
        pads = [window // 2] * 4
        self.nodes.append(helper.make_node("Conv", [name, kernels], [out], pads=pads, group=group))


def _weigh(body: _Body, settings: PsfSettings, distances: NDArray[np.float32]) -> None:
    """`weight` (N, distances, H, W) of `diameter` (N, 1, H, W): w(C, d) of `PsfSettings` before normalisation."""
    body.add("Mul", "diameter", "diameter", out="square")
    if settings.kind == "gaussian":
        exponents = -0.5 * (distances.astype(np.float64) / settings.spread) ** 2
        body.constant("exponents", exponents.astype(np.float32).reshape(1, -1, 1, 1))
        body.add("Div", "exponents", "square", out="exponent")
        body.add("Exp", "exponent", out="shape")
        body.add("Div", "shape", "square", out="weight")
        return
    body.constants(half=0.5, third=1.0 / 3.0)
    body.constant("reach", (0.5 - distances).reshape(1, -1, 1, 1))
    body.add("Mul", "diameter", "half", out="radius")
    body.add("Add", "radius", "reach", out="ramp")
    body.add("Clip", "ramp", "zero", "one", out="shape")
    body.add("Add", "square", "third", out="area")
    body.add("Div", "shape", "area", out="weight")


def _rings(window: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The distances of a window's taps, (R,) pixels, and which taps are at each, (R, window, window) of 0 and 1."""
    offset = np.arange(window) - window // 2
    squares = offset[:, None] ** 2 + offset**2
    different = np.unique(squares)
    return np.sqrt(different).astype(np.float32), (squares == different[:, None, None]).astype(np.float32)


def _function(
    name: str,
    inputs: list[str],
    outputs: list[str],
    nodes: list[NodeProto],
    opset: int,
    attributes: tuple[str, ...] = (),
) -> FunctionProto:
    imports = [helper.make_opsetid("", opset)]
    return helper.make_function(DOMAIN, name, inputs, outputs, nodes, imports, [*attributes, *_PLUGIN])
