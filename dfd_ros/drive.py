"""One run of the vehicle from start to summary: the main job.

Composes the graph for a source, shows what it does while it runs, records it, and at the end writes into one folder the
bag, `summary.json` and `panel.png`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from dfd_ros.data.photographs import PhotographFolder
from dfd_ros.data.sources import detect
from dfd_ros.errors import InputError
from dfd_ros.optics.lens_file import save_lens
from dfd_ros.scoring.panel import panel_from_bag
from dfd_ros.scoring.summary import Summary, print_table, summarise_bag
from dfd_ros.signals import StopRequest, stop_on_signal
from dfd_ros.vehicle import (
    DEFAULT_NAMESPACE,
    DEFAULT_PARAMETERS,
    DEPTH,
    RECORD,
    REPLAY,
    SIM,
    Composition,
    NodeSpec,
    graph,
)

if TYPE_CHECKING:
    from dfd_ros.nodes.monitor_node import MonitorNode, NodeStatus

MONITOR = NodeSpec("monitor", "", "dfd_ros.nodes.monitor_node:MonitorNode", lifecycle=False)
REFRESH = 1.0  # seconds between two states of the display
PATIENCE = 60.0
"""Seconds in which the first answer must come, however short the run: back ends are measured before it."""
LEVELS = {0: "green", 1: "yellow", 2: "red"}


@dataclass(frozen=True)
class DriveSettings:
    """
    Attributes:
        source: `sim`, `camera`, or the path of photographs, KITTI frames or a bag.
        out: The folder to write into; it is made.
        duration: Seconds to run from the first answer on; a replay ends when all is replayed.
        lens_file: In place of the parameter file's; photographs without one are calibrated on their first half and
            run on the other.
        moving: Let the simulated vehicle drive.
        seed: Of the simulated vehicle.
        driver: Of the aperture.
        model: What estimates depth: a name of the zoo, weights or an exported file; empty for what the parameters say.
        namespace: Of the camera.
        parameter_files: Over the package's own.
        log_level: Of the nodes.
    """

    source: str
    out: Path
    duration: float = 20.0
    lens_file: str = ""
    moving: bool = False
    seed: int = 0
    driver: str = "sim"
    model: str = ""
    namespace: str = DEFAULT_NAMESPACE
    parameter_files: tuple[str, ...] = ()
    log_level: str = "warn"


def drive(settings: DriveSettings, console: Console) -> Summary:
    """Run the vehicle.

    Raises:
        InputError: The source, a parameter or a file cannot be used.
        KeyboardInterrupt: A signal came before the nodes were up.
    """
    start = time.monotonic()
    specs = graph(settings.source, settings.driver, settings.lens_file)
    if settings.model and not any(spec.name == DEPTH.name for spec in specs):
        raise InputError(f"model: expected a source of pairs, got {settings.source}, which has none")
    try:
        settings.out.mkdir(parents=True)
    except FileExistsError as error:
        raise InputError(f"out: expected a new folder, got {settings.out}, which exists") from error
    except OSError as error:
        raise InputError(f"out: {settings.out} cannot be made ({error.strerror})") from error
    specs = _with_model(_prepare(settings, specs, console), settings.model)
    console.print("starting the nodes; the first run ever compiles their kernels, which takes half a minute")
    bag = settings.out / "bag"
    specs = [RECORD.with_parameters(bag=str(bag)), MONITOR, *specs]
    with stop_on_signal() as stop:
        with ExitStack() as running:
            with stop.interrupting(), progress_bars(console) as progress:
                composition = Composition(
                    specs,
                    namespace=settings.namespace,
                    parameter_files=(DEFAULT_PARAMETERS, *settings.parameter_files),
                    log_level=settings.log_level,
                    making={SIM.name: {"progress": progress_callback(progress, "rendering ahead")}},
                )
                running.enter_context(composition)
            _watch(composition, settings, stop, console, start)
            console.print("stopping: the nodes work off what they have")
        return _sum_up(bag, settings, console)


def _prepare(settings: DriveSettings, specs: list[NodeSpec], console: Console) -> list[NodeSpec]:
    """What a source needs before its nodes start: the simulator's parameters, or the photographs' lens."""
    if settings.source == "sim":
        drive_parameters = {"seed": settings.seed, "moving": settings.moving, "duration": settings.duration}
        return [spec.with_parameters(**drive_parameters) if spec.name == SIM.name else spec for spec in specs]
    if settings.source == "camera" or settings.lens_file or detect(Path(settings.source)) != "photographs":
        return specs
    return _calibrate_first_half(settings, console)


def _with_model(specs: list[NodeSpec], model: str) -> list[NodeSpec]:
    """The graph whose depth is estimated by `model`, unless that is empty."""
    return [spec.with_parameters(model=model) if model and spec.name == DEPTH.name else spec for spec in specs]


def _calibrate_first_half(settings: DriveSettings, console: Console) -> list[NodeSpec]:
    """Photographs whose lens nobody told: calibrate on the first half, replay the other."""
    from dfd_ros.data.calibration import calibrate_folder  # matplotlib is slow to load
    from dfd_ros.optics.calibrate import plot_calibration

    count = len(PhotographFolder(Path(settings.source)))
    half = count // 2
    console.print(f"no lens file given: calibrating on scenes 0 to {half - 1} of {count}, running on the others")
    with progress_bars(console) as progress:
        calibration = calibrate_folder(Path(settings.source), range(half), progress_callback(progress, "calibrating"))
    console.print(calibration.describe())
    lens_file = settings.out / "lens.yaml"
    save_lens(calibration.lens, lens_file)
    plot_calibration(calibration, settings.out / "calibration.png")
    specs = graph(settings.source, settings.driver, str(lens_file))
    return [spec.with_parameters(first=half) if spec.name == REPLAY.name else spec for spec in specs]


def _watch(
    composition: Composition, settings: DriveSettings, stop: StopRequest, console: Console, start: float
) -> None:
    """Show what the nodes do until the time is up, the replay is over, or a signal comes."""
    monitor: MonitorNode = composition.nodes[MONITOR.name]
    replay = composition.nodes.get(REPLAY.name)
    running_since = time.monotonic()
    end = running_since + max(settings.duration, PATIENCE)
    answered = False
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        while not stop.made:
            now = time.monotonic()
            if not answered and (what := first_answer_of(monitor.statuses, composition.nodes)):
                answered, end = True, now + settings.duration
                live.console.print(f"first {what} {now - start:.1f} s after the start")
            if getattr(replay, "finished", False) or (settings.duration and now >= end):
                return
            if console.is_terminal:
                live.update(status_display(monitor.statuses, now - running_since))
            stop.wait(REFRESH if console.is_terminal and answered else 0.2)


def first_answer_of(statuses: Mapping[str, NodeStatus], nodes: Collection[str]) -> str:
    """What has been answered, in words, or nothing yet.

    Depth where a node makes it from blur, LiDAR depth only where nothing else is made: that node is often the quicker.
    """
    node, what = ("depth", "depth") if "depth" in nodes else ("lidar_depth", "LiDAR depth")
    answered = (s.values.get("answered", "0") != "0" for name, s in statuses.items() if name.rsplit("/", 1)[-1] == node)
    return what if any(answered) else ""


def status_display(statuses: Mapping[str, NodeStatus], elapsed: float) -> Group:
    """The nodes' rates, latencies and drops as one table."""
    table = Table(title=f"{elapsed:.0f} s", title_justify="left", expand=False)
    for column in ("node", "rates", "latency p50 / p95", "dropped", "state"):
        table.add_column(column)
    for name, status in sorted(statuses.items()):
        values = status.values
        hertz = {key.removesuffix("_hz"): float(value) for key, value in values.items() if key.endswith("_hz")}
        rates = [f"{what} {rate:.1f} Hz" for what, rate in hertz.items() if rate]
        latency = ""
        if "latency_ms_p50" in values:
            latency = f"{float(values['latency_ms_p50']):.0f} / {float(values['latency_ms_p95']):.0f} ms"
        drops = [f"{key.removeprefix('dropped/')} {n}" for key, n in values.items() if key.startswith("dropped/")]
        state = Text(status.message, style=LEVELS.get(status.level, "red"))
        table.add_row(name.rsplit("/", 1)[-1], "\n".join(rates), latency, "\n".join(drops), state)
    return Group(table)


def _sum_up(bag: Path, settings: DriveSettings, console: Console) -> Summary:
    with console.status("scoring the recording"):
        summary = summarise_bag(bag, namespace=settings.namespace)
        summary.save(settings.out / "summary.json")
        panel_from_bag(bag, settings.out / "panel.png", namespace=settings.namespace)
    print_table(summary, console)
    console.print(f"written: {settings.out}/summary.json, panel.png and bag")
    return summary


def progress_bars(console: Console) -> Progress:
    """Bars that vanish when they are full; none where nobody watches."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def progress_callback(progress: Progress, what: str) -> Callable[[float], None]:
    """A callback that moves a bar from 0 to 1."""
    task = progress.add_task(what, total=1.0)
    return lambda done: progress.update(task, completed=done)
