"""Recipes: everything that a training is, in one YAML file, checked before anything runs.

A recipe names a model and its options, data, loss, optimiser, schedule and how long to run. Its fields are those of `Recipe`
below. `--set train.steps=100` changes one of them; list items go by their number (`data.train.0.share=2`). `{data}` in a
value stands for what is given with `--data`, `{data|something}` for `something` where nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from dfd_ros.errors import InputError
from dfd_ros.learning.augment import Augmentation
from dfd_ros.learning.objectives import AnyTerm, Fraction
from dfd_ros.models.registry import Description, describe
from dfd_ros.share import config_file

_PLACEHOLDER = re.compile(r"\{data(?:\|(?P<otherwise>[^}]*))?\}")
FOLDER = "train"
"""Of config/, where the recipes are."""
Size = tuple[int, int]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecipe(_Record):
    """
    Attributes:
        name, options: As for `dfd_ros.models.registry.build`.
        init: Weights to start from: a file, or a name of the zoo; of the same model.
        init_share: Share that these have in the weights that are validated and kept, which are so many parts of them and the
            rest of what was learned. A network tuned to few scenes knows them by heart; between it and what it was, it
            errs less on others (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
        encoder: A safetensors file with weights for the model's `encoder`, such as those of an ImageNet classifier.
    """

    name: str
    options: dict[str, Any] = {}
    init: str = ""
    init_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    encoder: str = ""

    @model_validator(mode="after")
    def _check(self) -> ModelRecipe:
        if self.init_share and not self.init:
            raise ValueError(f"init_share needs weights to start from, init, got a share of {self.init_share:g} alone")
        return self

    def describe(self) -> Description:
        return describe(self.name, **self.options)


class DataRecipe(_Record):
    """One data set.

    Attributes:
        spec: As for `dfd_ros.data.open.open_dataset`, with `{data}` for the path given on the command line.
        split: Its split.
        lens: Lens file of what took the pictures, or is to take them.
        register_pairs: Photographs: bring the two pictures to one exposure and place.
        synthetic: Settings of made-up scenes (`dfd_ros.data.synthetic.SyntheticSettings`).
        folds, fold, held_out: Cross-validation: the samples in so many blocks of neighbours (which look alike), and
            either all blocks but number `fold`, or, if held out, that one.
        first, count: Which of these: from the first so many; 0 for all.
        size: Height and width that the pictures are brought to.
        share: How often samples come from this data set, relative to the others.
    """

    spec: str
    split: str | None = None
    lens: str = ""
    register_pairs: bool = False
    synthetic: dict[str, Any] = {}
    first: NonNegativeInt = 0
    count: NonNegativeInt = 0
    folds: NonNegativeInt = 0
    fold: NonNegativeInt = 0
    held_out: bool = False
    size: Size | None = None
    share: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _check(self) -> DataRecipe:
        if self.folds and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds, {self.folds}, got {self.fold}")
        return self


class LoadingRecipe(_Record):
    """
    Attributes:
        train, validate_on: What to train on, and what to validate on.
        augment: How the first is changed.
        workers: How many processes load it (−1: one a core less one, 15 at most).
        keep: Gigabytes of samples that each of them keeps in memory (`dfd_ros.learning.kept`).
    """

    train: tuple[DataRecipe, ...] = Field(min_length=1)
    validate_on: DataRecipe
    augment: Augmentation = Augmentation()
    workers: Annotated[int, Field(ge=-1)] = -1
    keep: NonNegativeFloat = 0.0


class OptimizerRecipe(_Record):
    """
    Attributes:
        kind: `adam` (Kingma & Ba, ICLR 2015), `adamw` (Loshchilov & Hutter, ICLR 2019) or `sgd`.
        rate: Learning rate.
        betas: Of Adam; the first one is the momentum of SGD.
        decay: Weight decay.
        clip: Largest norm of the gradient; 0 for any.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    rate: PositiveFloat
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    decay: NonNegativeFloat = 0.0
    clip: NonNegativeFloat = 0.0


class ScheduleRecipe(_Record):
    """The learning rate over the steps, as a factor.

    Attributes:
        kind: `constant`, `cosine` (to `final`), `linear` (to `final`) or `steps`.
        warmup: Steps of linear rise at the start.
        final: Factor at the end.
        every, factor: `steps`: after so many steps times so much.
    """

    kind: Literal["constant", "cosine", "linear", "steps"] = "constant"
    warmup: NonNegativeInt = 0
    final: Fraction = 0.0
    every: PositiveInt = 1
    factor: PositiveFloat = 0.5


class TrainRecipe(_Record):
    """
    Attributes:
        steps: Optimiser steps.
        round: Steps between two validations, each followed by a checkpoint.
        batch: Samples (patches) a step and process.
        seed: Of everything random.
        precision: `auto` (bf16 on a GPU that has it, else float32) or a precision of Lightning's.
        half: Whether the weights written at the end are of 16 bits.
        accelerator, devices, nodes: As for Lightning: `auto`, so many in each machine, so many machines.
        average: Decay of the moving average of the weights, which is what is validated and kept; 0 for none.
        monitor: Metric that decides which weights are best, less being better.
        patience: Stop after so many rounds without a better one; 0: never.
        log_every: Steps between two lines of the log.
    """

    steps: PositiveInt
    round: PositiveInt = 500
    batch: PositiveInt
    seed: NonNegativeInt = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    half: bool = False
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    monitor: Literal["rel", "log10", "rms", "loss"] = "rel"
    patience: NonNegativeInt = 0
    log_every: PositiveInt = 20


class Recipe(_Record):
    """A training.

    Attributes:
        name: What to call it, and the weights.
        source: The paper, and what was changed.
        use: What the weights may be used for.
        model, data, loss, optimizer, schedule, train: See there.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    source: str = ""
    use: str = "free to use"
    model: ModelRecipe
    data: LoadingRecipe
    loss: tuple[AnyTerm, ...] = Field(min_length=1)
    optimizer: OptimizerRecipe
    schedule: ScheduleRecipe = ScheduleRecipe()
    train: TrainRecipe

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        return self.model_dump(mode="json")


def load_recipe(recipe: str | Path, changes: Sequence[str] = (), data: str = "") -> Recipe:
    """Read a recipe.

    Args:
        recipe: A file, or the name of one in config/train/.
        changes: `key=value` with the key's parts joined by dots, the value YAML; nothing for empty text.
        data: What `{data}` stands for.

    Raises:
        InputError: The file is missing, not YAML or has an unknown key or a value of another kind; or a change does.
    """
    path = find_recipe(recipe)
    content = _read_yaml(path)
    for change in changes:
        _apply(content, change)
    where = f"recipe {path} as changed" if changes else f"recipe {path}"
    try:
        checked = Recipe.model_validate(_filled(content, data, where))
        checked.model.describe()
    except ValidationError as error:
        raise InputError(f"{where}: {_sentence(error)}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}" if where not in str(error) else str(error)) from error
    return checked


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe, by path or by its name in config/train/.

    Raises:
        InputError: There is none.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    named = config_file(f"{FOLDER}/{path.name.removesuffix('.yaml')}.yaml")
    if len(path.parts) == 1 and named.is_file():
        return named
    folder = config_file(FOLDER)
    names = sorted(file.stem for file in folder.glob("*.yaml")) if folder.is_dir() else []
    raise InputError(f"recipe {recipe}: expected a file or one of {', '.join(names)}, got neither")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe that `load_recipe` reads back."""
    path.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content: Any = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"recipe {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: expected YAML, got {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"recipe {path}: expected a mapping, got {type(content).__name__}")
    return content


def _apply(content: dict[str, Any], change: str) -> None:
    """Set one value; mappings on the way are made where they are missing, for the schema to judge."""
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise InputError(f"set: expected key=value, got {change!r}")
    place: Any = content
    *way, last = key.split(".")
    try:
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        value = yaml.safe_load(text) if text else ""
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"set {change!r}: there is no such place in the recipe") from error
    except yaml.YAMLError as error:
        raise InputError(f"set {change!r}: expected a YAML value, got {text!r}") from error


def _filled(content: Any, data: str, where: str) -> Any:
    """The content with `{data}` filled in."""
    if isinstance(content, dict):
        return {key: _filled(value, data, where) for key, value in content.items()}
    if isinstance(content, list):
        return [_filled(value, data, where) for value in content]
    if isinstance(content, str) and (place := _PLACEHOLDER.search(content)):
        filling = data or place["otherwise"]
        if not filling:
            raise InputError(f"{where}: expected --data for {content!r}, got none")
        return content[: place.start()] + filling + content[place.end() :]
    return content


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence."""
    first = error.errors()[0]
    # Pydantic puts a union's chosen kind into the path; a recipe has no such key.
    key = ".".join(str(part) for part in first["loc"] if part not in _KINDS)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if first["type"] == "missing":
        return f"missing key {key!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


_KINDS = ("depth_l1", "depth_nll", "restoration", "reconstruction", "smoothness", "consistency")
