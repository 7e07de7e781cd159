"""`xception evaluate` with a model that segments: photos with masks to figures.

`cli.evaluate` calls `evaluate_masks` where the model's card says segmentation.
"""

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from xception.cli.figures import print_pixel_metrics
from xception.cli.look import Look
from xception.cli.output import counted, print_json, say
from xception.cli.segmentation_reporting import report_measured_masks
from xception.data.kind import task_of
from xception.data.names import some
from xception.data.pair_audit import PairAudit, audit_pairs
from xception.data.pair_findings import OF_TRAINING
from xception.data.pair_loader import PairBatch, evaluation_pairs
from xception.data.pairs import Layout, PairSet, open_pairs
from xception.data.splits import SPLITS, Split
from xception.errors import UserError
from xception.evaluation.any_size import too_large
from xception.evaluation.segmentation import Piece, evaluate_pairs
from xception.evaluation.segmentation_report import Masks

NONE: Mapping[str, str] = MappingProxyType({})


def evaluate_masks(
    run: Path,
    photos: Path,
    *,
    look: Look,
    split: str | None,
    layout: Layout | None,
    classes: Path | None,
    ignore: tuple[int, ...],
    report_to: Path | None,
    workers: int,
    device: torch.device,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a model that segments on photos with masks, each at its own size.

    Args:
        run: of the model.
        photos: with masks of the classes of the model, by name.
        look: scales, mirror images, output stride.
        split: which photos; None is the test split, or all where none was given.
        layout: see `open_pairs`.
        classes: the same.
        ignore: the same.
        report_to: the folder for a report.
        workers: processes that read photos.
        device: where to compute.
        as_json: one JSON document in the place of tables.
        quiet: no progress and no remarks.

    Raises:
        UserError: model and photos do not go together, or one of them cannot be used.
    """
    segmenter = look.open(run, device)
    overridden = layout or classes or ignore
    if not overridden and task_of(photos) != "segmentation":
        raise UserError(f"{run} segments photos, but {photos} has none with masks beside them")
    opened = open_pairs(photos, layout=layout, classes=classes, ignore=ignore, for_training=False)
    for note in opened.notes:
        say(note, quiet=quiet)
    pairs, part, named = choose_pairs(opened.like(segmenter.classes), split, photos, quiet)
    refused = too_large(segmenter, pairs.store, [pair.photo for pair in pairs.pairs])
    pairs, found = usable_pairs(pairs, photos, quiet, refused)
    batches = evaluation_pairs(pairs, part, preprocess=segmenter.card.preprocess, workers=workers)
    banded: list[bool] = []

    def segment(pixels: Tensor) -> Iterable[Piece]:
        banded.append(segmenter.in_bands(pixels.shape[0], pixels.shape[1]))
        return segmenter(pixels)

    counts = evaluate_pairs(
        segment, _with_progress(batches, len(pairs.pairs), quiet), num_classes=len(pairs.classes)
    )
    if any(banded):
        say(
            f"{counted(sum(banded), 'large photo')} computed in overlapping bands of rows; "
            "the answers are those of whole photos",
            quiet=quiet,
        )
    metrics = counts.figures(pairs.classes)
    if report_to is not None:
        page = report_measured_masks(
            report_to,
            segmenter,
            pairs,
            counts.photos,
            split=part,
            named=named,
            metrics=metrics,
            data=Masks.of(found, leaving=OF_TRAINING),
            asked=look.words(),
            title=f"{run.resolve().name} on {photos.resolve().name}",
            command=shlex.join(["xception", *sys.argv[1:]]),
        )
        say(f"report: {page}", quiet=quiet)
    if as_json:
        print_json({**metrics, "split": named, "skipped": found.unreadable})
    else:
        print_pixel_metrics(metrics, named)


def choose_pairs(
    pairs: PairSet, split: str | None, path: Path, quiet: bool
) -> tuple[PairSet, Split, str]:
    """The pairs of a split alone, the split that they have there, and what was asked for.

    Without a split it is the test photos if somebody chose them, else all; all are one test split.

    Raises:
        UserError: there is none.
    """
    if split is None:
        split = "all" if "test" in pairs.split_made else "test"
        if split == "all":
            say(
                f"no test split given: all {counted(len(pairs.pairs), 'photo')} are measured; "
                "--split test takes the part that a training on this same folder would have held "
                "out",
                quiet=quiet,
            )
    if split == "all":
        every = tuple(replace(pair, split="test") for pair in pairs.pairs)
        return replace(pairs, pairs=every), "test", split
    part: Split = next(known for known in SPLITS if known == split)
    members = pairs.of(part)
    if not members:
        there = [*(known for known in SPLITS if pairs.of(known)), "all"]
        raise UserError(f"{path}: no {split} photos there; --split {' or '.join(there)}")
    return replace(pairs, pairs=members), part, split


def usable_pairs(
    pairs: PairSet, path: Path, quiet: bool, refused: Mapping[str, str] = NONE
) -> tuple[PairSet, PairAudit]:
    """The pairs that can be measured, and what was found; the others are said and `unreadable`.

    Args:
        pairs: all of them.
        path: where they are, for the errors.
        quiet: say nothing of the others.
        refused: photos that are not to be looked at, each with the reason.

    Raises:
        UserError: masks hold unknown values, or there is no such pair.
    """
    found = audit_pairs(pairs.without(refused))
    unknown = [one.message for one in found.findings if one.kind == "unknown_values"]
    if unknown:
        raise UserError(f"{unknown[0]} `xception check {path}` says more")
    unreadable = {**found.unreadable, **refused}
    found = found.model_copy(update={"photos": len(pairs.pairs), "unreadable": unreadable})
    usable = pairs.without(unreadable)
    too_long = [f"{some(list(refused))}: {reason}" for reason in list(refused.values())[:1]]
    if not usable.pairs:
        reason = too_long[0] if too_long else "see `xception check`"
        raise UserError(f"{path}: not one photo with its mask can be used; {reason}")
    for reason in too_long:
        say(reason, quiet=quiet)
    if unreadable:
        say(f"skipping {counted(len(unreadable), 'unusable pair')}", quiet=quiet)
    return usable, found


def _with_progress(batches: Iterator[PairBatch], total: int, quiet: bool) -> Iterator[PairBatch]:
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    yield from track(
        batches, "measuring", total=total, console=console, transient=True, disable=hidden
    )
