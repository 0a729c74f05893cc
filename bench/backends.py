"""Back ends side by side, 640x480: a network of the zoo, and the dual-aperture network of the paper (592 GFLOP).

What `auto` would take is held against the best of all; depth in bfloat16 against float32 on made-up rooms with truth.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from table import Row, report

from dfd_ros.data.synthetic import LensRange, SyntheticScenes, SyntheticSettings
from dfd_ros.errors import InputError
from dfd_ros.inference.backends import make_backend
from dfd_ros.inference.choose import candidates
from dfd_ros.inference.export import Program, export_model
from dfd_ros.inference.graph import GraphSettings, lens_inputs
from dfd_ros.inference.weights import ModelCard, load_weights
from dfd_ros.inference.zoo import find_weights
from dfd_ros.models.registry import build

SIZE = (480, 640)
SCENES, SEED = 6, 977
RUNS, SECONDS = 20, 6.0  # of measuring per back end, at most
MOST_BEHIND = 1.1  # OpenVINO in bfloat16 over the best
MOST_CHANGE = 0.002  # of rel, bfloat16 against float32

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Ran:
    """Milliseconds of a pair, the median, and the depths of all pairs."""

    milliseconds: float
    depths: list[Array]


def run_all(program: Program, inputs: list[Mapping[str, Array]]) -> dict[str, Ran]:
    """All back ends that can run it, by name; one after another, since they would take each other's cores."""
    found = {}
    for name, options in candidates():
        backend = make_backend(name, options)
        try:
            backend.prepare(program)
        except InputError as error:
            print(f"{backend.name}: {error}")
            continue
        depths = [backend.infer(pair)["depth"].copy() for pair in inputs]
        times: list[float] = []
        while len(times) < RUNS and sum(times) < SECONDS:
            start = time.perf_counter()
            backend.infer(inputs[len(times) % len(inputs)])
            times.append(time.perf_counter() - start)
        found[backend.name] = Ran(1e3 * float(np.median(times)), depths)
        backend.close()
    return found


def speeds(what: str, ran: Mapping[str, Ran]) -> list[Row]:
    best = min(row.milliseconds for row in ran.values())
    rows = []
    for name, row in ran.items():
        ratio = row.milliseconds / best
        promised = "openvino" in name and "bf16" in name
        limit = f"{MOST_BEHIND:g} of the best or less" if promised else ""
        rows.append(
            Row(f"{what}, {name}", row.milliseconds, "ms", best, ratio, limit, ratio <= MOST_BEHIND or not limit)
        )
    return rows


def measure() -> list[Row]:
    torch.manual_seed(0)
    scenes = SyntheticScenes(SyntheticSettings(shape=SIZE, seed=SEED, lens=LensRange(largest_coc=(4.0, 12.0))))
    samples = [scenes.sample(k) for k in range(SCENES)]

    model, card = load_weights(find_weights("ours"))
    program = export_model(model, card, GraphSettings(SIZE))
    inputs: list[Mapping[str, Array]] = []
    for sample in samples:
        pictures = np.concatenate([sample.shallow, sample.deep], axis=2).transpose(2, 0, 1)[None]
        others = lens_inputs(sample.lens, program.info.inputs) if sample.lens else {}
        inputs.append(
            {"images": np.ascontiguousarray(pictures), **{key: value.numpy() for key, value in others.items()}}
        )
    ours = run_all(program, inputs)
    rows = speeds("ours", ours)
    errors = {
        name: float(
            np.mean([np.nanmean(np.abs(d[0, 0] / s.depth - 1)) for d, s in zip(ran.depths, samples, strict=True)])
        )
        for name, ran in ours.items()
    }
    reference = next(iter(errors.values()))
    for name, error in errors.items():
        if "bf16" in name:
            change = abs(error - reference)
            limit = f"within {MOST_CHANGE:g}"
            rows.append(
                Row(f"ours, {name}: rel", error, "", reference, error / reference, limit, change <= MOST_CHANGE)
            )

    paper = build("dual_aperture").eval()
    program = export_model(paper, ModelCard("dual_aperture", "dual_aperture"), GraphSettings(SIZE))
    rng = np.random.default_rng(0)
    noise = {name: rng.random(shape, np.float32) for name, shape in program.info.inputs.items()}
    return rows + speeds("paper's network", run_all(program, [noise]))


if __name__ == "__main__":
    report(f"Back ends at {SIZE[1]}x{SIZE[0]}", measure)
