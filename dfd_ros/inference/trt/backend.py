"""TensorRT: an engine built once for this GPU and kept on disk, run from pinned memory as one CUDA graph.

What it needs is looked for when it is made ready, in the order in which a person would install it, and named where it is
missing. The first time a network is seen its engine is built, which takes from seconds to minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Array, BackendOptions, Buffers, not_prepared
from dfd_ros.inference.export import Program
from dfd_ros.inference.trt.cache import (
    DamagedEngineError,
    EngineCache,
    EngineKey,
    default_folder,
    digest,
    write_private,
)
from dfd_ros.inference.trt.device import Device, Gpu, driver_is_there, find_gpu
from dfd_ros.inference.trt.engine import EngineOptions, build_engine
from dfd_ros.inference.trt.features import Features, import_tensorrt, look
from dfd_ros.inference.trt.messages import LOG
from dfd_ros.inference.trt.network import needs_plugins, typed_network
from dfd_ros.inference.trt.runtime import EngineRunner, ForeignEngineError
from dfd_ros.optics.kernels import cuda, cue

_KERNEL_TEXTS = (cuda.SOURCE, cue.SOURCE, *cuda.HEADERS)


@dataclass(frozen=True)
class Machine:
    """What engines are built and run with."""

    trt: ModuleType
    features: Features
    gpu: Gpu


def find_machine() -> Machine:
    """TensorRT and a GPU.

    Raises:
        InputError: One of them is missing, or too old, with which.
    """
    if not driver_is_there():
        raise InputError("backend tensorrt: expected a GPU and NVIDIA's driver, got none")
    gpu = find_gpu()
    trt = import_tensorrt()
    features = look(trt)
    if not features.builder:
        raise InputError(f"backend tensorrt: expected TensorRT with its builder, got {features.version} without")
    return Machine(trt, features, gpu)


def why_not() -> str | None:
    """Why there is no TensorRT on this machine; None where there is."""
    try:
        find_machine()
    except InputError as error:
        return str(error)
    return None


def engine_key(machine: Machine, network: bytes, options: EngineOptions, *, plugins: bool) -> EngineKey:
    """What the engine of a network, as it is to be built, depends on; `plugins` says whether it has any."""
    major, minor = machine.gpu.capability
    return EngineKey(
        model=digest(network),
        kernels=digest(*(text.read_bytes() for text in _KERNEL_TEXTS)) if plugins else "",
        gpu=f"{machine.gpu.name} {major}.{minor}",
        tensorrt=machine.features.version,
        precision=options.precision,
        plugins=machine.features.plugins if plugins else "none",
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )


class TensorRtBackend:
    """See `dfd_ros.inference.backend.Backend`.

    Args:
        options: Their precision counts.
        engine: How engines are built, but for the precision.
        folder: Of engines; by default in the user's cache.
    """

    def __init__(
        self, options: BackendOptions, engine: EngineOptions | None = None, folder: Path | None = None
    ) -> None:
        self.name = f"tensorrt {options.precision}"
        self._engine = replace(engine or EngineOptions(), precision=options.precision)
        self._cache = EngineCache(folder or default_folder())
        self._device: Device | None = None
        self._runner: EngineRunner | None = None
        self._buffers: Buffers | None = None
        self.built = False
        """Whether the engine was built, and not found on disk."""

    @property
    def inputs(self) -> Mapping[str, Array]:
        return self._buffers.inputs if self._buffers else {}

    def prepare(self, program: Program) -> None:
        self.close()
        machine = find_machine()
        try:
            self._device = device = Device()
            with device.current():
                buffers = Buffers(self.name, program, allocate=device.pinned)
                self._runner = self._make_runner(machine, program, buffers, device)
        except RuntimeError as error:
            self.close()
            raise InputError(f"backend tensorrt: expected a GPU that works, got {error}") from error
        except BaseException:
            self.close()
            raise
        self._buffers = buffers

    def infer(self, inputs: Mapping[str, Array | Tensor]) -> Mapping[str, Array]:
        if self._buffers is None or self._runner is None or self._device is None:
            raise not_prepared(self.name)
        on_gpu = {name: value for name, value in inputs.items() if isinstance(value, Tensor) and value.is_cuda}
        fitting = {name: value for name, value in on_gpu.items() if _fits(value, self._buffers.inputs.get(name))}
        rest = {name: value for name, value in inputs.items() if name not in fitting}
        self._buffers.take({**rest, **{name: self._buffers.inputs[name] for name in fitting}})
        with self._device.current():
            self._runner.run(fitting)
        return self._buffers.outputs

    def close(self) -> None:
        if self._device is not None:
            with self._device.current():
                if self._runner is not None:
                    self._runner.close()
            self._device.close()
        self._device = self._runner = self._buffers = None

    @property
    def recorded(self) -> bool:
        """Whether a call is one CUDA graph."""
        return self._runner is not None and self._runner.recorded

    def _make_runner(self, machine: Machine, program: Program, buffers: Buffers, device: Device) -> EngineRunner:
        """Of the engine on disk, or else of a new one, which is then put there."""
        model = typed_network(program.onnx, self._engine.precision, plugins=self._engine.plugins)
        plugins, network = needs_plugins(model), model.SerializeToString(deterministic=True)
        if plugins:
            register_plugins(machine)
        key = engine_key(machine, network, self._engine, plugins=plugins)
        path = self._cache.path(program.info.name, key)
        try:
            found = self._cache.load(path, key)
            if found is not None:
                self.built = False
                return EngineRunner(machine.trt, found, buffers, device)
        except (DamagedEngineError, ForeignEngineError) as error:
            # Not the error itself, which holds the buffers as long as somebody keeps the record.
            LOG.warning("%s; it is built again", str(error))
        timing = self._cache.timing_path(key)
        LOG.info("building the engine of %s for %s", program.info.name, key.gpu)
        before = timing.read_bytes() if timing.is_file() else b""
        built = build_engine(machine.trt, machine.features, network, self._engine, before)
        self.built = True
        try:
            self._cache.store(path, key, built.engine)
            write_private(timing, built.timing)
        except InputError as error:
            LOG.warning("%s; it is built again the next time", error)
        return EngineRunner(machine.trt, built.engine, buffers, device)


def register_plugins(machine: Machine) -> None:
    """Let TensorRT know our operators, in the form that it takes; raises InputError where it takes none."""
    if machine.features.plugins == "none":
        raise InputError(f"backend tensorrt: expected a version with Python plugins, got {machine.features.version}")
    check_compiler(machine)
    if machine.features.ahead_of_time:
        from dfd_ros.inference.trt import plugins_aot  # noqa: F401 (registers them)
    else:
        from dfd_ros.inference.trt import plugins_v3

        plugins_v3.register(machine.trt.get_plugin_registry())


def check_compiler(machine: Machine) -> None:
    """Raises InputError where the driver would not take what NVRTC compiles; machine code minds the major version alone."""
    try:
        compiler = cuda.compiler_version()
    except RuntimeError as error:
        raise InputError(f"backend tensorrt: expected NVRTC for its plugins, got none ({error})") from error
    count = 2 if machine.features.ahead_of_time else 1
    if compiler[:count] > machine.gpu.cuda[:count]:
        known, newest = (".".join(map(str, version)) for version in (compiler, machine.gpu.cuda))
        raise InputError(
            f"backend tensorrt: expected NVRTC of CUDA {newest} or before, which is the driver's, got {known}; "
            f"pip install 'cuda-bindings<{machine.gpu.cuda[0] + 1}' and NVRTC of that version, or update the driver"
        )


def _fits(tensor: Tensor, buffer: Array | None) -> bool:
    """Whether a tensor on the GPU can be read where it is."""
    return (
        buffer is not None
        and tensor.dtype == torch.float32
        and tensor.is_contiguous()
        and tuple(tensor.shape) == buffer.shape
    )
