"""An evaluation to look at: tables for the terminal, and one self-contained HTML page with figures."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from rich.console import Console
from rich.table import Table

from dfd_ros.data.samples import Image
from dfd_ros.errors import InputError
from dfd_ros.learning.evaluate import Evaluation, Example
from dfd_ros.learning.published import FIGURES, Row
from dfd_ros.scoring.regions import region_cells, region_table

LARGEST_ERROR = 0.5
"""Relative error at the end of the colours."""
LISTED_OBJECTS = 20
"""More are told by class and distance alone."""
DEPTH_COLOURS, ERROR_COLOURS, UNCERTAINTY_COLOURS = "turbo_r", "inferno", "cividis"
UNKNOWN = "#d9dce1"
DISTANCES = tuple(step * 10.0**power for power in (-1, 0, 1) for step in (1, 2, 3, 5, 7))
"""Metres that scales name."""
_DPI = 90
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem; text-align: right; }
th { border-bottom: 1px solid #1c2430; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } .published { color: #6b7483; } figure { margin: 1.5rem 0; } figcaption { color: #6b7483; }
"""


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The scores over all pixels, the confident ones and by distance, and what else was found."""
    console.print(_scores_table(evaluation))
    if evaluation.scores["regions"] is not None:
        console.print(region_table(evaluation.scores["regions"]))
    for line in _findings(evaluation):
        console.print(line, highlight=False)


def write_report(evaluations: Sequence[Evaluation], title: str, rows: Sequence[Row], folder: Path) -> Path:
    """Write `report.html` into a folder, which is made.

    Raises:
        InputError: It cannot be written.
    """
    parts = [f"<h1>Depth on {html.escape(evaluations[0].data)}</h1>"]
    if len(rows) > 1:
        parts += [f"<h2>{html.escape(title or 'Comparison')}</h2>", _html_rows(rows)]
    parts.append(_figure(distance_figure(evaluations), "Relative error against distance, over the depths there are."))
    curves = {e.model: e.reliability for e in evaluations if e.reliability is not None}
    if curves:
        parts.append(_figure(reliability_figure(evaluations), "Of the depths said to be right so often, how many are."))
    for evaluation in evaluations:
        parts.append(f"<h2>{html.escape(evaluation.model)}</h2>")
        parts.append(_html_table(*_score_cells(evaluation)))
        if evaluation.scores["regions"] is not None:
            parts.append(_html_table(*region_cells(evaluation.scores["regions"])))
        parts += [f"<p>{html.escape(line)}</p>" for line in _findings(evaluation)]
        for example in evaluation.examples:
            caption = f"{example.sample.name}: rel {example.rel:.3f}"
            parts.append(_figure(example_figure(example), caption))
    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>dfd eval</title><style>{_STYLE}</style>"
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(page + "\n".join(parts) + "</html>\n")
    except OSError as error:
        raise InputError(f"out: {folder} cannot be written ({error.strerror})") from error
    return path


def example_figure(example: Example) -> Figure:
    """Pictures, truth, prediction, error and uncertainty of a sample, side by side."""
    sample, prediction = example.sample, example.prediction
    truth = sample.truth()
    error = np.abs(prediction.depth - truth) / truth
    near, far = np.nanpercentile(truth, (1.0, 99.0))
    norm = LogNorm(max(float(near), 1e-2), max(float(far), 1.01 * float(near)))
    tiles: list[tuple[str, Image, dict[str, Any]]] = [
        ("shallow", sample.shallow, {}),
        ("deep", sample.deep, {}),
        ("truth, m", truth, {"cmap": DEPTH_COLOURS, "norm": norm}),
        ("prediction, m", prediction.depth, {"cmap": DEPTH_COLOURS, "norm": norm}),
        ("relative error", error, {"cmap": ERROR_COLOURS, "vmin": 0.0, "vmax": LARGEST_ERROR}),
    ]
    if prediction.uncertainty is not None:
        top = max(float(np.nanpercentile(prediction.uncertainty, 99.0)), 1e-6)
        tiles.append(("uncertainty", prediction.uncertainty, {"cmap": UNCERTAINTY_COLOURS, "vmin": 0.0, "vmax": top}))
    if prediction.all_in_focus is not None:
        tiles.append(("all in focus, said", prediction.all_in_focus, {}))
    columns = 3
    rows = -(-len(tiles) // columns)
    height, width = sample.depth.shape
    figure = Figure(figsize=(13, 0.2 + rows * (12 / columns * height / width + 0.3)), dpi=_DPI, layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, tile in zip(grid, tiles, strict=False):
        _draw_tile(figure, axes, *tile)
    for axes in grid[len(tiles) :]:
        axes.set_axis_off()
    return figure


def distance_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """Mean relative error by distance of each evaluation, above the histogram of the true depths."""
    figure = Figure(figsize=(9, 5), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for evaluation in evaluations:
        curve = evaluation.curve
        above.plot(
            np.sqrt(curve.edges[1:] * curve.edges[:-1]), curve.rel, marker="o", markersize=3, label=evaluation.model
        )
    above.set(ylabel="mean relative error", ylim=(0, None), xscale="log")
    above.grid(alpha=0.3)
    above.legend()
    curve = evaluations[0].curve
    below.bar(
        curve.edges[:-1], curve.count / max(curve.count.sum(), 1), np.diff(curve.edges), align="edge", color="#8b95a5"
    )
    below.set(xlabel="true distance, m", ylabel="share of pixels")
    seen = np.flatnonzero(curve.count)
    below.set_xlim(curve.edges[seen[0]], curve.edges[seen[-1] + 1])
    _name_distances(below.xaxis)
    return figure


def reliability_figure(evaluations: Sequence[Evaluation]) -> Figure:
    """Share of right depths against confidence; dots show the share of pixels."""
    figure = Figure(figsize=(5.5, 5.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], "k:", label="calibrated")
    for evaluation in evaluations:
        curve = evaluation.reliability
        if curve is not None:
            label = f"{evaluation.model} (error {curve.calibration_error:.3f})"
            (line,) = axes.plot(curve.predicted, curve.actual, label=label)
            axes.scatter(curve.predicted, curve.actual, s=400 * curve.share, color=line.get_color(), alpha=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share of depths within 10 %", aspect="equal")
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    return figure


def _draw_tile(figure: Figure, axes: Axes, title: str, picture: Image, style: dict[str, Any]) -> None:
    if style:
        style = {**style, "cmap": mpl.colormaps[style["cmap"]].with_extremes(bad=UNKNOWN)}
        drawn = axes.imshow(np.ma.masked_invalid(picture), interpolation="antialiased", **style)
        bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
        if isinstance(drawn.norm, LogNorm):
            _name_distances(bar.ax.yaxis)
    else:
        axes.imshow(np.clip(picture, 0.0, 1.0), interpolation="antialiased")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_axis_off()


def _name_distances(axis: Axis) -> None:
    """Metres on a logarithmic axis: 1, 2, 3, 5, 10, …"""
    axis.set_major_locator(FixedLocator(DISTANCES))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _score_cells(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table of scores."""
    scores = evaluation.scores
    heads = ["", *FIGURES, "pixels", "coverage"]
    lines = []
    rows = [("all", {**scores["all"], "rms_log": evaluation.rms_log})]
    if scores["confident"] is not None:
        rows.append(("confident", scores["confident"]))
    rows += [(f"{b['from']:g} to {b['to']:g} m", b) for b in scores["bins"]]
    for name, row in rows:
        values = [_figure_text(row.get(key)) for key in FIGURES]
        lines.append([name, *values, f"{row['n']:,}", _figure_text(row.get("coverage"))])
    return [head.replace("_", " ") for head in heads], lines


def _scores_table(evaluation: Evaluation) -> Table:
    heads, lines = _score_cells(evaluation)
    table = Table(title=f"{evaluation.model} on {evaluation.data}, {evaluation.images} pictures", title_justify="left")
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for line in lines:
        table.add_row(*line)
    return table


def _findings(evaluation: Evaluation) -> list[str]:
    lines = [f"{evaluation.milliseconds:.3g} ms a picture"]
    if math.isfinite(evaluation.pearson):
        lines[0] += f"; correlation with the truth {evaluation.pearson:.3f}"
    if evaluation.calibration_error is not None:
        lines.append(f"confidence: calibration error {evaluation.calibration_error:.3f}")
    if evaluation.uncertainty_correlation is not None:
        lines.append(f"uncertainty: rank correlation with the error {evaluation.uncertainty_correlation:.3f}")
    if evaluation.sharp is not None:
        s = evaluation.sharp
        lines.append(
            f"all in focus: PSNR {s['psnr']:.2f} dB, SSIM {s['ssim']:.3f} "
            f"(shallow picture: {s['psnr_input']:.2f} dB, {s['ssim_input']:.3f})"
        )
    objects = evaluation.scores["objects"]
    for o in objects if len(objects) <= LISTED_OBJECTS else ():
        lines.append(f"{o['sample']}, {o['name']}: {o['estimate']:.2f} m for {o['truth']:.2f} m, rel {o['rel']:.3f}")
    return lines


def _figure_text(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _html_rows(rows: Sequence[Row]) -> str:
    heads = ["system", *(name.replace("_", " ") for name in FIGURES), "figures are"]
    lines = [[r.system, *(_figure_text(r.figures.get(n)) for n in FIGURES), r.origin] for r in rows]
    return _html_table(heads, lines, ["published" if r.origin != "measured" else "" for r in rows])


def _html_table(heads: Sequence[str], lines: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    def row(cells: Sequence[str], tag: str, style: str = "") -> str:
        content = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr class='{style}'>{content}</tr>"

    styles = classes or [""] * len(lines)
    return f"<table>{row(heads, 'th')}{''.join(row(c, 'td', s) for c, s in zip(lines, styles, strict=True))}</table>"


def _figure(figure: Figure, caption: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    return f"<figure><img alt='' src='data:image/png;base64,{data}'><figcaption>{html.escape(caption)}</figcaption></figure>"
