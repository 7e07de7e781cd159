"""What is learnt: photos with their classes, or photos with their masks."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from xception.models.network import Network
from xception.training.config import TrainConfig
from xception.training.distributed import World
from xception.training.feeds import Feed
from xception.training.objectives import Objective
from xception.training.trained import AnyTrained

CardTask = Literal["classification", "multilabel", "segmentation"]


class Workplace(NamedTuple):
    """Where, and with which settings, a training takes place."""

    config: TrainConfig
    folder: Path  # of the run
    fingerprint: str  # of settings and photos
    world: World
    workers: int  # loader processes


@runtime_checkable
class Subject(Protocol):
    """Checked photos, and all that depends on what is to be learnt of them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What the logits stand for, in their order."""
        ...

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Of the classes in pictures of masks, or none."""
        ...

    @property
    def task(self) -> CardTask:
        """What the card of the model file says that it is for."""
        ...

    @property
    def contents(self) -> list[Any]:
        """What a continued run must find unchanged, in plain values."""
        ...

    def expect(self, network: Network, name: str) -> None:
        """UserError unless a network can learn this."""
        ...

    def lesson(self, model: Network, at: Workplace) -> tuple[nn.Module, Feed]:
        """The part of the model that is trained, and what it is fed with."""
        ...

    def objective(self, config: TrainConfig, device: torch.device) -> Objective:
        """What is minimised."""
        ...

    def judge(self, path: Path, at: Workplace, history: list[dict[str, Any]]) -> AnyTrained:
        """The model of a file, measured once on the test photos, or on validation without any."""
        ...
