"""`dfd::PsfConv` and `dfd::BoundaryCue` for TensorRT before 10.9 (JetPack 6 has 10.3): Python classes.

TensorRT calls them while it builds and at every inference, where they launch the same kernels, compiled for the GPU at
hand. An engine with them runs only in a process that has registered them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorrt as trt

from dfd_ros.inference.functions import BOUNDARY_CUE, DOMAIN, PSF_CONV, VERSION
from dfd_ros.inference.trt.device import Launchable, launch, load
from dfd_ros.inference.trt.kernels import OPERATORS, Attribute, Operator, cue_kernel, psf_kernel, read_attribute


def register(registry: Any) -> None:
    """Let a plugin registry know both; does nothing where it does already."""
    for operator in OPERATORS.values():
        if registry.get_creator(operator.name, str(VERSION), DOMAIN) is None:
            registry.register_creator(Creator(operator), DOMAIN)


class Creator(trt.IPluginCreatorV3One):
    """Makes the plugins of one operator."""

    def __init__(self, operator: Operator) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = operator.name, DOMAIN, str(VERSION)
        self._operator = operator
        self._fields = [_Field(name, kind()) for name, kind in operator.attributes.items()]
        self.field_names = trt.PluginFieldCollection([field.field for field in self._fields])

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Plugin:
        known = self._operator.attributes
        given = {field.name: read_attribute(field.data, known[field.name]) for field in fields if field.name in known}
        return Plugin(self._operator, given)


class Plugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
    """One node."""

    def __init__(self, operator: Operator, attributes: Mapping[str, Attribute]) -> None:
        for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
            base.__init__(self)
        self.plugin_name, self.plugin_namespace, self.plugin_version = operator.name, DOMAIN, str(VERSION)
        self.num_outputs = 1
        self._operator, self._attributes = operator, dict(attributes)
        self._fields = [_Field(name, attributes[name]) for name in operator.attributes]

    def get_capability_interface(self, type: Any) -> Plugin:
        return self

    def clone(self) -> Plugin:
        return Plugin(self._operator, self._attributes)

    # While TensorRT builds.

    def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
        return [input_types[self._operator.output_like]]

    def get_output_shapes(self, inputs: Sequence[Any], shape_inputs: Sequence[Any], builder: Any) -> list[Any]:
        shape = trt.DimsExprs(inputs[0])
        if self._operator.name == BOUNDARY_CUE:
            shape[1] = inputs[2][0]
        return [shape]

    def supports_format_combination(self, position: int, tensors: Sequence[Any], inputs: int) -> bool:
        types = tuple(tensor.desc.type.name for tensor in tensors[: position + 1])
        return tensors[position].desc.format == trt.TensorFormat.LINEAR and self._operator.takes(types)

    def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Nothing to do: shapes come with every call."""

    def get_valid_tactics(self) -> list[int]:
        return []

    # In an engine.

    def get_fields_to_serialize(self) -> Any:
        return trt.PluginFieldCollection([field.field for field in self._fields])

    def attach_to_context(self, context: Any) -> Plugin:
        return self.clone()

    def set_tactic(self, tactic: int) -> None:
        """There is but one."""

    def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        load(self._kernel(inputs))  # here, since inside a capture nothing may be compiled

    def enqueue(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        read: Sequence[int],
        written: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        count, _, height, width = inputs[0].dims
        launch(self._kernel(inputs), (count, height, width), list(read), list(written), stream)

    def _kernel(self, inputs: Sequence[Any]) -> Launchable:
        elements = [tensor.type.name for tensor in inputs]
        if self._operator.name == PSF_CONV:
            return psf_kernel(self._attributes, inputs[0].dims[1], elements[0])
        return cue_kernel(inputs[2].dims[0], elements[0], elements[2])


class _Field:
    """An attribute as TensorRT's record, which points to the value but does not hold it."""

    def __init__(self, name: str, value: Attribute) -> None:
        types = trt.PluginFieldType
        if isinstance(value, str):
            self.value, type_ = np.frombuffer(value.encode(), np.int8), types.CHAR
        else:
            whole = isinstance(value, int)
            self.value, type_ = (
                np.array([value], np.int64 if whole else np.float32),
                types.INT64 if whole else types.FLOAT32,
            )
        self.field = trt.PluginField(name, self.value, type_)
