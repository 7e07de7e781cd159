"""What one training is: a complete record that is written to `config.yaml` and read back.

Every field has its unit in its name or its comment. An unknown key or a value of the wrong type is
refused with the closest name, never ignored.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xception.data.joint import JointAugment
from xception.data.kind import Task, task_of
from xception.data.pairs import Layout
from xception.data.preprocess import Preprocess
from xception.data.transforms import Augment
from xception.errors import UserError
from xception.training.problems import closest, describe

Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Record(BaseModel):
    """A frozen record that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Optimizer(Record):
    """One of torch's optimisers and its settings; those it does not have are unused."""

    name: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    learning_rate: Positive = 1e-3  # at `batch_size` photos a step
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # on weights; never on norms and biases
    decay_depthwise: bool = True  # … and on the kernels of depthwise convolutions
    momentum: Fraction = 0.9  # SGD, RMSprop
    nesterov: bool = False  # SGD
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # AdamW
    decay: Fraction = 0.9  # RMSprop: of the squared gradients ("alpha")
    epsilon: Positive = 1e-8  # AdamW, RMSprop

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Optimizer":
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Schedule(Record):
    """How the learning rate moves: a warm-up, then one of four curves."""

    name: Literal["constant", "cosine", "exponential", "poly"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    final: Fraction = 0  # cosine: share of the learning rate left at the end
    rate: Positive = 0.94  # exponential: factor at each stair
    every_epochs: Positive | None = None  # exponential: a stair each so many epochs
    every_samples: Positive | None = None  # … or each so many samples
    power: Positive = 0.9  # poly: of the share of the training that is left


class Progressive(Record):
    """Smaller photos in the first epochs, which cost less and teach nearly as much.

    Howard's progressive resizing; Tan & Le 2021 (EfficientNetV2), section 4.2.
    """

    start: Annotated[int, Field(ge=1)]  # pixels of a side in the first epoch
    until: Fraction = 0.5  # share of the epochs after which photos have `preprocess.size`
    step: Annotated[int, Field(ge=1)] = 32  # pixels that sizes rise by, evenly over these epochs

    def sizes(self, full: int, epochs: int) -> tuple[int, ...]:
        """The side of the photos in every epoch, in pixels; never above `full`."""
        rising = list(range(self.start, full, self.step))
        early = round(self.until * epochs)
        return tuple(
            rising[epoch * len(rising) // early] if rising and epoch < early else full
            for epoch in range(epochs)
        )


class PixelLoss(Record):
    """What the loss over pixels is made of."""

    cross_entropy: Annotated[float, Field(ge=0)] = 1.0  # its weight in the sum
    focusing: Annotated[float, Field(ge=0, le=10)] = 0.0  # of it: the γ of the focal loss
    dice: Annotated[float, Field(ge=0)] = 0.0  # its weight in the sum

    @model_validator(mode="after")
    def _something(self) -> "PixelLoss":
        if not self.cross_entropy and not self.dice:
            raise ValueError("cross_entropy and dice cannot both be 0")
        return self


class Masks(Record):
    """How masks are found and read where that is not to be found out; see `data.pairs`."""

    layout: Layout | None = None
    classes: str | tuple[str, ...] | None = None  # a file, or the names of the values 0, 1, 2, …
    ignore: tuple[int, ...] = ()  # more values that do not count


class TrainConfig(Record):
    """All that decides a training, but the photos themselves."""

    recipe: str = "scratch"  # where the values came from
    # the network
    model: str = "xception"
    model_options: dict[str, Any] = {}
    weights: str | None = None  # a model file to start from, ours or another library's
    freeze: Literal["none", "backbone"] = "none"
    dropout: Fraction = 0  # before the classifier
    batch_norm_momentum: Fraction | None = None  # weight of the newest batch; None: the model's own
    batch_statistics: Literal["batch", "frozen"] = "batch"  # frozen: those that `weights` have
    # the photos
    preprocess: Preprocess
    augment: Augment = Augment()  # of photos with classes
    progressive: Progressive | None = None  # smaller photos first; None: off
    joint: JointAugment = JointAugment()  # of photos and their masks
    masks: Masks = Masks()
    class_weights: Literal["none", "balanced", "softened"] = "none"
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    # the optimisation
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 32  # photos a step, over all processes
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts that a step's photos are computed in
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    label_smoothing: Fraction = 0
    pixel_loss: PixelLoss = PixelLoss()  # where photos have masks
    clip_norm: Positive | None = None  # of the gradient over all parameters
    average_decay: Decay | None = None  # of the weights; None: off
    validate_every: Annotated[int, Field(ge=1)] = 1  # epochs; the last one is always validated
    # the machine
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    workers: Annotated[int, Field(ge=0)] | None = None  # loader processes; None: by the cores
    checkpoint_minutes: Positive = 5  # between saves inside an epoch
    tensorboard: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """The side of the training photos in every epoch, in pixels."""
        full, epochs = self.preprocess.size, self.epochs
        return self.progressive.sizes(full, epochs) if self.progressive else (full,) * epochs


def task_with(path: str | Path, masks: Masks) -> Task:
    """What the photos at a path are for. Who says anything of masks means photos with masks.

    Raises:
        UserError: there is nothing at the path.
    """
    return "segmentation" if masks != Masks() else task_of(path)


NOT_FOR: dict[Task, tuple[str, ...]] = {
    "classification": ("joint", "masks", "pixel_loss"),
    "segmentation": ("augment", "progressive", "sampler", "freeze"),
}
"""Settings that would have no effect on photos of a task."""


def refuse_settings(config: TrainConfig, task: Task) -> None:
    """UserError for a setting that would have no effect on photos of this task."""
    have = "masks, for which there is the recipe segment" if task == "segmentation" else "no masks"
    for name in NOT_FOR[task]:
        if getattr(config, name) != TrainConfig.model_fields[name].default:
            raise UserError(f"{name} is a setting for other photos: these have {have}")


def override(values: dict[str, Any], assignments: dict[str, Any]) -> dict[str, Any]:
    """`values` with dotted keys set, e.g. `{"optimizer.learning_rate": 0.1}`; nothing is mutated.

    Raises:
        UserError: a key that the configuration does not have, with the closest that it has.
    """
    result = dict(values)
    for key, value in assignments.items():
        head, *rest = key.split(".")
        if head not in TrainConfig.model_fields:
            raise UserError(
                f"no setting is called {key!r}{closest(head, TrainConfig.model_fields)}"
            )
        result[head] = _with(result.get(head), head, rest, value)
    return result


def _with(before: Any, name: str, parts: list[str], value: Any) -> Any:
    """What a setting becomes whose part `parts` is set; a copy where there is anything to copy."""
    if not parts:
        return value
    if not (before is None or isinstance(before, dict)):
        raise UserError(f"the setting {name!r} is a single value, without a part {parts[0]!r}")
    inner = dict(before or {})
    inner[parts[0]] = _with(inner.get(parts[0]), f"{name}.{parts[0]}", parts[1:], value)
    return inner


def parse(values: dict[str, Any], where: str) -> TrainConfig:
    """A checked configuration from plain values.

    Raises:
        UserError: naming `where`, the key and what would be right.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {describe(error, TrainConfig)}") from None


def read_config(path: Path) -> TrainConfig:
    """The configuration in a YAML file, as `xception train` writes it.

    Raises:
        UserError: the file cannot be read, is not YAML or holds an unknown or wrong value.
    """
    return parse(read_yaml(path), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; only plain values, never objects."""
    if not path.exists():
        raise UserError(f"there is no {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold `key: value` lines")
    return values


def to_yaml(config: TrainConfig) -> str:
    """The complete configuration as YAML text; `read_config` gives the same record back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
