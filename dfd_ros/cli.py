"""`dfd`: one thin command per verb."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dfd_ros.errors import InputError

app = typer.Typer(
    name="dfd", help="Depth from defocus: run the vehicle, calibrate its lens, score what it saw.", no_args_is_help=True
)
DEFAULT_DURATION = 20.0  # seconds
LENS_TABLE_ROWS = 12
# Tables need more than the 80 columns that rich gives to files and pipes.
console = Console() if sys.stdout.isatty() else Console(width=120)


@app.command()
def vehicle(
    source: Annotated[str, typer.Option(help="sim, camera, or a path: photographs, KITTI frames or a bag")] = "sim",
    duration: Annotated[float, typer.Option(help="seconds to run; 0: 20, a replay to its end", min=0.0)] = 0.0,
    out: Annotated[str, typer.Option(help="folder to write into; default: runs/<date and time>")] = "",
    lens: Annotated[str, typer.Option(help="lens file for all nodes")] = "",
    moving: Annotated[bool, typer.Option("--moving", help="let the simulated vehicle drive")] = False,
    seed: Annotated[int, typer.Option(help="of the simulated vehicle", min=0)] = 0,
    driver: Annotated[str, typer.Option(help="aperture driver")] = "sim",
    namespace: Annotated[str, typer.Option(help="of the camera")] = "camera",
    params_file: Annotated[list[str], typer.Option(help="ROS parameter file, over the package's own")] = [],  # noqa: B006
    log_level: Annotated[str, typer.Option(help="of the nodes: debug, info, warn, error")] = "warn",
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
        namespace=namespace,
        parameter_files=tuple(params_file),
        log_level=log_level,
    )
    drive(settings, console)


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
    method: Annotated[str, typer.Option(help="how dense depth is found; exact or fast")] = "exact",
    plain: Annotated[bool, typer.Option("--plain", help="the toolbox's method: depth, not 1/z; no culling")] = False,
    min_confidence: Annotated[float, typer.Option(help="leave out depth below it", min=0.0, max=1.0)] = 0.0,
) -> None:
    """Make one LiDAR sweep dense against its picture: the picture of it, the depth, and the numbers."""
    from dfd_ros.data.lidar_frame import load_frame
    from dfd_ros.lidar.colorize import ColorizeSettings
    from dfd_ros.scoring.colorization import colorize_frame, save_colorization

    settings = ColorizeSettings(method=method, inverse_depth=not plain, robust=not plain, min_confidence=min_confidence)
    colorization = colorize_frame(load_frame(image, points, calib), settings, cull=not plain)
    table = Table()
    for column in ("", "value"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in colorization.figures().items():
        table.add_row(name, value)
    console.print(table)
    console.print("written: " + ", ".join(map(str, save_colorization(colorization, out))), highlight=False)


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
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
