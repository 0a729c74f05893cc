"""Tests of `trt/device.py`, `trt/runtime.py` and the back end over a driver that is none, which must be loaded before.

`test_tensorrt_device.py` runs them in a process of their own. TensorRT is stood in for by an "engine" of one kernel of ours,
which its context launches on the addresses and the stream that it was given.
"""

import ctypes
import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cuda_on_cpu import HostKernels

from dfd_ros.errors import GpuMemoryError, InputError
from dfd_ros.inference.backend import BackendOptions
from dfd_ros.inference.export import Program
from dfd_ros.inference.trt import backend as backend_module
from dfd_ros.inference.trt import device as device_module
from dfd_ros.inference.trt.backend import Machine, TensorRtBackend
from dfd_ros.inference.trt.device import Device, find_gpu, launch
from dfd_ros.inference.trt.engine import Built
from dfd_ros.inference.trt.features import Features
from dfd_ros.optics.kernels import reference
from dfd_ros.optics.kernels.cuda import Kernel
from dfd_ros.optics.kernels.settings import PsfSettings

SHAPE = (1, 3, 37, 45)
SETTINGS = PsfSettings(7)
KERNEL = Kernel("forward", SETTINGS, 3, torch.float32, weight_sum=False)
DRIVER = ctypes.CDLL("libcuda.so.1")
for function in ("fake_used", "fake_streams", "fake_retained"):
    getattr(DRIVER, function).restype = ctypes.c_size_t


@pytest.fixture(scope="module", autouse=True)
def kernel(tmp_path_factory):
    kernels = HostKernels([KERNEL], tmp_path_factory.mktemp("kernels"))
    DRIVER.fake_kernel(kernels.launchers[KERNEL])
    with pytest.MonkeyPatch.context() as patch:
        # NVRTC, which is tested elsewhere, does not bear this driver beside it.
        patch.setattr(device_module, "cubin", lambda kernel, capability: b"\x7fELF")
        yield
    del kernels


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    gc.collect()
    before = DRIVER.fake_used(), DRIVER.fake_streams(), DRIVER.fake_retained()
    yield
    DRIVER.fake_room(ctypes.c_size_t(1 << 30))
    gc.collect()
    assert (DRIVER.fake_used(), DRIVER.fake_streams(), DRIVER.fake_retained()) == before


def pictures():
    generator = torch.Generator().manual_seed(0)
    image, coc = torch.rand(SHAPE, generator=generator), 6.0 * torch.rand(1, 1, *SHAPE[2:], generator=generator)
    truth, _ = reference.forward(image, coc, SETTINGS)
    return {"image": image.numpy(), "coc": coc.numpy()}, truth.numpy()


def test_a_gpu_tells_what_it_is():
    assert find_gpu().describe() == "a CPU, compute capability 9.0, 1.0 GiB, driver for CUDA 13.0"


def test_pinned_memory_lives_as_long_as_an_array_of_it():
    device = Device()
    array = device.pinned((3, 5))
    assert array.shape == (3, 5)
    assert not array.any()
    assert DRIVER.fake_used() == 60
    row = torch.from_numpy(array)[1]
    device.close()
    device.close()
    del array
    gc.collect()
    row += 1.0
    assert DRIVER.fake_used() == 60
    del row
    gc.collect()
    assert DRIVER.fake_used() == 0


def test_a_full_gpu_is_an_error_of_its_own():
    device = Device()
    DRIVER.fake_room(ctypes.c_size_t(100))
    with device.current():
        device.allocate(80)
        with pytest.raises(GpuMemoryError, match="expected room on the GPU, got too little"):
            device.allocate(80)
    with pytest.raises(GpuMemoryError):
        device.pinned((5, 5))
    device.close()


def test_without_the_context_nothing_is_done():
    device = Device()
    with pytest.raises(RuntimeError, match="CUDA answered"):
        device.allocate(8)
    device.close()


def test_what_is_recorded_is_done_when_it_is_replayed():
    device = Device()
    host, back = device.pinned((4,)), device.pinned((4,))
    with device.current():
        address = device.allocate(host.nbytes)
        device.begin_capture()
        device.upload(address, host)
        device.download(back, address)
        recorded = device.end_capture()
        host[...] = 7.0
        assert not back.any()
        device.replay(recorded)
        device.synchronize()
        device.forget(recorded)
    assert (back == 7.0).all()
    device.close()


class Context:
    """Runs the "engine": one kernel."""

    def __init__(self, whole):
        self.addresses, self.whole, self.calls = {}, whole, 0

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        self.calls += 1
        if not self.whole and self.calls == 3:  # while it is recorded
            return False
        where = [self.addresses[name] for name in ("image", "coc", "depth")]
        launch(KERNEL, (1, *SHAPE[2:]), where[:2], where[2:], stream)
        return True


class Tensorrt:
    """As much of TensorRT as a runtime uses."""

    DataType = SimpleNamespace(FLOAT="float32")
    __version__ = "none"

    class ILogger:
        pass

    def __init__(self, context="whole"):
        self.kind, self.contexts, self.runs = context, [], 0

    def Runtime(self, logger):  # noqa: N802 (its name)
        shapes = {"image": SHAPE, "coc": (1, 1, *SHAPE[2:]), "depth": SHAPE}
        if self.kind == "another":
            shapes["depth"] = (1, 1)

        def create():
            if self.kind == "full":
                logger.log(SimpleNamespace(name="ERROR"), "Error Code 2: OutOfMemory")
                return None
            self.contexts.append(Context(self.kind != "unrecorded"))
            return self.contexts[-1]

        engine = SimpleNamespace(
            num_io_tensors=3,
            get_tensor_name=list(shapes).__getitem__,
            get_tensor_shape=shapes.__getitem__,
            get_tensor_dtype=lambda name: "float32",
            create_execution_context=create,
        )
        return SimpleNamespace(deserialize_cuda_engine=lambda content: None if content == b"foreign" else engine)


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """A back end made ready over such a TensorRT."""
    made = []

    def prepare(context="whole"):
        trt = Tensorrt(context)
        features = Features("none", builder=True, ahead_of_time=True, v3=True, network_flags=0)
        monkeypatch.setattr(backend_module, "find_machine", lambda: Machine(trt, features, find_gpu()))
        monkeypatch.setattr(
            backend_module, "typed_network", lambda *a, **k: SimpleNamespace(SerializeToString=lambda **k: b"")
        )
        monkeypatch.setattr(backend_module, "needs_plugins", lambda model: False)
        monkeypatch.setattr(backend_module, "build_engine", lambda *a: Built(b"engine", b""))
        info = SimpleNamespace(
            name="one kernel", inputs={"image": SHAPE, "coc": (1, 1, *SHAPE[2:])}, outputs={"depth": SHAPE}
        )
        made.append(TensorRtBackend(BackendOptions(), folder=tmp_path))
        made[-1].prepare(Program(b"", info))
        return made[-1], trt.contexts[-1]

    yield prepare
    for backend in made:
        backend.close()


def test_a_call_is_one_replay(prepared):
    backend, context = prepared()
    assert backend.recorded
    values, truth = pictures()
    calls = context.calls
    for _ in range(3):
        np.testing.assert_allclose(backend.infer(values)["depth"], truth, atol=1e-5)
    assert context.calls == calls  # all is in the graph
    backend.inputs["image"][...] = 0.5 * values["image"]  # written where it is read
    given = {**values, "image": backend.inputs["image"]}
    np.testing.assert_allclose(backend.infer(given)["depth"], 0.5 * truth, atol=1e-5)


def test_what_cannot_be_recorded_is_queued_every_time(prepared):
    backend, context = prepared("unrecorded")
    assert not backend.recorded
    values, truth = pictures()
    calls = context.calls
    np.testing.assert_allclose(backend.infer(values)["depth"], truth, atol=1e-5)
    assert context.calls == calls + 1


def test_tensors_on_the_gpu_are_read_where_they_are(prepared, monkeypatch):
    backend, context = prepared()
    values, truth = pictures()
    backend.infer(values)
    image = torch.from_numpy(0.5 * values["image"])
    runner, own = backend._runner, dict(context.addresses)
    backend.inputs["image"][...] = torch.nan  # not read
    seen = []
    queue = context.execute_async_v3
    monkeypatch.setattr(
        context, "execute_async_v3", lambda stream: (seen.append(dict(context.addresses)), queue(stream))[1]
    )
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1))
    with backend._device.current():
        runner.run({"image": image})
    assert seen == [{**own, "image": image.data_ptr()}]
    assert context.addresses == own
    np.testing.assert_allclose(backend.infer({**values})["depth"], truth, atol=1e-5)


def test_a_full_gpu_and_another_engine_are_told_apart(prepared, tmp_path):
    with pytest.raises(GpuMemoryError, match="expected room on the GPU to make room for the engine"):
        prepared("full")
    with pytest.raises(InputError, match=r"expected an engine of .*, got one of"):
        prepared("another")
    DRIVER.fake_room(ctypes.c_size_t(DRIVER.fake_used() + 30_000))
    with pytest.raises(GpuMemoryError):
        prepared()


def test_a_closed_back_end_leaves_its_buffers_to_who_holds_them(prepared):
    backend, _ = prepared()
    images = backend.inputs["image"]
    backend.close()
    backend.close()
    images += 1.0
    assert not backend.inputs
    with pytest.raises(InputError, match=r"expected prepare\(\) before infer\(\)"):
        backend.infer({})


assert "tensorrt" not in sys.modules
assert device_module.driver_is_there()
