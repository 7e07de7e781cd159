"""`xception evaluate`: a trained model measured on photos."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import click
from pydantic import Field, TypeAdapter, ValidationError

from xception.cli import check_masks, options
from xception.cli.computing import device_for
from xception.cli.evaluate_masks import evaluate_masks
from xception.cli.figures import print_metrics
from xception.cli.look import Look, look_options, refuse_masks, segments
from xception.cli.output import counted, print_json, say
from xception.cli.reporting import report_evaluation
from xception.data.folders import Photo, PhotoSet, open_photos
from xception.data.loader import evaluation_batches
from xception.data.names import some
from xception.data.pairs import Layout
from xception.data.scan import scan
from xception.data.splits import SPLITS, Split
from xception.deploy.runtime import MODEL_FILE, Predictor
from xception.errors import UserError
from xception.evaluation.evaluate import outcomes
from xception.training.config import read_yaml
from xception.weights.card import Card

CONFIG_FILE = "config.yaml"
WEIGHTS = TypeAdapter(dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]])


@click.command("evaluate")
@click.argument("run", type=options.FilePath())
@click.argument("photos", type=options.FilePath())
@click.option(
    "--split",
    type=options.SplitName(),
    help="Which photos; by default those of their own test split, all where there are no splits.",
)
@click.option(
    "--report",
    "report_to",
    type=options.FilePath(file_okay=False),
    metavar="FOLDER",
    help="Write report.html and report.json.",
)
@click.option(
    "--class-weights",
    type=options.FilePath(),
    metavar="FILE",
    help="YAML or JSON, class: weight; for MAP@k of several labels.",
)
@look_options
@check_masks.mask_options
@options.batch_size
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=options.WORKERS,
    metavar="N",
    help="Processes that read photos.",
)
@options.device
@options.as_json
@options.quiet
def command(
    run: Path,
    photos: Path,
    split: str | None,
    report_to: Path | None,
    class_weights: Path | None,
    scales: Sequence[float],
    mirror: bool | None,
    output_stride: int | None,
    layout: Layout | None,
    classes: Path | None,
    ignore: tuple[int, ...],
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a trained model on photos with known classes.

    RUN is the folder of a training or a model file; PHOTOS is a folder of class folders, a table
    (.csv) or a .zip of either, with the classes of the model by name; for a model that segments, a
    folder or .zip of photos with masks, which are measured at their own size. Photos that cannot be
    read are skipped and counted.

    \b
    Examples:
      xception evaluate runs/shirts-1 photos/
      xception evaluate runs/shirts-1 new-photos/ --split all --report judged/
      xception evaluate runs/streets-1 streets/ --scales all --mirror
    """
    look = Look(scales, mirror, output_stride)
    if segments(run):
        if class_weights is not None:
            raise UserError("--class-weights are for models that give several labels a photo")
        if report_to is not None:
            check_report_folder(report_to)
        evaluate_masks(
            run,
            photos,
            look=look,
            split=split,
            layout=layout,
            classes=classes,
            ignore=ignore,
            report_to=report_to,
            workers=workers,
            device=device_for(run, device),
            as_json=as_json,
            quiet=quiet,
        )
        return
    refuse_masks(look, {"--layout": layout, "--classes": classes, "--ignore": ignore})
    predictor = Predictor(run, device=device_for(run, device))
    card = predictor.card
    if class_weights is not None and card.task == "classification":
        raise UserError("--class-weights are for models that give several labels a photo")
    weights = read_weights(class_weights) if class_weights is not None else None
    if report_to is not None:
        check_report_folder(report_to)
        _ = predictor.model  # an exported network cannot explain its mistakes
    opened = open_photos(photos, for_training=False)
    if split is None:
        split = default_split(opened, quiet)
    chosen, part = choose(opened, split, photos)
    members = fit_classes(chosen, card, photos)
    looks = scan(members.store, [photo.name for photo in members.photos])
    named = zip(members.photos, looks, strict=True)
    skipped = {photo.name: look.reason for photo, look in named if look.reason}
    members = members.without(skipped)
    if not members.photos:
        raise UserError(f"{photos}: not one photo can be read; `xception check` says why")
    if skipped:
        say(f"skipping {counted(len(skipped), 'unreadable photo')}", quiet=quiet)
    found = outcomes(
        predictor.module,
        evaluation_batches(
            members, part, preprocess=card.preprocess, batch_size=batch_size, workers=workers
        ),
        card.preprocess,
        device=predictor.device,
        task=card.image_task,
    )
    metrics = found.measure(card.classes, card.image_task, weights=weights)
    if report_to is not None:
        page = report_evaluation(
            report_to,
            predictor.model,
            members,
            found,
            split=part,
            named=split,
            metrics=metrics,
            skipped=skipped,
            title=f"{run.resolve().name} on {photos.resolve().name}",
            command=shlex.join(["xception", *sys.argv[1:]]),
        )
        say(f"report: {page}", quiet=quiet)
    if as_json:
        print_json({**metrics, "split": split, "skipped": skipped})
    else:
        print_metrics(metrics, split)


def read_weights(path: Path) -> dict[str, float]:
    """The weight of each class. Raises `UserError` for what is no number of zero or more."""
    values = {str(name): weight for name, weight in read_yaml(path).items()}
    try:
        return WEIGHTS.validate_python(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{path}: the weight of {first['loc'][0]} must be a number of zero or more, "
            f"not {first['input']!r:.60}"
        ) from None


def check_report_folder(folder: Path) -> None:
    """Refuse the folder of a run: its report is that of its training."""
    held = [name for name in (CONFIG_FILE, MODEL_FILE) if (folder / name).exists()]
    if held:
        raise UserError(
            f"--report {folder}: holds {held[0]}, so it is a run with a report of its own; "
            "name another folder"
        )


def default_split(photos: PhotoSet, quiet: bool) -> str:
    """The test photos if somebody chose them, else all: a test split of ours is for training."""
    if "test" not in photos.split_made:
        return "test"
    say(
        f"no test split given: all {counted(len(photos.photos), 'photo')} are measured; "
        "--split test takes the part that a training on this same folder would have held out",
        quiet=quiet,
    )
    return "all"


def choose(photos: PhotoSet, split: str, path: Path) -> tuple[PhotoSet, Split]:
    """The set less all photos but those of a split; "all" makes one test split of everything."""
    if split == "all":
        every = tuple(replace(photo, split="test") for photo in photos.photos)
        return replace(photos, photos=every), "test"
    part: Split = next(known for known in SPLITS if known == split)
    members = photos.of(part)
    if not members:
        there = [*(known for known in SPLITS if photos.of(known)), "all"]
        raise UserError(f"{path}: no {split} photos there; --split {' or '.join(there)}")
    return replace(photos, photos=members), part


def fit_classes(photos: PhotoSet, card: Card, path: Path) -> PhotoSet:
    """The set with the classes of the model, in their order; they are matched by name.

    Raises:
        UserError: a class that the model does not know (there may be photos of only some that it
            does), or a photo has several labels and the model gives only one.
    """
    extra = [name for name in photos.classes if name not in card.classes]
    if extra:
        raise UserError(
            f"{path}: {counted(len(extra), 'class', 'classes')} that the model does not know "
            f"({some(extra)}); it knows {some(card.classes)}"
        )
    if photos.multilabel and card.task == "classification":
        raise UserError(f"{path}: photos have several labels, but the model gives each only one")
    number = [card.classes.index(name) for name in photos.classes]
    renumbered = tuple(_renumber(photo, number) for photo in photos.photos)
    several = card.task == "multilabel"
    return replace(photos, classes=card.classes, photos=renumbered, multilabel=several)


def _renumber(photo: Photo, number: list[int]) -> Photo:
    return replace(photo, labels=tuple(sorted(number[label] for label in photo.labels)))
