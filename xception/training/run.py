"""One training from photos to a run folder: the order of things, each done elsewhere."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xception._version import __version__
from xception.data.audit import Audit, audit
from xception.data.folders import PhotoSet, open_photos
from xception.errors import UserError
from xception.evaluation.evaluate import Outcomes
from xception.models.zoo import create_model
from xception.training.allocator import keep_freed_memory
from xception.training.config import TrainConfig, read_config, to_yaml
from xception.training.distributed import World, join_world, share
from xception.training.feeds import FeatureFeed, Feed, PhotoFeed, evaluate_photos
from xception.training.interrupts import stop_on_signals
from xception.training.loop import Trainer, Validation
from xception.training.losses import balanced_weights
from xception.training.progress import Progress, Silent
from xception.training.randomness import seed_torch
from xception.weights.atomic import write_whole
from xception.weights.card import Architecture, Card
from xception.weights.model_file import load_model, load_weights, save_model


@dataclass(frozen=True)
class Trained:
    """What a finished training hands over to whoever judges it."""

    folder: Path
    model: nn.Module  # the best, in evaluation mode
    card: Card
    photos: PhotoSet  # without the unreadable ones
    audit: Audit
    config: TrainConfig
    history: list[dict[str, Any]]
    split: str  # that `outcomes` are of: test where there is one
    outcomes: Outcomes
    metrics: dict[str, Any]
    leads: bool  # whether this process is the one to write


def train(
    photos_path: str | Path,
    config: TrainConfig | None,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train on a folder, CSV or zip of photos, and judge the best network on the test photos.

    Args:
        photos_path: see `xception.data.folders.open_photos`.
        config: complete; None together with `resume` takes the run's own.
        folder: the run folder; new or empty unless `resume`.
        resume: go on where `last.ckpt` stands.
        progress: told how it fares; None is silent.

    Raises:
        UserError: anything the photos, the settings or the machine make impossible.
        Interrupted: a signal came; the run can be resumed.
    """
    with stop_on_signals() as stop:
        if config is None:
            config = read_config(folder / "config.yaml")
        with join_world(config.device) as world:
            progress = progress if progress is not None and world.leads else Silent()
            if world.device.type == "cpu":
                keep_freed_memory()
            share(world, prepare_folder(folder, resume) if world.leads else None)
            photos, findings = (
                share(world, check_photos(photos_path, config, progress) if world.leads else None)
                or _unreachable()
            )
            if world.leads:
                write_whole(
                    folder / "config.yaml", lambda file: file.write(to_yaml(config).encode())
                )
            run = _Run(photos, config, folder, world)
            trainer = run.trainer(progress)
            if resume and (folder / "last.ckpt").exists():
                trainer.resume()
                progress.note(f"resumed after step {trainer.at.step}")
            trainer.run(stop)
            return run.judge(findings, trainer.at.history)


def _unreachable() -> Any:
    raise RuntimeError("the leading process shared nothing")


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the run folder, or refuse one in which something would be overwritten."""
    started = (folder / "config.yaml").exists()
    if resume and not started:
        raise UserError(f"nothing to resume: there is no run in {folder}")
    if started and not resume:
        raise UserError(f"{folder} already holds a run: --resume continues it, --out names another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from None
    if not resume and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: --out names another folder")


def check_photos(
    path: str | Path, config: TrainConfig, progress: Progress
) -> tuple[PhotoSet, Audit]:
    """The readable photos and what is wrong with the others."""
    photos = open_photos(path)
    findings = audit(photos, config.preprocess.size)
    if findings.refusal is not None:
        raise UserError(f"{findings.refusal}; `xception check {path}` says more")
    if findings.unreadable:
        progress.note(f"skipping {len(findings.unreadable)} unreadable photos (see the report)")
    return photos.without(findings.unreadable), findings


class _Run:
    """A configuration brought together with photos."""

    def __init__(self, photos: PhotoSet, config: TrainConfig, folder: Path, world: World):
        self.photos, self.config, self.folder, self.world = photos, config, folder, world
        self.task = "multilabel" if photos.multilabel else "classification"
        self.workers = loader_workers(config, world)
        seed_torch(config.seed)
        self.model = create_model(
            config.model,
            **{
                **config.model_options,
                "num_classes": len(photos.classes),
                "in_channels": config.preprocess.channels,
                "dropout": config.dropout,
            },
        )
        if config.weights is not None:
            load_weights(self.model, config.weights, classes=photos.classes)
        if config.batch_norm_momentum is not None:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = config.batch_norm_momentum

    def trainer(self, progress: Progress) -> Trainer:
        """The loop over the whole network, or over the head of a frozen one."""
        photos, config = self.photos, self.config
        whole: Callable[[nn.Module], nn.Module]
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
            module: nn.Module = self.model.head  # pyright: ignore[reportAssignmentType]
            whole = self._with_head
        else:
            feed = PhotoFeed(photos, config, self.world, self.workers)
            module = self.model
            whole = _itself

        def validate(candidate: nn.Module) -> Validation | None:
            return judge_validation(feed.validation(candidate), photos)

        def keep_best(candidate: nn.Module, figures: dict[str, float]) -> None:
            path = self.folder / "model.safetensors"
            save_model(path, whole(candidate), self.card({"validation": figures}))

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

    def _with_head(self, head: nn.Module) -> nn.Module:
        self.model.head = head
        return self.model

    def fingerprint(self) -> str:
        """A digest of all that must not change between a run and its continuation."""
        settings = self.config.model_dump(mode="json")
        for free in ("workers", "device", "checkpoint_minutes", "tensorboard"):
            settings.pop(free)
        photos = [(p.name, p.labels, p.split) for p in self.photos.photos]
        text = json.dumps([settings, self.photos.classes, photos], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def card(self, metrics: dict[str, Any]) -> Card:
        """What the model file says about itself."""
        return Card(
            architecture=Architecture(name=self.config.model, options=self.model.options),  # pyright: ignore[reportArgumentType]
            task=self.task,
            classes=self.photos.classes,
            preprocess=self.config.preprocess,
            training=self.config.model_dump(mode="json"),
            metrics=metrics,
            license=None,
            package_version=__version__,
        )

    def judge(self, findings: Audit, history: list[dict[str, Any]]) -> Trained:
        """Measure the best network once on the test photos, or on validation if there are none."""
        model = load_model(self.folder / "model.safetensors")
        model.to(device=self.world.device, memory_format=torch.channels_last)
        split = next(s for s in ("test", "validation", "train") if self.photos.of(s))
        outcomes = evaluate_photos(model, self.photos, split, self.config, self.world, self.workers)
        if outcomes is None:
            raise RuntimeError(f"the split {split} has photos but no outcomes")
        return Trained(
            folder=self.folder,
            model=model,
            card=model.card,  # pyright: ignore[reportArgumentType]
            photos=self.photos,
            audit=findings,
            config=self.config,
            history=history,
            split=split,
            outcomes=outcomes,
            metrics=outcomes.measure(self.photos.classes, self.task),
            leads=self.world.leads,
        )


def _itself(module: nn.Module) -> nn.Module:
    return module


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
