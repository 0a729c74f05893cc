"""`dfd train`: a recipe run to its end on Lightning, or on from where it was stopped.

A training goes in rounds of so many steps; each ends with a validation and a checkpoint. The folder it writes:

    recipe.yaml                 what is run
    logs/<start>/metrics.csv    and TensorBoard's events beside it, one folder for each start
    checkpoints/last.safetensors, best.safetensors
    <name>.safetensors, .json   the best weights and their model card, at the end
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from dfd_ros.data.samples import Dataset
from dfd_ros.datasets.files import locked
from dfd_ros.errors import InputError
from dfd_ros.inference.tensors import SUFFIX
from dfd_ros.inference.weights import ModelCard
from dfd_ros.learning.batch import Batch
from dfd_ros.learning.batches import Batches, whole
from dfd_ros.learning.checkpoints import SafetensorsIO
from dfd_ros.learning.datasets import lens_ranges, only_lens, open_batches, open_data, some_lenses, spec_of
from dfd_ros.learning.recipe import Recipe, load_recipe, save_recipe
from dfd_ros.learning.system import LOSS, System
from dfd_ros.learning.weights import save_weights
from dfd_ros.optics.lens import Lens

RECIPE, CHECKPOINTS, LOGS = "recipe.yaml", "checkpoints", "logs"
BEST, LAST = "best", "last"
MAX_WORKERS = 15
"""Processes that load data, where the recipe leaves it open."""
# Keys that may differ when a training goes on.
_ANYWHERE = {"data.workers", "train.log_every", "train.accelerator"}
_FOLDERS = re.compile(r"(?<![^:])/(?:[^/]+/)*")  # an absolute path's, at the start or after a kind of data
_LIBRARIES = ("torch", "lightning", "numpy")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set in the processes that a launcher starts


@dataclass(frozen=True)
class TrainResult:
    """Where the weights are, and their card."""

    weights: Path
    card: ModelCard


def train(recipe: Recipe, out: Path, *, resume: bool = False, console: Console | None = None) -> TrainResult | None:
    """Train.

    Args:
        recipe: What to train.
        out: The folder to write into; new unless `resume`.
        resume: Go on from the folder's last checkpoint, or from the start where there is none yet.
        console: Where to report.

    Returns:
        The result; None in all processes but the first.

    Raises:
        InputError: The recipe, the data or the folder cannot be used, another training is at work in it, a loss is not
            a number, or the disk is full.
    """
    last = prepare_folder(recipe, out, resume)
    with nullcontext() if _is_helper() else locked(out / RECIPE, f"out: {out}"):
        return _train(recipe, out, last, console or Console(quiet=True))


def _train(recipe: Recipe, out: Path, last: Path | None, console: Console) -> TrainResult | None:
    """In a folder that is ready, from its last checkpoint on."""
    # Before the processes that load are forked: they keep to one thread each, and OpenCV's pool does not survive a fork.
    cv2.setNumThreads(1)
    steps, rounds = equal_rounds(recipe)
    batches, validation = open_batches(recipe), open_data(recipe.data.validate_on)
    system = System(recipe, steps * rounds)
    _share_cores(recipe)
    trainer = _make_trainer(recipe, out, steps, rounds, console)
    if trainer.precision != "32-true":
        system.to(memory_format=torch.channels_last)  # what half precision is fast in
    loader = _loader(batches, StepSampler(trainer, steps), recipe)
    try:
        with _quiet():
            trainer.fit(system, loader, _validation_loader(validation, trainer, recipe), ckpt_path=last)
    except OSError as error:
        raise InputError(f"training: {out} cannot be written ({error}); the checkpoints in it are whole") from error
    if not trainer.is_global_zero:
        return None
    best = SafetensorsIO().load_checkpoint(out / CHECKPOINTS / f"{BEST}{SUFFIX}")
    system.load_state_dict(best["state_dict"])
    card = make_card(recipe, best["metrics"], some_lenses(batches), best["global_step"])
    path = out / f"{recipe.name}{SUFFIX}"
    save_weights(system.best_model, card, path, half=recipe.train.half)
    console.print(f"written: {path}", highlight=False)
    return TrainResult(path, card)


def equal_rounds(recipe: Recipe) -> tuple[int, int]:
    """Steps a round and rounds: as many steps as the recipe's, or a few less so that all rounds are equal."""
    rounds = math.ceil(recipe.train.steps / recipe.train.round)
    return recipe.train.steps // rounds, rounds


def prepare_folder(recipe: Recipe, out: Path, resume: bool) -> Path | None:
    """Make the folder, or look at what is there; the checkpoint to go on from, if there is one.

    Raises:
        InputError: The folder holds a training that is not to be resumed, or that was begun with another recipe.
    """
    file, last = out / RECIPE, out / CHECKPOINTS / f"{LAST}{SUFFIX}"
    if _is_helper():
        return last if resume and last.is_file() else None
    if not file.is_file():
        try:
            out.mkdir(parents=True, exist_ok=True)
            save_recipe(recipe, file)
        except OSError as error:
            raise InputError(f"out: {out} cannot be made ({error.strerror})") from error
    elif not resume:
        raise InputError(f"out: expected a new folder or --resume, got {out}, which holds a training")
    else:
        begun, now = (_flat(content) for content in (load_recipe(file).to_dict(), recipe.to_dict()))
        differing = [key for key in {**begun, **now} if begun.get(key) != now.get(key) and key not in _ANYWHERE]
        if differing:
            key = differing[0]
            raise InputError(
                f"resume: expected the recipe that {out} was begun with, where {key} is {begun.get(key)!r}, "
                f"got {now.get(key)!r}"
            )
    return last if resume and last.is_file() else None


def _is_helper() -> bool:
    """Whether a launcher started this process, and not as the first of them, who writes."""
    return any(os.environ.get(rank, "0") != "0" for rank in _RANKS)


class StepSampler(torch.utils.data.Sampler[int]):
    """The numbers of a round's batches in this process, from the step on that the trainer is at."""

    def __init__(self, trainer: pl.Trainer, steps: int) -> None:
        self._trainer, self._steps = trainer, steps

    def __iter__(self) -> Iterator[int]:
        trainer = self._trainer
        first = trainer.global_step
        return (step * trainer.world_size + trainer.global_rank for step in range(first, first + self._steps))

    def __len__(self) -> int:
        return self._steps


class _Whole(torch.utils.data.Dataset[Batch]):
    """Samples uncut, one a batch; of several processes each has every so-manieth."""

    def __init__(self, dataset: Dataset, rank: int, world: int) -> None:
        self._dataset, self._numbers = dataset, range(rank, len(dataset), world)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Batch:
        return whole(self._dataset.read(self._numbers[index]))


class _RoundReport(Callback):
    """Says after each round how it went."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps, self._start = console, steps, time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            shown = {LOSS: trainer.callback_metrics.get(LOSS, math.nan)}
            shown |= {k.removeprefix("val/"): v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            figures = "  ".join(f"{name} {float(value):.4g}" for name, value in shown.items())
            elapsed = time.monotonic() - self._start
            self._console.print(f"step {trainer.global_step}: {figures}  {elapsed:.0f} s", highlight=False)


class _Checkpoint(ModelCheckpoint):
    FILE_EXTENSION = SUFFIX


def _make_trainer(recipe: Recipe, out: Path, steps: int, rounds: int, console: Console) -> pl.Trainer:
    settings = recipe.train
    monitor = f"val/{settings.monitor}"
    callbacks: list[Callback] = [
        LearningRateMonitor("step"),
        _RoundReport(console, steps * rounds),
        *(
            _Checkpoint(
                out / CHECKPOINTS,
                name,
                monitor=which,
                mode="min",
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
            for name, which in ((BEST, monitor), (LAST, None))
        ),
    ]
    if settings.patience:
        callbacks.append(EarlyStopping(monitor, patience=settings.patience, mode="min", check_on_train_epoch_end=True))
    if console.is_terminal:
        callbacks.append(RichProgressBar())
    start = str(len(list((out / LOGS).iterdir())) if (out / LOGS).is_dir() else 0)
    # torchrun has started the processes already, and says how many.
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", settings.devices))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", settings.nodes))
    with _quiet():
        return pl.Trainer(
            max_epochs=rounds,
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=_precision(recipe),
            callbacks=callbacks,
            logger=[
                CSVLogger(out, LOGS, start, flush_logs_every_n_steps=settings.log_every),
                TensorBoardLogger(out, LOGS, start, default_hp_metric=False),
            ],
            log_every_n_steps=min(settings.log_every, steps),
            plugins=[SafetensorsIO()],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=console.is_terminal,
            enable_model_summary=False,
            benchmark=False,
        )


def _precision(recipe: Recipe) -> Any:
    if recipe.train.precision != "auto":
        return recipe.train.precision
    on_gpu = recipe.train.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if on_gpu else "32-true"


def _loader(batches: Batches, sampler: StepSampler, recipe: Recipe) -> torch.utils.data.DataLoader[Batch]:
    workers = _workers(recipe)
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=_on_gpu(recipe),
    )


def _validation_loader(dataset: Dataset, trainer: pl.Trainer, recipe: Recipe) -> torch.utils.data.DataLoader[Batch]:
    if len(dataset) < trainer.world_size:
        raise InputError(f"validate_on: expected {trainer.world_size} samples, one a process, got {len(dataset)}")
    workers = _workers(recipe)
    return torch.utils.data.DataLoader(
        _Whole(dataset, trainer.global_rank, trainer.world_size),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=_on_gpu(recipe),
    )


def _workers(recipe: Recipe) -> int:
    if recipe.data.workers >= 0:
        return recipe.data.workers
    share = len(os.sched_getaffinity(0)) // recipe.train.devices
    return max(1, min(share - 1, MAX_WORKERS))


def _share_cores(recipe: Recipe) -> None:
    """Give the network the cores that loading leaves it: threads that wait for each other's cores collapse.

    The user's OMP_NUM_THREADS comes first. Another number of threads, other sums in the last bits.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        share = len(os.sched_getaffinity(0)) // recipe.train.devices
        torch.set_num_threads(max(1, share - _workers(recipe)))


def _on_gpu(recipe: Recipe) -> bool:
    return recipe.train.accelerator != "cpu" and torch.cuda.is_available()


def make_card(recipe: Recipe, metrics: dict[str, float], lenses: Sequence[Lens | None], steps: int) -> ModelCard:
    """The card of weights that a recipe made of samples of such lenses."""
    described = recipe.model.describe()
    return ModelCard(
        name=recipe.name,
        model=described.name,
        options=dict(described.options),
        inputs=described.signature.inputs,
        outputs=described.signature.outputs,
        parameters=described.parameters,
        use=recipe.use,
        data=tuple(_without_folders(spec_of(data)) for data in recipe.data.train),
        lens=lens_ranges(lenses, recipe.data.augment.zoom),
        only_lens=only_lens(lenses),
        metrics=metrics,
        steps=steps,
        commit=_commit(),
        recipe=_without_folders(recipe.to_dict()),
        versions={name: version(name) for name in _LIBRARIES},
    )


def _without_folders(content: Any) -> Any:
    """A tree whose texts name files and folders by their last part: where they lie on this machine helps nobody else."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_folders(item) for item in content]
    return _FOLDERS.sub("", content) if isinstance(content, str) else content


def _commit() -> str:
    """The checkout's commit; empty where this is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _flat(content: Any, key: str = "") -> dict[str, Any]:
    """A tree's leaves by their dotted keys."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = {str(i): item for i, item in enumerate(content)}.items()
    else:
        return {key: content}
    return {k: v for name, item in items for k, v in _flat(item, f"{key}.{name}" if key else str(name)).items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's remarks on what is as it is meant to be, left out."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="torch.utils.data")
        try:
            yield
        finally:
            logger.setLevel(level)
