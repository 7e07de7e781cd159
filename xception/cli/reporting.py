"""Brings together what a training or an evaluation left behind, and has the report written."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from xception._version import __version__
from xception.cost.count import count
from xception.data.folders import PhotoSet
from xception.data.loader import Batch, TrainingStream, evaluation_batches
from xception.data.splits import Split
from xception.evaluation.evaluate import Outcomes
from xception.evaluation.machine import environment
from xception.evaluation.pictures import Pictures, collect, samples
from xception.evaluation.report import Data, Epoch, Report, write_report
from xception.models.classifier import Classifier
from xception.training.trained import TrainedClassifier
from xception.weights.card import Card

SAMPLES = 24  # inputs of the network that the page shows


def report_training(trained: TrainedClassifier, command: str) -> Path:
    """Write the report of a training into its run folder; returns the page.

    Args:
        trained: what the training handed over.
        command: what repeats it.
    """
    config = trained.config
    first_batch = TrainingStream(
        trained.photos,
        preprocess=config.preprocess,
        augment=config.augment,
        batch_size=SAMPLES,
        seed=config.seed,
        first_step=0,
        last_step=1,
        workers=0,
    )
    rows = trained.history
    best = [row["epoch"] for row in rows if row["best"]]
    return _write(
        trained.folder,
        trained.model,
        trained.card,
        trained.photos,
        trained.outcomes,
        split=trained.split,
        metrics=trained.metrics,
        batches=first_batch,
        title=trained.folder.resolve().name,
        command=command,
        data=Data.of(trained.photos, trained.audit),
        history=[Epoch(**row) for row in each_epoch(rows, Epoch)],
        best_epoch=best[-1] if best else None,
        config=config.model_dump(mode="json"),
        timing={"training": rows[-1]["seconds"]} if rows else {},
    )


def report_evaluation(
    folder: Path,
    model: Classifier,
    photos: PhotoSet,
    outcomes: Outcomes,
    *,
    split: Split,
    named: str,
    metrics: dict[str, Any],
    skipped: dict[str, str],
    title: str,
    command: str,
) -> Path:
    """Write the report of an evaluation into a folder, which is made; returns the page.

    Args:
        model: as `load_model` gives it, with its card.
        photos: those that could be read, with the classes of the card in their order.
        split: which of them.
        named: what the page calls this split; "all" where it holds all photos of a folder.
        skipped: the others, and why.
        title: what the page is about.
        command: what repeats it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = evaluation_batches(
        photos, split, preprocess=model.card.preprocess, batch_size=SAMPLES, workers=0
    )
    members = photos.of(split)
    counts = dict.fromkeys(photos.classes, 0)
    for photo in members:
        for label in photo.labels:
            counts[photos.classes[label]] += 1
    return _write(
        folder,
        model,
        model.card,
        photos,
        outcomes,
        split=split,
        metrics=metrics,
        batches=batches,
        title=title,
        command=command,
        data=Data(counts={named: counts}, totals={named: len(members)}, skipped=skipped),
        config=model.card.training,
        named=named,
    )


def _write(
    folder: Path,
    model: Classifier,
    card: Card,
    photos: PhotoSet,
    outcomes: Outcomes,
    *,
    split: Split,
    metrics: dict[str, Any],
    batches: Iterable[Batch],
    title: str,
    command: str,
    data: Data,
    history: Sequence[Epoch] = (),
    best_epoch: int | None = None,
    config: dict[str, Any],
    timing: dict[str, float] | None = None,
    named: str | None = None,
) -> Path:
    device = next(model.parameters()).device
    cost = count(model, card.preprocess.size, card.preprocess.channels).total
    passes = 2 if card.preprocess.mirror else 1
    mistakes, explained = collect(
        model, photos, outcomes, card.preprocess, split=split, device=device
    )
    shown = samples(next(iter(batches)), photos.classes, SAMPLES)
    report = Report(
        title=title,
        created_by=f"xception {__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        task=card.image_task,
        classes=photos.classes,
        split=named or split,
        metrics=metrics,
        model=card.architecture.name,
        cost={"parameters": cost["parameters"], "macs": cost["macs"] * passes},
        data=data,
        history=tuple(history),
        best_epoch=best_epoch,
        mistakes=mistakes,
        config=config,
        environment=environment(device),
        timing=timing or {},
    )
    return write_report(folder, report, Pictures(samples=shown, mistakes=explained))


def each_epoch(
    history: Sequence[dict[str, Any]], record: type[BaseModel]
) -> Iterator[dict[str, Any]]:
    """What a training's history says of each epoch and a report's record has a field for.

    The seconds of the history count from the start of the training, those of a report from the
    start of the epoch.
    """
    before = 0.0
    for row in history:
        known = {name: value for name, value in row.items() if name in record.model_fields}
        yield known | {"seconds": row["seconds"] - before}
        before = row["seconds"]
