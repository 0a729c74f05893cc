"""The PSF layer on a 640x480 picture, against the same layer written with torch's unfold.

On the CPU with one thread each; where there is a GPU also there, on a batch of 8.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from table import Row, report
from torch.nn import functional

from dfd_ros.optics.kernels.settings import PsfSettings
from dfd_ros.optics.psf import psf_conv

Tensor = torch.Tensor
Layer = Callable[[Tensor, Tensor, PsfSettings], Tensor]

HEIGHT, WIDTH, CHANNELS = 480, 640, 3
REPEATS = 7
SETTINGS = [PsfSettings(7, kind, at) for kind, at in itertools.product(("gaussian", "disk"), ("source", "destination"))]
LEAST_SPEEDUP = {7: 60.0, 11: 75.0}
MOST_MEMORY = 60.0  # MB above the inputs, with the answers
LARGEST_DIFFERENCE = 1e-5  # to unfold, relative to the largest value
# A disk's slope jumps at the ends of its ramp: which side a CoC right there is on, rounding decides.
OUTSIDE_JUMPS = 0.9999

GPU_BATCH, GPU_BUFFERS, GPU_REPLAYS = 8, 4, 20
MOST_MICROSECONDS = {"forward": 60.0, "backward": 90.0}
LEAST_GPU_SPEEDUP = 80.0
# What each direction must read and write, planes of 4 bytes a pixel: all of its arguments and results once.
PLANES = {"forward": 2 * CHANNELS + 2, "backward": 4 * CHANNELS + 3}


def unfolded(image: Tensor, coc: Tensor, psf: PsfSettings) -> Tensor:
    """The layer by unfold: every window of the picture a column of its own."""
    n, channels, height, width = image.shape
    taps = psf.window**2
    along = torch.arange(psf.window, dtype=image.dtype, device=image.device) - psf.radius
    squared_distance = (along[:, None] ** 2 + along**2).reshape(1, taps, 1)
    blurred = coc > 1.0
    lends = blurred if psf.coc_at == "source" else ~coc.isnan()
    diameter = torch.where(blurred, coc, 1.0).clamp(max=psf.window)

    def windows(planes: Tensor) -> Tensor:
        return functional.unfold(planes, psf.window, padding=psf.radius)

    # Outside the image the diameter is 1, and no light is lent.
    c = windows(diameter - 1.0) + 1.0 if psf.coc_at == "source" else diameter.reshape(n, 1, height * width)
    if psf.kind == "gaussian":
        weights = torch.exp(-0.5 * squared_distance / (psf.spread * c) ** 2) / c**2
    else:
        weights = (0.5 * c + 0.5 - squared_distance.sqrt()).clamp(0.0, 1.0) / (c**2 + 1.0 / 3.0)
    weights = weights * windows(lends.to(image.dtype))
    light = windows(torch.where(lends, image, 0.0)).reshape(n, channels, taps, height * width)
    weight_sum = weights.sum(1).reshape(n, 1, height, width)
    total = (light * weights[:, None]).sum(2).reshape(image.shape)
    out = torch.where(blurred, total / torch.where(blurred, weight_sum, 1.0), image)
    return torch.where(coc.isnan(), math.nan, out)


def compiled(image: Tensor, coc: Tensor, psf: PsfSettings) -> Tensor:
    return psf_conv(image, coc, psf.window, psf.kind, psf.coc_at, spread=psf.spread)


def scene(window: int, batch: int = 1, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """A noise picture, CoCs up to the window (a seventh of them in focus, for 7x7), and a gradient to go back."""
    torch.manual_seed(0)
    shape = (batch, CHANNELS, HEIGHT, WIDTH)
    image = torch.rand(shape, device=device).requires_grad_()
    coc = (window * torch.rand(batch, 1, HEIGHT, WIDTH, device=device)).requires_grad_()
    return image, coc, torch.randn(shape, device=device)


# On the CPU.


def measure_cpu() -> list[Row]:
    torch.set_num_threads(1)
    rows = []
    for window in (7, 11):
        for psf in SETTINGS:
            rows += compare(PsfSettings(window, psf.kind, psf.coc_at))
    for psf in SETTINGS:
        wide = PsfSettings(31, psf.kind, psf.coc_at)
        forward, backward, _ = times(compiled, wide, REPEATS // 2)
        rows.append(Row(f"{name(wide)} both", 1e3 * (forward + backward), "ms"))
    return rows + measure_memory()


def compare(psf: PsfSettings) -> list[Row]:
    """Ours and unfold by turns, for the noise of a machine to fall on both."""
    times(compiled, psf, 1)  # compiles
    ours, theirs = [], []
    for _ in range(2 if psf.window == 7 else 1):
        ours.append(times(compiled, psf, REPEATS))
        theirs.append(times(unfolded, psf, 1))
    forward, backward = min(each[0] for each in ours), min(each[1] for each in ours)
    slow_forward, slow_backward = min(each[0] for each in theirs), min(each[1] for each in theirs)
    difference = max(relative_difference(a, b) for a, b in zip(ours[0][2], theirs[0][2], strict=True))
    return [
        versus(f"{name(psf)} forward", 1e3 * forward, "ms", 1e3 * slow_forward),
        versus(f"{name(psf)} backward", 1e3 * backward, "ms", 1e3 * slow_backward),
        versus(
            *(f"{name(psf)} both", 1e3 * (forward + backward), "ms", 1e3 * (slow_forward + slow_backward)),
            least=LEAST_SPEEDUP[psf.window],
        ),
        at_most(f"{name(psf)} difference", difference, "relative", LARGEST_DIFFERENCE),
    ]


def relative_difference(value: Tensor, truth: Tensor) -> float:
    difference = (value - truth).abs().flatten().kthvalue(int(OUTSIDE_JUMPS * value.numel())).values
    return float(difference / truth.abs().max())


def times(layer: Layer, psf: PsfSettings, repeats: int) -> tuple[float, float, list[Tensor]]:
    """The shortest time forward and backward, seconds of this process, and picture and gradients."""
    image, coc, grad = scene(psf.window)
    forward = backward = math.inf
    answers: list[Tensor] = []
    for _ in range(repeats):
        start = time.process_time()
        out = layer(image, coc, psf)
        middle = time.process_time()
        gradients = torch.autograd.grad(out, (image, coc), grad)
        end = time.process_time()
        forward, backward = min(forward, middle - start), min(backward, end - middle)
        answers = [out.detach(), *gradients]
    return forward, backward, answers


def measure_memory() -> list[Row]:
    """Growth of the resident memory at its peak, forward and backward, each in a process of its own."""
    peaks = []
    for layer in ("compiled", "unfolded"):
        command = [sys.executable, "-c", f"import psf; print(psf.peak_growth(psf.{layer}))"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, env=environment, check=True, capture_output=True, text=True
        )
        peaks.append(float(answer.stdout))
    ours, theirs = peaks
    met = ours <= MOST_MEMORY
    label = f"{name(SETTINGS[0])} memory"
    return [Row(label, ours, "MB", theirs, ours / theirs, f"{MOST_MEMORY:g} MB or less", met)]


def peak_growth(layer: Layer) -> float:
    """By how many MB the resident memory grows at most, forward and backward."""
    torch.set_num_threads(1)
    psf = SETTINGS[0]
    small = torch.rand(1, CHANNELS, 8, 8, requires_grad=True)
    layer(small, torch.full((1, 1, 8, 8), 3.0, requires_grad=True), psf).sum().backward()  # compiles
    image, coc, grad = scene(psf.window)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    torch.autograd.grad(layer(image, coc, psf), (image, coc), grad)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """A field of the process's status, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


# On a GPU.


def measure_gpu() -> list[Row]:
    bandwidth = copy_bandwidth()
    rows = [Row("GPU: copying", 1e-9 * bandwidth, "GB/s")]
    for psf in SETTINGS:
        slow = dict(zip(("forward", "backward"), gpu_times_by_autograd(unfolded, psf), strict=True))
        fast = gpu_times(psf)
        for direction, seconds in fast.items():
            label = f"GPU: {name(psf)} {direction}, batch {GPU_BATCH}"
            rows.append(at_most(label, 1e6 * seconds, "µs", MOST_MICROSECONDS[direction]))
            needed = 4.0 * PLANES[direction] * GPU_BATCH * HEIGHT * WIDTH
            rows.append(Row(f"{label}: share of the roofline", needed / bandwidth / seconds, "of 1"))
            rows.append(versus(f"{label}: to unfold", 1e6 * seconds, "µs", 1e6 * slow[direction], LEAST_GPU_SPEEDUP))
    return rows


def gpu_times(psf: PsfSettings) -> dict[str, float]:
    """Seconds of each direction, from a CUDA graph that goes round more buffers than fit in the second-level cache."""
    from dfd_ros.optics.kernels import cuda

    scenes = [[each.detach() for each in scene(psf.window, GPU_BATCH, "cuda")] for _ in range(GPU_BUFFERS)]
    answers = [cuda.forward(image, coc, psf) for image, coc, _ in scenes]  # compiles

    def forward() -> list[tuple[Tensor, Tensor]]:
        return [cuda.forward(image, coc, psf) for image, coc, _ in scenes]

    def backward() -> list[tuple[Tensor, Tensor]]:
        return [
            cuda.backward(grad, image, coc, *answer, psf)
            for (image, coc, grad), answer in zip(scenes, answers, strict=True)
        ]

    return {"forward": graph_time(forward) / GPU_BUFFERS, "backward": graph_time(backward) / GPU_BUFFERS}


def graph_time(work: Callable[[], object]) -> float:
    """Seconds of one replay of `work`, the shortest of several."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = work()
    replay_times = [event_time(graph.replay, GPU_REPLAYS) for _ in range(REPEATS)]
    del kept
    return min(replay_times)


def event_time(work: Callable[[], object], repeats: int) -> float:
    """Seconds that the GPU takes for `work`."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    work()
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def gpu_times_by_autograd(layer: Layer, psf: PsfSettings) -> tuple[float, float]:
    """Seconds forward and backward; the tensors of unfold are far larger than the cache."""
    image, coc, grad = scene(psf.window, GPU_BATCH, "cuda")
    forward = min(event_time(lambda: layer(image, coc, psf), 3) for _ in range(3))
    out = layer(image, coc, psf)
    backward = min(
        event_time(lambda: torch.autograd.grad(out, (image, coc), grad, retain_graph=True), 3) for _ in range(3)
    )
    return forward, backward


def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy of a GB."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = min(event_time(lambda: target.copy_(source), 10) for _ in range(REPEATS))
    return 2.0 * source.nbytes / seconds


# Rows.


def name(psf: PsfSettings) -> str:
    return f"{psf.window}x{psf.window} {psf.kind} {psf.coc_at}"


def versus(label: str, value: float, unit: str, baseline: float, least: float | None = None) -> Row:
    ratio = value / baseline
    promise = "" if least is None else f"{least:g} times faster"
    return Row(label, value, unit, baseline, ratio, promise, least is None or ratio * least <= 1.0)


def at_most(label: str, value: float, unit: str, most: float) -> Row:
    return Row(label, value, unit, most, value / most, f"{most:g} {unit} or less", value <= most)


def measure() -> list[Row]:
    rows = measure_cpu()
    if torch.cuda.is_available():
        rows += measure_gpu()
    else:
        print("no GPU here: its part was not run", file=sys.stderr)
    return rows


if __name__ == "__main__":
    report(f"PSF layer, {WIDTH}x{HEIGHT}x{CHANNELS}, one thread (baseline: torch unfold)", measure)
