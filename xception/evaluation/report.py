"""The report of a run: `report.json` is the truth, `report.html` the view of it.

The page is one file that needs nothing else: styles within, pictures as data, no script (its own
content policy forbids them, whatever a class or a photo is called).
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from xception.data.audit import Audit, Finding
from xception.data.folders import PhotoSet
from xception.data.splits import SPLITS
from xception.errors import UserError
from xception.evaluation import charts, words
from xception.evaluation.evaluate import Task
from xception.evaluation.pictures import Mistake, Pictures

LISTED_FILES = 20  # of a finding; the check itself lists them all


class Record(BaseModel):
    """What the parts of a report have in common: they do not change, and know their fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingEpoch(Record):
    """One row of a training's history, whatever is learnt."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the epoch, as it was optimised (with its augmentation and smoothing)."""
    lr: float
    """At the end of the epoch."""
    images_per_second: float
    seconds: float
    """That it took."""
    val_loss: float | None = None


class Epoch(TrainingEpoch):
    """One row of the history of a classifier."""

    val_top1: float | None = None
    """Accuracy on the validation photos (classification)."""
    val_map: float | None = None
    """Mean average precision on them (multi-label)."""


class Data(Record):
    """The photos behind a run."""

    counts: dict[str, dict[str, int]]
    """Split -> class -> photos that could be read; with several labels one counts for each."""
    totals: dict[str, int]
    """Split -> photos that could be read."""
    split_made: tuple[str, ...] = ()
    """The splits that were made because none was given."""
    skipped: dict[str, str] = {}
    """Photo that could not be read -> reason."""
    findings: tuple[Finding, ...] = ()
    """What the check noticed, with the first files of each; its message tells how many."""

    @classmethod
    def of(cls, photos: PhotoSet, audit: Audit) -> "Data":
        """What a report says about photos and their audit."""
        readable = photos.without(audit.unreadable)
        return cls(
            counts={split: counts for split, counts in audit.counts.items() if readable.of(split)},
            totals={split: len(found) for split in SPLITS if (found := readable.of(split))},
            split_made=photos.split_made,
            skipped=audit.unreadable,
            findings=tuple(
                finding.model_copy(update={"files": finding.files[:LISTED_FILES], "groups": ()})
                for finding in audit.findings
            ),
        )


class Measured(Record):
    """What every report of a measured network says."""

    title: str
    created_by: str
    """Program and version."""
    created: str | None = None
    """When, in ISO 8601; None where the same run shall give the same bytes."""
    command: str
    """What repeats it."""
    classes: tuple[str, ...]
    split: str
    """The split that was measured."""
    metrics: dict[str, Any]
    model: str
    """Its name in the zoo."""
    cost: dict[str, int]
    """`parameters`, `macs` (one multiply-add is 1), and whatever else was counted."""
    best_epoch: int | None = None
    """The epoch whose weights were kept, where one was chosen."""
    config: dict[str, Any] = {}
    """The complete configuration of the training."""
    environment: dict[str, str] = {}
    """Python, torch, system, processor, threads, device."""
    timing: dict[str, float] = {}
    """What took how long, in seconds."""


class Report(Measured):
    """All that a report of a classifier says, without its photos; `metrics` are those of
    `metrics.classification` or `metrics.multilabel`.
    """

    task: Task
    data: Data | None = None
    history: tuple[Epoch, ...] = ()
    """Empty where nothing was trained."""
    mistakes: tuple[Mistake, ...] = ()


def write_report(folder: Path, report: Report, pictures: Pictures | None = None) -> Path:
    """Writes `report.json`, `report.html` and `plots/*.svg` into a folder that exists.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder cannot be written to.
        ValueError: pictures of mistakes that the report does not have.
    """
    drawn = draw(report)
    return write_files(folder, report, render(report, pictures or Pictures(), drawn), drawn)


def write_files(folder: Path, report: BaseModel, page: str, drawn: Mapping[str, str]) -> Path:
    """Write `report.json`, `report.html` and `plots/*.svg`; returns the path of the page.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        (folder / "plots").mkdir(exist_ok=True)
        for name, chart in drawn.items():
            (folder / "plots" / f"{name}.svg").write_text(chart, encoding="utf-8")
        (folder / "report.json").write_text(report.model_dump_json(indent=2), encoding="utf-8")
        (folder / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror}") from error
    return folder / "report.html"


def draw(report: Report) -> dict[str, str]:
    """The charts that the report has data for: name -> SVG file."""
    drawn = {}
    epochs = [row.epoch for row in report.history]
    if epochs:
        train, val = zip(*((row.train_loss, row.val_loss) for row in report.history), strict=True)
        drawn["loss"] = charts.losses(epochs, train, val)
        single = report.task == "classification"
        scores = [row.val_top1 if single else row.val_map for row in report.history]
        if any(value is not None for value in scores):
            title = "Validation accuracy" if single else "Validation mean average precision"
            drawn["score"] = charts.score(epochs, scores, title)
        drawn["learning_rate"] = charts.learning_rate(epochs, [row.lr for row in report.history])
    if report.task == "classification":
        drawn["confusion"] = charts.confusion(np.array(report.metrics["confusion"]), report.classes)
        drawn["reliability"] = charts.reliability(report.metrics["reliability"])
    return drawn


def render(report: Report, pictures: Pictures, drawn: Mapping[str, str]) -> str:
    """The page, with the charts of `draw`."""
    if pictures.mistakes and len(pictures.mistakes) != len(report.mistakes):
        raise ValueError(
            f"{len(pictures.mistakes)} pictures of {len(report.mistakes)} mistakes: all or none"
        )
    shown = pictures.mistakes or [None] * len(report.mistakes)
    return ENVIRONMENT.get_template("report.html").render(
        report=report,
        metrics=report.metrics,
        words=words,
        samples=pictures.samples,
        mistakes=list(zip(report.mistakes, shown, strict=True)),
        # Markup: our own SVG, in which matplotlib has escaped every text.
        charts={name: Markup(charts.themed(chart)) for name, chart in drawn.items()},
        most_cells=charts.MOST_CELLS,
        config=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True),
    )


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()


# Of every page of this room: its templates, filters and style sheet.
ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters.update(
    percent=words.percent,
    count=words.count,
    magnitude=words.magnitude,
    duration=words.duration,
    photos=words.photos,
    data_uri=_data_uri,
)
