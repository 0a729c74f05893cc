"""Which back end? `auto` runs those installed on the first pairs and takes the fastest that answers right.

Right is: depths as the reference's, float32 in torch (where there are weights) or in ONNX Runtime, within a tolerance in
the mean. Asking for one by name gets that one, or the reason why not: there is no silent fallback.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.backend import Array, Backend, BackendOptions
from dfd_ros.inference.backends import BACKENDS, make_backend
from dfd_ros.inference.export import Program
from dfd_ros.inference.trt.backend import why_not

AUTO = "auto"
TOLERANCE = 0.01
"""Mean relative difference of depth that a faster back end may have."""
_SECONDS = 1.0  # of measuring per back end, at most, after the first call
_MOST_RUNS = 10
_LEAST_DEPTH = 1e-3  # metres, of a depth that divides

Inputs = Mapping[str, Array | Tensor]


@dataclass(frozen=True)
class Measured:
    """How one back end did.

    Attributes:
        name: Its name.
        milliseconds: Of a pair, the median; NaN where it could not run.
        difference: Of its depth to the reference's, mean relative; NaN where it could not run.
        reason: Why it could not run; empty where it did.
    """

    name: str
    milliseconds: float
    difference: float
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """A back end, prepared, and one sentence on which, why, and how fast."""

    backend: Backend
    sentence: str
    measured: tuple[Measured, ...] = ()


def candidates(threads: int = 0) -> list[tuple[str, BackendOptions]]:
    """What `auto` tries on this machine, the reference first."""
    tried = [("torch", BackendOptions(threads=threads)), ("onnxruntime", BackendOptions(threads=threads))]
    tried += [("openvino", BackendOptions(precision, threads=threads)) for precision in ("fp32", "bf16")]
    if torch.cuda.is_available():
        tried += [("torch", BackendOptions(precision, "cuda")) for precision in ("fp32", "bf16")]
    if why_not() is None:
        tried += [("tensorrt", BackendOptions(precision, "cuda")) for precision in ("fp32", "fp16", "bf16")]
    return tried


def choose(
    name: str,
    program: Program,
    pairs: Sequence[Inputs],
    options: BackendOptions,
    tolerance: float = TOLERANCE,
    full: Collection[str] = (),
) -> Choice:
    """A prepared back end.

    Args:
        name: One of `BACKENDS`, or `auto`.
        program: What it shall run.
        pairs: The inputs of the first pairs, one at least for `auto`.
        options: For a back end asked for by name; `auto` heeds only the threads.
        tolerance: Mean relative difference of depth that `auto` allows.
        full: Names of back ends that `auto` leaves out: they ran out of memory before.

    Raises:
        InputError: The one asked for cannot run, or none can, with the reasons.
    """
    if name != AUTO:
        if name not in BACKENDS:
            raise InputError(f"backend: expected {AUTO} or one of {', '.join(BACKENDS)}, got {name!r}")
        backend = make_backend(name, options)
        backend.prepare(program)
        return Choice(backend, f"back end {backend.name}, as asked for")
    if not pairs:
        raise InputError("backend auto: expected a pair at least to measure on, got none")
    return _fastest(candidates(options.threads), program, pairs, tolerance, full)


def _fastest(
    tried: Iterable[tuple[str, BackendOptions]],
    program: Program,
    pairs: Sequence[Inputs],
    tolerance: float,
    full: Collection[str],
) -> Choice:
    measured: list[Measured] = []
    reference: list[Array] | None = None
    best: tuple[Measured, Backend] | None = None
    for name, options in tried:
        backend = make_backend(name, options)
        if backend.name in full:
            measured.append(Measured(backend.name, np.nan, np.nan, f"backend {backend.name}: ran out of memory"))
            continue
        try:
            backend.prepare(program)
            depths = [backend.infer(pair)["depth"].copy() for pair in pairs]
        except InputError as error:
            measured.append(Measured(backend.name, np.nan, np.nan, str(error)))
            backend.close()
            continue
        reference = reference or depths
        difference = float(np.mean([mean_difference(a, b) for a, b in zip(depths, reference, strict=True)]))
        row = Measured(backend.name, 1e3 * _median_seconds(backend, pairs), difference)
        measured.append(row)
        loser: Backend | None = backend
        if difference <= tolerance and (best is None or row.milliseconds < best[0].milliseconds):
            loser, best = best and best[1], (row, backend)
        if loser is not None:
            loser.close()
    if best is None:
        reasons = "; ".join(row.reason for row in measured)
        raise InputError(f"backend auto: expected one that can run the program, got none ({reasons})")
    return Choice(best[1], _sentence(best[0], measured, tolerance), tuple(measured))


def _median_seconds(backend: Backend, pairs: Sequence[Inputs]) -> float:
    """Of a call; the first one, which may still allocate, is behind us."""
    times: list[float] = []
    while len(times) < _MOST_RUNS and sum(times) < _SECONDS:
        start = time.perf_counter()
        backend.infer(pairs[len(times) % len(pairs)])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def mean_difference(depth: Array, reference: Array) -> float:
    """Mean relative difference; infinite where one is finite and the other is not."""
    if not np.array_equal(np.isfinite(depth), np.isfinite(reference)):
        return np.inf
    relative = np.abs(depth - reference) / np.maximum(np.abs(reference), _LEAST_DEPTH)
    known = relative[np.isfinite(relative)]
    return float(known.mean()) if known.size else 0.0


def _sentence(best: Measured, measured: Sequence[Measured], tolerance: float) -> str:
    ran = [row for row in measured if not row.reason]
    reference = ran[0].name
    text = f"back end {best.name}, {best.milliseconds:.3g} ms a pair"
    if best.name != reference:
        text += f", depth within {100.0 * best.difference:.2g} % of {reference}"
    slower = [row for row in ran if row is not best and row.difference <= tolerance]
    wrong = [row for row in ran if row.difference > tolerance]
    parts = [
        ("the fastest, beside ", [f"{row.name} {row.milliseconds:.3g} ms" for row in slower]),
        ("too far off: ", [f"{row.name} by {100.0 * row.difference:.2g} %" for row in wrong]),
        ("could not run: ", [row.reason.removeprefix("backend ") for row in measured if row.reason]),
    ]
    return "; ".join([text, *(head + ", ".join(rows) for head, rows in parts if rows)])
