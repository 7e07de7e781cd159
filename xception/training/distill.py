"""Fine-tuning after surgery: the original network teaches the changed one.

Both see the same photos, with the same random changes, and the student learns what the teacher
answers (Hinton et al. 2015, arXiv:1503.02531; that the teacher must see the very same picture is
Beyer et al. 2022, arXiv:2106.05237). At temperature 1 the loss against the teacher's probabilities
is the cross-entropy of every training here, only with other targets: so it is a feed, and the loop
is the loop.
"""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.data.folders import PhotoSet
from xception.data.preprocess import Preprocess
from xception.data.transforms import Augment
from xception.evaluation.evaluate import evaluating
from xception.training.assembly import loader_workers
from xception.training.config import Optimizer, Schedule, TrainConfig
from xception.training.distributed import World
from xception.training.feeds import Feed, PhotoFeed, Validation
from xception.training.interrupts import StopRequest
from xception.training.loop import Trainer
from xception.training.objectives import PhotoLabels
from xception.training.progress import Progress

TEACHER_SHARE = 0.9
"""Of the targets; the rest is the truth. Hinton et al. 2015 §2: most to the soft targets."""
# After surgery the weights are near where they should be: a small rate, down to nothing.
OPTIMIZER = Optimizer(
    name="sgd", learning_rate=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
)
SCHEDULE = Schedule(name="cosine", warmup_epochs=0.1)
# Even where a mirror image means something else, the teacher says what it means.
AUGMENT = Augment(flip=True, crop_scale=(0.5, 1.0))


class TaughtFeed:
    """A feed whose targets are, for the most part, what a teacher answers.

    Args:
        feed: gives the photos and the truth.
        teacher: answers with logits; on the device of the feed.
        share: of the teacher in the targets, 0 … 1.
        multilabel: whether its probabilities are sigmoids.
    """

    def __init__(self, feed: Feed, teacher: nn.Module, share: float, multilabel: bool):
        self.feed, self.teacher = feed, teacher
        self.share, self.multilabel = share, multilabel
        self.steps_per_epoch = feed.steps_per_epoch

    def training(
        self, first_step: int, last_step: int
    ) -> Iterator[tuple[Tensor, Float[Tensor, "b k"]]]:
        """See `Feed`."""
        for inputs, truth in self.feed.training(first_step, last_step):
            with torch.no_grad(), evaluating(self.teacher):
                logits = self.teacher(inputs).float()
            taught = logits.sigmoid() if self.multilabel else logits.softmax(1)
            yield inputs, self.share * taught + (1 - self.share) * truth

    def validation(self, module: nn.Module) -> Validation | None:
        """See `Feed`: against the truth."""
        return self.feed.validation(module)


def distillation_config(
    preprocess: Preprocess,
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | None = None,
    augment: Augment = AUGMENT,
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
) -> TrainConfig:
    """The configuration of a fine-tuning.

    The learning rate belongs to 128 photos a step, and falls with the square root of fewer.
    """
    rate = OPTIMIZER.learning_rate if learning_rate is None else learning_rate
    return TrainConfig(
        recipe="distillation",
        preprocess=preprocess,
        augment=augment,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OPTIMIZER.model_copy(
            update={"learning_rate": rate * min(1.0, (batch_size / 128) ** 0.5)}
        ),
        schedule=SCHEDULE,
        clip_norm=1.0,
        seed=seed,
        workers=workers,
        device=device,
    )


def distill(
    student: nn.Module,
    teacher: nn.Module,
    photos: PhotoSet,
    config: TrainConfig,
    folder: Path,
    world: World,
    stop: StopRequest,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Fine-tune `student` in place on the training photos.

    It ends with the weights of the epoch that was best on the validation photos, and of the last
    one where there are none. `folder` gets `metrics.csv`.

    Args:
        student: answers with logits; changed in place.
        teacher: answers with the same logits; only asked.
        photos: with training photos, and targets in the order of the logits.
        config: of `distillation_config`.
        folder: exists.
        world: this process; there is no sharing of the work.
        stop: of `stop_on_signals`.
        progress: is told how it fares.

    Returns:
        The rows of `metrics.csv`.

    Raises:
        Interrupted: a signal came; nothing is kept.
        UserError: the loss is no longer a number, or a file cannot be written.
    """
    feed = TaughtFeed(
        PhotoFeed(photos, config, world, loader_workers(config, world)),
        teacher.to(world.device),
        TEACHER_SHARE,
        photos.multilabel,
    )
    best: dict[str, Tensor] = {}

    def keep_best(candidate: nn.Module, figures: dict[str, float]) -> None:
        best.update(copy.deepcopy(candidate.state_dict()))

    settings = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    trainer = Trainer(
        student,
        feed,
        PhotoLabels(multilabel=photos.multilabel),
        config,
        world,
        keep_best=keep_best,
        folder=folder,
        fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
        progress=progress,
    )
    try:
        trainer.run(stop)
    finally:
        trainer.checkpoint.unlink(missing_ok=True)  # a surgery is not resumed: no one could read it
    student.load_state_dict(best)
    return trainer.at.history
