"""Drives TensorRT's plugins as its builder does, without a GPU and without its builder, which PyPI does not have.

What PyPI has is used as it is: the lean runtime's bindings with their plugin registry, and `tensorrt.plugin`, which is
Python. Stand-ins are here only for what libnvinfer alone makes: symbolic sizes, and descriptions of tensors.
"""

import enum
import importlib.machinery
import importlib.util
import sys
import types

INSTALLED = all(importlib.util.find_spec(name) for name in ("tensorrt_lean_bindings", "tensorrt_bindings"))


class Size:
    """A length of a tensor, as IDimensionExpr; known at once."""

    def __init__(self, value):
        self.value = int(value)

    def is_constant(self):
        return False  # TensorRT need not say so, even where shapes are fixed

    def get_constant_value(self):
        raise AssertionError("asked for a size that is symbolic")

    def is_size_tensor(self):
        return False


class Sizes(list):
    """A shape, as DimsExprs: of so many lengths, or of these."""

    def __init__(self, of):
        super().__init__([None] * of if isinstance(of, int) else of)


class SizeBuilder:
    """As IExprBuilder."""

    def __init__(self, operations):
        self._known = {
            operations.SUM: lambda a, b: a + b,
            operations.SUB: lambda a, b: a - b,
            operations.PROD: lambda a, b: a * b,
            operations.FLOOR_DIV: lambda a, b: a // b,
            operations.CEIL_DIV: lambda a, b: -(-a // b),
        }

    def constant(self, value):
        return Size(value)

    def operation(self, operation, first, second):
        return Size(self._known[operation](first.value, second.value))


class Tensor:
    """As PluginTensorDesc."""

    def __init__(self, dims=(), type=None, format=None, scale=1.0):
        self.dims, self.type, self.format, self.scale = dims, type, format, scale


class AnyTensor:
    """As DynamicPluginTensorDesc, of one shape."""

    def __init__(self, desc):
        self.desc, self.min, self.opt, self.max = desc, desc.dims, desc.dims, desc.dims


class Integers(dict):
    """As ISymExprs: the integers among a kernel's arguments."""

    nbSymExprs = 0  # noqa: N815 (its name)


def install(patch):
    """Make `tensorrt` and `tensorrt.plugin` modules of what there is, for as long as the patch holds."""
    import tensorrt_lean_bindings as lean

    trt = types.ModuleType("tensorrt")
    trt.__dict__.update({key: value for key, value in vars(lean).items() if not key.startswith("__")})
    trt.__path__, trt.__version__ = [], lean.__version__
    trt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None, is_package=True)  # torch looks for it
    trt.TensorFormat = enum.IntEnum("TensorFormat", {"LINEAR": 0, "CHW2": 1, "HWC8": 2})
    trt.ITensor, trt.ISymExpr = type("ITensor", (), {}), type("ISymExpr", (), {"__init__": lambda self: None})
    trt.IDimensionExpr, trt.DimsExprs = Size, Sizes
    trt.PluginTensorDesc, trt.DynamicPluginTensorDesc = Tensor, AnyTensor
    (folder,) = importlib.util.find_spec("tensorrt_bindings").submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        "tensorrt.plugin", f"{folder}/plugin/__init__.py", submodule_search_locations=[f"{folder}/plugin"]
    )
    trt.plugin = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, "tensorrt", trt)
    patch.setitem(sys.modules, "tensorrt.plugin", trt.plugin)
    spec.loader.exec_module(trt.plugin)
    return trt


def build_ahead(trt, creator, fields, inputs):
    """What TensorRT asks of an ahead-of-time plugin, in its order; `inputs` are `Tensor`s.

    Returns:
        The output's `Tensor`, the supported types, the kernel's name and PTX, grid, block and integers.
    """
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    collection = trt.PluginFieldCollection(fields)
    plugin = creator.create_plugin(creator.name, creator.plugin_namespace, collection, trt.TensorRTPhase.BUILD, request)
    builder = SizeBuilder(trt.DimensionOperation)
    shapes = [Sizes([Size(length) for length in tensor.dims]) for tensor in inputs]
    (dtype,) = plugin.get_output_data_types([t.type for t in inputs], [len(t.dims) for t in inputs])
    (shape,) = plugin.get_output_shapes(shapes, [], builder)
    output = Tensor(tuple(size.value for size in shape), dtype, trt.TensorFormat.LINEAR)
    for tensor in inputs:
        tensor.format = trt.TensorFormat.LINEAR
    tensors = [*inputs, output]
    supported = plugin.get_supported_format_combinations([AnyTensor(t) for t in tensors], len(inputs))
    rows = [supported[at : at + len(tensors)] for at in range(0, len(supported), len(tensors))]
    plugin.configure_plugin([AnyTensor(t) for t in inputs], [AnyTensor(output)])
    assert plugin.get_valid_tactics() == []
    plugin.set_tactic(0)
    launch, integers = types.SimpleNamespace(), Integers()
    plugin.get_launch_params(shapes, [AnyTensor(t) for t in tensors], len(inputs), launch, integers, builder)
    name, ptx = plugin.get_kernel(inputs, [output])

    def value(expression):
        return expression.expr.value

    return types.SimpleNamespace(
        output=output,
        types={tuple(t.type.name for t in row) for row in rows},
        name=name,
        ptx=ptx,
        grid=tuple(value(getattr(launch, f"grid_{axis}")) for axis in "xyz"),
        block=tuple(value(getattr(launch, f"block_{axis}")) for axis in "xyz"),
        shared=value(launch.shared_mem),
        integers=[value(integers[at]) for at in range(integers.nbSymExprs)],
    )
