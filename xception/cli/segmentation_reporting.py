"""Brings together what a segmentation left behind, and has its report written."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xception._version import __version__
from xception.cli.reporting import each_epoch, environment
from xception.cost.count import count
from xception.data.pair_loader import PairBatch, PairStream, evaluation_pairs
from xception.data.pairs import PairSet
from xception.data.splits import Split
from xception.deploy.engines import TorchEngine
from xception.deploy.segment import PhotoSegmenter
from xception.evaluation.segmentation import PhotoScore
from xception.evaluation.segmentation_report import (
    MaskPictures,
    Masks,
    PixelEpoch,
    SegmentationReport,
    collect,
    pair_samples,
    write_segmentation_report,
)
from xception.models.network import Network
from xception.models.surgery import operate
from xception.models.zoo import create_model
from xception.training.trained import TrainedSegmenter

SAMPLES = 12  # inputs of the network that the page shows


def report_segmentation(trained: TrainedSegmenter, command: str) -> Path:
    """Write the report of a training into its run folder; returns the page.

    Args:
        trained: what the training handed over.
        command: what repeats it.
    """
    config = trained.config
    members = trained.pairs.of("train")
    first_batch = PairStream(
        trained.pairs,
        preprocess=config.preprocess,
        augment=config.joint,
        batch_size=min(SAMPLES, len(members)),
        seed=config.seed,
        first_step=0,
        last_step=1,
        workers=0,
    )
    rows = trained.history
    best = [row["epoch"] for row in rows if row["best"]]
    device = next(trained.model.parameters()).device
    return _write(
        trained.folder,
        PhotoSegmenter(TorchEngine(trained.model, device)),
        trained.pairs,
        trained.counts.photos,
        split=trained.split,
        metrics=trained.metrics,
        batches=first_batch,
        title=trained.folder.resolve().name,
        command=command,
        data=Masks.of(trained.audit),
        history=[PixelEpoch(**row) for row in each_epoch(rows, PixelEpoch)],
        best_epoch=best[-1] if best else None,
        config=config.model_dump(mode="json"),
        timing={"training": rows[-1]["seconds"]} if rows else {},
    )


def report_measured_masks(
    folder: Path,
    segmenter: PhotoSegmenter,
    pairs: PairSet,
    photos: Mapping[int, PhotoScore],
    *,
    split: Split,
    named: str,
    metrics: dict[str, Any],
    data: Masks,
    asked: str,
    title: str,
    command: str,
) -> Path:
    """Write the report of an evaluation into a folder, which is made; returns the page.

    Args:
        segmenter: what was evaluated.
        pairs: those that could be used, their masks numbered as the model's classes.
        photos: `PixelCounts.photos`.
        split: which pairs.
        named: what the page calls this split; "all" where it holds all photos of a folder.
        metrics: `PixelCounts.figures`.
        data: what was measured on.
        asked: how the photos were shown to the network, in words.
        title: what the page is about.
        command: what repeats it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = evaluation_pairs(pairs, split, preprocess=segmenter.card.preprocess, workers=0)
    return _write(
        folder,
        segmenter,
        pairs,
        photos,
        split=split,
        metrics=metrics,
        batches=(batch for batch, _ in zip(batches, range(SAMPLES), strict=False)),
        title=title,
        command=command,
        data=data,
        asked=asked,
        config=segmenter.card.training,
        named=named,
    )


def _write(
    folder: Path,
    segmenter: PhotoSegmenter,
    pairs: PairSet,
    photos: Mapping[int, PhotoScore],
    *,
    split: Split,
    metrics: dict[str, Any],
    batches: Iterable[PairBatch],
    title: str,
    command: str,
    data: Masks,
    asked: str = "",
    history: Sequence[PixelEpoch] = (),
    best_epoch: int | None = None,
    config: dict[str, Any],
    timing: dict[str, float] | None = None,
    named: str | None = None,
) -> Path:
    card = segmenter.card
    side = card.preprocess.size
    cost = count(_unfolded(segmenter), side, card.preprocess.channels).total
    shown, views = collect(segmenter, pairs, photos, card.preprocess, split=split)
    samples = [one for batch in batches for one in pair_samples(batch, pairs, SAMPLES)]
    report = SegmentationReport(
        title=title,
        created_by=f"xception {__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        classes=card.classes,
        colours=pairs.colours,
        split=named or split,
        metrics=metrics,
        model=card.architecture.name,
        asked=asked,
        cost={"parameters": cost["parameters"], "macs": cost["macs"]},
        image=(side, side),
        data=data,
        history=tuple(history),
        best_epoch=best_epoch,
        shown=shown,
        config=config,
        environment=environment(segmenter.device),
        timing=timing or {},
    )
    return write_segmentation_report(
        folder, report, MaskPictures(samples=tuple(samples), shown=views)
    )


def _unfolded(segmenter: PhotoSegmenter) -> Network:
    """The network as its paper has it, without memory; the one that answers may be folded."""
    card = segmenter.card
    options = {**card.architecture.options, "output_stride": segmenter.whole.output_stride}
    with torch.device("meta"):
        network = create_model(card.architecture.name, **options)
        operate(network, card.surgery)
    return network
