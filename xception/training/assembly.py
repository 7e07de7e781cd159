"""A configuration brought together with photos: network, feed, loop, card."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch import nn

from xception._version import __version__
from xception.data.folders import PhotoSet
from xception.evaluation.evaluate import Outcomes, Task
from xception.models.classifier import Classifier, as_classifier
from xception.models.zoo import create_model
from xception.training.config import TrainConfig
from xception.training.distributed import World
from xception.training.features import FeatureFeed
from xception.training.feeds import Feed, PhotoFeed
from xception.training.loop import Trainer, Validation
from xception.training.losses import balanced_weights
from xception.training.progress import Progress
from xception.training.randomness import seed_torch
from xception.weights.card import Architecture, Card
from xception.weights.convert import load_any
from xception.weights.model_file import save_model, start_from

# Settings that change nothing of the result, so that a resumed run may have others.
FREE_SETTINGS = ("workers", "device", "checkpoint_minutes", "tensorboard")


class Assembly:
    """A configuration brought together with photos."""

    def __init__(
        self, photos: PhotoSet, digest: str, config: TrainConfig, folder: Path, world: World
    ):
        self.photos, self.config, self.folder, self.world = photos, config, folder, world
        self.digest = digest  # of the contents of the photos
        self.task: Task = "multilabel" if photos.multilabel else "classification"
        self.workers = loader_workers(config, world)
        seed_torch(config.seed)
        network = create_model(
            config.model,
            **{
                **config.model_options,
                "num_classes": len(photos.classes),
                "in_channels": config.preprocess.channels,
                "dropout": config.dropout,
            },
        )
        self.model = as_classifier(network, config.model)
        if config.weights is not None:
            source = load_any(Path(config.weights))
            start_from(self.model, source, config.weights, classes=photos.classes)
        if config.batch_norm_momentum is not None:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = config.batch_norm_momentum

    def trainer(self, progress: Progress) -> Trainer:
        """The loop over the whole network, or over the head of a frozen one."""
        photos, config = self.photos, self.config
        if config.freeze == "backbone":
            feed: Feed = FeatureFeed(
                self.model,
                photos,
                config,
                self.world,
                folder=self.folder / "features",
                key=self.fingerprint(),
                workers=self.workers,
            )
            module: nn.Module = self.model.head
        else:
            feed = PhotoFeed(photos, config, self.world, self.workers)
            module = self.model

        def validate(candidate: nn.Module) -> Validation | None:
            return judge_validation(feed.validation(candidate), photos)

        def keep_best(candidate: nn.Module, figures: dict[str, float]) -> None:
            path = self.folder / "model.safetensors"
            save_model(path, self._whole(candidate), self.card({"validation": figures}))

        labels = [photo.labels for photo in photos.of("train")]
        weights = (
            balanced_weights(labels, len(photos.classes))
            if config.class_weights == "balanced"
            else None
        )
        return Trainer(
            module,
            feed,
            config,
            self.world,
            validate=validate,
            keep_best=keep_best,
            folder=self.folder,
            fingerprint=self.fingerprint(),
            multilabel=photos.multilabel,
            class_weights=weights,
            progress=progress,
        )

    def _whole(self, trained: nn.Module) -> Classifier:
        """The network of which `trained` is all or the head."""
        if isinstance(trained, Classifier):
            return trained
        self.model.head.load_state_dict(trained.state_dict())
        return self.model

    def fingerprint(self) -> str:
        """A digest of all that must not change between a run and its continuation."""
        settings = self.config.model_dump(mode="json")
        for free in FREE_SETTINGS:
            settings.pop(free)
        photos = [(p.name, p.labels, p.split) for p in self.photos.photos]
        text = json.dumps([settings, self.photos.classes, photos, self.digest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def card(self, metrics: dict[str, Any]) -> Card:
        """What the model file says about itself."""
        return Card(
            architecture=Architecture(name=self.config.model, options=self.model.options),
            task=self.task,
            classes=self.photos.classes,
            preprocess=self.config.preprocess,
            training=self.config.model_dump(mode="json"),
            metrics=metrics,
            license=None,
            package_version=__version__,
        )


def judge_validation(outcomes: Outcomes | None, photos: PhotoSet) -> Validation | None:
    """The figures of an epoch's validation, and the score that decides which epoch is best."""
    if outcomes is None:
        return None
    if photos.multilabel:
        metrics = outcomes.measure(photos.classes, "multilabel")
        figures = {"val_loss": metrics["log_loss"], "val_map": metrics["map"]}
        return Validation(metrics["map"], metrics["log_loss"], figures)
    metrics = outcomes.measure(photos.classes, "classification")
    figures = {"val_loss": metrics["log_loss"], "val_top1": metrics["top1"]}
    return Validation(metrics["top1"], metrics["log_loss"], figures)


def loader_workers(config: TrainConfig, world: World) -> int:
    """Loader processes: one beside a computing CPU, more where an accelerator computes."""
    if config.workers is not None:
        return config.workers
    if world.device.type == "cpu":
        return 1
    return max(1, min((os.cpu_count() or 1) // world.size, 16))
