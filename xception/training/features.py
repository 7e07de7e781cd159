"""Features of a frozen backbone: computed once, kept in the run folder, fed to the head."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.data.folders import PhotoSet
from xception.data.loader import evaluation_batches, share_batch, steps_per_epoch
from xception.data.splits import Split
from xception.evaluation.evaluate import Outcomes, evaluating
from xception.models.classifier import Classifier
from xception.training.config import TrainConfig
from xception.training.distributed import World, gather, place
from xception.training.feeds import Validation, judge_outcomes, one_hot
from xception.training.randomness import generator
from xception.weights.atomic import write_whole


class FeatureFeed:
    """Pooled features of a frozen backbone, computed once and kept in the run folder.

    Of every training photo two are kept, as it is and mirrored; each epoch takes one of them.
    """

    def __init__(
        self,
        model: Classifier,
        photos: PhotoSet,
        config: TrainConfig,
        world: World,
        *,
        folder: Path,
        key: str,
        workers: int,
    ):
        self.config, self.world = config, world
        self.photos, self.classes = photos, len(photos.classes)
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
        batch, world = self.config.batch_size, self.world
        size, part = share_batch(batch, count, world.rank, world.size)
        for step in range(first_step, last_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            rng = generator(self.config.seed, epoch)
            order, mirrored = rng.permutation(count), rng.random(count) < 0.5
            chosen = np.sort(order[place * size :][part])
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
    def validation(self, module: nn.Module) -> Validation | None:
        """See `Feed`."""
        targets = np.array(self.features["validation_targets"])
        if not len(targets):
            return None
        features = torch.from_numpy(np.array(self.features["validation"]))
        with evaluating(module):
            logits = module(features.to(self.world.device)).float()
        probabilities = logits.sigmoid() if self.photos.multilabel else logits.softmax(1)
        found = Outcomes(
            probabilities=probabilities.cpu().numpy(),
            targets=targets,
            positions=np.arange(len(targets)),
        )
        return judge_outcomes(found, self.photos)


_ARRAYS = ("train", "train_mirrored", "train_targets", "validation", "validation_targets")


def _kept(folder: Path, key: str) -> bool:
    """Whether the arrays are there, whole, and of this key; damaged ones are made again."""
    try:
        for name in _ARRAYS:
            np.load(folder / f"{name}.npy", mmap_mode="r")
        return json.loads((folder / "key.json").read_text()) == key
    except (OSError, ValueError, EOFError):
        return False


def _compute(
    model: Classifier,
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
    place(model, device).eval()
    splits: tuple[Split, Split] = ("train", "validation")
    for split in splits:
        plain, mirrored, targets = [], [], []
        batches = (
            evaluation_batches(
                photos, split, preprocess=config.preprocess, batch_size=32, workers=workers
            )
            if photos.of(split)
            else []
        )
        for batch in batches:
            images = config.preprocess.normalize(batch.pixels.to(device))
            targets.append(batch.targets.numpy())
            if split == "train":
                plain.append(_numbers(model.embed, images))
                mirrored.append(_numbers(model.embed, images.flip(3)))
            else:
                plain.append(_numbers(partial(config.preprocess.answers, model.embed), images))
        width = model.num_features
        arrays = {split: np.concatenate([*plain, np.empty((0, width), "f4")])}
        if split == "train":
            arrays["train_mirrored"] = np.concatenate(mirrored)
        arrays[f"{split}_targets"] = np.concatenate(targets) if targets else np.array([])
        for name, array in arrays.items():
            write_whole(folder / f"{name}.npy", partial(np.save, arr=array))
    write_whole(folder / "key.json", lambda file: file.write(json.dumps(key).encode()))


@torch.inference_mode()
def _numbers(
    embed: Callable[[Tensor], Tensor], images: Float[Tensor, "b c h w"]
) -> Float[np.ndarray, "b f"]:
    return embed(images).cpu().numpy()
