"""`xception check`: what is wrong with photos, before training."""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from xception.cli import check_masks, options
from xception.cli.check_masks import print_findings
from xception.cli.output import counted, print_json, print_table, say
from xception.data.audit import Audit, audit
from xception.data.folders import PhotoSet, open_photos
from xception.data.kind import task_of
from xception.data.pairs import Layout
from xception.data.splits import Split
from xception.errors import UserError
from xception.training.recipes import configure


@click.command("check")
@click.argument("photos", type=options.FilePath())
@click.option(
    "--size",
    metavar="PIXELS",
    type=options.SIDE,
    help="Side of the network's input; by default that of `xception train`.",
)
@check_masks.mask_options
@options.as_json
@options.quiet
def command(
    photos: Path,
    size: int | None,
    layout: Layout | None,
    classes: Path | None,
    ignore: tuple[int, ...],
    as_json: bool,
    quiet: bool,
) -> int:
    """Say what is wrong with photos before training.

    PHOTOS is a folder of class folders, a table (.csv: path,label[,split]) or a .zip of either; or
    a folder or .zip of photos with masks: images/ and masks/, Pascal VOC, Cityscapes, CamVid.
    Looks for files that cannot be read, duplicates, leaks between splits, and classes that are
    empty, tiny or outnumbered; in masks for other sizes than the photos', values that are no class,
    and missing partners. The exit status is 1 if training would refuse.

    \b
    Examples:
      xception check photos/ --size 96
      xception check streets/ --classes classes.txt
    """
    try:
        masks = bool(layout or classes or ignore) or task_of(photos) == "segmentation"
        opened = None if masks else open_photos(photos)
    except UserError as error:
        if not photos.exists():
            raise
        if as_json:
            print_json({"refusal": str(error)})
        say(f"training would refuse: {error}")
        return 1
    if opened is None:
        if size is not None:
            raise UserError("--size is for photos without masks: those with masks keep their size")
        return check_masks.check_masks(
            photos, layout=layout, classes=classes, ignore=ignore, as_json=as_json, quiet=quiet
        )
    findings = _audit(opened, size or configure().preprocess.size, quiet)
    if as_json:
        print_json({**findings.model_dump(mode="json"), "refusal": findings.refusal})
    else:
        _print(opened, findings)
    if findings.refusal is not None:
        say(f"training would refuse: {findings.refusal}")
        return 1
    return 0


def _audit(photos: PhotoSet, size: int, quiet: bool) -> Audit:
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("looking at photos", total=len(photos.photos))
        return audit(photos, size, progress=lambda done: progress.update(task, completed=done))


def _print(photos: PhotoSet, findings: Audit) -> None:
    counts = findings.counts
    splits: list[Split] = [split for split in counts if any(counts[split].values())]
    rows = [[name, *(f"{counts[split][name]:,}" for split in splits)] for name in photos.classes]
    print_table(["class", *splits], rows, right=splits)
    click.echo()
    print_findings(findings.findings)
    labels = "labels" if photos.multilabel else "classes"
    read = findings.photos - len(findings.unreadable)
    click.echo(f"{counted(read, 'photo')} of {len(photos.classes)} {labels} can be read.")
