"""How fast made-up scenes come: samples a second on one core, and in all with two worker processes.

A sample is laid out, ray-cast, defocused for both apertures and exposed. What one core does is measured in its own time;
the workers' share of the machine is not, so on a busy machine they look slower than they are. The rows below give the
milliseconds of the steps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
from table import Row, report

from dfd_ros.data.scene_caster import Pinhole, photograph
from dfd_ros.data.scene_kinds import lay_out
from dfd_ros.data.scene_layout import Scene, View
from dfd_ros.data.scene_textures import texture_bank
from dfd_ros.data.synthetic import SyntheticScenes, SyntheticSettings
from dfd_ros.optics.render import render_defocus

LEAST = {(120, 160): 25.0, (240, 320): 4.0}  # samples a second of one core
SAMPLES = 60
WORKERS = 2
KINDS = {"room": (0.4, 10.0), "clutter": (0.4, 10.0), "street": (4.0, 80.0)}

_generator: SyntheticScenes


def one_core(settings: SyntheticSettings) -> float:
    """Samples a second of this process's own time."""
    generator = SyntheticScenes(settings)
    generator.sample(SAMPLES)  # compiles
    start = time.process_time()
    for index in range(SAMPLES):
        generator.sample(index)
    return SAMPLES / (time.process_time() - start)


def workers(settings: SyntheticSettings) -> float:
    """Samples a second by the clock, several processes together; starting them is not counted."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), _start, (settings,)) as pool:
        list(pool.map(_work, [range(4)] * WORKERS))
        start = time.perf_counter()
        list(pool.map(_work, [range(worker, 2 * SAMPLES, WORKERS) for worker in range(WORKERS)]))
        return 2 * SAMPLES / (time.perf_counter() - start)


def _start(settings: SyntheticSettings) -> None:
    global _generator
    cv2.setNumThreads(1)
    _generator = SyntheticScenes(settings)


def _work(numbers: range) -> None:
    for index in numbers:
        _generator.sample(index)


def steps(settings: SyntheticSettings) -> list[Row]:
    """Milliseconds of the parts, and of a whole sample."""
    height, width = settings.shape
    camera = Pinhole(np.float32(0.9 * width), np.float32((width - 1) / 2), np.float32((height - 1) / 2))
    view, bank = View(camera, settings.shape, *settings.depth_range), texture_bank()

    def build(index: int) -> Scene:
        return lay_out("room", np.random.default_rng((0, index)), view, bank)

    rooms = [build(index) for index in range(SAMPLES)]
    pinholes = [photograph(room.bodies, room.surfaces, room.light, camera, settings.shape, bank) for room in rooms]
    generator = SyntheticScenes(settings)
    lens = generator.sample(0).lens
    assert lens is not None
    apertures = (lens.f_number_shallow, lens.f_number_deep)

    def cast(index: int) -> None:
        room = rooms[index]
        photograph(room.bodies, room.surfaces, room.light, camera, settings.shape, bank)

    whole = _milliseconds(generator.sample)
    parts = {
        "layout": _milliseconds(build),
        "pinhole picture and depth": _milliseconds(cast),
        "defocus, both apertures": _milliseconds(lambda index: render_defocus(*pinholes[index], lens, apertures)),
    }
    return [Row(f"  {name}", value, "ms", whole, value / whole) for name, value in parts.items()]


def _milliseconds(step: Callable[[int], object]) -> float:
    step(0)
    start = time.process_time()
    for index in range(SAMPLES):
        step(index)
    return 1e3 * (time.process_time() - start) / SAMPLES


def measure() -> list[Row]:
    cv2.setNumThreads(1)
    rows = []
    for shape, least in LEAST.items():
        size = f"{shape[1]}x{shape[0]}"
        single = {}
        for kind, depth_range in KINDS.items():
            settings = SyntheticSettings(shape=shape, kinds={kind: 1.0}, depth_range=depth_range)
            single[kind] = value = one_core(settings)
            limit = f"{least:g} or more"
            rows.append(
                Row(f"{kind} {size}, one core", value, "samples/s", least, value / least, limit, value >= least)
            )
        rows.extend(steps(SyntheticSettings(shape=shape, kinds={"room": 1.0})))
        both = workers(SyntheticSettings(shape=shape, kinds={"room": 1.0}))
        name = f"room {size}, {WORKERS} workers on {os.cpu_count()} cores"
        rows.append(Row(name, both, "samples/s", single["room"], both / single["room"]))
    return rows


if __name__ == "__main__":
    report("Made-up scenes", measure)
