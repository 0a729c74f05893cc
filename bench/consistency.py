"""Does self-consistency rank errors better? The sparsification curve of a network, before and after.

    python bench/consistency.py                      # ours, on made-up scenes
    python bench/consistency.py WEIGHTS DATA         # another network, on KIND:PATH (the last fifth of its scenes)

Pixels are left out from the least confident on; the curve is the mean relative error of those that are left, over the
share left out, and the area under it is small where confidence knows the errors (Wannenwetsch, Keuper & Roth,
"ProbFlow: Joint Optical Flow and Uncertainty Estimation", ICCV 2017). Areas are over the error of all pixels: 1 is what
chance gives, and what a network has that says nothing of its errors. The oracle leaves out the largest errors first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from table import Row, report

from dfd_ros.data.samples import Sample
from dfd_ros.data.synthetic import SyntheticScenes, SyntheticSettings
from dfd_ros.inference.graph import DepthGraph, GraphSettings, lens_inputs
from dfd_ros.inference.weights import load_weights
from dfd_ros.inference.zoo import find_weights
from dfd_ros.learning.batches import whole
from dfd_ros.learning.datasets import open_data
from dfd_ros.learning.recipe import DataRecipe
from dfd_ros.models.base import DepthModel

SCENES = 16
SIZE = (240, 320)
SEED = 4242  # not one trained on
FOLDS = 5  # of a data set, the last of which is held out, as `bench/train_all.sh` has it
LEAST_BETTER = 0.5
"""Share of the scenes in which the ranking must be better."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Areas:
    """Areas under the curves of one scene: without and with consistency, and by an oracle."""

    before: float
    after: float
    oracle: float


def measure(weights: str, data: str) -> list[Row]:
    torch.set_num_threads(1)
    model, _ = load_weights(find_weights(weights))
    areas = [compare(model, sample) for sample in scenes(data)]
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


def scenes(data: str) -> Iterator[Sample]:
    """Made-up ones, or those of a data set that are held out."""
    if not data:
        made_up = SyntheticScenes(SyntheticSettings(shape=SIZE, seed=SEED))
        yield from (made_up.sample(index) for index in range(SCENES))
    else:
        dataset = open_data(DataRecipe(spec=data, folds=FOLDS, fold=FOLDS - 1, held_out=True))
        yield from (dataset.read(index) for index in range(min(SCENES, len(dataset))))


def compare(model: DepthModel, sample: Sample) -> Areas:
    assert sample.lens is not None
    images = whole(sample).images(model.signature.inputs)
    confidences = []
    for consistency in (False, True):
        graph = DepthGraph(model, GraphSettings(sample.depth.shape, None, consistency))
        with torch.inference_mode():
            outputs = graph(images, *lens_inputs(sample.lens, graph.inputs).values())
        answers = dict(zip(graph.outputs, (output[0, 0].numpy() for output in outputs), strict=True))
        confidences.append(answers.get("confidence"))
    known = np.isfinite(sample.depth)
    error = (np.abs(answers["depth"] - sample.depth) / sample.depth)[known]
    before, after = (1.0 if each is None else area(each[known], error) for each in confidences)
    return Areas(before, after, area(-error, error))


def area(confidence: Array, error: Array) -> float:
    """Under the sparsification curve, over the mean error of all."""
    ranked = error[np.argsort(-confidence, kind="stable")].astype(np.float64)
    left = np.cumsum(ranked) / np.arange(1, ranked.size + 1)
    return float(left.mean() / ranked.mean())


if __name__ == "__main__":
    report(
        "Confidence with and without self-consistency: area under the sparsification curve",
        measure,
        arguments={"weights": "ours", "data": ""},
    )
