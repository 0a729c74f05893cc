"""Drives recorded for training sets: what `dfd dataset build` reads, pairs and LiDAR, and no depth beside it.

Nothing estimates depth meanwhile, so no pair is lost to work that a training set has no use for, and a bag is a quarter
of a whole run's.
"""

from __future__ import annotations

import gc
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dfd_ros.data.bag_reader import METADATA
from dfd_ros.datasets.topics import INFO, PAIR, POINTS, TRANSFORMS, TWIST
from dfd_ros.drive import progress_bars
from dfd_ros.errors import InputError
from dfd_ros.signals import StopRequest, stop_on_signal
from dfd_ros.vehicle import (
    DEFAULT_NAMESPACE,
    DEFAULT_PARAMETERS,
    DEPTH,
    LIDAR_DEPTH,
    RECORD,
    SIM,
    Composition,
    NodeSpec,
    graph,
)

SOURCES = ("sim", "camera")
FIRST_PAIR = 90.0
"""Seconds in which the first pair must come: the first run ever compiles kernels."""
ATTEMPTS = 2
"""Of a simulated drive, whose nodes may not all find each other on a machine that is busy beyond measure."""


class NoPairError(InputError):
    """No pair came."""


@dataclass(frozen=True)
class RecordSettings:
    """
    Attributes:
        out: The folder that the bags are made in: `drive_SEED` of the simulation, the date and time of a camera.
        source: `sim`, or `camera` for drivers that run elsewhere.
        duration: Seconds from the first pair on; 0 until a signal comes.
        drives: How many, with the seeds from `seed` on; of a camera one.
        seed, moving: Of the simulated vehicle.
        lens_file: In place of the parameter file's.
        driver: Of the aperture.
        namespace: Of the camera.
        parameter_files: Over the package's own.
        log_level: Of the nodes.

    Raises:
        InputError: The source is another, or more than one drive is asked of a camera.
    """

    out: Path
    source: str = "sim"
    duration: float = 20.0
    drives: int = 1
    seed: int = 0
    moving: bool = False
    lens_file: str = ""
    driver: str = "sim"
    namespace: str = DEFAULT_NAMESPACE
    parameter_files: tuple[str, ...] = ()
    log_level: str = "warn"

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InputError(f"source: expected {' or '.join(SOURCES)}, got {self.source!r}")
        if self.source == "camera" and self.drives != 1:
            raise InputError(f"drives: expected 1 of a camera, got {self.drives}")


def drive_name(seed: int) -> str:
    """What the bag of a simulated drive is called."""
    return f"drive_{seed:04d}"


def is_whole(bag: Path) -> bool:
    """Whether a bag was recorded to its end: its metadata is what a recorder writes last."""
    return (bag / METADATA).is_file()


def record_drives(settings: RecordSettings, console: Console) -> list[Path]:
    """Record; simulated drives that are there whole are left as they are, what is left of others is made anew.

    Returns:
        The bags.

    Raises:
        InputError: A parameter or file cannot be used, or no pair came.
        KeyboardInterrupt: A signal came before all simulated drives were recorded.
    """
    if settings.source == "camera":
        bag = settings.out / time.strftime("%Y-%m-%dT%H-%M-%S")
        with stop_on_signal() as stop:
            console.print("recording; Ctrl-C ends it" if not settings.duration else "recording")
            _record(bag, settings, {}, stop)
        return [bag]
    bags = []
    with stop_on_signal() as stop, progress_bars(console) as progress:
        task = progress.add_task("recording", total=settings.drives)
        for seed in range(settings.seed, settings.seed + settings.drives):
            bag = settings.out / drive_name(seed)
            if not is_whole(bag):
                world = {"seed": seed, "moving": settings.moving, "duration": max(settings.duration, 1.0)}
                _record_or_again(bag, settings, world, stop, console)
                gc.collect()  # nodes refer to themselves, and a drive's pictures are large
                if stop.made:
                    shutil.rmtree(bag, ignore_errors=True)  # shorter than asked for
                    raise KeyboardInterrupt
                console.print(f"recorded: {bag}")
            bags.append(bag)
            progress.advance(task)
    return bags


def _record_or_again(
    bag: Path, settings: RecordSettings, world: dict[str, int | bool | float], stop: StopRequest, console: Console
) -> None:
    """Record a simulated drive in place of what is left of another; where no pair comes, once more with new nodes."""
    for attempt in range(1, ATTEMPTS + 1):
        shutil.rmtree(bag, ignore_errors=True)
        try:
            _record(bag, settings, world, stop)
            return
        except NoPairError as error:
            shutil.rmtree(bag, ignore_errors=True)  # whole, but empty
            if attempt == ATTEMPTS:
                raise
            console.print(f"{bag.name}: {error}: starting the nodes again", highlight=False)


def _record(bag: Path, settings: RecordSettings, world: dict[str, int | bool | float], stop: StopRequest) -> None:
    """Record one drive."""
    names = "|".join((PAIR, INFO, POINTS, TWIST))
    start = "".join(f"/{part}" for part in settings.namespace.split("/") if part)
    recorder = RECORD.with_parameters(bag=str(bag), topics=f"{start}/({names})|/{TRANSFORMS}")
    composition = Composition(
        [recorder, *_sensors(settings, world)],
        namespace=settings.namespace,
        parameter_files=(DEFAULT_PARAMETERS, *settings.parameter_files),
        log_level=settings.log_level,
    )
    with ExitStack() as running:
        with stop.interrupting():
            running.enter_context(composition)
        record = composition.nodes[RECORD.name]
        deadline = time.monotonic() + FIRST_PAIR
        while not record.counts.get(f"{start}/{PAIR}", 0):
            if stop.wait(0.05):
                return
            if time.monotonic() > deadline:
                raise NoPairError(f"{start}/{PAIR}: expected a pair within {FIRST_PAIR:g} s, got none")
        stop.wait(settings.duration or float("inf"))


def _sensors(settings: RecordSettings, world: dict[str, int | bool | float]) -> list[NodeSpec]:
    """The graph without what estimates depth."""
    specs = graph(settings.source, settings.driver, settings.lens_file)
    sensors = [spec for spec in specs if spec.name not in (DEPTH.name, LIDAR_DEPTH.name)]
    return [spec.with_parameters(**world) if spec.name == SIM.name else spec for spec in sensors]
