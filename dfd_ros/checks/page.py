"""A report to look at: a table for the terminal, and a folder with one self-contained page, JSON and the pictures."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from dfd_ros.checks.check import Report
from dfd_ros.checks.findings import KINDS, Finding, Picture
from dfd_ros.errors import InputError

COLOURS = {"warning": "yellow", "error": "red", "fatal": "bold red"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #1c2430; } .error, .fatal { color: #b3261e; } .warning { color: #8a5a00; }
img { max-width: 100%; } figure { margin: 1.5rem 0; } figcaption { color: #6b7483; }
"""


def print_report(report: Report, console: Console) -> None:
    """Print the findings for people."""
    looked = f"{report.pairs} pairs looked at, {report.sweeps} of them with a sweep"
    head = f"{report.bag}: {report.duration:.1f} s, {sum(report.counts.values())} messages, {looked}"
    console.print(head, highlight=False, markup=False, soft_wrap=True)
    if report.findings:
        table = Table()
        for column in ("severity", "kind", "topic", "from, s", "what"):
            table.add_column(column, overflow="fold", justify="right" if column == "from, s" else "left")
        for finding in report.findings:
            severity = finding.severity.value
            table.add_row(
                severity, finding.kind, finding.topic, _when(report, finding), finding.sentence, style=COLOURS[severity]
            )
        console.print(table)
    else:
        console.print("nothing found", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html`, `findings.json` and a PNG for each finding that has a picture; the folder is made.

    Raises:
        InputError: It cannot be written.
    """
    pictures = {
        f"{number:02d}_{finding.kind}.png": finding.picture
        for number, finding in enumerate(report.findings, 1)
        if finding.picture is not None
    }
    content = report.to_dict()
    for number, finding in enumerate(content["findings"], 1):
        name = f"{number:02d}_{finding['kind']}.png"
        finding["picture"] = name if name in pictures else None
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (folder / name).write_bytes(_png(picture))
        (folder / "findings.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        path.write_text(_page(report), encoding="utf-8")
    except OSError as error:
        raise InputError(f"out: {folder} cannot be written ({error.strerror})") from error
    return path


def _page(report: Report) -> str:
    title = f"Check of {html.escape(str(report.bag))}"
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{report.duration:.1f} s; {report.pairs} pairs looked at, {report.sweeps} of them with a sweep.</p>",
        _rows(("severity", "kind", "topic", "from, s", "what"), [_cells(report, f) for f in report.findings])
        if report.findings
        else "<p>Nothing found.</p>",
    ]
    parts += [f"<p>Note: {html.escape(note)}</p>" for note in report.notes]
    for finding in report.findings:
        if finding.picture is not None:
            data = base64.b64encode(_png(finding.picture)).decode()
            caption = html.escape(f"{finding.kind}: {KINDS[finding.kind]}. {finding.sentence}")
            picture = f"<img alt='{finding.kind}' src='data:image/png;base64,{data}'>"
            parts.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    counts = [(topic, str(count)) for topic, count in sorted(report.counts.items())]
    parts.append(f"<h2>Messages</h2>{_rows(('topic', 'messages'), counts)}</html>\n")
    return "\n".join(parts)


def _cells(report: Report, finding: Finding) -> tuple[str, ...]:
    return finding.severity.value, finding.kind, finding.topic, _when(report, finding), finding.sentence


def _rows(heads: tuple[str, ...], lines: list[tuple[str, ...]] | list[tuple[str, str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(
        f"<tr class='{html.escape(line[0])}'>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _when(report: Report, finding: Finding) -> str:
    seconds = report.seconds(finding)
    return "" if seconds is None else f"{seconds:.2f}"


def _png(picture: Picture) -> bytes:
    _, content = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1] if picture.ndim == 3 else picture))
    return content.tobytes()
