"""What a training step eats: photos for the whole network, or kept features for its head."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xception.data.folders import PhotoSet
from xception.data.loader import Batch, TrainingStream, evaluation_batches, steps_per_epoch
from xception.data.transforms import mix
from xception.evaluation.evaluate import Outcomes, combine, evaluating, outcomes
from xception.training.config import TrainConfig
from xception.training.distributed import World, gather
from xception.training.randomness import generator


@runtime_checkable
class Feed(Protocol):
    """Inputs and target probabilities for steps; validation for a network fed with them."""

    steps_per_epoch: int

    def training(
        self, first_step: int, last_step: int
    ) -> Iterator[tuple[Tensor, Float[Tensor, "b k"]]]:
        """This process' part of the steps from `first_step` up to, not including, `last_step`."""
        ...

    def validation(self, module: nn.Module) -> Outcomes | None:
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
            pin_memory=self.world.device.type == "cuda",
        )
        for step, batch in enumerate(stream, start=first_step):
            pixels = batch.pixels.to(self.world.device, non_blocking=True)
            targets = batch.targets.to(self.world.device, non_blocking=True)
            images = config.preprocess.normalize(pixels)
            probabilities = one_hot(targets, len(self.photos.classes))
            yield mix(images, probabilities, config.augment, generator(config.seed, step))

    def validation(self, module: nn.Module) -> Outcomes | None:
        """See `Feed`."""
        return evaluate_photos(
            module, self.photos, "validation", self.config, self.world, self.workers
        )


def one_hot(targets: Tensor, classes: int) -> Float[Tensor, "b k"]:
    """Class numbers (b) or several-hot rows (b k) as float rows."""
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets.float()


def evaluate_photos(
    module: nn.Module,
    photos: PhotoSet,
    split: str,
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


class FeatureFeed:
    """Pooled features of a frozen backbone, computed once and kept in the run folder.

    Of every training photo two are kept, as it is and mirrored; each epoch takes one of them.
    """

    def __init__(
        self,
        model: nn.Module,
        photos: PhotoSet,
        config: TrainConfig,
        world: World,
        *,
        folder: Path,
        key: str,
        workers: int,
    ):
        self.config, self.world = config, world
        self.multilabel, self.classes = photos.multilabel, len(photos.classes)
        if world.leads and not _kept(folder, key):
            _compute(model, photos, config, world.device, folder, key, workers)
        gather(world, None)  # the others wait for the leader's files
        self.features = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        self.steps_per_epoch = steps_per_epoch(
            len(self.features["train_targets"]), config.batch_size
        )

    def training(
        self, first_step: int, last_step: int
    ) -> Iterator[tuple[Float[Tensor, "b f"], Float[Tensor, "b k"]]]:
        """Features and their targets."""
        count = len(self.features["train_targets"])
        size = min(self.config.batch_size, count)
        share = size // self.world.size
        for step in range(first_step, last_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            rng = generator(self.config.seed, epoch)
            order, mirrored = rng.permutation(count), rng.random(count) < 0.5
            first = place * size + self.world.rank * share
            chosen = np.sort(order[first : first + share])
            inputs = np.where(
                mirrored[chosen, None],
                self.features["train_mirrored"][chosen],
                self.features["train"][chosen],
            )
            targets = torch.from_numpy(self.features["train_targets"][chosen].copy())
            yield (
                torch.from_numpy(inputs).to(self.world.device),
                one_hot(targets, self.classes).to(self.world.device),
            )

    @torch.inference_mode()
    def validation(self, module: nn.Module) -> Outcomes | None:
        """See `Feed`."""
        targets = np.array(self.features["validation_targets"])
        if not len(targets):
            return None
        features = torch.from_numpy(np.array(self.features["validation"]))
        with evaluating(module):
            logits = module(features.to(self.world.device)).float()
        probabilities = logits.sigmoid() if self.multilabel else logits.softmax(1)
        return Outcomes(
            probabilities=probabilities.cpu().numpy(),
            targets=targets,
            positions=np.arange(len(targets)),
        )


_ARRAYS = ("train", "train_mirrored", "train_targets", "validation", "validation_targets")


def _kept(folder: Path, key: str) -> bool:
    stamp = folder / "key.json"
    return stamp.is_file() and json.loads(stamp.read_text()) == key


def _compute(
    model: nn.Module,
    photos: PhotoSet,
    config: TrainConfig,
    device: torch.device,
    folder: Path,
    key: str,
    workers: int,
) -> None:
    """Write the arrays, and last the key that says they are complete."""
    folder.mkdir(exist_ok=True)
    (folder / "key.json").unlink(missing_ok=True)
    model.to(device=device, memory_format=torch.channels_last).eval()
    for split in ("train", "validation"):
        plain, mirrored, targets = [], [], []
        batches = (
            evaluation_batches(
                photos, split, preprocess=config.preprocess, batch_size=32, workers=workers
            )
            if photos.of(split)
            else []
        )
        for batch in batches:
            plain.append(_embed(model, batch, config, device, mirror=False))
            targets.append(batch.targets.numpy())
            if split == "train":
                mirrored.append(_embed(model, batch, config, device, mirror=True))
        width = int(model.num_features)  # pyright: ignore[reportArgumentType]
        np.save(folder / f"{split}.npy", np.concatenate([*plain, np.empty((0, width), "f4")]))
        if split == "train":
            np.save(folder / "train_mirrored.npy", np.concatenate(mirrored))
        np.save(folder / f"{split}_targets.npy", np.concatenate(targets) if targets else [])
    (folder / "key.json").write_text(json.dumps(key))


@torch.inference_mode()
def _embed(
    model: nn.Module, batch: Batch, config: TrainConfig, device: torch.device, *, mirror: bool
) -> Float[np.ndarray, "b f"]:
    images = config.preprocess.normalize(batch.pixels.to(device))
    return model.embed(images.flip(3) if mirror else images).cpu().numpy()  # pyright: ignore[reportCallIssue]
