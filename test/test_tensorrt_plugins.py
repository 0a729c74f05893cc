"""Our operators as TensorRT's plugins, driven by NVIDIA's own Python over its lean runtime; kernels are run on the CPU.

It proves what TensorRT is told, not that an engine runs: that needs a GPU (`dfd doctor --tensorrt`).
"""

import ctypes
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import tensorrt_on_cpu as on_cpu
import torch
from cuda_on_cpu import COMPILER, HostKernels

from dfd_ros.inference.trt import device
from dfd_ros.inference.trt.kernels import cue_kernel, psf_kernel
from dfd_ros.optics.kernels import reference
from dfd_ros.optics.kernels.settings import PsfSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),  # of NVIDIA's texts
    pytest.mark.skipif(not on_cpu.INSTALLED, reason="TensorRT's lean runtime is on PyPI for x86-64 alone"),
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on PATH"),
]
PTXAS = shutil.which("ptxas")
CAPABILITIES = [(8, 7), (9, 0), (11, 0), (12, 0)]
SIZE = (1, 3, 45, 59)
SETTINGS = {"window": 7, "kind": "disk", "coc_at": "source", "spread": 0.25}
FEATURES = 33


@pytest.fixture(scope="module")
def trt():
    with pytest.MonkeyPatch.context() as patch:
        yield on_cpu.install(patch)


@pytest.fixture(scope="module")
def ahead(trt):
    """The registry with the ahead-of-time plugins, which stay for the process."""
    from dfd_ros.inference.trt import plugins_aot

    return SimpleNamespace(registry=trt.get_plugin_registry(), module=plugins_aot)


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    kernels = [psf_kernel(SETTINGS, 3, "FLOAT"), cue_kernel(FEATURES, "FLOAT", "FLOAT")]
    return HostKernels([*kernels, cue_kernel(FEATURES, "FLOAT", "HALF")], tmp_path_factory.mktemp("plugins"))


def fields(trt):
    types = trt.PluginFieldType
    kept = [np.array([7], np.int64), np.array([0.25], np.float32)]  # a field does not hold its value
    named = [
        trt.PluginField("window", kept[0], types.INT64),
        trt.PluginField("kind", b"disk", types.CHAR),
        trt.PluginField("coc_at", b"source", types.CHAR),
        trt.PluginField("spread", kept[1], types.FLOAT32),
    ]
    return named, kept


def psf_tensors(trt, dtype="FLOAT"):
    of = getattr(trt.DataType, dtype)
    return [on_cpu.Tensor(SIZE, of), on_cpu.Tensor((1, 1, *SIZE[2:]), of)]


def cue_tensors(trt, dtype="FLOAT"):
    single, of = trt.DataType.FLOAT, getattr(trt.DataType, dtype)
    shapes = ((SIZE, single), (SIZE, single), ((FEATURES, 3, 3, 3), of), ((FEATURES,), of))
    return [on_cpu.Tensor(*each) for each in shapes]


def psf_values():
    generator = torch.Generator().manual_seed(0)
    image, coc = torch.rand(SIZE, generator=generator), 8.0 * torch.rand(1, 1, *SIZE[2:], generator=generator)
    return [image, coc], reference.forward(image, coc, PsfSettings(**SETTINGS))[0]


def cue_values():
    generator = torch.Generator().manual_seed(0)
    shallow, deep = torch.rand(SIZE, generator=generator), torch.rand(SIZE, generator=generator)
    weight, bias = torch.randn(FEATURES, 3, 3, 3, generator=generator), torch.randn(FEATURES, generator=generator)
    return [shallow, deep, weight, bias], torch.conv2d(shallow - deep, weight, bias, padding=1).relu()


def use_gpu(monkeypatch, module, capability):
    monkeypatch.setattr(module, "find_gpu", lambda: device.Gpu("a GPU", capability, 2**30, (13, 0)))


# Ahead of time.


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda c: f"sm_{c[0]}{c[1]}")
def test_the_engine_gets_a_kernel_for_its_gpu(trt, ahead, monkeypatch, tmp_path, capability):
    use_gpu(monkeypatch, ahead.module, capability)
    named, _kept = fields(trt)
    for operator, attributes, make in (("PsfConv", named, psf_tensors), ("BoundaryCue", [], cue_tensors)):
        creator = ahead.registry.get_creator(operator, "1", "dfd")
        for dtype in ("FLOAT", "BF16"):
            told = on_cpu.build_ahead(trt, creator, attributes, make(trt, dtype))
            name = f"sm_{capability[0]}{capability[1]}"
            assert f".target {name}".encode() in told.ptx
            assert f".entry {told.name}(".encode() in told.ptx
            assert told.output.type == getattr(trt.DataType, dtype)
            if PTXAS:
                (tmp_path / "plugin.ptx").write_bytes(told.ptx)
                command = [PTXAS, f"--gpu-name={name}", "plugin.ptx", "-o", "plugin.cubin"]
                subprocess.run(command, cwd=tmp_path, check=True)


def run_as_told(host_kernels, kernel, told, values):
    """Launch with the very grid, block and integers that TensorRT is told, arguments in its order."""
    types = {torch.float32: "FLOAT"}
    assert all(types[value.dtype] for value in values)
    out = torch.full(told.output.dims, torch.nan)
    grid, block = ((ctypes.c_uint * 3)(*extent) for extent in (told.grid, told.block))
    before, after = ([ctypes.c_void_p(each.data_ptr()) for each in some] for some in (values, [out]))
    arguments = [*before, *map(ctypes.c_int, told.integers), *after]
    addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
    assert host_kernels.launchers[kernel](grid, block, addresses)
    return out


def test_run_as_tensorrt_is_told_the_psf_layer_is_the_layer(trt, ahead, monkeypatch, host_kernels):
    use_gpu(monkeypatch, ahead.module, (9, 0))
    named, _kept = fields(trt)
    told = on_cpu.build_ahead(trt, ahead.registry.get_creator("PsfConv", "1", "dfd"), named, psf_tensors(trt))
    assert told.output.dims == SIZE
    assert told.shared == 0
    assert told.types == {("FLOAT",) * 3, ("HALF",) * 3, ("BF16",) * 3}
    values, truth = psf_values()
    out = run_as_told(host_kernels, psf_kernel(SETTINGS, 3, "FLOAT"), told, values)
    torch.testing.assert_close(out, truth, atol=1e-5, rtol=0)


def test_run_as_tensorrt_is_told_the_cue_is_the_cue(trt, ahead, monkeypatch, host_kernels):
    use_gpu(monkeypatch, ahead.module, (9, 0))
    told = on_cpu.build_ahead(trt, ahead.registry.get_creator("BoundaryCue", "1", "dfd"), [], cue_tensors(trt))
    assert told.output.dims == (1, FEATURES, *SIZE[2:])
    assert len(told.types) == 9
    assert ("FLOAT", "FLOAT", "HALF", "HALF", "HALF") in told.types
    values, truth = cue_values()
    out = run_as_told(host_kernels, cue_kernel(FEATURES, "FLOAT", "FLOAT"), told, values)
    torch.testing.assert_close(out, truth, atol=1e-4, rtol=0)


# As Python classes. They have names of their own here, since one registry takes each name once.


class OwnRegistry:
    def __init__(self):
        self.creators = {}

    def get_creator(self, name, version, namespace):
        return self.creators.get((name, version, namespace))

    def register_creator(self, creator, namespace):
        assert (creator.name, creator.plugin_version, namespace) not in self.creators
        self.creators[creator.name, creator.plugin_version, namespace] = creator


@pytest.fixture
def classes(trt, monkeypatch, host_kernels):
    """The classes, whose kernels are launched on the CPU, on addresses that TensorRT would give."""
    from dfd_ros.inference.trt import plugins_v3

    def launch(kernel, size, inputs, outputs, stream):
        told = [[ctypes.c_void_p(address) for address in some] for some in (inputs, outputs)]
        arguments = [*told[0], *map(ctypes.c_int, size[1:]), *told[1]]
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        grid, block = ((ctypes.c_uint * 3)(*extent) for extent in kernel.launch(*size))
        assert host_kernels.launchers[kernel](grid, block, addresses)

    monkeypatch.setattr(plugins_v3, "launch", launch)
    monkeypatch.setattr(plugins_v3, "load", lambda kernel: kernel.name)
    registry = OwnRegistry()
    plugins_v3.register(registry)
    plugins_v3.register(registry)
    return registry


def test_nvidias_registry_takes_the_classes(trt, monkeypatch):
    from dfd_ros.inference.trt import plugins_v3

    monkeypatch.setattr(plugins_v3, "DOMAIN", "dfd_classes")
    registry = trt.get_plugin_registry()
    plugins_v3.register(registry)
    creator = registry.get_creator("PsfConv", "1", "dfd_classes")
    assert [field.name for field in creator.field_names] == list(SETTINGS)
    assert registry.get_creator("BoundaryCue", "1", "dfd_classes") is not None


def through_the_engine(trt, creator, named):
    """A plugin as it comes out of an engine: made of what the one that was built wrote into it."""
    built = creator.create_plugin("node", trt.PluginFieldCollection(named), trt.TensorRTPhase.BUILD)
    clone = built.clone()
    del built
    return creator.create_plugin("node", clone.get_fields_to_serialize(), trt.TensorRTPhase.RUNTIME)


def ask(plugin, trt, tensors):
    """What TensorRT asks while it builds: the output's shape, and whether all tensors may be as they are."""
    shapes = [on_cpu.Sizes([on_cpu.Size(length) for length in tensor.dims]) for tensor in tensors]
    (shape,) = plugin.get_output_shapes(shapes, [], None)
    (dtype,) = plugin.get_output_data_types([tensor.type for tensor in tensors])
    output = on_cpu.Tensor(tuple(size.value for size in shape), dtype)
    for tensor in (*tensors, output):
        tensor.format = trt.TensorFormat.LINEAR
    every = [on_cpu.AnyTensor(tensor) for tensor in (*tensors, output)]
    assert all(plugin.supports_format_combination(at, every, len(tensors)) for at in range(len(every)))
    every[-1].desc.format = trt.TensorFormat.HWC8
    assert not plugin.supports_format_combination(len(tensors), every, len(tensors))
    return output


def enqueue(plugin, tensors, output, values):
    plugin = plugin.attach_to_context(None)
    plugin.on_shape_change(tensors, [output])
    out = torch.full(output.dims, torch.nan)
    plugin.enqueue(tensors, [output], [value.data_ptr() for value in values], [out.data_ptr()], 0, 1)
    return out


def test_the_class_of_the_psf_layer_is_the_layer(trt, classes):
    named, _kept = fields(trt)
    plugin = through_the_engine(trt, classes.creators["PsfConv", "1", "dfd"], named)
    tensors = psf_tensors(trt)
    output = ask(plugin, trt, tensors)
    assert output.dims == SIZE
    values, truth = psf_values()
    torch.testing.assert_close(enqueue(plugin, tensors, output, values), truth, atol=1e-5, rtol=0)


def test_the_class_of_the_cue_is_the_cue(trt, classes):
    plugin = through_the_engine(trt, classes.creators["BoundaryCue", "1", "dfd"], [])
    tensors = cue_tensors(trt)
    output = ask(plugin, trt, tensors)
    assert output.dims == (1, FEATURES, *SIZE[2:])
    values, truth = cue_values()
    torch.testing.assert_close(enqueue(plugin, tensors, output, values), truth, atol=1e-4, rtol=0)
    assert ask(plugin, trt, cue_tensors(trt, "HALF")).type == trt.DataType.HALF


def test_fields_keep_their_values(trt, classes):
    """A record of TensorRT's points to its value but does not hold it: once it was read after it had been freed."""
    creator = classes.creators["PsfConv", "1", "dfd"]
    named, _kept = fields(trt)
    plugins = [
        creator.create_plugin("node", trt.PluginFieldCollection(named), trt.TensorRTPhase.BUILD) for _ in range(50)
    ]
    noise = [np.random.default_rng(0).random(1).astype(np.float32) for _ in range(1000)]
    for plugin in plugins:
        values = {field.name: field.data for field in plugin.get_fields_to_serialize()}
        assert values["spread"] == pytest.approx(0.25)
        assert values["window"] == 7
    assert len(noise) == 1000
