"""How far the building of an engine is: TensorRT's phases as bars on the terminal."""

from __future__ import annotations

from threading import Lock
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dfd_ros.signals import StopRequest


def build_progress(console: Console | None = None) -> Progress:
    """Bars that vanish at the end; none where nobody watches."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class PhaseBars:
    """TensorRT's phases as bars, each below the one it is part of; for calls from any thread.

    Args:
        progress: Where they are.
        stop: Once made, the build ends at its next step.
    """

    def __init__(self, progress: Progress, stop: StopRequest) -> None:
        self._progress, self._stop, self._lock = progress, stop, Lock()
        self._bars: dict[str, TaskID] = {}
        self._depths: dict[str, int] = {}

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            depth = self._depths.get(parent, -1) + 1 if parent else 0
            self._depths[phase] = depth
            self._bars[phase] = self._progress.add_task(f"{'  ' * depth}{phase}", total=max(steps, 1))

    def step(self, phase: str, step: int) -> bool:
        """Whether to go on."""
        with self._lock:
            if phase in self._bars:
                self._progress.update(self._bars[phase], completed=step + 1)
            return not self._stop.made

    def finish(self, phase: str) -> None:
        with self._lock:
            if phase in self._bars:
                self._progress.remove_task(self._bars.pop(phase))
            self._depths.pop(phase, None)


def make_monitor(trt: Any, bars: PhaseBars) -> Any:
    """TensorRT's progress monitor that moves the bars; None where TensorRT has none."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            bars.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return bars.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            bars.finish(phase_name)

    return Monitor()
