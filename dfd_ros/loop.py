"""From bag to network and back on the vehicle: record, build, train, score, export, drive again (docs/tutorial.md).

Each stage is a command that a person could give, in a process of its own, and leaves something that tells that it is
done: the same loop again goes on where it was stopped. The folder:

    loop.json               the settings, and at the end what was found
    loop.log                what the commands said
    bags/…                  deleted when they are built
    train/, held_out/       the data sets
    training/               the training; its weights are what is exported
    scores/                 before, after and the classical estimator on the held-out drives
    ours_vehicle.onnx       the export
    vehicle_before/, vehicle_after/
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dfd_ros.data.built import BAGS, read_bags
from dfd_ros.datasets.files import write_whole
from dfd_ros.errors import InputError
from dfd_ros.recording import drive_name, is_whole

BEFORE, RECIPE = "ours", "ours_vehicle"
WEIGHTS = "ours-vehicle.safetensors"
TRAIN, HELD_OUT = "train", "held_out"
FIRST_SEED = {TRAIN: 1000, HELD_OUT: 1}
LEAST_GAIN = 0.2
"""Share of the relative error on the held-out drives that training must take away."""
FIGURES = {"rel": "rel", "median_rel": "median rel", "log10": "log10", "rms": "rms, m", "d1": "δ < 1.25"}
LOG_TAIL = 15
LAST_OF_RUN = "panel.png"
"""What a run of the vehicle writes last."""
# What a run is scored by; the rest of it is a hundred megabytes a second.
VEHICLE_PARAMETERS = """/**/record:
  ros__parameters:
    topics: ".*/(pair|depth/image_rect|depth/confidence|ground_truth/.*)|/diagnostics"
"""


@dataclass(frozen=True)
class LoopSettings:
    """
    Attributes:
        drives: To train on, each in a place of its own.
        held_out: To score on.
        duration: Seconds of each.
        steps: Of training.
        vehicle_duration: Seconds of each of the vehicle's two runs.
        changes: `key=value` over the recipe's.
    """

    drives: int
    held_out: int
    duration: float
    steps: int
    vehicle_duration: float
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One command of `dfd`.

    Attributes:
        title: What it is called.
        words: The command's.
        done: Tells whether it has been done.
        shown: The command for people.
        anew: A folder that is deleted before it is run again.
    """

    title: str
    words: tuple[str, ...]
    done: Callable[[], bool]
    shown: str
    anew: Path | None = None


def run_loop(out: Path, settings: LoopSettings, workers: int, keep: bool, console: Console) -> dict[str, Any]:
    """Run what is not done yet, and print what came of it.

    Args:
        out: The folder.
        settings: Those that it was begun with.
        workers: Processes that build the data sets.
        keep: Whether bags are kept.
        console: Where to report.

    Returns:
        The content of loop.json.

    Raises:
        InputError: The folder holds something else, or a stage failed.
    """
    record = out / "loop.json"
    _open_folder(out, record, settings)
    start = time.monotonic()
    for stage in stages(out, settings, workers):
        if stage.done():
            console.print(f"{stage.title}: done before")
        else:
            _run(stage, out / "loop.log", console)
        if not keep:
            _discard_bags(out, settings)
    content = {**_begun(settings), **_findings(out), "seconds": round(time.monotonic() - start, 1)}
    write_whole(record, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    _print(content, console)
    return content


def stages(out: Path, settings: LoopSettings, workers: int) -> list[Stage]:
    """The loop in its order."""
    weights, onnx, scores = out / "training" / WEIGHTS, out / "ours_vehicle.onnx", out / "scores"
    changes = (f"train.steps={settings.steps}", *settings.changes)
    train = ["train", RECIPE, "--data", out / TRAIN, "--out", weights.parent, "--resume"]
    train += [word for change in changes for word in ("--set", change)]
    compared = ["--compare", weights, "--compare", "classical"]
    evaluate = ["eval", BEFORE, *compared, "--data", f"built:{out / HELD_OUT}", "--split", "all", "--out", scores]
    return [
        *(_recording(out, name, settings) for name in (TRAIN, HELD_OUT)),
        *(_building(out, name, settings, workers) for name in (TRAIN, HELD_OUT)),
        _stage("training", train, weights.is_file),
        _stage("scoring", evaluate, (scores / "scores.json").is_file),
        _stage("export", ["export", weights, "--out", onnx], onnx.is_file),
        *(_driving(out, when, model, settings) for when, model in (("before", BEFORE), ("after", onnx))),
    ]


def _stage(title: str, words: Sequence[object], done: Callable[[], bool], bags: Sequence[Path] = ()) -> Stage:
    """A stage; of its words the bags are shown as a shell would take them."""
    given = list(map(str, words))
    names = set(map(str, bags))
    short = [str(bags[0].with_name("drive_*"))] if bags else []
    shown = shlex.join(word for word in given if word not in names)
    return Stage(title, tuple(given), done, " ".join(["dfd", shown, *short]))


def _recording(out: Path, name: str, settings: LoopSettings) -> Stage:
    bags = _bags(out, name, settings)
    words = ["record", "--out", out / "bags" / name, "--seed", FIRST_SEED[name], "--drives", len(bags)]
    words += ["--duration", f"{settings.duration:g}"]
    return _stage(f"recording, {name}", words, lambda: _built(bags, out / name) or all(map(is_whole, bags)))


def _building(out: Path, name: str, settings: LoopSettings, workers: int) -> Stage:
    bags = _bags(out, name, settings)
    words = ["dataset", "build", *bags, "--out", out / name, "--workers", workers]
    words += ["--extrinsics", "vehicle_extrinsics.yaml", *(["--validation", 0] if name == HELD_OUT else [])]
    return _stage(f"data set, {name}", words, lambda: _built(bags, out / name), bags)


def _driving(out: Path, when: str, model: object, settings: LoopSettings) -> Stage:
    run = out / f"vehicle_{when}"
    words = ["vehicle", "--out", run, "--seed", FIRST_SEED[HELD_OUT], "--model", model]
    words += ["--duration", f"{settings.vehicle_duration:g}", "--params-file", out / "vehicle.yaml"]
    return replace(_stage(f"vehicle, {when}", words, (run / LAST_OF_RUN).is_file), anew=run)


def _begun(settings: LoopSettings) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps({"settings": asdict(settings)}))
    return content


def _open_folder(out: Path, record: Path, settings: LoopSettings) -> None:
    begun = _begun(settings)
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        if found.get("settings") != begun["settings"]:
            raise InputError(
                f"out: expected the settings that {out} was begun with, {found.get('settings')}, got others"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out: expected a new or empty folder, or a loop to go on with, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "vehicle.yaml").write_text(VEHICLE_PARAMETERS)
    write_whole(record, (json.dumps(begun, indent=2) + "\n").encode())


def _bags(out: Path, name: str, settings: LoopSettings) -> list[Path]:
    count = settings.drives if name == TRAIN else settings.held_out
    return [out / "bags" / name / drive_name(FIRST_SEED[name] + i) for i in range(count)]


def _built(bags: list[Path], data: Path) -> bool:
    """Whether a data set holds all of these bags: `BAGS` is what a build writes last."""
    if not (data / BAGS).is_file():
        return False
    return {bag.name for bag in bags} <= {entry["name"] for entry in read_bags(data) if not entry["error"]}


def _discard_bags(out: Path, settings: LoopSettings) -> None:
    """Delete the bags that were made use of."""
    for name in (TRAIN, HELD_OUT):
        if _built(_bags(out, name, settings), out / name):
            shutil.rmtree(out / "bags" / name, ignore_errors=True)
    for run in out.glob("vehicle_*"):
        if (run / LAST_OF_RUN).is_file():
            shutil.rmtree(run / "bag", ignore_errors=True)


def _run(stage: Stage, log: Path, console: Console) -> None:
    """Run a stage into the log; where it fails, the log's end is the reason.

    Raises:
        InputError: It failed.
    """
    console.print(f"$ {stage.shown}", highlight=False, markup=False, soft_wrap=True)
    start = time.monotonic()
    if stage.anew is not None:
        shutil.rmtree(stage.anew, ignore_errors=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ {stage.shown}\n")
        file.flush()
        command = [sys.executable, "-m", "dfd_ros.cli", *stage.words]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:])
        raise InputError(f"{stage.title}: failed; the same command again goes on from there; {log} ends with\n{tail}")
    console.print(f"{stage.title}: {time.monotonic() - start:.0f} s", highlight=False)


def _findings(out: Path) -> dict[str, Any]:
    """What scoring and the vehicle's runs found."""
    scores = json.loads((out / "scores" / "scores.json").read_text(encoding="utf-8"))
    after, classical = scores["compared"]
    models = {"before": scores, "after": after, "classical": classical}
    held_out = {name: each["scores"]["all"] for name, each in models.items()}
    vehicles = {
        when: json.loads((out / f"vehicle_{when}" / "summary.json").read_text(encoding="utf-8"))
        for when in ("before", "after")
    }
    gain = 1.0 - held_out["after"]["rel"] / held_out["before"]["rel"]
    return {"held_out": held_out, "vehicle": vehicles, "gain": gain, "met": gain >= LEAST_GAIN}


def _print(content: dict[str, Any], console: Console) -> None:
    titles = {"before": BEFORE, "after": "trained here", "classical": "classical"}
    table = Table(title="Held-out drives, against the LiDAR's dense depth", title_justify="left")
    table.add_column("")
    for title in FIGURES.values():
        table.add_column(title, justify="right")
    for name, scores in content["held_out"].items():
        table.add_row(titles[name], *(f"{scores[key]:.3f}" for key in FIGURES))
    console.print(table)
    table = Table(title="The vehicle on the first of them, against the ground truth", title_justify="left")
    for column in ("", "pairs", "answered", "Hz", "latency p50, ms", "rel", "rel, confident", "coverage, %"):
        table.add_column(column, justify="right" if column else "left")
    for when, summary in content["vehicle"].items():
        pairs, scores, latency = summary["pairs"], summary["scores"] or {}, summary["latency_ms"]
        every, confident = scores.get("all"), scores.get("confident")
        figures = [str(pairs["published"]), str(pairs["answered"]), f"{summary['rate_hz']:.1f}"]
        figures.append(f"{latency['p50']:.0f}" if latency else "")
        figures += [f"{each['rel']:.3f}" if each and each["n"] else "" for each in (every, confident)]
        figures.append(f"{100.0 * confident['coverage']:.0f}" if confident else "")
        table.add_row(titles[when], *figures)
    console.print(table)
    verdict = "met" if content["met"] else "MISSED"
    console.print(
        f"relative error on the held-out drives: {100.0 * content['gain']:.0f} % less, "
        f"expected {100.0 * LEAST_GAIN:.0f} % or more: {verdict}",
        highlight=False,
    )
