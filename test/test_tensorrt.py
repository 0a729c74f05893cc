"""What TensorRT is given, kept and asked: typed networks, the engines' cache, its messages; and why it cannot run here."""

import ast
import importlib
import inspect
import io
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_on_cpu as on_cpu
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)
from onnx import TensorProto, numpy_helper
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from dfd_ros import doctor
from dfd_ros.cli import app, main
from dfd_ros.errors import GpuMemoryError, InputError
from dfd_ros.inference.backend import BackendOptions
from dfd_ros.inference.backends import make_backend
from dfd_ros.inference.choose import candidates
from dfd_ros.inference.export import export_model
from dfd_ros.inference.graph import GraphSettings
from dfd_ros.inference.segments import EVIDENCE, NETWORK
from dfd_ros.inference.sources import EstimatorOptions, open_source
from dfd_ros.inference.trt import backend as backend_module
from dfd_ros.inference.trt import device, runtime
from dfd_ros.inference.trt.backend import (
    Machine,
    TensorRtBackend,
    check_compiler,
    engine_key,
    find_machine,
    register_plugins,
    why_not,
)
from dfd_ros.inference.trt.cache import DamagedEngineError, EngineCache, EngineKey, default_folder
from dfd_ros.inference.trt.device import Gpu, checked
from dfd_ros.inference.trt.engine import Built, EngineOptions
from dfd_ros.inference.trt.features import Features, import_tensorrt, look
from dfd_ros.inference.trt.messages import Messages, explain, make_logger
from dfd_ros.inference.trt.network import needs_plugins, nodes_in_half, typed_network
from dfd_ros.inference.trt.progress import PhaseBars, make_monitor
from dfd_ros.inference.trt.proof import example_inputs, plugin_program
from dfd_ros.inference.trt.runtime import ForeignEngineError
from dfd_ros.inference.weights import ModelCard
from dfd_ros.models.registry import build
from dfd_ros.optics.kernels.cuda import compiler_version
from dfd_ros.signals import StopRequest

SIZE = (45, 59)
needs_lean = pytest.mark.skipif(not on_cpu.INSTALLED, reason="TensorRT's lean runtime is on PyPI for x86-64 alone")
without_tensorrt = pytest.mark.skipif(why_not() is None, reason="TensorRT runs here")
ORIN = Gpu("Orin", (8, 7), 2**33, (12, 6))
HOPPER = Gpu("H200", (9, 0), 2**37, (13, 0))
FEATURES = Features("10.13.3", builder=True, ahead_of_time=True, v3=True, network_flags=2)


@pytest.fixture(scope="module")
def operators():
    """A program with both operators of ours."""
    return plugin_program(SIZE)


@pytest.fixture(scope="module")
def physics():
    torch.manual_seed(0)
    options = {"features": (8, 8, 8, 8), "labels": 8}
    network = build("physics_net", **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # so that every part of it counts
                parameter.normal_(std=0.1)
    return export_model(network, ModelCard("net", "physics_net", options), GraphSettings(SIZE))


@pytest.fixture(params=["operators", "physics"])
def program(request):
    return request.getfixturevalue(request.param)


def run(content, program):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip(program.info.outputs, session.run(None, example_inputs(program)), strict=True))


# What is built.


def test_in_single_precision_the_network_is_as_it_was_exported(program):
    truth = run(program.onnx, program)
    spelled_out = typed_network(program.onnx, "fp32", plugins=False)
    for name, answer in run(spelled_out.SerializeToString(), program).items():
        np.testing.assert_array_equal(answer, truth[name])
    assert not list(nodes_in_half(spelled_out))


def test_in_half_precision_it_answers_nearly_the_same(program):
    network = typed_network(program.onnx, "fp16", plugins=False)
    onnx.checker.check_model(network, full_check=True)
    truth = run(program.onnx, program)
    for name, answer in run(network.SerializeToString(), program).items():
        assert answer.dtype == np.float32
        assert np.abs(answer - truth[name]).mean() < 2e-3 * np.abs(truth[name]).mean()


def test_what_is_learned_alone_is_in_half(program):
    network = typed_network(program.onnx, "fp16", plugins=False)
    halves = list(nodes_in_half(network))
    assert {node.doc_string for node in halves if node.op_type != "Cast"} == {NETWORK}
    assert {node.op_type for node in halves} >= {"Conv", "Cast"}
    types = {entry.name: entry.data_type for entry in network.graph.initializer}
    for node in network.graph.node:
        if node.op_type == "Conv":
            expected = TensorProto.FLOAT16 if node.doc_string == NETWORK else TensorProto.FLOAT
            assert types.get(node.input[1], expected) == expected
    for value in (*network.graph.input, *network.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("plugins", [True, False])
def test_bfloat16_is_the_same_network_in_the_other_half(program, plugins):
    """ONNX Runtime has no bfloat16 on the CPU; the network in float16 it runs."""
    halves = {name: typed_network(program.onnx, name, plugins=plugins) for name in ("fp16", "bf16")}
    sixteen, brain = (halves[name].graph for name in halves)
    assert [(n.op_type, list(n.input), list(n.output)) for n in sixteen.node] == [
        (n.op_type, list(n.input), list(n.output)) for n in brain.node
    ]
    pairs = {TensorProto.FLOAT16: TensorProto.BFLOAT16}
    for ours, theirs in zip(sixteen.initializer, brain.initializer, strict=True):
        assert theirs.data_type == pairs.get(ours.data_type, ours.data_type)
        if ours.data_type == TensorProto.FLOAT16:
            values = [numpy_helper.to_array(each).astype(np.float32) for each in (ours, theirs)]
            np.testing.assert_allclose(*values, rtol=2**-8, atol=1e-6)
    for ours, theirs in zip(sixteen.node, brain.node, strict=True):
        if ours.op_type == "Cast":
            assert theirs.attribute[0].i == pairs.get(ours.attribute[0].i, ours.attribute[0].i)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_nodes_of_ours_are_left_to_plugins(operators, precision):
    network = typed_network(operators.onnx, precision)
    assert needs_plugins(network)
    assert not network.functions
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*network.graph.value_info, *network.graph.input)
    }
    types.update((entry.name, entry.data_type) for entry in network.graph.initializer)
    (cue,) = (node for node in network.graph.node if node.op_type == "BoundaryCue")
    half = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    # The pictures stay in single precision, as they come: their difference is small.
    assert all(types[name] == TensorProto.FLOAT for name in cue.input[:2] if name in types)
    assert not any(name.endswith("_half") for name in cue.input[:2])
    assert [types[name] for name in cue.input[2:]] == [half, half]
    (psf,) = (node for node in network.graph.node if node.op_type == "PsfConv")
    assert not any(name.endswith("_half") for name in psf.input)
    assert {a.name for a in cue.attribute} == {"plugin_namespace", "plugin_version", "aot"}
    assert not needs_plugins(typed_network(operators.onnx, precision, plugins=False))


def test_pictures_meet_in_single_precision_without_plugins_too(operators):
    network = typed_network(operators.onnx, "fp16", plugins=False)
    makers = {name: node for node in network.graph.node for name in node.output}
    first = next(node for node in network.graph.node if node.op_type == "Conv" and "cue" in node.input[1])
    cast = makers[first.input[0]]
    assert cast.op_type == "Cast"
    assert (makers[cast.input[0]].op_type, makers[cast.input[0]].doc_string) == ("Sub", EVIDENCE)


# What is kept.

KEY = EngineKey("model", "kernels", "H200 9.0", "10.13.3", "fp16", "ahead of time")


def test_an_engine_comes_back_as_it_was(tmp_path):
    cache = EngineCache(tmp_path / "new" / "folder")
    path = cache.path("my net/1", KEY)
    assert path.name == f"my_net_1-fp16-{KEY.stamp}.engine"
    assert cache.load(path, KEY) is None
    engine = bytes(range(256)) * 50
    cache.store(path, KEY, engine)
    assert cache.load(path, KEY) == engine
    assert list(path.parent.iterdir()) == [path]
    assert path.parent.stat().st_mode & 0o077 == 0


def test_all_that_an_engine_depends_on_names_it():
    changed = {"model": "", "kernels": "", "gpu": "Orin 8.7", "tensorrt": "11", "precision": "fp32", "plugins": "none"}
    others = [replace(KEY, **{name: value}) for name, value in changed.items()]
    others += [replace(KEY, version_compatible=True), replace(KEY, hardware_compatible=True)]
    assert len({KEY.stamp, *(other.stamp for other in others)}) == len(others) + 1


def test_the_key_is_of_what_is_built_and_where(operators):
    machine = Machine(sys, FEATURES, HOPPER)
    networks = [
        typed_network(operators.onnx, p).SerializeToString(deterministic=True) for p in ("fp32", "fp16", "fp32")
    ]
    keys = [engine_key(machine, network, EngineOptions(), plugins=True) for network in networks]
    assert keys[0] == keys[2]
    assert keys[0] != keys[1]
    assert keys[0].plugins == "ahead of time"
    assert engine_key(replace(machine, gpu=ORIN), networks[0], EngineOptions(), plugins=True).gpu == "Orin 8.7"
    without = engine_key(machine, networks[0], EngineOptions(), plugins=False)
    assert (without.kernels, without.plugins) == ("", "none")


def test_a_damaged_engine_is_known(tmp_path):
    cache = EngineCache(tmp_path)
    path = cache.path("net", KEY)
    cache.store(path, KEY, b"engine" * 100)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedEngineError, match="expected"):
            cache.load(path, KEY)
    for content, sentence in (
        (whole[:-1] + b"?", "expected it as it was written, got one that was changed"),
        (b"\x00\xff\n" + whole, "expected an engine, got a file of another kind"),
        (b"[]\n", "expected an engine, got a file of another kind"),
        (whole.replace(b"H200", b"H100"), "expected one for H200 9.0, got one for something else"),
    ):
        path.write_bytes(content)
        with pytest.raises(DamagedEngineError, match=sentence) as caught:
            cache.load(path, KEY)
        assert str(path) in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        cache.store(cache.path("net", KEY), KEY, b"engine")


def test_engines_are_kept_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_folder() == Path("/caches/dfd_ros/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "dfd_ros" / "engines"


class Builds:
    """Counts what is built and run in place of TensorRT; engines that say so are foreign."""

    def __init__(self, monkeypatch):
        self.built, self.ran = [], []
        monkeypatch.setattr(backend_module, "build_engine", self.build)
        monkeypatch.setattr(backend_module, "EngineRunner", self.run)
        monkeypatch.setattr(backend_module, "register_plugins", lambda machine: None)

    def build(self, trt, features, network, options, timing):
        self.built.append((options.precision, timing))
        return Built(f"engine {len(self.built)}".encode(), f"timing {len(self.built)}".encode())

    def run(self, trt, engine, buffers, device):
        if engine.startswith(b"foreign"):
            raise ForeignEngineError("backend tensorrt: expected to load the engine, got another version's")
        self.ran.append(engine)
        return SimpleNamespace(recorded=True)


def test_an_engine_is_built_once_and_again_when_it_is_damaged_or_foreign(monkeypatch, tmp_path, operators, caplog):
    builds, machine = Builds(monkeypatch), Machine(sys, FEATURES, HOPPER)

    def prepare():
        backend = TensorRtBackend(BackendOptions("fp16"), folder=tmp_path)
        with caplog.at_level(logging.WARNING, "dfd_ros.tensorrt"):
            caplog.clear()
            backend._make_runner(machine, operators, None, None)
        return backend

    assert prepare().built
    assert not prepare().built
    assert builds.ran == [b"engine 1", b"engine 1"]
    (path,) = tmp_path.glob("*.engine")
    path.write_bytes(path.read_bytes()[:-3])
    assert prepare().built
    assert len(caplog.messages) == 1
    assert "expected 8 bytes, got 5; it is built again" in caplog.text
    assert not prepare().built
    assert not caplog.messages
    key = EngineKey(**json.loads(path.read_bytes().partition(b"\n")[0])["engine"])
    EngineCache(tmp_path).store(path, key, b"foreign")
    assert prepare().built
    assert "got another version's; it is built again" in caplog.text
    assert builds.ran[-1] == b"engine 3"
    # What was measured while building is kept and used.
    assert builds.built == [("fp16", b""), ("fp16", b"timing 1"), ("fp16", b"timing 2")]


def test_a_full_gpu_is_not_a_damaged_engine(monkeypatch, tmp_path, operators):
    builds, machine = Builds(monkeypatch), Machine(sys, FEATURES, HOPPER)

    def full(trt, engine, buffers, device):
        raise explain("make room for the engine", ["Error Code 2: OutOfMemory (Requested size was 9 bytes.)"])

    monkeypatch.setattr(backend_module, "EngineRunner", full)
    with pytest.raises(GpuMemoryError, match="expected room on the GPU to make room for the engine, got too little"):
        TensorRtBackend(BackendOptions(), folder=tmp_path)._make_runner(machine, operators, None, None)
    assert len(builds.built) == 1


def test_an_engine_that_cannot_be_kept_is_used_all_the_same(monkeypatch, tmp_path, operators, caplog):
    builds = Builds(monkeypatch)
    (tmp_path / "file").write_text("")
    backend = TensorRtBackend(BackendOptions(), folder=tmp_path / "file" / "engines")
    backend._make_runner(Machine(sys, FEATURES, HOPPER), operators, None, None)
    assert builds.ran == [b"engine 1"]
    assert "cannot be written" in caplog.text


# What TensorRT says.


@pytest.mark.parametrize(
    "text",
    [
        "[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was 1 bytes.)",
        "Requested amount of GPU memory (3 bytes) could not be allocated. out of memory",
        "Cuda failure: cudaErrorMemoryAllocation",
        "UNSUPPORTED_STATE: Skipping tactic 0 due to insufficient memory on requested size of 5",
    ],
)
def test_out_of_memory_is_an_error_of_its_own(text):
    error = explain("build the engine", ["something else", text])
    assert isinstance(error, GpuMemoryError)
    assert str(error) == (
        "backend tensorrt: expected room on the GPU to build the engine, got too little; a smaller size may do"
    )


def test_other_errors_have_tensorrts_reason_in_one_sentence():
    messages = Messages()
    messages.take("WARNING", "slow")
    messages.take("ERROR", "node 3:\n  no importer   for Sharpen")
    messages.take("INTERNAL_ERROR", "and so on")
    error = messages.error("read the network")
    assert type(error) is InputError
    assert str(error) == "backend tensorrt: expected to read the network, got node 3: no importer for Sharpen"
    assert "gave no reason" in str(messages.error("read the network"))


def test_errors_without_end_are_not_kept_without_end():
    messages = Messages()
    for number in range(1000):
        messages.take("ERROR", str(number))
    assert len(messages.errors) == 50
    assert messages.errors[-1] == "999"


def test_a_full_gpu_is_the_same_error_from_the_driver():
    def answer(value, name):
        return SimpleNamespace(value=value, name=name)

    assert checked((answer(0, "CUDA_SUCCESS"), 5)) == 5
    with pytest.raises(GpuMemoryError, match="expected room on the GPU"):
        checked((answer(2, "CUDA_ERROR_OUT_OF_MEMORY"), None))
    with pytest.raises(RuntimeError, match="CUDA_ERROR_LAUNCH_FAILED"):
        checked((answer(719, "CUDA_ERROR_LAUNCH_FAILED"),))


@needs_lean
def test_tensorrts_own_classes_take_our_logger_and_monitor():
    import tensorrt_lean_bindings as lean

    messages, progress, stop = Messages(), Progress(console=Console(file=io.StringIO())), StopRequest()
    logger = make_logger(lean, messages)
    logger.log(lean.ILogger.Severity.ERROR, "one")
    logger.log(lean.ILogger.Severity.INFO, "two")
    assert messages.errors == ["one"]
    monitor = make_monitor(lean, PhaseBars(progress, stop))
    assert isinstance(monitor, lean.IProgressMonitor)
    monitor.phase_start("building", None, 4)
    monitor.phase_start("tactics", "building", 2)
    assert [task.description for task in progress.tasks] == ["building", "  tactics"]
    assert monitor.step_complete("building", 1)
    assert progress.tasks[0].completed == 2
    stop.make()
    assert not monitor.step_complete("building", 2)  # which ends the build
    monitor.phase_finish("tactics")
    monitor.phase_finish("building")
    assert not progress.tasks


def test_a_tensorrt_without_progress_has_no_monitor():
    assert make_monitor(SimpleNamespace(), None) is None


# What there is.


@needs_lean
def test_the_lean_runtime_is_no_builder():
    import tensorrt_lean_bindings as lean

    features = look(lean)
    assert features.version == lean.__version__
    assert not features.builder
    assert features.v3


def test_features_are_looked_for_one_by_one():
    flag = SimpleNamespace(STRONGLY_TYPED=1)
    old = SimpleNamespace(__version__="10.3.0", __name__="json", NetworkDefinitionCreationFlag=flag)
    old.Builder = old.OnnxParser = old.IPluginV3OneRuntime = old.IPluginCreatorV3One = object
    found = look(old)
    assert (found.builder, found.network_flags, found.plugins) == (True, 2, "IPluginV3")
    old.QuickPluginCreationRequest = object
    assert look(old).plugins == "IPluginV3"  # json has no plugin
    typed = SimpleNamespace(__version__="12", __name__="json")
    assert (look(typed).network_flags, look(typed).plugins) == (0, "none")


def test_a_package_that_does_not_load_is_told_from_one_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match=r"expected the package tensorrt to be installed, got none$"):
        import_tensorrt()
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"got one that does not load \(libnvinfer\.so\.10: cannot open"):
        import_tensorrt()


def test_what_is_missing_is_named_in_order(monkeypatch):
    monkeypatch.setattr(backend_module, "driver_is_there", lambda: False)
    assert why_not() == "backend tensorrt: expected a GPU and NVIDIA's driver, got none"
    monkeypatch.setattr(backend_module, "driver_is_there", lambda: True)
    monkeypatch.setattr(backend_module, "find_gpu", lambda: HOPPER)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert why_not() == "backend tensorrt: expected the package tensorrt to be installed, got none"
    lean = SimpleNamespace(__version__="10.13.3", __name__="json")
    monkeypatch.setattr(backend_module, "import_tensorrt", lambda: lean)
    assert why_not() == "backend tensorrt: expected TensorRT with its builder, got 10.13.3 without"
    lean.Builder = lean.OnnxParser = object
    assert why_not() is None
    assert find_machine().gpu is HOPPER
    assert ("tensorrt", BackendOptions("fp16", "cuda")) in candidates()
    with pytest.raises(InputError, match=r"expected a version with Python plugins, got 10\.13\.3"):
        register_plugins(find_machine())


def test_a_driver_too_old_for_the_compiler_is_named(monkeypatch):
    """JetPack 6 is of CUDA 12, and PyPI's newest compiler is not."""
    assert compiler_version() >= (12, 6)
    monkeypatch.setattr(backend_module.cuda, "compiler_version", lambda: (13, 1))

    def check(cuda, *, ahead_of_time):
        check_compiler(Machine(sys, replace(FEATURES, ahead_of_time=ahead_of_time), replace(ORIN, cuda=cuda)))

    with pytest.raises(InputError, match=r"expected NVRTC of CUDA 12\.6 or before, .*, got 13\.1; pip install"):
        check((12, 6), ahead_of_time=False)
    with pytest.raises(InputError, match=r"expected NVRTC of CUDA 13\.0 or before"):
        check((13, 0), ahead_of_time=True)
    check((13, 0), ahead_of_time=False)
    check((13, 1), ahead_of_time=True)


def test_every_function_of_the_driver_that_is_called_exists():
    """Nothing here can call them: there is no GPU."""
    bindings = importlib.import_module("cuda.bindings.driver")
    names = set()
    for module in (device, runtime):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Attribute) and node.attr.startswith(("cu", "CU")):
                names.add(node.attr)
    known = {name for name in names if hasattr(bindings, name)}
    members = {"CU_STREAM_NON_BLOCKING", "CU_EVENT_DISABLE_TIMING", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"}
    assert members <= {name for kind in vars(bindings).values() for name in getattr(kind, "__members__", ())}
    assert names - known - members <= {"cuda", "cuda_stream", "current", "current_stream"}
    assert "cuLaunchKernel" in known


# Here.


@without_tensorrt
def test_asked_for_where_it_cannot_run_it_says_why(operators, tmp_path):
    backend = make_backend("tensorrt", BackendOptions("fp16"))
    with pytest.raises(InputError, match="backend tensorrt: expected ") as caught:
        backend.prepare(operators)
    assert str(caught.value) == why_not()
    assert not backend.inputs
    with pytest.raises(InputError, match=r"expected prepare\(\) before infer\(\)"):
        backend.infer({})
    backend.close()
    with pytest.raises(InputError) as caught:
        open_source(EstimatorOptions("ours", "tensorrt"))
    assert str(caught.value) == why_not()
    assert "tensorrt" not in {name for name, _ in candidates()}


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_others_have_no_float16(name, operators):
    with pytest.raises(InputError, match=f"backend {name}: expected precision fp32 or bf16, got fp16"):
        make_backend(name, BackendOptions("fp16")).prepare(operators)


# The doctor.


def test_the_doctor_tells_what_there_is():
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    for line in ("dfd_ros ", "ROS 2: ", "packages: numpy ", "back end torch: ready", "back end onnxruntime: ready"):
        assert f"\n{line}" in f"\n{result.output}"


@without_tensorrt
def test_the_doctor_says_kindly_why_tensorrt_cannot_be_proved_here(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "environment", lambda: iter(()))
    monkeypatch.setattr(sys, "argv", ["dfd", "doctor", "--tensorrt"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out.strip() == "TensorRT cannot run here, so there is nothing to prove; all other back ends do without it."
    assert err.startswith("error: doctor: expected a GPU")
    assert "Traceback" not in err


@pytest.mark.skipif(why_not() is not None, reason=f"no TensorRT here: {why_not()}")
def test_where_tensorrt_runs_it_does_what_it_promises(tmp_path):
    from dfd_ros.inference.trt.proof import prove

    findings = list(prove("ours", (96, 128), tmp_path))
    assert all(finding.good for finding in findings), [finding.text for finding in findings if not finding.good]
