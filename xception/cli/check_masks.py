"""What `xception check` says of photos with masks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from rich.console import Console
from rich.progress import Progress

from xception.cli import options
from xception.cli.output import counted, percent, print_json, print_table, say, show
from xception.data.findings import Finding
from xception.data.pair_audit import PairAudit, audit_pairs
from xception.data.pairs import Layout, PairSet, open_pairs
from xception.data.splits import SPLITS, Split
from xception.errors import UserError

Command = TypeVar("Command", bound=Callable[..., Any])
COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}

_layout = click.option(
    "--layout",
    type=click.Choice(get_args(Layout)),
    help="Masks: how the files lie, instead of what is found.",
)
_classes = click.option(
    "--classes",
    type=options.FilePath(),
    metavar="FILE",
    help="Masks: a list of classes, instead of the one found.",
)
_ignore = click.option(
    "--ignore",
    type=click.IntRange(0, 255),
    multiple=True,
    metavar="VALUE",
    help="Masks: another value that does not count; may be repeated.",
)


def mask_options(command: Command) -> Command:
    """How photos with masks are to be read, of every verb that opens them; see `open_pairs`."""
    return _layout(_classes(_ignore(command)))


def check_masks(
    photos: Path,
    *,
    layout: Layout | None,
    classes: Path | None,
    ignore: Sequence[int],
    as_json: bool,
    quiet: bool,
) -> int:
    """Look at photos with masks and say what was found; 1 if training would refuse, else 0."""
    try:
        pairs = open_pairs(photos, layout=layout, classes=classes, ignore=ignore)
    except UserError as error:
        if not photos.exists() or (classes is not None and not classes.exists()):
            raise
        if as_json:
            print_json({"refusal": str(error)})
        say(f"training would refuse: {error}")
        return 1
    found = _audit(pairs, quiet)
    if as_json:
        print_json({"task": "segmentation", **found.model_dump(mode="json")})
    else:
        _print(found)
    if found.refusal is not None:
        say(f"training would refuse: {found.refusal}")
        return 1
    return 0


def print_findings(findings: Sequence[Finding]) -> None:
    """One a line, its severity in colour."""
    for finding in findings:
        click.secho(f"{finding.severity}: ", fg=COLOURS[finding.severity], nl=False)
        show(finding.message)


def _audit(pairs: PairSet, quiet: bool) -> PairAudit:
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("looking at photos and masks", total=len(pairs.pairs))
        return audit_pairs(pairs, progress=lambda done: progress.update(task, completed=done))


def _print(found: PairAudit) -> None:
    show(f"{found.layout}.")
    for note in found.notes:
        show(f"{note[0].upper()}{note[1:]}.")
    click.echo()
    splits: list[Split] = [split for split in SPLITS if found.counts[split]]
    totals = {split: sum(found.pixels[split].values()) for split in splits}
    rows = [
        [name, *(_share(found.pixels[split][name], totals[split]) for split in splits)]
        for name in found.classes
    ]
    print_table(["class", *splits], rows, right=splits)
    click.echo()
    print_findings(found.findings)
    read = found.photos - len(found.unreadable)
    sizes = ", ".join(f"{split} {found.counts[split]:,}" for split in splits)
    show(f"{counted(read, 'photo')} with masks of {len(found.classes)} classes: {sizes}.")


def _share(pixels: int, total: int) -> str:
    return percent(pixels / total if total else None)
