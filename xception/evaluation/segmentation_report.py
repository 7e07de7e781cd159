"""The report of a network that segments: `report.json` is the truth, `report.html` its view."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from jaxtyping import UInt8
from markupsafe import Markup
from pydantic import Field

from xception.data.findings import Finding, Kind
from xception.data.masks import RGB
from xception.data.pair_audit import PairAudit
from xception.data.pair_loader import PairBatch, read_pair
from xception.data.pairs import PairSet
from xception.data.preprocess import Preprocess, to_array
from xception.data.splits import SPLITS, Split
from xception.evaluation import charts, words
from xception.evaluation.inference import index_map
from xception.evaluation.mask_pictures import errors, jpeg, overlay, shares, shown_at
from xception.evaluation.report import (
    ENVIRONMENT,
    LISTED_FILES,
    Measured,
    Record,
    TrainingEpoch,
    write_files,
)
from xception.evaluation.segmentation import PhotoScore, Segment

SHOWN_SIDE = 420  # pixels of the longer side of a picture in the page
EACH = 3  # best, median and worst photos that are shown
Standing = Literal["best", "median", "worst"]


class PixelEpoch(TrainingEpoch):
    """One row of the history of a segmenter."""

    val_miou: float | None = None
    """On the validation photos."""
    val_pixel_accuracy: float | None = None


class Masks(Record):
    """The photos and masks behind a run."""

    layout: str
    """What was found, in words."""
    notes: tuple[str, ...] = ()
    """What was assumed."""
    totals: dict[str, int]
    """Split -> pairs that could be used."""
    pixels: dict[str, dict[str, int]]
    """Split -> class -> pixels."""
    ignored: dict[str, int]
    """Split -> pixels that do not count."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Photo whose pair could not be used -> reason."""
    findings: tuple[Finding, ...] = ()
    """What the check noticed, with the first files of each."""

    @classmethod
    def of(cls, audit: PairAudit, *, leaving: Collection[Kind] = ()) -> "Masks":
        """What a report says about photos with masks and their audit, less some findings."""
        there: list[Split] = [split for split in SPLITS if audit.counts[split]]
        return cls(
            layout=audit.layout,
            notes=audit.notes,
            totals={str(split): audit.counts[split] for split in there},
            pixels={str(split): audit.pixels[split] for split in there},
            ignored={str(split): audit.ignored_pixels[split] for split in there},
            skipped=audit.unreadable,
            findings=tuple(
                finding.model_copy(update={"files": finding.files[:LISTED_FILES], "groups": ()})
                for finding in audit.findings
                if finding.kind not in leaving
            ),
        )


class Shown(Record):
    """A photo whose answer the page shows."""

    path: str
    standing: Standing
    """Where it stands among all photos by its own mean IoU."""
    miou: float
    accuracy: float
    """The share of its pixels that is right."""
    classes: tuple[str, ...]
    """What it shows, or was said to show, the most frequent first."""


class SegmentationReport(Measured):
    """All that the report says, without its photos; `metrics` are `PixelCounts.figures`."""

    task: Literal["segmentation"] = "segmentation"
    colours: tuple[RGB, ...]
    """Of the classes."""
    image: tuple[int, int]
    """Height and width of the image that the MACs in `cost` are of."""
    asked: str = ""
    """How the network was shown the photos, in words, where that is not plain."""
    data: Masks | None = None
    history: tuple[PixelEpoch, ...] = ()
    """Empty where nothing was trained."""
    shown: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class FourViews:
    """A photo, its truth, the answer, and where that is wrong; JPEG."""

    photo: bytes
    truth: bytes
    answer: bytes
    errors: bytes


@dataclass(frozen=True)
class MaskPictures:
    """The photos that go into the page of a report, and not into its JSON."""

    samples: tuple[bytes, ...] = ()
    """Inputs of the network under their masks; JPEG."""
    shown: tuple[FourViews, ...] = ()
    """In the order of `SegmentationReport.shown`; both or none."""


def write_segmentation_report(
    folder: Path, report: SegmentationReport, pictures: MaskPictures | None = None
) -> Path:
    """Write `report.json`, `report.html` and `plots/*.svg` into a folder that exists.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder cannot be written to.
        ValueError: pictures of other photos than the report's.
    """
    drawn = draw(report)
    return write_files(folder, report, render(report, pictures or MaskPictures(), drawn), drawn)


def draw(report: SegmentationReport) -> dict[str, str]:
    """The charts that the report has data for: name -> SVG file."""
    drawn = {}
    rows = report.history
    epochs = [row.epoch for row in rows]
    if rows:
        val = [row.val_loss for row in rows]
        drawn["loss"] = charts.losses(epochs, [row.train_loss for row in rows], val)
        scores = [row.val_miou for row in rows]
        if any(value is not None for value in scores):
            drawn["score"] = charts.score(epochs, scores, "Validation mean IoU")
        drawn["learning_rate"] = charts.learning_rate(epochs, [row.lr for row in rows])
    trimap = report.metrics["trimap"]
    if any(value is not None for value in trimap.values()):
        drawn["boundaries"] = charts.by_width([int(w) for w in trimap], list(trimap.values()))
    matrix = np.array(report.metrics["confusion"])
    drawn["confusion"] = charts.confusion(matrix, report.classes, as_shares=True)
    return drawn


def render(report: SegmentationReport, pictures: MaskPictures, drawn: Mapping[str, str]) -> str:
    """The page, with the charts of `draw`."""
    if pictures.shown and len(pictures.shown) != len(report.shown):
        raise ValueError(f"{len(pictures.shown)} pictures of {len(report.shown)}: all or none")
    views = pictures.shown or [None] * len(report.shown)
    return ENVIRONMENT.get_template("segmentation.html").render(
        report=report,
        metrics=report.metrics,
        words=words,
        samples=pictures.samples,
        shown=list(zip(report.shown, views, strict=True)),
        colours=dict(zip(report.classes, map(_css, report.colours), strict=True)),
        # Markup: our own SVG, in which matplotlib has escaped every text.
        charts={name: Markup(charts.themed(chart)) for name, chart in drawn.items()},
        most_cells=charts.MOST_CELLS,
        config=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True),
    )


def chosen(photos: Mapping[int, PhotoScore], each: int = EACH) -> list[tuple[Standing, int]]:
    """The positions of the best, the median and the worst photos by their own mean IoU."""
    scored = [(score.miou, place) for place, score in photos.items() if score.miou is not None]
    ranked = [place for _, place in sorted(scored, key=lambda item: (-item[0], item[1]))]
    each = min(each, len(ranked) // 3) or 1
    middle = max((len(ranked) - each) // 2, each)
    parts: list[tuple[Standing, list[int]]] = [
        ("best", ranked[:each]),
        ("median", ranked[middle : max(len(ranked) - each, 0)][:each]),
        ("worst", ranked[max(len(ranked) - each, each) :]),
    ]
    return [(standing, place) for standing, places in parts for place in places]


def collect(
    segment: Segment,
    pairs: PairSet,
    photos: Mapping[int, PhotoScore],
    preprocess: Preprocess,
    *,
    split: Split,
) -> tuple[tuple[Shown, ...], tuple[FourViews, ...]]:
    """The best, median and worst photos of a split, with what the network says of them.

    Args:
        segment: what was evaluated.
        pairs: the photos, with their masks numbered as the network's classes.
        photos: `PixelCounts.photos`.
        preprocess: gives the channels.
        split: that was evaluated.

    Raises:
        ImageError: a photo or a mask can no longer be read.
    """
    members, told, views = pairs.of(split), [], []
    for standing, place in chosen(photos):
        pair, score = members[place], photos[place]
        assert score.miou is not None
        assert score.accuracy is not None
        image, truth = read_pair(pairs, pair)
        pixels = torch.from_numpy(to_array(image, preprocess.channels))
        answer = index_map(segment(pixels), truth.shape)
        views.append(four_views(np.asarray(image), truth, answer, pairs))
        there = np.array(shares(truth, len(pairs.classes))) + shares(answer, len(pairs.classes))
        order = np.argsort(-there, kind="stable")
        told.append(
            Shown(
                path=pair.photo,
                standing=standing,
                miou=score.miou,
                accuracy=score.accuracy,
                classes=tuple(pairs.classes[i] for i in order if there[i]),
            )
        )
    return tuple(told), tuple(views)


def four_views(
    photo: UInt8[np.ndarray, "h w 3"],
    truth: UInt8[np.ndarray, "h w"],
    answer: UInt8[np.ndarray, "h w"],
    pairs: PairSet,
) -> FourViews:
    """What the page shows of a photo, at its size there."""
    colours, names = pairs.colours, pairs.classes
    pictures = (
        photo,
        overlay(photo, truth, colours, names, strength=0.8),
        overlay(photo, answer, colours, names, strength=0.8),
        errors(photo, truth, answer),
    )
    return FourViews(*(jpeg(shown_at(picture, SHOWN_SIDE)) for picture in pictures))


def pair_samples(batch: PairBatch, pairs: PairSet, limit: int = 12) -> tuple[bytes, ...]:
    """The first inputs of a batch as the network sees them, under the colours of their masks."""
    pixels = batch.pixels[:limit].numpy()
    photos = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    masks = batch.targets[:limit].numpy()
    return tuple(
        jpeg(shown_at(overlay(photo, mask, pairs.colours, pairs.classes, strength=0.45), 240))
        for photo, mask in zip(photos, masks, strict=True)
    )


def _css(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
