"""Whether TensorRT does here what it promises: engines built, held against ONNX Runtime, timed, and found again on disk.

For `dfd doctor --tensorrt`. Each finding is a line to paste into a report; one that fails does not keep the others from being
made.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Array, BackendOptions, Precision
from dfd_ros.inference.choose import TOLERANCE, mean_difference
from dfd_ros.inference.export import Program, export_model
from dfd_ros.inference.graph import GraphSettings
from dfd_ros.inference.onnxruntime_backend import OnnxRuntimeBackend
from dfd_ros.inference.trt.backend import TensorRtBackend, find_machine
from dfd_ros.inference.trt.engine import EngineOptions
from dfd_ros.inference.weights import ModelCard, load_weights
from dfd_ros.inference.zoo import find_weights
from dfd_ros.models.registry import build

SINGLE_TOLERANCE = 1e-3
"""Mean relative difference of depth that single precision may have: sums are taken in another order."""
_RUNS = 100
_PLUGIN_FEATURES = 16


@dataclass(frozen=True)
class Finding:
    """One line, and whether it is as it should be."""

    text: str
    good: bool = True


def prove(model: str, size: tuple[int, int], folder: Path | None = None) -> Iterator[Finding]:
    """Findings, as they are made.

    Args:
        model: Name of the zoo, or a file of weights.
        size: Height and width of the pictures.
        folder: Of engines; by default the user's cache, where they stay and so start the vehicle at once.

    Raises:
        InputError: There is no such model, or no TensorRT on this machine.
    """
    machine = find_machine()
    yield Finding(f"GPU: {machine.gpu.describe()}")
    yield Finding(f"TensorRT {machine.features.version}, plugins: {machine.features.plugins}")
    network, card = load_weights(find_weights(model))
    program = export_model(network, card, GraphSettings(size))
    for precision in get_args(Precision):
        yield from _compare(f"{card.name} {precision}", program, EngineOptions(precision), folder)
    operators = plugin_program(size)
    for precision in get_args(Precision):
        yield from _compare(f"operators as plugins {precision}", operators, EngineOptions(precision), folder)
    yield from _compare("operators composed by TensorRT", operators, EngineOptions(plugins=False), folder)


def plugin_program(size: tuple[int, int]) -> Program:
    """A small network with random weights that has both operators of ours."""
    torch.manual_seed(0)
    options = {"features": _PLUGIN_FEATURES}
    network = build("dual_aperture", **options).eval()
    return export_model(
        network, ModelCard("operators", "dual_aperture", options), GraphSettings(size, consistency=True)
    )


def _compare(what: str, program: Program, options: EngineOptions, folder: Path | None) -> Iterator[Finding]:
    inputs = example_inputs(program)
    backend = TensorRtBackend(BackendOptions(options.precision, "cuda"), options, folder)
    try:
        seconds = _prepare(backend, program)
        built = f"engine {'built' if backend.built else 'found on disk'} in {seconds:.1f} s"
        yield _differences(f"{what}: {built}", backend, program, inputs, options.precision)
        times = _times(backend, inputs)
        graph = "one CUDA graph" if backend.recorded else "without a CUDA graph"
        p50, p95 = statistics.median(times), sorted(times)[int(0.95 * len(times))]
        yield Finding(f"{what}: {1e3 * p50:.3g} ms a pair (95 %: {1e3 * p95:.3g} ms), {graph}")
        seconds = _prepare(backend, program)
        yield Finding(f"{what}: from disk in {seconds:.1f} s", good=not backend.built)
        if torch.cuda.is_available():
            on_gpu = {name: torch.from_numpy(value).cuda() for name, value in inputs.items()}
            there = backend.infer(on_gpu)["depth"].copy()
            same = mean_difference(there, backend.infer(inputs)["depth"])
            yield Finding(f"{what}: from tensors on the GPU, depth within {100.0 * same:.2g} %", good=same < 1e-6)
    except (InputError, RuntimeError) as error:
        yield Finding(f"{what}: {error}", good=False)
    finally:
        backend.close()


def example_inputs(program: Program) -> dict[str, Array]:
    """Random pictures, and a lens that is a possible one."""
    assert program.graph is not None
    example = zip(program.graph.inputs, program.graph.example(), strict=True)
    return {name: np.ascontiguousarray(value.numpy()) for name, value in example}


def _differences(
    what: str, backend: TensorRtBackend, program: Program, inputs: Mapping[str, Array], precision: Precision
) -> Finding:
    reference = OnnxRuntimeBackend(BackendOptions())
    reference.prepare(program)
    truth = reference.infer(inputs)["depth"].copy()
    reference.close()
    difference = mean_difference(backend.infer(inputs)["depth"], truth)
    allowed = SINGLE_TOLERANCE if precision == "fp32" else TOLERANCE
    text = f"{what}, depth within {100.0 * difference:.2g} % of ONNX Runtime (allowed: {100.0 * allowed:.2g} %)"
    return Finding(text, good=difference <= allowed)


def _prepare(backend: TensorRtBackend, program: Program) -> float:
    start = time.perf_counter()
    backend.prepare(program)
    return time.perf_counter() - start


def _times(backend: TensorRtBackend, inputs: Mapping[str, Array]) -> list[float]:
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        backend.infer(inputs)
        times.append(time.perf_counter() - start)
    return times
