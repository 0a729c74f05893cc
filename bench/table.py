"""What every benchmark prints: a table, or with --json its rows as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name, value, unit: What was measured.
        baseline: What it is held against, in the same unit; None where there is nothing.
        ratio: value / baseline.
        limit: What is promised, in words and of the value or the ratio; empty where nothing is.
        met: Whether the promise is kept.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    limit: str = ""
    met: bool = True


def report(
    title: str,
    measure: Callable[..., list[Row]],
    draw: Callable[[str], None] | None = None,
    arguments: Mapping[str, str | tuple[str, ...]] | None = None,
) -> None:
    """Measure, print, and exit with 1 where a promise is not kept; `--plot FILE` then draws, if there is a `draw`.

    `arguments` of the command line, all optional, go to `measure` by name: their defaults, or all that they may be, the
    default first.
    """
    parser = argparse.ArgumentParser(description=title)
    wanted = []
    for name, values in (arguments or {}).items():
        choices, default = (values, values[0]) if isinstance(values, tuple) else (None, values)
        wanted.append(parser.add_argument(name, nargs="?", default=default, choices=choices).dest)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    if draw:
        parser.add_argument("--plot", metavar="FILE", help="draw a figure of it (PNG, PDF or SVG by its suffix)")
    given = parser.parse_args()
    rows = measure(**{name: getattr(given, name) for name in wanted})
    if draw and given.plot:
        draw(given.plot)
    if given.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        table = Table(title=title, title_justify="left")
        for column in ("", "value", "unit", "baseline", "ratio", "limit", ""):
            table.add_column(column, justify="left" if column in ("", "unit", "limit") else "right")
        for row in rows:
            figures = ["" if figure is None else f"{figure:.4g}" for figure in (row.value, row.baseline, row.ratio)]
            verdict = "" if not row.limit else "met" if row.met else "MISSED"
            table.add_row(row.name, figures[0], row.unit, figures[1], figures[2], row.limit, verdict)
        (Console() if sys.stdout.isatty() else Console(width=120)).print(table)
    sys.exit(0 if all(row.met for row in rows) else 1)
