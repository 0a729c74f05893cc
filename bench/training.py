"""Does loading keep up with training? A batch of each recipe made by one process, against one step of its network.

Both run on one core, as they do on a machine of two: one loads, the other trains. Where more processes load, more is left.
Samples that are kept in memory are made once and seen often; the mean is over all of a training's steps.
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
        size = recipe.train.batch
        batches, model = open_batches(recipe), build_model(recipe)
        optimizer = make_optimizer(recipe.optimizer, model)
        half = recipe.train.precision != "32-true" and recipe.train.precision != "auto"
        if half:
            model = model.to(memory_format=torch.channels_last)
        first, again, stepping = [], [], []
        for number in range(BATCHES + 1):
            start = time.process_time()
            batch = batches[number]
            middle = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                outputs = run_model(model, batch)
            loss, _ = objective(recipe.loss, outputs, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            first.append(middle - start)
            stepping.append(time.process_time() - middle)
            start = time.process_time()
            batches[number]
            again.append(time.process_time() - start)
        # The first one compiles and allocates.
        load, reload, step = (min(times[1:]) for times in (first, again, stepping))
        rows.append(Row(f"{name}: a step, batch of {size}", 1e3 * step, "ms"))
        rows.append(Row(f"{name}: loading its batch, one process", 1e3 * load, "ms", 1e3 * step, load / step))
        if recipe.data.keep:
            fresh = min(1.0, sum(len(source.dataset) for source in batches.sources) / (recipe.train.steps * size))
            mean = fresh * load + (1.0 - fresh) * reload
            title = f"{name}: loading, mean of a training whose samples are kept"
            promise, met = f"ratio at most 1/{LEAST_LEAD:g}", step >= LEAST_LEAD * mean
            rows.append(Row(title, 1e3 * mean, "ms", 1e3 * step, mean / step, promise, met))
    return rows


if __name__ == "__main__":
    report("Training: loading against learning, one core each", measure)
