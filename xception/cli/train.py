"""`xception train`: photos to a run folder."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from xception.cli import check_masks, options
from xception.cli.assignments import parse_assignment
from xception.cli.figures import summary
from xception.cli.output import print_json, say, show
from xception.cli.reporting import report_training
from xception.cli.segmentation_reporting import report_segmentation
from xception.data.kind import Task, task_of
from xception.data.pairs import Layout
from xception.deploy.runtime import MODEL_FILE
from xception.errors import UserError
from xception.training.config import TrainConfig, read_yaml
from xception.training.interrupts import Interrupted
from xception.training.progress import Lines
from xception.training.recipes import configure, list_recipes
from xception.training.run import train
from xception.training.trained import AnyTrained, Trained, TrainedClassifier, TrainedSegmenter

RUNS = Path("runs")
CONFIG = "config.yaml"  # from it on there is a run, which --resume continues


def choices(field: str) -> click.Choice:
    """The values that a setting of the configuration may have."""
    return click.Choice(get_args(TrainConfig.model_fields[field].annotation))


@click.command("train")
@click.argument("photos", type=options.FilePath())
@click.option(
    "--out",
    type=options.FilePath(),
    metavar="FOLDER",
    help="The run folder; by default runs/NAME-1, runs/NAME-2, …",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out, or the latest one.")
@click.option(
    "--recipe", metavar="NAME", help=f"Where the settings start from: {', '.join(list_recipes())}."
)
@click.option(
    "--config",
    type=options.FilePath(),
    metavar="FILE",
    help="Settings as a run leaves them in config.yaml.",
)
@click.option("--model", metavar="NAME", help="A name of `xception models`.")
@click.option(
    "--weights",
    type=options.FilePath(),
    metavar="FILE",
    help="Start from a model file, a weight file of another library, or published ones: imagenet.",
)
@check_masks.mask_options
@click.option("--freeze", type=choices("freeze"), help="Train the head only, on stored features.")
@click.option(
    "--size", type=options.SIDE, metavar="PIXELS", help="Side of the network's input; of the crops."
)
@click.option("--epochs", type=options.EPOCHS, metavar="N", help="Times that each photo is seen.")
@click.option(
    "--batch-size", type=options.BATCH, metavar="N", help="Photos a step, over all processes."
)
@click.option("--lr", type=float, metavar="RATE", help="Learning rate.")
@click.option("--class-weights", type=choices("class_weights"), help="Weigh rare classes more.")
@click.option("--sampler", type=choices("sampler"), help="Show rare classes more often.")
@click.option("--seed", type=options.SEED, metavar="N", help="Another seed, another training.")
@click.option("--workers", type=options.WORKERS, metavar="N", help="Processes that read photos.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other setting, e.g. augment.mixup=0.2; may be repeated.",
)
@options.as_json
@options.quiet
def command(
    photos: Path,
    out: Path | None,
    resume: bool,
    recipe: str | None,
    config: Path | None,
    model: str | None,
    weights: Path | None,
    layout: Layout | None,
    classes: Path | None,
    ignore: tuple[int, ...],
    freeze: str | None,
    size: int | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    class_weights: str | None,
    sampler: str | None,
    seed: int | None,
    workers: int | None,
    device: str | None,
    assignments: Sequence[str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Train on a folder of photos; measure and explain the result.

    PHOTOS is a folder of class folders, with or without train/, validation/ and test/ above them,
    a table (.csv: path,label[,split]) or a .zip of either. Where photos have masks beside them
    (images/ and masks/, Pascal VOC, Cityscapes), it learns to segment. No option is needed. Ctrl-C
    saves, and --resume continues.

    \b
    Examples:
      xception train photos/
      xception train photos/ --weights runs/shirts-1/model.safetensors --freeze backbone
      xception train photos/ --weights imagenet --model xception65
      xception train scenes/ --recipe deeplab-voc --weights imagenet
      xception train photos/ --epochs 20 --set augment.mixup=0.2 --out runs/try
      torchrun --nproc-per-node 8 -m xception train photos/ --recipe xception-imagenet --out runs/a
    """
    named = {
        "model": model,
        "weights": None if weights is None else str(weights),
        "freeze": freeze,
        "masks.layout": layout,
        "masks.classes": None if classes is None else str(classes.resolve()),
        "masks.ignore": ignore or None,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.learning_rate": lr,
        "class_weights": class_weights,
        "sampler": sampler,
        "seed": seed,
        "workers": workers,
        "device": device,
    }
    settings = {key: value for key, value in named.items() if value is not None}
    folder = choose_folder(photos, out, resume)
    if resume and (recipe is not None or config is not None):
        raise UserError("--resume keeps the settings of the run: leave out --recipe and --config")
    start = folder / CONFIG if resume else config
    assigned = dict(map(parse_assignment, assignments))
    task = choose_task(photos, start, settings | assigned)
    if size is not None:
        settings["joint.crop" if task == "segmentation" else "preprocess.size"] = size
    settings |= assigned
    chosen = configure(
        recipe=recipe,
        config=start,
        settings=settings,
        task=task,
    )
    try:
        trained = train(photos, chosen, folder, resume=resume, progress=None if quiet else Lines())
        if not trained.leads:
            return
        # What resumes a run does not repeat it; its configuration does.
        anew = ["train", str(photos), "--config", str(folder / CONFIG)]
        repeats = shlex.join(["xception", *(anew if resume else sys.argv[1:])])
        report = write_report(trained, repeats)
    except (Interrupted, KeyboardInterrupt, SystemExit):  # SystemExit: SIGTERM, see `cli.main`
        if (folder / CONFIG).exists():
            again = shlex.join(["xception", "train", str(photos), "--resume", "--out", str(folder)])
            say(f"to continue: {again}")
        raise
    if as_json:
        print_json(answer(trained, report))
    else:
        show(conclusion(trained, report))


def choose_task(photos: Path, start: Path | None, settings: Mapping[str, Any]) -> Task:
    """What is learnt: masks where the configuration or the settings say anything of them."""
    said = [value for key, value in settings.items() if key.split(".")[0] == "masks"]
    if start is not None:
        masks = read_yaml(start).get("masks")
        said += masks.values() if isinstance(masks, dict) else [masks]
    return "segmentation" if any(said) else task_of(photos)


def write_report(trained: AnyTrained, command: str) -> Path:
    """Into the run folder; returns the page. `command` is what repeats the training."""
    match trained:
        case TrainedClassifier():
            return report_training(trained, command)
        case TrainedSegmenter():
            return report_segmentation(trained, command)


def answer(trained: Trained, report: Path) -> dict[str, Any]:
    """What a program may want to know of a finished training."""
    return {
        "run": str(trained.folder),
        "model": str(trained.folder / MODEL_FILE),
        "report": str(report),
        "split": trained.split,
        "metrics": trained.metrics,
    }


def conclusion(trained: Trained, report: Path) -> str:
    """What a person wants to know of a finished training."""
    return (
        f"{summary(trained.metrics, trained.split)}\n"
        f"report: {report}\n"
        f"now: {shlex.join(['xception', 'predict', str(trained.folder)])} PHOTO"
    )


def choose_folder(photos: Path, out: Path | None, resume: bool) -> Path:
    """The run folder: the one asked for, the next free one, or the latest to resume."""
    if out is not None:
        return out
    name = photos.resolve().stem
    numbered = re.compile(re.escape(name) + r"-([1-9]\d*)")
    there = [match for path in RUNS.glob("*") if (match := numbered.fullmatch(path.name))]
    latest = max((int(match[1]) for match in there), default=0)
    if resume and not latest:
        raise UserError(f"nothing to resume: there is no {RUNS / name}-1; --out names the run")
    if not resume and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes must agree on one run folder: name it with --out")
    return RUNS / f"{name}-{latest if resume else latest + 1}"
