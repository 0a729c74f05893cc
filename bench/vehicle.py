"""The simulated vehicle for 20 s: pairs per second, latency, and the error of confident depth."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table import Row, report

DURATION = 20
MIN_RATE = 5.0  # answered pairs per second on two cores
MAX_ERROR = 0.06  # median relative error of confident pixels from 6 to 25 m
MAX_SECONDS = 40.0  # for the whole of a run that is not the first


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        start = time.monotonic()
        command = [sys.executable, "-m", "dfd_ros.cli", "vehicle", "--duration", str(DURATION), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    pairs, scores = summary["pairs"], summary["scores"]
    accounted = pairs["answered"] + sum(pairs["dropped"].values())
    rows = [
        Row("pairs answered", summary["rate_hz"], "1/s", limit=f"{MIN_RATE:g} or more", met=summary["rate_hz"] >= MIN_RATE),
        Row(
            "pairs accounted for", accounted, "pairs", pairs["published"], accounted / pairs["published"], "all",
            accounted == pairs["published"],
        ),
        *(Row(f"latency {name}", value, "ms") for name, value in summary["latency_ms"].items()),
    ]  # fmt: skip
    for bin_ in scores["bins"]:
        confident, street = bin_["confident"], 6 <= bin_["from"] and bin_["to"] <= 25
        if confident["n"]:
            name = f"median error of confident pixels, {bin_['from']:g} to {bin_['to']:g} m"
            error = confident["median_rel"]
            limit = f"{MAX_ERROR:g} or less" if street else ""
            rows.append(Row(name, error, "relative", limit=limit, met=not street or error <= MAX_ERROR))
    rows.append(
        Row("whole run", seconds, "s", limit=f"under {MAX_SECONDS:g}, but the first", met=seconds < MAX_SECONDS)
    )
    return rows


if __name__ == "__main__":
    report(f"The simulated vehicle, {DURATION} s at 640x480", measure)
