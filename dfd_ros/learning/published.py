"""Published figures beside measured ones, each marked as which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.table import Table

from dfd_ros.learning.evaluate import Evaluation
from dfd_ros.share import config_file

FIGURES = ("rel", "log10", "rms", "rms_log", "d1", "d2", "d3")
_FILE = "published.yaml"


@dataclass(frozen=True)
class Row:
    """One line of a comparison; figures that are not known are missing.

    Attributes:
        system: What it is.
        origin: `measured`, or `published` and where.
        figures: By name.
    """

    system: str
    origin: str
    figures: dict[str, float]


def published_rows(kind: str) -> tuple[str, list[Row]]:
    """Title and rows of the published table that suits a kind of data; none where there is none."""
    tables: list[dict[str, Any]] = yaml.safe_load(config_file(_FILE).read_text())
    for table in tables:
        if kind in table["kinds"]:
            rows = [
                Row(r["system"], f"published ({r['source']})", {k: r[k] for k in FIGURES if k in r})
                for r in table["rows"]
            ]
            return table["title"], rows
    return "", []


def measured_row(evaluation: Evaluation) -> Row:
    """The row of an evaluation."""
    figures = {**evaluation.total.to_dict(), "rms_log": evaluation.rms_log}
    return Row(evaluation.model, "measured", {k: float(v) for k in FIGURES if (v := figures[k]) is not None})


def comparison_table(evaluations: Sequence[Evaluation], kind: str) -> tuple[str, list[Row]]:
    """Measured rows, best first, below the published ones."""
    title, rows = published_rows(kind)
    return title, rows + sorted(map(measured_row, evaluations), key=lambda row: row.figures.get("rel", float("inf")))


def rich_table(title: str, rows: Sequence[Row]) -> Table:
    """For the terminal."""
    table = Table(title=title or None, title_justify="left")
    table.add_column("system")
    for name in FIGURES:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("figures are")
    for row in rows:
        values = [f"{row.figures[name]:.3f}" if name in row.figures else "" for name in FIGURES]
        table.add_row(row.system, *values, row.origin)
    return table
