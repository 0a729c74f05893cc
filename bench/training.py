"""Does loading keep up with training? A batch of each recipe made by one process, against one step of its network.

Both run on one core, as they do on a machine of two: one loads, the other trains. Where more processes load, more is left.
"""

from __future__ import annotations

import time

import cv2
import torch
from table import Row, report

from dfd_ros.learning.datasets import open_batches
from dfd_ros.learning.objectives import objective
from dfd_ros.learning.recipe import load_recipe
from dfd_ros.learning.system import build_model, make_optimizer, run_model

RECIPES = ("ours", "dual_aperture")
BATCHES = 6  # timed, after one that compiles and allocates
LEAST_LEAD = 1.5  # of loading over the step, for ours


def measure() -> list[Row]:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    for name in RECIPES:
        recipe = load_recipe(name)
        batches, model = open_batches(recipe), build_model(recipe)
        optimizer = make_optimizer(recipe.optimizer, model)
        loading, stepping = [], []
        for number in range(BATCHES + 1):
            start = time.process_time()
            batch = batches[number]
            middle = time.process_time()
            loss, _ = objective(recipe.loss, run_model(model, batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loading.append(middle - start)
            stepping.append(time.process_time() - middle)
        # The first one compiles and allocates.
        load, step = min(loading[1:]), min(stepping[1:])
        size = recipe.train.batch
        rows.append(Row(f"{name}: a step, batch of {size}", 1e3 * step, "ms"))
        rows.append(
            Row(
                f"{name}: loading its batch, one process",
                1e3 * load,
                "ms",
                1e3 * step,
                load / step,
                f"ratio at most 1/{LEAST_LEAD:g}" if name == "ours" else "",
                name != "ours" or step >= LEAST_LEAD * load,
            )
        )
    return rows


if __name__ == "__main__":
    report("Training: loading against learning, one core each", measure)
