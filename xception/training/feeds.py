"""What a training step eats, and how its result is judged.

Photos for a whole network are here; features for a head, and photos with masks, beside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xception.data.folders import PhotoSet
from xception.data.loader import TrainingStream, evaluation_batches, steps_per_epoch
from xception.data.splits import Split
from xception.data.transforms import mix
from xception.evaluation.evaluate import Outcomes, combine, outcomes
from xception.training.config import TrainConfig
from xception.training.distributed import World, gather
from xception.training.randomness import generator


@dataclass
class Validation:
    """What an epoch's validation found."""

    score: float  # the larger the better
    loss: float  # of two equal scores, that with the smaller loss is better
    figures: dict[str, float]  # columns of `metrics.csv`


@runtime_checkable
class Feed(Protocol):
    """Inputs and targets for steps; validation for a network fed with them."""

    steps_per_epoch: int

    def training(self, first_step: int, last_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process' part of the steps from `first_step` up to, not including, `last_step`."""
        ...

    def validation(self, module: nn.Module) -> Validation | None:
        """Every validation photo once, on every process; None when there is none."""
        ...


@dataclass
class PhotoFeed:
    """Photos, decoded and augmented by the loader, normalised and mixed here."""

    photos: PhotoSet
    config: TrainConfig
    world: World
    workers: int

    def __post_init__(self) -> None:
        self.steps_per_epoch = steps_per_epoch(len(self.photos.of("train")), self.config.batch_size)

    def training(
        self, first_step: int, last_step: int
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]]:
        """Normalised photos, channels last, and their targets."""
        config = self.config
        stream = TrainingStream(
            self.photos,
            preprocess=config.preprocess,
            augment=config.augment,
            batch_size=config.batch_size,
            seed=config.seed,
            first_step=first_step,
            last_step=last_step,
            workers=self.workers,
            rank=self.world.rank,
            world=self.world.size,
            sampler=config.sampler,
            sizes=config.sizes,
            pin_memory=self.world.device.type == "cuda",
        )
        for step, batch in enumerate(stream, start=first_step):
            pixels = batch.pixels.to(self.world.device, non_blocking=True)
            targets = batch.targets.to(self.world.device, non_blocking=True)
            images = config.preprocess.normalize(pixels)
            probabilities = one_hot(targets, len(self.photos.classes))
            yield mix(images, probabilities, config.augment, generator(config.seed, step))

    def validation(self, module: nn.Module) -> Validation | None:
        """See `Feed`."""
        found = evaluate_photos(
            module, self.photos, "validation", self.config, self.world, self.workers
        )
        return None if found is None else judge_outcomes(found, self.photos)


def judge_outcomes(outcomes: Outcomes, photos: PhotoSet) -> Validation:
    """The figures of an epoch's validation, and the score that decides which epoch is best."""
    if photos.multilabel:
        metrics = outcomes.measure(photos.classes, "multilabel")
        score, name = metrics["map"], "val_map"
    else:
        metrics = outcomes.measure(photos.classes, "classification")
        score, name = metrics["top1"], "val_top1"
    loss = metrics["log_loss"]
    return Validation(score, loss, {"val_loss": loss, name: score})


def one_hot(targets: Tensor, classes: int) -> Float[Tensor, "b k"]:
    """Class numbers (b) or several-hot rows (b k) as float rows."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets.float()


def evaluate_photos(
    module: nn.Module,
    photos: PhotoSet,
    split: Split,
    config: TrainConfig,
    world: World,
    workers: int,
) -> Outcomes | None:
    """The outcomes of a split, each photo counted once however many processes share the work."""
    if not photos.of(split):
        return None
    batches = evaluation_batches(
        photos,
        split,
        preprocess=config.preprocess,
        batch_size=evaluation_batch_size(config, world),
        workers=workers,
        rank=world.rank,
        world=world.size,
    )
    task = "multilabel" if photos.multilabel else "classification"
    mine = outcomes(module, batches, config.preprocess, device=world.device, task=task)
    return combine(gather(world, mine))


def evaluation_batch_size(config: TrainConfig, world: World) -> int:
    """Photos a process evaluates at once: what it also trains on at once, within reason."""
    return max(1, min(256, config.batch_size // (world.size * config.accumulate)))
