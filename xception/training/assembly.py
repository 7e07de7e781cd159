"""A configuration brought together with what is to be learnt: network, feed, loop, card."""

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch import nn

from xception._version import __version__
from xception.models.network import Network
from xception.models.zoo import create_model
from xception.training.config import TrainConfig
from xception.training.distributed import World
from xception.training.loop import Trainer
from xception.training.progress import Progress
from xception.training.randomness import seed_torch
from xception.training.subject import Subject, Workplace
from xception.training.trained import AnyTrained
from xception.weights.card import Architecture, Card
from xception.weights.convert import load_any
from xception.weights.model_file import MODEL_FILE, save_model, start_from

# Settings that change nothing of the result, so that a resumed run may have others.
FREE_SETTINGS = ("workers", "device", "checkpoint_minutes", "tensorboard")


class Assembly:
    """A configuration brought together with what is to be learnt.

    Args:
        subject: what is to be learnt.
        config: how.
        folder: of the run.
        world: the processes that share it.
        resumed: whether a checkpoint follows, which has all weights that are trained.
    """

    def __init__(
        self,
        subject: Subject,
        config: TrainConfig,
        folder: Path,
        world: World,
        *,
        resumed: bool = False,
    ):
        self.subject, self.config = subject, config
        seed_torch(config.seed)
        self.model = build_network(subject, config, resumed=resumed)
        self.at = Workplace(
            config=config,
            folder=folder,
            fingerprint=fingerprint(config, subject, self.model),
            world=world,
            workers=loader_workers(config, world),
        )

    @property
    def model_path(self) -> Path:
        """Where the best network is kept."""
        return self.at.folder / MODEL_FILE

    def trainer(self, progress: Progress) -> Trainer:
        """The loop over the whole network, or over the part of it that is trained."""
        module, feed = self.subject.lesson(self.model, self.at)

        def keep_best(candidate: nn.Module, figures: dict[str, float]) -> None:
            card = self.card({"validation": figures})
            save_model(self.model_path, self._whole(candidate), card)

        return Trainer(
            module,
            feed,
            self.subject.objective(self.config, self.at.world.device),
            self.config,
            self.at.world,
            keep_best=keep_best,
            folder=self.at.folder,
            fingerprint=self.at.fingerprint,
            progress=progress,
        )

    def judge(self, history: list[dict[str, Any]]) -> AnyTrained:
        """The best network, measured once."""
        return self.subject.judge(self.model_path, self.at, history)

    def _whole(self, trained: nn.Module) -> Network:
        """The network of which `trained` is all or the head."""
        if isinstance(trained, Network):
            return trained
        whole = copy.deepcopy(self.model)  # whose head is the one in training
        whole.head.load_state_dict(trained.state_dict())
        return whole

    def card(self, metrics: dict[str, Any]) -> Card:
        """What the model file says about itself."""
        return Card(
            architecture=Architecture(name=self.config.model, options=self.model.options),
            task=self.subject.task,
            classes=self.subject.classes,
            colours=self.subject.colours,
            preprocess=self.config.preprocess,
            training=self.config.model_dump(mode="json"),
            metrics=metrics,
            license=None,
            package_version=__version__,
        )


def build_network(subject: Subject, config: TrainConfig, *, resumed: bool = False) -> Network:
    """A network for the classes of the subject, fresh or started from `config.weights`.

    A training that is `resumed` needs the file of these weights for a frozen backbone only, which
    its checkpoint does not hold.

    Raises:
        UserError: it is of the wrong kind, an option is not right, or the weights do not fit.
    """
    model = create_model(
        config.model,
        **{
            **config.model_options,
            "num_classes": len(subject.classes),
            "in_channels": config.preprocess.channels,
            "dropout": config.dropout,
        },
    )
    subject.expect(model, config.model)
    if config.weights is not None and (config.freeze != "none" or not resumed):
        source = load_any(Path(config.weights))
        start_from(model, source, config.weights, classes=subject.classes)
    if config.batch_norm_momentum is not None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.batch_norm_momentum
    return model


def fingerprint(config: TrainConfig, subject: Subject, model: Network) -> str:
    """A digest of all that must not change between a run and its continuation.

    The weights of a frozen backbone are among that: no checkpoint holds them, and the file that
    they come from may have become another one.
    """
    settings = config.model_dump(mode="json")
    for free in FREE_SETTINGS:
        settings.pop(free)
    text = json.dumps([settings, subject.contents], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    if config.freeze == "backbone":
        for name, value in model.state_dict().items():
            if not name.startswith("head."):
                digest.update(name.encode())
                digest.update(value.contiguous().numpy())
    return digest.hexdigest()


def loader_workers(config: TrainConfig, world: World) -> int:
    """Loader processes: one beside a computing CPU, more where an accelerator computes."""
    if config.workers is not None:
        return config.workers
    if world.device.type == "cpu":
        return 1
    return max(1, min((os.cpu_count() or 1) // world.size, 16))
