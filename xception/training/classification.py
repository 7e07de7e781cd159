"""Photos with their classes, checked: what a classifier learns from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from xception.data.audit import Audit, audit
from xception.data.folders import PhotoSet, open_photos
from xception.data.splits import Split
from xception.errors import UserError
from xception.models.classifier import as_classifier
from xception.models.network import Network
from xception.training.config import TrainConfig
from xception.training.distributed import place
from xception.training.features import FeatureFeed
from xception.training.feeds import Feed, PhotoFeed, evaluate_photos
from xception.training.losses import class_weights
from xception.training.objectives import PhotoLabels
from xception.training.progress import Progress
from xception.training.subject import Workplace
from xception.training.trained import TrainedClassifier
from xception.weights.model_file import load_classifier


@dataclass(frozen=True)
class Classification:
    """One class or several for each photo; see `subject.Subject`."""

    photos: PhotoSet  # without the unreadable ones
    audit: Audit

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the photos."""
        return self.photos.classes

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """None."""
        return ()

    @property
    def task(self) -> Literal["classification", "multilabel"]:
        """Whether a photo may have several."""
        return "multilabel" if self.photos.multilabel else "classification"

    @property
    def contents(self) -> list[Any]:
        """Names, labels, splits, and a digest of the photos themselves."""
        photos = [(p.name, p.labels, p.split) for p in self.photos.photos]
        return [self.classes, photos, self.audit.digest]

    def expect(self, network: Network, name: str) -> None:
        """A classifier."""
        as_classifier(network, name)

    def lesson(self, model: Network, at: Workplace) -> tuple[nn.Module, Feed]:
        """The whole network and photos, or the head of a frozen one and stored features."""
        config = at.config
        if config.freeze == "none":
            return model, PhotoFeed(self.photos, config, at.world, at.workers)
        feed = FeatureFeed(
            as_classifier(model, config.model),
            self.photos,
            config,
            at.world,
            folder=at.folder / "features",
            key=at.fingerprint,
            workers=at.workers,
        )
        return model.head, feed

    def objective(self, config: TrainConfig, device: torch.device) -> PhotoLabels:
        """Cross-entropy over classes."""
        counts = [0] * len(self.classes)
        for photo in self.photos.of("train"):
            for label in photo.labels:
                counts[label] += 1
        weights = class_weights(counts, config.class_weights)
        return PhotoLabels(
            multilabel=self.photos.multilabel,
            weights=None if weights is None else weights.to(device),
            smoothing=config.label_smoothing,
        )

    def judge(self, path: Path, at: Workplace, history: list[dict[str, Any]]) -> TrainedClassifier:
        """See `Subject`."""
        photos = self.photos
        model = place(load_classifier(path), at.world.device)
        split: Split = "test" if photos.of("test") else "validation"
        outcomes = evaluate_photos(model, photos, split, at.config, at.world, at.workers)
        if outcomes is None:
            raise RuntimeError(f"the split {split} is empty, although the photos were checked")
        return TrainedClassifier(
            folder=at.folder,
            model=model,
            card=model.card,
            photos=photos,
            audit=self.audit,
            config=at.config,
            history=history,
            split=split,
            outcomes=outcomes,
            metrics=outcomes.measure(photos.classes, self.task),
            leads=at.world.leads,
        )


def check_photos(path: str | Path, config: TrainConfig, progress: Progress) -> Classification:
    """The readable photos at a path, and what is wrong with the others.

    Raises:
        UserError: they cannot be learnt from.
    """
    photos = open_photos(path)
    findings = audit(photos, config.preprocess.size)
    if findings.refusal is not None:
        raise UserError(f"{findings.refusal} `xception check {path}` says more")
    if findings.unreadable:
        progress.note(f"skipping {len(findings.unreadable)} unreadable photos (see the report)")
    return Classification(photos.without(findings.unreadable), findings)
