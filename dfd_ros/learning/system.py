"""A model in training, as Lightning sees it: a step, a validation, an optimiser, and a moving average of the weights.

Everything random in a step (dropout) comes from the seed, the step's number and the process's rank, so there is no
generator whose state would have to be kept: a training that goes on from a checkpoint takes the very steps it would
have taken.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from dfd_ros.errors import InputError
from dfd_ros.inference.weights import start_from
from dfd_ros.inference.zoo import find_weights
from dfd_ros.learning.batch import Batch
from dfd_ros.learning.objectives import Outputs, objective
from dfd_ros.learning.recipe import OptimizerRecipe, Recipe, ScheduleRecipe
from dfd_ros.metrics import DELTA_BASE
from dfd_ros.models.base import DepthModel
from dfd_ros.models.lens_table import AnyLens, lens_table
from dfd_ros.models.physics_net import PhysicsNet
from dfd_ros.models.registry import build
from dfd_ros.models.weights import load_encoder

AVERAGE_WARMUP = 20
"""Steps over which the moving average reaches back less far, so that it forgets the first weights."""
METRICS = ("rel", "log10", "rms", "d1")
LOSS = "loss"
_LEAST_DEPTH = 1e-3  # metres, of an estimate whose logarithm is taken


class NotFiniteError(InputError):
    """A loss or its gradient is not a number."""


def run_model(model: DepthModel, batch: Batch) -> Outputs:
    """A model's outputs for a batch: it is given the pictures its signature names, and the lenses if it takes them.

    Raises:
        InputError: A picture or a lens is missing; or parts of pictures, where the lens's parallax, which a model that takes
            lenses looks for, is about the centre of the whole.
    """
    images = batch.images(model.signature.inputs)
    if isinstance(model, PhysicsNet):
        lenses = batch.known_lenses()
        slanted = next((lens.name for lens in lenses if lens.parallax), None)
        if slanted is not None and not batch.uncut:
            raise InputError(
                f"crop: expected whole pictures of lens {slanted}, whose parallax tells near from far by where a pixel lies "
                f"in the picture, got parts; leave data.augment.crop and patches out"
            )
        tables = [lens_table(cast(AnyLens, lens), model.labels) for lens in lenses]
        return model(images, torch.stack(tables).to(images))
    return model(images)


class System(pl.LightningModule):
    """A recipe's model and how it learns.

    Attributes:
        model: The network in training.
        average: The moving average of its weights, if the recipe wants one.
    """

    def __init__(self, recipe: Recipe, total_steps: int) -> None:
        super().__init__()
        self.recipe, self.total_steps = recipe, total_steps
        self.model = build_model(recipe)
        self.average: DepthModel | None = None
        if recipe.train.average:
            self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        # Not a part of the state that checkpoints hold: it comes from the file again.
        self._first = copy.deepcopy(self.model.state_dict()) if recipe.model.init_share else {}
        self._sums = torch.zeros(0)
        self._last_names: tuple[str, ...] = ()

    @property
    def best_model(self) -> DepthModel:
        """What is validated and kept."""
        best = self.model if self.average is None else self.average
        return between(best, self._first, self.recipe.model.init_share) if self._first else best

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        key = np.random.SeedSequence((self.recipe.train.seed, self.global_step, self.global_rank))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))
        self._last_names = batch.names

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs = run_model(self.model, batch)
        loss, parts = objective(self.recipe.loss, outputs, batch)
        if not self._everywhere(torch.isfinite(loss)):
            raise NotFiniteError(
                f"training: the loss of step {self.global_step} is not a number, because of sample "
                f"{self._culprit(outputs, batch)}; training stopped, the last checkpoint is good"
            )
        figures = {
            LOSS: loss.detach(),
            **({f"loss/{k}": v.detach() for k, v in parts.items()} if len(parts) > 1 else {}),
        }
        self.log_dict(figures, batch_size=len(batch), prog_bar=False)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip or math.inf)
        if not torch.isfinite(norm):  # the same in all processes
            raise NotFiniteError(
                f"training: the gradient of step {self.global_step} is not a number, because of one of the samples "
                f"{', '.join(self._last_names)}; training stopped, the last checkpoint is good"
            )
        self.log("gradient", norm)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.average is not None:
            step = self.global_step
            decay = min(self.recipe.train.average, step / (step + AVERAGE_WARMUP))
            update_average(self.average, self.model, decay)

    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(len(METRICS) + 3, dtype=torch.float64, device="cpu")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        outputs = run_model(self.best_model, batch)
        loss = math.nan
        if self.recipe.train.monitor == LOSS:
            loss = float(objective(self.recipe.loss, outputs, batch)[0])
        self._sums += torch.cat([error_sums(outputs["depth"], batch.truth()), torch.tensor([loss, 1.0]).double()])

    def on_validation_epoch_end(self) -> None:
        sums = self._sums
        if self.trainer.world_size > 1:
            gathered = cast(Tensor, self.all_gather(sums.to(self.device, torch.float32)))
            sums = gathered.double().sum(dim=0).cpu()
        *errors, count, loss, batches = sums.tolist()
        figures = dict(zip(METRICS, errors, strict=True))
        metrics = {f"val/{k}": v / count if count else math.nan for k, v in figures.items()}
        metrics["val/rms"] = math.sqrt(metrics["val/rms"])
        if self.recipe.train.monitor == LOSS:
            metrics[f"val/{LOSS}"] = loss / batches
        self.log_dict(metrics)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.recipe.optimizer, self.model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(self.recipe.schedule, self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        metrics = self.trainer.callback_metrics
        checkpoint["metrics"] = {k.removeprefix("val/"): float(v) for k, v in metrics.items() if k.startswith("val/")}

    def _everywhere(self, good: Tensor) -> bool:
        """Whether it is so in all processes, which must stop together."""
        if self.trainer.world_size > 1:
            good = cast(Tensor, self.all_gather(good.float())).min() > 0
        return bool(good)

    def _culprit(self, outputs: Outputs, batch: Batch) -> str:
        """The names of the samples whose own loss is not finite."""
        names = []
        with torch.no_grad():
            for i, name in enumerate(batch.names):
                alone = {key: tensor[i : i + 1] for key, tensor in outputs.items()}
                loss, _ = objective(self.recipe.loss, alone, batch.single(i))
                if not torch.isfinite(loss):
                    names.append(name)
        return ", ".join(names or batch.names)


def build_model(recipe: Recipe) -> DepthModel:
    """The recipe's model, its first weights drawn from the recipe's seed, or those that it starts from.

    Raises:
        InputError: The model or the weights to start from do not suit.
    """
    torch.manual_seed(recipe.train.seed)
    settings = recipe.model
    model = build(settings.name, **settings.options)
    if settings.encoder:
        encoder = getattr(model, "encoder", None)
        if encoder is None:
            raise InputError(f"recipe {recipe.name}: model.encoder is given, but {settings.name} has no encoder")
        load_encoder(encoder, settings.encoder)
    if settings.init:
        start_from(model, settings.name, settings.options, find_weights(settings.init))
    return model


def error_sums(estimate: Tensor, truth: Tensor) -> Tensor:
    """Sums of rel, |log10|, squared error (m²) and d1 over the pixels whose truth is known, and their count; (5,) float64.

    The metrics are those of `dfd_ros.metrics`; an estimate that is not positive counts as a millimetre.
    """
    known = torch.isfinite(truth) & (truth > 0)
    z = estimate.detach().float()[known].clamp_min(_LEAST_DEPTH).double()
    true = truth[known].double()
    error = (z - true).abs()
    magnitude = (z / true).log10().abs()
    right = (magnitude < math.log10(DELTA_BASE)).double()
    rows = (error / true, magnitude, error.square(), right, torch.ones_like(true))
    return torch.stack([row.sum() for row in rows]).cpu()


@torch.no_grad()
def update_average(average: DepthModel, model: DepthModel, decay: float) -> None:
    """Move the average towards the model's weights: a ← decay · a + (1 − decay) · w; counters and statistics are copied."""
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1.0 - decay)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)


def between(model: DepthModel, first: Mapping[str, Tensor], share: float) -> DepthModel:
    """A copy of the model with so large a share of the first weights, statistics of batch normalisation included."""
    mixed = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in mixed.state_dict().items():
            if value.is_floating_point():
                value.lerp_(first[name].to(value), share)
    return mixed


def make_optimizer(recipe: OptimizerRecipe, model: DepthModel) -> torch.optim.Optimizer:
    """The recipe's optimiser over all weights that are to be learned."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.kind == "sgd":
        return torch.optim.SGD(weights, recipe.rate, momentum=recipe.betas[0], weight_decay=recipe.decay)
    kind = torch.optim.Adam if recipe.kind == "adam" else torch.optim.AdamW
    return kind(weights, recipe.rate, betas=recipe.betas, weight_decay=recipe.decay)


def rate_factor(recipe: ScheduleRecipe, total: int) -> Callable[[int], float]:
    """The learning rate's factor at each step, from 0 to `total` − 1."""

    def factor(step: int) -> float:
        done = min(max(step - recipe.warmup, 0) / max(total - recipe.warmup, 1), 1.0)
        rise = min((step + 1) / (recipe.warmup + 1), 1.0)
        fall = {
            "constant": 1.0,
            "cosine": recipe.final + (1.0 - recipe.final) * 0.5 * (1.0 + math.cos(math.pi * done)),
            "linear": 1.0 + (recipe.final - 1.0) * done,
            "steps": recipe.factor ** (max(step - recipe.warmup, 0) // recipe.every),
        }
        return rise * fall[recipe.kind]

    return factor
