"""A study: a grid of trainings as data, and the sentence of a paper that it puts to the test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from xception.errors import UserError
from xception.studies.claims import Claim
from xception.training.config import TrainConfig, override, parse

Scale = Literal["tiny", "full"]
Photos = Literal["photos", "mosaics"]
Settings = Mapping[str, Any]
"""Dotted keys of the training's configuration, e.g. `{"model_options.residual": False}`."""

NOTHING: Settings = MappingProxyType({})
WIDTH = "model_options.width"
_ABSENT = object()

# The paper's own way of training (§4.2: SGD 0.9, rate 0.045, Polyak averaging), which was tuned for
# Inception V3. The batch, the crops, the decay of the average and the number of epochs are ours: as
# many as a few minutes hold.
TINY: Settings = {
    "model": "xception",
    "model_options": {"width": 0.25, "middle": 2, "stem_stride": 1},
    "preprocess": {"size": 32},
    "augment": {"pad_crop": 4, "flip": True},
    "epochs": 6,
    "batch_size": 64,
    "optimizer": {"name": "sgd", "learning_rate": 0.045, "momentum": 0.9, "weight_decay": 1e-5},
    "schedule": {"name": "exponential", "rate": 0.94, "every_epochs": 2},
    "average_decay": 0.995,
}
# Chollet 2017, §4.2-4.3: the recipe xception-imagenet.
FULL: Settings = {
    "model": "xception",
    "preprocess": {"size": 299, "crop": 0.897},
    "augment": {
        "crop_scale": [0.08, 1.0],
        "flip": True,
        "brightness": 0.125,
        "saturation": 0.5,
        "contrast": 0.5,
    },
    "dropout": 0.5,
    "epochs": 100,
    "batch_size": 32,
    "optimizer": {"name": "sgd", "learning_rate": 0.045, "momentum": 0.9, "weight_decay": 1e-5},
    "schedule": {"name": "exponential", "rate": 0.94, "every_epochs": 2},
    "average_decay": 0.9999,
}
SCALES: Mapping[Scale, Settings] = {"tiny": TINY, "full": FULL}


class Arm(NamedTuple):
    """One of the things compared: what it changes of the common settings."""

    name: str  # also of its folder: letters, digits and dashes
    settings: Settings = NOTHING
    tiny: Settings = NOTHING  # only at this scale
    full: Settings = NOTHING


class Equal(NamedTuple):
    """What the arms have as much of as one of them, which is counted before they are trained."""

    what: Literal["parameters", "macs"]
    to: str  # an arm
    tiny: float = 0.01  # by which share of that the others may differ
    full: float = 0.01

    @property
    def words(self) -> str:
        """What it is called."""
        return "parameters" if self.what == "parameters" else "multiply-adds"

    def within(self, scale: Scale) -> float:
        """The share by which the arms may differ at this scale."""
        return self.tiny if scale == "tiny" else self.full


@dataclass(frozen=True)
class Study:
    """Arms, each trained with the same seeds, and what a paper claims of them."""

    name: str
    title: str
    sentence: str
    """The claim in words."""
    source: str
    """Where a paper makes it."""
    claim: Claim
    arms: tuple[Arm, ...]
    photos: Photos = "photos"
    """What it is trained on: photos as they are, or mosaics of four (several labels)."""
    metric: Literal["top1", "map_at_k"] = "top1"
    """The score of a cell, on the test photos; the larger the better."""
    tiny: Settings = field(default_factory=lambda: NOTHING)
    """What all arms change of the settings of this scale."""
    full: Settings = field(default_factory=lambda: NOTHING)
    """The same for the other one."""
    equal: Equal | None = None
    """What all arms have as much of, where the claim says so.

    An arm with the option `parameters` gets the number that the arm `to` has with the classes of
    the photos and the person's settings; that in the study is for 10 classes, at full scale 1000.
    """
    no_full: str | None = None
    """Why it has no full scale, where it has none."""
    remarks: tuple[str, ...] = ()
    """What a reader must know to judge the result."""

    def __post_init__(self) -> None:
        """A claim about arms that are not there is a mistake in the study."""
        names = [arm.name for arm in self.arms]
        spoken_of = {name for pair in self.claim.pairs() for name in pair}
        unknown = spoken_of.union([self.equal.to] if self.equal else []) - set(names)
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"{self.name}: no arm is called {unknown or 'twice the same'}")

    def config(
        self, arm: Arm, seed: int, scale: Scale, settings: Settings = NOTHING
    ) -> TrainConfig:
        """The complete configuration of one cell; `settings` come last.

        A width is not for an arm that has its number of parameters, from which its width follows.

        Raises:
            UserError: the study holds a setting that the configuration does not have.
        """
        tiny = scale == "tiny"
        common, own = (self.tiny, arm.tiny) if tiny else (self.full, arm.full)
        values: dict[str, Any] = {"recipe": f"study {self.name} {scale}", **SCALES[scale]}
        for changes in (common, arm.settings, own):
            values = override(values, dict(changes))
        fitted = "parameters" in values.get("model_options", {})
        asked = {k: v for k, v in settings.items() if not (fitted and k == WIDTH)}
        values = override(values, {**asked, "seed": seed})
        return parse(values, f"study {self.name}, arm {arm.name}")

    def refuse(self, scale: Scale, settings: Settings) -> None:
        """UserError for a scale that there is not, or for a setting that is the study's own.

        That is what the arms differ in, since with it they were not what they say, and the seed.
        """
        if scale == "full" and self.no_full is not None:
            raise UserError(f"{self.name} has no full scale, {self.no_full}: --scale tiny")
        own = self.differences(scale)
        if self.equal is not None and self.equal.what == "parameters":
            own.discard(WIDTH)  # where all have one number of parameters, a width may change it
        for key in settings:
            if key == "seed":
                raise UserError(
                    "--set seed: a study takes the seeds 0, 1, 2 …; --seeds says how many"
                )
            if clash := min((one for one in own if _overlap(key, one)), default=None):
                raise UserError(
                    f"--set {key}: the networks of the study {self.name} differ in {clash}, so it "
                    "cannot be set for all of them"
                )

    def differences(self, scale: Scale) -> set[str]:
        """The dotted keys of the configuration in which the arms differ at this scale."""
        first, *others = (
            _flat(self.config(arm, 0, scale).model_dump(mode="json")) for arm in self.arms
        )
        keys = set(first).union(*others)
        return {
            key
            for key in keys
            if any(other.get(key, _ABSENT) != first.get(key, _ABSENT) for other in others)
        }


def _flat(values: Settings, above: str = "") -> dict[str, Any]:
    """The values under dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{above}{name}."))
        else:
            found[f"{above}{name}"] = value
    return found


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one is a part of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
