"""Does self-consistency rank errors better? The sparsification curve of a network on made-up scenes, before and after.

Pixels are left out from the least confident on; the curve is the mean relative error of those that are left, over the
share left out, and the area under it is small where confidence knows the errors (Wannenwetsch, Keuper & Roth,
"ProbFlow: Joint Optical Flow and Uncertainty Estimation", ICCV 2017). Areas are over the error of all pixels: 1 is what
chance gives. The oracle leaves out the largest errors first.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from table import Row, report

from dfd_ros.data.synthetic import SyntheticScenes, SyntheticSettings
from dfd_ros.inference.graph import DepthGraph, GraphSettings, lens_inputs
from dfd_ros.inference.weights import load_weights
from dfd_ros.inference.zoo import find_weights
from dfd_ros.models.base import DepthModel

WEIGHTS = "ours"
SCENES = 16
SIZE = (240, 320)
SEED = 4242  # not one trained on
LEAST_BETTER = 0.5
"""Share of the scenes in which the ranking must be better."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Areas:
    """Areas under the curves of one scene: without and with consistency, and by an oracle."""

    before: float
    after: float
    oracle: float


def measure() -> list[Row]:
    torch.set_num_threads(1)
    model, _ = load_weights(find_weights(WEIGHTS))
    scenes = SyntheticScenes(SyntheticSettings(shape=SIZE, seed=SEED))
    areas = [compare(model, scenes, index) for index in range(SCENES)]
    before, after, oracle = (
        float(np.mean([getattr(a, name) for a in areas])) for name in ("before", "after", "oracle")
    )
    better = float(np.mean([a.after < a.before for a in areas]))
    return [
        Row("area without consistency", before, "of chance's"),
        Row("area with consistency", after, "of chance's", before, after / before, "less than without", after < before),
        Row("area of an oracle", oracle, "of chance's", before, oracle / before),
        Row("scenes ranked better", better, "of 1", None, None, f"more than {LEAST_BETTER:g}", better > LEAST_BETTER),
    ]


def compare(model: DepthModel, scenes: SyntheticScenes, index: int) -> Areas:
    sample = scenes.sample(index)
    assert sample.lens is not None
    images = torch.from_numpy(np.concatenate([sample.shallow, sample.deep], axis=2).transpose(2, 0, 1)[None].copy())
    confidences = []
    for consistency in (False, True):
        graph = DepthGraph(model, GraphSettings(SIZE, None, consistency))
        with torch.inference_mode():
            outputs = graph(images, *lens_inputs(sample.lens, graph.inputs).values())
        answers = dict(zip(graph.outputs, (output[0, 0].numpy() for output in outputs), strict=True))
        confidences.append(answers["confidence"])
    known = np.isfinite(sample.depth)
    error = (np.abs(answers["depth"] - sample.depth) / sample.depth)[known]
    return Areas(*(area(each[known], error) for each in confidences), area(-error, error))


def area(confidence: Array, error: Array) -> float:
    """Under the sparsification curve, over the mean error of all."""
    ranked = error[np.argsort(-confidence, kind="stable")].astype(np.float64)
    left = np.cumsum(ranked) / np.arange(1, ranked.size + 1)
    return float(left.mean() / ranked.mean())


if __name__ == "__main__":
    print(f"{SCENES} scenes, {WEIGHTS}", file=sys.stderr)
    report("Confidence with and without self-consistency: area under the sparsification curve", measure)
