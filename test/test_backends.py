"""Every back end gives the same answers into its own buffers; `auto` takes the fastest right one and says why."""

import sys
from typing import ClassVar

import numpy as np
import openvino
import pytest
import torch
from one_thread import one_thread  # noqa: F401 (all tests here run on one)

from dfd_ros.errors import GpuMemoryError, InputError
from dfd_ros.inference import choose as choose_module
from dfd_ros.inference.backend import BackendOptions, Buffers
from dfd_ros.inference.backends import BACKENDS, make_backend
from dfd_ros.inference.choose import candidates, choose
from dfd_ros.inference.export import Program, export_model
from dfd_ros.inference.graph import GraphSettings
from dfd_ros.inference.trt.backend import why_not
from dfd_ros.inference.weights import ModelCard
from dfd_ros.models.registry import build

SIZE = (64, 96)
ONE_THREAD = BackendOptions(threads=1)
HERE = [name for name in BACKENDS if name != "tensorrt" or why_not() is None]


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    model = build("physics_net", features=(8, 8, 8, 8), labels=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return export_model(model, ModelCard("net", "physics_net"), GraphSettings(SIZE, consistency=True))


@pytest.fixture(scope="module")
def pair(program):
    return {key: value.numpy() for key, value in zip(program.graph.inputs, program.graph.example(), strict=True)}


@pytest.fixture(scope="module")
def truth(program):
    with torch.inference_mode():
        outputs = program.graph(*program.graph.example())
    return dict(zip(program.info.outputs, (output.numpy() for output in outputs), strict=True))


@pytest.fixture(params=HERE)
def backend(request, program):
    backend = make_backend(request.param, ONE_THREAD)
    backend.prepare(program)
    yield backend
    backend.close()


def test_all_back_ends_agree(backend, pair, truth):
    for form in (pair, {key: torch.from_numpy(value) for key, value in pair.items()}):
        answers = backend.infer(form)
        assert list(answers) == list(truth)
        for name, answer in answers.items():
            np.testing.assert_allclose(answer, truth[name], atol=1e-4 * np.abs(truth[name]).max())


def test_answers_are_views_of_buffers_that_stay(backend, pair, truth):
    first = backend.infer(pair)["depth"]
    where = first.ctypes.data
    black = {**pair, "images": np.zeros_like(pair["images"])}
    assert backend.infer(black)["depth"].ctypes.data == where
    assert not np.allclose(first, truth["depth"])  # overwritten
    backend.infer(pair)
    np.testing.assert_allclose(first, truth["depth"], rtol=1e-3)


def test_pictures_may_be_written_where_they_are_read(backend, pair, truth):
    for key, value in pair.items():
        backend.inputs[key][...] = value
    np.testing.assert_allclose(backend.infer(backend.inputs)["depth"], truth["depth"], rtol=1e-3)


def test_what_does_not_fit_is_refused(backend, pair):
    with pytest.raises(InputError, match="expected the inputs images, lens, optics, got images"):
        backend.infer({"images": pair["images"]})
    with pytest.raises(InputError, match=r"expected images of shape \(1, 6, 64, 96\), got \(1, 6, 64, 64\)"):
        backend.infer({**pair, "images": pair["images"][..., :64]})


def test_a_closed_back_end_says_so(backend, pair):
    backend.close()
    backend.close()
    assert not backend.inputs
    with pytest.raises(InputError, match=r"expected prepare\(\) before infer\(\)"):
        backend.infer(pair)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bfloat16_is_close_where_there_is_any(name, program, pair, truth):
    backend = make_backend(name, BackendOptions("bf16", threads=1))
    if name == "openvino" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(InputError, match="expected a processor with bfloat16"):
            backend.prepare(program)
        return
    backend.prepare(program)
    depth = backend.infer(pair)["depth"]
    assert np.mean(np.abs(depth - truth["depth"]) / truth["depth"]) < 0.03
    backend.close()


# No silent fallback.


def refusal(name, program, options=ONE_THREAD):
    with pytest.raises(InputError) as caught:
        choose(name, program, [], options)
    return str(caught.value)


def test_one_that_cannot_run_says_why(program):
    assert refusal("tensorflow", program).startswith(
        "backend: expected auto or one of torch, onnxruntime, openvino, tensorrt,"
    )
    without_weights = Program(program.onnx, program.info)
    assert "expected weights, got the exported file of net alone" in refusal("torch", without_weights)
    for name in ("onnxruntime", "openvino"):
        assert "expected device cpu" in refusal(name, program, BackendOptions(device="cuda"))
    assert "precision fp32, got cpu and bf16" in refusal("onnxruntime", program, BackendOptions("bf16"))
    for name in ("onnxruntime", "openvino"):
        broken = Program(program.onnx[:100], program.info)
        assert "\n" not in refusal(name, broken)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_none(program):
    assert "expected a GPU that CUDA sees, got none" in refusal("torch", program, BackendOptions(device="cuda"))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_package_that_is_missing_is_named(monkeypatch, program, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert refusal(name, program).endswith(f"{name} to be installed, got none; pip install 'dfd_ros[infer]'")


def test_options_are_checked():
    with pytest.raises(InputError, match="precision: expected one of fp32, fp16, bf16, got 'int8'"):
        BackendOptions("int8")
    with pytest.raises(InputError, match="device: expected one of cpu, cuda, got 'tpu'"):
        BackendOptions(device="tpu")
    with pytest.raises(InputError, match="threads: expected 0 or more"):
        BackendOptions(threads=-1)


# Auto.


def test_auto_measures_what_is_installed_and_says_which_it_took(program, pair, truth):
    choice = choose("auto", program, [pair], ONE_THREAD)
    assert {row.name.split()[0] for row in choice.measured} == set(HERE)
    assert choice.sentence.startswith(f"back end {choice.backend.name}, ")
    assert "ms a pair" in choice.sentence
    np.testing.assert_allclose(choice.backend.infer(pair)["depth"], truth["depth"], rtol=0.1)
    choice.backend.close()
    named = choose("onnxruntime", program, [], ONE_THREAD)
    assert named.sentence == "back end onnxruntime, as asked for"
    named.backend.close()


def test_auto_does_without_weights(program, pair):
    choice = choose("auto", Program(program.onnx, program.info), [pair], ONE_THREAD)
    assert "could not run: torch: expected weights" in choice.sentence
    choice.backend.close()


class Fake:
    """A back end of known speed and error, on a clock of its own."""

    closed: ClassVar[list[str]] = []
    now = 0.0

    def __init__(self, name, milliseconds, error, program):
        self.name, self.milliseconds, self.error = name, milliseconds, error
        self._buffers = Buffers(name, program)

    def prepare(self, program):
        if self.milliseconds is None:
            raise InputError(f"backend {self.name}: expected a driver, got none")

    def infer(self, inputs):
        if self.error is None:
            raise GpuMemoryError(f"backend {self.name}: expected room, got too little")
        Fake.now += 1e-3 * self.milliseconds
        self._buffers.outputs["depth"][...] = 2.0 * (1.0 + self.error)
        return self._buffers.outputs

    def close(self):
        Fake.closed.append(self.name)


@pytest.fixture
def fakes(monkeypatch, program):
    def use(*rows):
        made = {row[0]: Fake(*row, program) for row in rows}
        Fake.closed = []
        monkeypatch.setattr(choose_module, "candidates", lambda threads=0: [(name, ONE_THREAD) for name in made])
        monkeypatch.setattr(choose_module, "make_backend", lambda name, options: made[name])
        monkeypatch.setattr(choose_module.time, "perf_counter", lambda: Fake.now)

    return use


def test_auto_takes_the_fastest_within_tolerance(fakes, program, pair):
    fakes(("exact", 90.0, 0.0), ("good", 30.0, 0.004), ("slow", 60.0, 0.0), ("wrong", 5.0, 0.3), ("broken", None, 0.0))
    choice = choose("auto", program, [pair], ONE_THREAD)
    assert choice.backend.name == "good"
    assert choice.sentence == (
        "back end good, 30 ms a pair, depth within 0.4 % of exact; the fastest, beside exact 90 ms, slow 60 ms; "
        "too far off: wrong by 30 %; could not run: broken: expected a driver, got none"
    )
    assert sorted(Fake.closed) == ["broken", "exact", "slow", "wrong"]


def test_auto_passes_over_one_that_has_no_room(fakes, program, pair):
    fakes(("exact", 90.0, 0.0), ("full", 1.0, None))
    choice = choose("auto", program, [pair], ONE_THREAD)
    assert choice.backend.name == "exact"
    assert choice.sentence.endswith("could not run: full: expected room, got too little")
    assert Fake.closed == ["full"]


def test_auto_leaves_out_what_ran_out_of_memory_before(fakes, program, pair):
    fakes(("exact", 90.0, 0.0), ("fast", 1.0, 0.0))
    choice = choose("auto", program, [pair], ONE_THREAD, full={"fast"})
    assert choice.backend.name == "exact"
    assert choice.sentence.endswith("could not run: fast: ran out of memory")


def test_auto_without_any_gives_all_reasons(fakes, program, pair):
    fakes(("one", None, 0.0), ("two", None, 0.0))
    with pytest.raises(InputError, match=r"backend one: expected a driver, got none; backend two: expected a driver"):
        choose("auto", program, [pair], ONE_THREAD)
    with pytest.raises(InputError, match="expected a pair at least"):
        choose("auto", program, [], ONE_THREAD)


def test_the_reference_is_tried_first():
    assert candidates()[0] == ("torch", BackendOptions())
