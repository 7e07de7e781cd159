"""What one training is: a complete record that is written to `config.yaml` and read back.

Every field has its unit in its name or its comment. An unknown key or a value of the wrong type is
refused with the closest name, never ignored.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    momentum: Fraction = 0.9  # SGD, RMSprop
    nesterov: bool = False  # SGD
    betas: tuple[Decay, Decay] = (0.9, 0.999)  # AdamW
    decay: Fraction = 0.9  # RMSprop: of the squared gradients ("alpha")
    epsilon: Positive = 1e-8  # AdamW, RMSprop


class Schedule(Record):
    """How the learning rate moves: a warm-up, then one of three curves."""

    name: Literal["constant", "cosine", "exponential"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    final: Fraction = 0  # cosine: share of the learning rate left at the end
    rate: Positive = 0.94  # exponential: factor at each stair
    every_epochs: Positive | None = None  # exponential: a stair each so many epochs
    every_samples: Positive | None = None  # … or each so many samples


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
    # the photos
    preprocess: Preprocess
    augment: Augment = Augment()
    class_weights: Literal["none", "balanced"] = "none"
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    # the optimisation
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 32  # photos a step, over all processes
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts that a step's photos are computed in
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    label_smoothing: Fraction = 0
    clip_norm: Positive | None = None  # of the gradient over all parameters
    average_decay: Decay | None = None  # of the weights; None: off
    # the machine
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    workers: Annotated[int, Field(ge=0)] | None = None  # loader processes; None: by the cores
    checkpoint_minutes: Positive = 5  # between saves inside an epoch
    tensorboard: bool = False


def override(values: dict[str, Any], assignments: dict[str, Any]) -> dict[str, Any]:
    """`values` with dotted keys set, e.g. `{"optimizer.learning_rate": 0.1}`; nothing is mutated.

    Raises:
        UserError: a key that the configuration does not have, with the closest that it has.
    """
    result = dict(values)
    for key, value in assignments.items():
        head, _, rest = key.partition(".")
        if head not in TrainConfig.model_fields:
            raise UserError(
                f"no setting is called {key!r}{closest(head, TrainConfig.model_fields)}"
            )
        if rest:
            inner = result.get(head)
            if not (inner is None or isinstance(inner, dict)):
                raise UserError(f"the setting {head!r} is a single value, without a part {rest!r}")
            result[head] = {**(inner or {}), rest: value}
        else:
            result[head] = value
    return result


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
