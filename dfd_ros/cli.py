"""`dfd`: one thin command per verb."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfd_ros.errors import InputError

app = typer.Typer(
    name="dfd", help="Depth from defocus: run the vehicle, calibrate its lens, score what it saw.", no_args_is_help=True
)
DEFAULT_DURATION = 20.0  # seconds
LENS_TABLE_ROWS = 12
# Tables need more than the 80 columns that rich gives to files and pipes.
console = Console() if sys.stdout.isatty() else Console(width=120)


Lens = Annotated[str, typer.Option(help="lens file for all nodes")]
Moving = Annotated[bool, typer.Option("--moving", help="let the simulated vehicle drive")]
Driver = Annotated[str, typer.Option(help="aperture driver")]
Namespace = Annotated[str, typer.Option(help="of the camera")]
ParameterFiles = Annotated[list[str], typer.Option(help="ROS parameter file, over the package's own")]
LogLevel = Annotated[str, typer.Option(help="of the nodes: debug, info, warn, error")]


@app.command()
def vehicle(
    source: Annotated[str, typer.Option(help="sim, camera, or a path: photographs, KITTI frames or a bag")] = "sim",
    duration: Annotated[float, typer.Option(help="seconds to run; 0: 20, a replay to its end", min=0.0)] = 0.0,
    out: Annotated[str, typer.Option(help="folder to write into; default: runs/<date and time>")] = "",
    lens: Lens = "",
    moving: Moving = False,
    seed: Annotated[int, typer.Option(help="of the simulated vehicle", min=0)] = 0,
    driver: Driver = "sim",
    model: Annotated[
        str, typer.Option(help="network: a name of the zoo, a weights file or an exported file; default: classical")
    ] = "",
    namespace: Namespace = "camera",
    params_file: ParameterFiles = [],  # noqa: B006
    log_level: LogLevel = "warn",
) -> None:
    """Run the whole vehicle in one process: from pictures to metric depth, recorded and scored."""
    from dfd_ros.drive import DriveSettings, drive

    settings = DriveSettings(
        source=source,
        out=Path(out or f"runs/{time.strftime('%Y-%m-%dT%H-%M-%S')}"),
        duration=duration or (DEFAULT_DURATION if source in ("sim", "camera") else 0.0),
        lens_file=lens,
        moving=moving,
        seed=seed,
        driver=driver,
        model=model,
        namespace=namespace,
        parameter_files=tuple(params_file),
        log_level=log_level,
    )
    drive(settings, console)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="folder of the bags; of the simulation, those that are there whole stay")],
    source: Annotated[str, typer.Option(help="sim; or camera, for drivers that run elsewhere")] = "sim",
    duration: Annotated[
        float, typer.Option(help="seconds from a drive's first pair on; 0: until Ctrl-C", min=0.0)
    ] = 0.0,
    drives: Annotated[int, typer.Option(help="of the simulated vehicle, each in a place of its own", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="of the first of them", min=0)] = 0,
    moving: Moving = False,
    lens: Lens = "",
    driver: Driver = "sim",
    namespace: Namespace = "camera",
    params_file: ParameterFiles = [],  # noqa: B006
    log_level: LogLevel = "warn",
) -> None:
    """Record what training sets are made of, pairs and LiDAR, and nothing else."""
    from dfd_ros.recording import RecordSettings, record_drives

    settings = RecordSettings(
        out=out,
        source=source,
        duration=duration or (DEFAULT_DURATION if source == "sim" else 0.0),
        drives=drives,
        seed=seed,
        moving=moving,
        lens_file=lens,
        driver=driver,
        namespace=namespace,
        parameter_files=tuple(params_file),
        log_level=log_level,
    )
    record_drives(settings, console)


@app.command()
def loop(
    out: Annotated[Path, typer.Option(help="folder for all of it; one begun with these settings is gone on with")],
    drives: Annotated[int, typer.Option(help="to train on, each in a place of its own", min=2)] = 24,
    held_out: Annotated[int, typer.Option(help="to score on", min=1)] = 4,
    duration: Annotated[float, typer.Option(help="of a drive, seconds", min=0.5)] = 1.0,
    steps: Annotated[int, typer.Option(help="of training", min=1)] = 500,
    vehicle_duration: Annotated[float, typer.Option(help="of the vehicle's two runs, seconds", min=1.0)] = 6.0,
    workers: Annotated[int, typer.Option(help="processes that build the data sets", min=1)] = 2,
    keep: Annotated[bool, typer.Option("--keep", help="keep the bags when they are made use of")] = False,
    change: Annotated[list[str], typer.Option("--set", help="key=value, over the recipe's; as often as needed")] = [],  # noqa: B006
) -> None:
    """The whole loop: record the simulated vehicle, build a data set, train, score, export, and drive with the result."""
    from dfd_ros.loop import LoopSettings, run_loop

    run_loop(
        out, LoopSettings(drives, held_out, duration, steps, vehicle_duration, tuple(change)), workers, keep, console
    )


@app.command()
def calibrate(
    folder: Annotated[
        Path, typer.Argument(help="dual-aperture photographs with depth (NNN_f2.8.jpg, ..., NNN_depth_mm.png)")
    ],
    out: Annotated[Path, typer.Option(help="lens file to write")] = Path("lens.yaml"),
    plot: Annotated[str, typer.Option(help="picture of the fit; default: beside the lens file")] = "",
    first: Annotated[int, typer.Option(help="first scene, from 0", min=0)] = 0,
    last: Annotated[int, typer.Option(help="last scene; -1: the folder's last", min=-1)] = -1,
    gamma: Annotated[float, typer.Option(help="encoding of the pictures", min=1.0, max=3.0)] = 2.2,
) -> None:
    """Fit a lens's blur curve c(z) = k |1 - z_f / z| to pairs with known depth, and write its lens file."""
    from dfd_ros.data.calibration import calibrate_folder
    from dfd_ros.data.photographs import PhotographFolder
    from dfd_ros.drive import progress_bars, progress_callback
    from dfd_ros.optics.calibrate import plot_calibration
    from dfd_ros.optics.lens_file import save_lens

    count = len(PhotographFolder(folder))
    scenes = range(first, (count - 1 if last < 0 else last) + 1)
    if not scenes or scenes[-1] >= count:
        raise InputError(f"first and last: expected scenes from 0 to {count - 1}, got {first} to {last}")
    with progress_bars(console) as progress:
        report = progress_callback(progress, "calibrating")
        calibration = calibrate_folder(folder, scenes, report, gamma=gamma, name=out.stem)
    picture = plot or out.with_suffix(".png")
    save_lens(calibration.lens, out)
    plot_calibration(calibration, picture)
    console.print(calibration.describe())
    console.print(f"written: {out} and {picture}")


@app.command()
def lens(
    file: Annotated[Path, typer.Argument(help="lens file")],
    focus: Annotated[float, typer.Option(help="focused at another distance, metres; 0: as it is", min=0.0)] = 0.0,
) -> None:
    """Print what a lens can measure: its working range, and blur and depth error by distance."""
    import numpy as np

    from dfd_ros.optics.lens_file import load_lens

    lens = load_lens(file)
    if focus:
        lens = lens.refocused(focus)
    console.print(lens.describe(), highlight=False)
    limits = {"depth of field": lens.depth_of_field(), "depth of field, deep": lens.depth_of_field(lens.f_number_deep)}
    for name, (near, far) in {**limits, "dead zone": lens.dead_zone()}.items():
        console.print(f"{name}: {near:.3g} to {far:.3g} m (1 px of blur)", highlight=False)
    console.print(f"hyperfocal distance: {lens.hyperfocal_distance():.3g} m (1 px of blur)", highlight=False)
    table = Table()
    for column in ("depth, m", "CoC, px", "deep CoC, px", "error, m", "error, %"):
        table.add_column(column, justify="right")
    for z in np.geomspace(lens.min_depth, lens.max_depth, LENS_TABLE_ROWS):
        error = float(lens.depth_error(z))
        figures = (z, lens.coc(z), lens.coc(z, lens.f_number_deep), error, 100.0 * error / z)
        table.add_row(*(f"{float(figure):.3g}" for figure in figures))
    console.print(table)


@app.command()
def colorize(
    image: Annotated[Path, typer.Argument(help="picture: JPEG or PNG")],
    points: Annotated[Path, typer.Argument(help="sweep: KITTI's .bin, or .npy or .npz of (N, 3) and more")],
    calib: Annotated[Path, typer.Argument(help="KITTI's calib .txt, or .yaml with camera and camera_from_lidar")],
    out: Annotated[Path, typer.Option(help="folder for <image>_dense.png, _depth.png and _depth.npz")] = Path(),
    method: Annotated[str, typer.Option(help="how dense depth is found: nyu, exact or fast")] = "nyu",
    plain: Annotated[bool, typer.Option("--plain", help="the toolbox's method: no option, no culling")] = False,
    min_confidence: Annotated[float, typer.Option(help="leave out depth below it", min=0.0, max=1.0)] = 0.0,
    threads: Annotated[int, typer.Option(help="of nyu, to which more than two are of no use", min=1)] = 2,
) -> None:
    """Make one LiDAR sweep dense against its picture: the picture of it, the depth, and the numbers."""
    from dfd_ros.data.lidar_frame import load_frame
    from dfd_ros.lidar.colorize import ColorizeSettings
    from dfd_ros.scoring.colorization import colorize_frame, save_colorization

    settings = ColorizeSettings(
        method=method,
        inverse_depth=not plain,
        robust=not plain,
        depth_edges=not plain,
        min_confidence=min_confidence,
        threads=threads,
    )
    colorization = colorize_frame(load_frame(image, points, calib), settings, cull=not plain)
    table = Table()
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in colorization.figures().items():
        table.add_row(name, value)
    console.print(table)
    for path in save_colorization(colorization, out):
        print(f"written: {path}")  # in one line, however long


@app.command()
def score(
    bag: Annotated[Path, typer.Argument(help="a bag with depth and ground truth")],
    out: Annotated[str, typer.Option(help="folder for summary.json and panel.png; default: only the table")] = "",
) -> None:
    """Score a recording: rates, latency, drops, and depth against the ground truth."""
    from dfd_ros.scoring.panel import panel_from_bag
    from dfd_ros.scoring.summary import print_table, summarise_bag

    summary = summarise_bag(bag)
    print_table(summary, console)
    if out:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        summary.save(folder / "summary.json")
        panel_from_bag(bag, folder / "panel.png")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="recipe: a file, or a name such as dual_aperture (config/train/)")],
    out: Annotated[str, typer.Option(help="folder to write into; default: runs/<the recipe's name>")] = "",
    data: Annotated[str, typer.Option(help="data set, where the recipe leaves it open: KIND:PATH, or a path")] = "",
    change: Annotated[list[str], typer.Option("--set", help="key=value, over the recipe's; as often as needed")] = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="go on from the folder's last checkpoint")] = False,
) -> None:
    """Train a network by a recipe: logs, checkpoints, and at the end its weights with their model card."""
    from dfd_ros.learning.recipe import load_recipe
    from dfd_ros.learning.train import train as run

    content = load_recipe(recipe, change, data)
    run(content, Path(out or f"runs/{content.name}"), resume=resume, console=console)


@app.command()
def average(
    weights: Annotated[
        list[Path], typer.Argument(help="files of weights, tuned from the same ones; twice named, twice counted")
    ],
    out: Annotated[Path, typer.Option(help="file of weights to write")],
) -> None:
    """Make one network of several trainings: the mean of their weights."""
    from dfd_ros.learning.average import average_weights

    card = average_weights(weights, out)
    console.print(f"written: {out}: {card.describe()}", highlight=False, soft_wrap=True)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="weights: a file, or a name of the zoo; or classical, s_transform, …")],
    data: Annotated[str, typer.Option(help="data set: KIND:PATH, or a path")],
    calibration: Annotated[str, typer.Option(help="lens file of what took the pictures")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
    out: Annotated[str, typer.Option(help="folder for report.html and scores.json")] = "",
    compare: Annotated[list[str], typer.Option(help="another model to score beside it; as often as needed")] = [],  # noqa: B006
    split: Annotated[str, typer.Option(help="the data set's: train, test or all")] = "",
    folds: Annotated[int, typer.Option(help="score one of so many blocks of the samples alone", min=0)] = 0,
    fold: Annotated[int, typer.Option(help="which one, from 0", min=0)] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="networks: take the mean with the mirror image")] = False,
    dropout_samples: Annotated[int, typer.Option(help="D3-Net: so many passes with dropout", min=0)] = 0,
    register: Annotated[
        bool | None, typer.Option(help="photographs: register pairs first; default: as the model was trained")
    ] = None,
    boxes: Annotated[
        str, typer.Option(help="objects to score by class and distance: JSON file (docs/learning.md), or bag")
    ] = "",
) -> None:
    """Score a model on data with known depth, beside others and published figures."""
    from dfd_ros.learning.score import ScoreSettings, score_models

    settings = ScoreSettings(
        models=(model, *compare),
        data=data,
        calibration=calibration,
        as_json=as_json,
        out=out,
        split=split or None,
        folds=folds,
        fold=fold,
        flip=flip,
        dropout_samples=dropout_samples,
        register=register,
        boxes=boxes,
    )
    score_models(settings, console)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="weights: a file, or a name of the zoo")],
    out: Annotated[Path, typer.Option(help="ONNX file to write")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pictures")] = "640x480",
    lens: Annotated[str, typer.Option(help="lens file to build in; default: the lens is an input")] = "",
    consistency: Annotated[
        bool, typer.Option("--consistency", help="lower confidence where depth does not explain the pair")
    ] = False,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 17 to 20")] = 17,
) -> None:
    """Write a network as one ONNX file for ONNX Runtime, OpenVINO and TensorRT."""
    try:
        from dfd_ros.inference.export import export_model, save_program
    except ModuleNotFoundError as error:
        missing = f"expected the package {error.name} to be installed, got none; pip install 'dfd_ros[infer]'"
        raise InputError(f"export: {missing}") from error
    from dfd_ros.geometry import parse_size
    from dfd_ros.inference.graph import GraphSettings
    from dfd_ros.inference.weights import load_weights
    from dfd_ros.inference.zoo import find_weights
    from dfd_ros.optics.lens_file import load_lens

    width, height = parse_size(size)
    settings = GraphSettings((height, width), load_lens(lens) if lens else None, consistency)
    network, card = load_weights(find_weights(model))
    program = export_model(network, card, settings, opset)
    save_program(program, out)
    console.print(f"written: {out}: {program.info.describe()}", highlight=False, soft_wrap=True)


@app.command()
def doctor(
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="build TensorRT's engines, hold them against ONNX Runtime, time them")
    ] = False,
    model: Annotated[str, typer.Option(help="for --tensorrt: weights, a file or a name of the zoo")] = "ours",
    size: Annotated[str, typer.Option(help="for --tensorrt: WIDTHxHEIGHT of the pictures")] = "640x480",
) -> None:
    """Print what this machine has, and why what it has not cannot run: a report to paste."""
    from dfd_ros.doctor import environment
    from dfd_ros.geometry import parse_size

    width, height = parse_size(size)
    for line in environment():
        print(line, flush=True)
    if not tensorrt:
        return
    try:
        from dfd_ros.inference.trt.backend import why_not
        from dfd_ros.inference.trt.proof import prove
    except ModuleNotFoundError as error:
        missing = f"expected the package {error.name} to be installed, got none; pip install 'dfd_ros[infer]'"
        raise InputError(f"doctor: {missing}") from error
    reason = why_not()
    if reason is not None:
        print("\nTensorRT cannot run here, so there is nothing to prove; all other back ends do without it.")
        raise InputError(f"doctor: {reason.removeprefix('backend tensorrt: ')}")
    print("\nTensorRT, proved here; the first time engines are built, which takes minutes:")
    bad = 0
    for finding in prove(model, (height, width)):
        print(f"{'ok ' if finding.good else 'BAD'} {finding.text}", flush=True)
        bad += not finding.good
    if bad:
        raise InputError(f"doctor: expected TensorRT to do as it promises, got {bad} of the lines above against it")
    print("all is as it should be")


datasets = typer.Typer(help="Bags into training sets, and what is in one.", no_args_is_help=True)
app.add_typer(datasets, name="dataset")


@datasets.command("build")
def dataset_build(
    bags: Annotated[list[str], typer.Argument(help="bags: folders, or .mcap or .db3 files, or URLs of such")],
    out: Annotated[
        str, typer.Option(help="the data set's folder, or its URL; one begun with these settings is gone on with")
    ],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the samples; default: as recorded")] = "",
    topic: Annotated[list[str], typer.Option(help="NAME=TOPIC where topics have other names (docs/datasets.md)")] = [],  # noqa: B006
    lens: Annotated[str, typer.Option(help="lens file, where no pairs were recorded")] = "",
    extrinsics: Annotated[str, typer.Option(help="extrinsics file of the LiDAR; default: the bag's /tf_static")] = "",
    method: Annotated[str, typer.Option(help="how dense depth is found: nyu, exact or fast")] = "nyu",
    plain: Annotated[bool, typer.Option("--plain", help="the toolbox's own dense depth")] = False,
    images: Annotated[str, typer.Option(help="format of the pictures: png, jpeg or webp")] = "png",
    quality: Annotated[int, typer.Option(help="of JPEG and WebP", min=1, max=100)] = 95,
    depth: Annotated[str, typer.Option(help="format of depth: png (16-bit millimetres) or npy (float16)")] = "png",
    gamma: Annotated[float, typer.Option(help="encoding of the images", min=1.0, max=3.0)] = 2.2,
    motion: Annotated[str, typer.Option(help="between a pair's images: compensate, refuse or ignore")] = "compensate",
    max_motion: Annotated[float, typer.Option(help="pairs that moved more are rejected, pixels", min=0.0)] = 8.0,
    validation: Annotated[float, typer.Option(help="share kept for validation", min=0.0, max=0.5)] = 0.1,
    workers: Annotated[int, typer.Option(help="processes", min=1)] = 1,
    scheduler: Annotated[str, typer.Option(help="address of a Dask scheduler, whose cluster works instead")] = "",
) -> None:
    """Make a training set of bags: checked pairs with dense depth, split by scene. Begun ones are gone on with."""
    from dfd_ros.datasets.build import build
    from dfd_ros.datasets.options import build_settings
    from dfd_ros.drive import progress_bars
    from dfd_ros.storage import open_place

    settings = build_settings(
        size=size,
        topics=topic,
        lens=lens,
        extrinsics=extrinsics,
        images=(images, quality),
        depth=(depth, method, plain),
        pairs=(gamma, motion, max_motion),
        validation=validation,
    )
    with progress_bars(console) as progress:
        bars = {what: progress.add_task(what, total=None) for what in ("scanning", "pairs")}
        report = build(
            *([open_place(bag) for bag in bags], open_place(out), settings, workers, scheduler),
            lambda what, done, total: progress.update(bars[what], completed=done, total=total),
        )
    for name, notes in sorted(report.notes.items()):
        for note in notes:
            console.print(f"{name}: {note}", highlight=False, markup=False)
    print(f"written: {out}")
    if report.failed:
        raise InputError("; ".join(report.failed[name] for name in sorted(report.failed)))


@datasets.command("info")
def dataset_info(
    folder: Annotated[str, typer.Argument(help="a data set that dfd dataset build made, or its URL")],
    sheet: Annotated[str, typer.Option(help="picture of some samples; default: sheet.png in the folder")] = "",
) -> None:
    """Print what a data set holds, and draw a sheet of its pictures."""
    from dfd_ros.datasets.info import describe, save_contact_sheet
    from dfd_ros.storage import open_place

    path = open_place(folder)
    info = describe(path)
    info.print(console)
    if info.samples:
        picture = Path(sheet) if sheet else path / "sheet.png"
        save_contact_sheet(info, picture)
        print(f"written: {picture}")


bags = typer.Typer(help="Recordings.", no_args_is_help=True)
app.add_typer(bags, name="bag")


@bags.command("check")
def bag_check(
    bag: Annotated[Path, typer.Argument(help="a rosbag2 folder, or an .mcap or .db3 file")],
    out: Annotated[str, typer.Option(help="folder for report.html, findings.json and pictures")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
    topic: Annotated[list[str], typer.Option(help="NAME=TOPIC where topics have other names (docs/datasets.md)")] = [],  # noqa: B006
    extrinsics: Annotated[str, typer.Option(help="extrinsics file of the LiDAR; default: the bag's /tf_static")] = "",
    samples: Annotated[int, typer.Option(help="pairs to look at, evenly spread", min=0)] = 60,
    gamma: Annotated[float, typer.Option(help="encoding of the images", min=1.0, max=3.0)] = 2.2,
    max_motion: Annotated[float, typer.Option(help="that a pair's images may be apart, pixels", min=0.0)] = 8.0,
) -> None:
    """Say what is wrong with a recording before anyone trains on it. Exit code 0: nothing, 1: something, 2: unusable."""
    import json

    from dfd_ros.checks.check import CheckSettings, check_bag
    from dfd_ros.checks.page import print_report, write_report
    from dfd_ros.datasets.options import parse_topic
    from dfd_ros.datasets.topics import check_mapping
    from dfd_ros.drive import progress_bars
    from dfd_ros.lidar.calibration import load_extrinsics
    from dfd_ros.share import config_file

    mapping = dict(map(parse_topic, topic))
    check_mapping(mapping)
    pose = load_extrinsics(config_file(extrinsics)) if extrinsics else None
    settings = CheckSettings(mapping, pose, samples, gamma, max_motion)
    try:
        with progress_bars(Console(stderr=True, quiet=as_json)) as progress:
            tasks = {what: progress.add_task(what, total=None) for what in ("messages", "pairs")}
            report = check_bag(
                bag, settings, lambda what, done, total: progress.update(tasks[what], completed=done, total=total)
            )
        page = write_report(report, Path(out)) if out else None
    except InputError as error:
        _print_error(error)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        print_report(report, console)
        if page is not None:
            print(f"written: {page}")
    raise typer.Exit(report.exit_code)


@app.command()
def parameters(
    markdown: Annotated[bool, typer.Option("--markdown", help="as the README shows them")] = False,
) -> None:
    """Print every node's parameters: default, range, unit and meaning."""
    from dfd_ros.nodes.catalogue import NODE_PARAMETERS, markdown_tables
    from dfd_ros.nodes.parameters import describe

    if markdown:
        print(markdown_tables())
        return
    for name, record in NODE_PARAMETERS.items():
        table = Table(title=name, title_justify="left")
        for column in ("parameter", "default", "allowed", "meaning"):
            table.add_column(column, overflow="fold")
        for row in describe(record):
            table.add_row(row.name, f"{row.default} {row.unit}".strip(), row.allowed, row.description)
        console.print(table)


def main() -> None:
    """The entry point: bad input ends with its sentence and exit code 1, Ctrl-C before anything ran with 130."""
    try:
        app()
    except InputError as error:
        _print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _print_error(error: InputError) -> None:
    Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
