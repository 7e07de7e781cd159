"""What a finished training hands over to whoever reports on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xception.data.audit import Audit
from xception.data.folders import PhotoSet
from xception.data.pair_audit import PairAudit
from xception.data.pairs import PairSet
from xception.data.splits import Split
from xception.evaluation.evaluate import Outcomes
from xception.evaluation.segmentation import PixelCounts
from xception.models.classifier import Classifier
from xception.models.network import Network
from xception.models.segmenter import Segmenter
from xception.training.config import TrainConfig
from xception.weights.card import Card


@dataclass(frozen=True)
class Trained:
    """What every training hands over."""

    folder: Path
    model: Network  # the best, in evaluation mode
    card: Card
    config: TrainConfig
    history: list[dict[str, Any]]
    split: Split  # that `metrics` are of: test where there is one
    metrics: dict[str, Any]
    leads: bool  # whether this process is the one to write


@dataclass(frozen=True)
class TrainedClassifier(Trained):
    """… on photos with classes."""

    model: Classifier
    photos: PhotoSet  # without the unreadable ones
    audit: Audit
    outcomes: Outcomes  # on `split`


@dataclass(frozen=True)
class TrainedSegmenter(Trained):
    """… on photos with masks."""

    model: Segmenter
    pairs: PairSet  # without those that cannot be used
    audit: PairAudit
    counts: PixelCounts  # on `split`


AnyTrained = TrainedClassifier | TrainedSegmenter
