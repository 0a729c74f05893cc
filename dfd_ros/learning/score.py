"""What `dfd eval` does: models and data opened, each scored, and the result printed, compared and written down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from dfd_ros.data.open import KINDS, detect_kind
from dfd_ros.errors import InputError
from dfd_ros.learning.datasets import open_data
from dfd_ros.learning.evaluate import Evaluation, evaluate
from dfd_ros.learning.predictors import NetworkPredictor, Predictor, PredictorOptions, load_predictor
from dfd_ros.learning.published import FIGURES, Row, comparison_table, rich_table
from dfd_ros.learning.recipe import DataRecipe
from dfd_ros.learning.report import print_evaluation, write_report
from dfd_ros.optics.lens_file import load_lens
from dfd_ros.scoring.regions import Boxes, load_boxes
from dfd_ros.storage import open_place


@dataclass(frozen=True)
class ScoreSettings:
    """
    Attributes:
        models: What to score, as for `load_predictor`; the first one is the one asked about.
        data: As for `open_dataset`.
        calibration: Lens file of what took the pictures, or is to take them.
        as_json: Print one JSON object and nothing else.
        out: Folder for `report.html` and `scores.json`; empty for none.
        split, folds, fold: Which part of the data.
        flip, dropout_samples: As in `PredictorOptions`.
        register: Photographs: register pairs; None for as each model was trained, and yes for those that are not.
        boxes: JSON file or bag of objects (`scoring.regions`); empty for none.
    """

    models: tuple[str, ...]
    data: str
    calibration: str = ""
    as_json: bool = False
    out: str = ""
    split: str | None = None
    folds: int = 0
    fold: int = 0
    flip: bool = False
    dropout_samples: int = 0
    register: bool | None = None
    boxes: str = ""


def score_models(settings: ScoreSettings, console: Console) -> tuple[Evaluation, ...]:
    """Score each model and say what was found.

    Raises:
        InputError: A model, the data or a file cannot be used.
    """
    if settings.folds and settings.fold >= settings.folds:
        raise InputError(f"fold: expected 0 to {settings.folds - 1}, got {settings.fold}")
    lens = load_lens(settings.calibration) if settings.calibration else None
    boxes = load_boxes(Path(settings.boxes)) if settings.boxes else None
    first = True
    evaluations = []
    for name in settings.models:
        # Passes with dropout are asked of the model in question, the others may not have any.
        samples = settings.dropout_samples if first else 0
        predictor = load_predictor(name, PredictorOptions(lens, settings.flip, samples))
        evaluations.append(_score(predictor, settings, boxes, console))
        first = False
    title, rows = comparison_table(evaluations, _kind(settings.data))
    content = _content(evaluations, rows)
    if settings.as_json:
        # Not through the console, which wraps lines.
        print(json.dumps(content, allow_nan=False))
    else:
        for evaluation in evaluations:
            print_evaluation(evaluation, console)
        if len(rows) > 1:
            console.print(rich_table(title, rows))
    if settings.out:
        page = write_report(evaluations, title, rows, Path(settings.out))
        (Path(settings.out) / "scores.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
        if not settings.as_json:
            console.print(f"written: {page} and scores.json", highlight=False)
    return tuple(evaluations)


def _score(predictor: Predictor, settings: ScoreSettings, boxes: Boxes | None, console: Console) -> Evaluation:
    register = settings.register
    if register is None:
        register = predictor.card.registered() if isinstance(predictor, NetworkPredictor) else True
    data = DataRecipe(
        spec=settings.data,
        split=settings.split,
        lens=str(Path(settings.calibration).resolve()) if settings.calibration else "",
        register_pairs=register,
        folds=settings.folds,
        fold=settings.fold,
        held_out=settings.folds > 0,
    )
    dataset = open_data(data)
    quiet = settings.as_json or not console.is_terminal
    with Progress(console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(f"scoring {predictor.name}", total=1.0)
        return evaluate(
            predictor,
            dataset,
            settings.data,
            boxes=boxes,
            progress=lambda done: progress.update(task, completed=done),
            examples=6 if settings.out else 0,
        )


def _content(evaluations: list[Evaluation], rows: list[Row]) -> dict[str, Any]:
    """The first model's evaluation; the others' and the table beside it where there are any."""
    content = evaluations[0].to_dict()
    if len(evaluations) > 1:
        content["compared"] = [evaluation.to_dict() for evaluation in evaluations[1:]]
        content["table"] = [
            {"system": row.system, "origin": row.origin, **{name: row.figures.get(name) for name in FIGURES}}
            for row in rows
        ]
    return content


def _kind(data: str) -> str:
    """The kind of data of a spec."""
    kind, separator, _ = data.partition(":")
    if separator and kind in KINDS and not Path(data).exists():
        return kind
    return "synthetic" if data == "synthetic" else detect_kind(open_place(data))
