"""Photos with their masks, checked: what a segmentation network learns from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from xception.data.pair_audit import PairAudit, audit_pairs
from xception.data.pairs import PairSet, open_pairs
from xception.data.splits import SPLITS, Split
from xception.errors import UserError
from xception.models.network import Network
from xception.models.segmenter import Segmenter
from xception.training.config import TrainConfig
from xception.training.distributed import lead, place
from xception.training.feeds import Feed
from xception.training.losses import class_weights
from xception.training.objectives import PixelLabels
from xception.training.pair_feed import PairFeed, count_pixels, refuse_too_large
from xception.training.progress import Progress
from xception.training.subject import Workplace
from xception.training.trained import TrainedSegmenter
from xception.weights.model_file import load_model


@dataclass(frozen=True)
class Segmentation:
    """A class for each pixel; see `subject.Subject`."""

    pairs: PairSet  # without those that cannot be used
    audit: PairAudit

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the masks."""
        return self.pairs.classes

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Those of the masks."""
        return self.pairs.colours

    @property
    def task(self) -> Literal["segmentation"]:
        """As the card calls it."""
        return "segmentation"

    @property
    def contents(self) -> list[Any]:
        """Names, splits, and a digest of photos and masks themselves."""
        pairs = [(p.photo, p.mask, p.split) for p in self.pairs.pairs]
        return [self.classes, pairs, self.audit.digest]

    def expect(self, network: Network, name: str) -> None:
        """A segmenter."""
        as_segmenter(network, name)

    def lesson(self, model: Network, at: Workplace) -> tuple[nn.Module, Feed]:
        """The whole network; photos and masks. Raises UserError for photos too large to count."""
        network = as_segmenter(model, at.config.model)
        lead(at.world, lambda: refuse_too_large(network, self.pairs, at.config))
        return model, PairFeed(self.pairs, at.config, at.world, at.workers)

    def objective(self, config: TrainConfig, device: torch.device) -> PixelLabels:
        """Cross-entropy over pixels, or what the settings make of it."""
        pixels = self.audit.pixels["train"]
        weights = class_weights([pixels[name] for name in self.classes], config.class_weights)
        return PixelLabels(
            parts=config.pixel_loss,
            weights=None if weights is None else weights.to(device),
            smoothing=config.label_smoothing,
        )

    def judge(self, path: Path, at: Workplace, history: list[dict[str, Any]]) -> TrainedSegmenter:
        """See `Subject`."""
        pairs = self.pairs
        model = as_segmenter(place(load_model(path), at.world.device), str(path))
        split: Split = "test" if pairs.of("test") else "validation"
        counts = count_pixels(model, pairs, split, at.config, at.world, at.workers)
        if counts is None:
            raise RuntimeError(f"the split {split} is empty, although the photos were checked")
        return TrainedSegmenter(
            folder=at.folder,
            model=model,
            card=model.card,
            pairs=pairs,
            audit=self.audit,
            config=at.config,
            history=history,
            split=split,
            counts=counts,
            metrics=counts.figures(pairs.classes),
            leads=at.world.leads,
        )


def as_segmenter(model: Network, name: str) -> Segmenter:
    """`model`, known to answer for every pixel. Raises UserError if it does not."""
    if not isinstance(model, Segmenter):
        raise UserError(
            f"{name} classifies whole photos, and these have masks: deeplab_v3plus is for them, "
            f"e.g. --model deeplab_v3plus --set model_options.backbone={name}"
        )
    return model


def check_pairs(path: str | Path, config: TrainConfig, progress: Progress) -> Segmentation:
    """The photos with usable masks at a path, and what is wrong with the others.

    Raises:
        UserError: they cannot be learnt from.
    """
    masks = config.masks
    classes = Path(masks.classes) if isinstance(masks.classes, str) else masks.classes
    pairs = open_pairs(path, layout=masks.layout, classes=classes, ignore=masks.ignore)
    for note in pairs.notes:
        progress.note(note)
    findings = audit_pairs(pairs)
    if findings.refusal is not None:
        raise UserError(f"{findings.refusal} `xception check {path}` says more")
    if findings.unreadable:
        progress.note(f"skipping {len(findings.unreadable)} unusable pairs (see the report)")
    for split in SPLITS:
        if findings.counts.get(split) and not any(findings.pixels[split].values()):
            raise UserError(f"every pixel of the {split} masks is ignored: nothing can be learnt")
    return Segmentation(pairs.without(findings.unreadable), findings)
