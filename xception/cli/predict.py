"""`xception predict`: photos to answers."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import track

from xception.cli import options
from xception.cli.output import counted, percent, print_json, print_table, say
from xception.data.folders import list_images
from xception.data.images import ImageError, read_file
from xception.data.names import OVERLAY
from xception.deploy.explain import explain
from xception.deploy.runtime import Predictor
from xception.errors import UserError
from xception.training.distributed import pick_device

Answer = dict[str, Any]

STDOUT = Path("-")
TABLES = (".csv", ".tsv", ".txt")
MAX_STEM = 200  # bytes of a photo's name in that of its picture; file systems take 255 in all


@click.command("predict")
@click.argument("run", type=options.FilePath())
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=options.FilePath())
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=options.TOP,
    metavar="K",
    help="Classes per photo.",
)
@options.as_json
@click.option(
    "--csv",
    "csv_file",
    type=options.FilePath(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write a table; - is stdout.",
)
@click.option(
    "--explain",
    "explain_to",
    type=options.FilePath(file_okay=False),
    metavar="FOLDER",
    help="Write where the model looked (Grad-CAM).",
)
@options.batch_size
@options.device
@options.quiet
def command(
    run: Path,
    images: Sequence[Path],
    top: int,
    as_json: bool,
    csv_file: Path | None,
    explain_to: Path | None,
    batch_size: int,
    device: str,
    quiet: bool,
) -> int:
    """Say what is in photos.

    RUN is the folder of a training or a model file; IMAGE is a file, a folder or a pattern such as
    'holiday/*.jpg'. Files that cannot be read are reported and do not stop the rest; the exit
    status is then 1.

    \b
    Examples:
      xception predict runs/shirts-1 photo.jpg
      xception predict runs/shirts-1 holiday/ --csv answers.csv --explain where/
    """
    if csv_file is not None:
        check_csv(csv_file, as_json)
    paths, answers = find_images(images)
    predictor = Predictor(run, device=pick_device(device))
    if explain_to is not None:
        explain_to.mkdir(parents=True, exist_ok=True)
    stream = _with_progress(predictor.stream(paths, batch_size), len(paths), quiet)
    for (path, outcome), name in zip(stream, _picture_names(paths), strict=True):
        answer: Answer = {"path": str(path)}
        if isinstance(outcome, ImageError):
            say(f"unreadable: {outcome}")
            answer |= {"top": [], "error": outcome.reason}
        else:
            best = outcome.top(top)
            answer["top"] = [{"label": label, "probability": share} for label, share in best]
            if explain_to is not None:
                data = read_file(path, str(path))
                explain(predictor, data, str(path), best[0][0]).save(explain_to / name, quality=92)
                answer["explanation"] = str(explain_to / name)
        answers.append(answer)
    _show(answers, as_json, csv_file)
    unreadable = sum("error" in answer for answer in answers)
    if unreadable:
        say(f"{unreadable:,} of {counted(len(answers), 'file')} could not be read", quiet=quiet)
    return 1 if unreadable else 0


def _show(answers: Sequence[Answer], as_json: bool, csv_file: Path | None) -> None:
    if csv_file == STDOUT:
        _write_csv(answers, sys.stdout)
    elif csv_file is not None:
        with open(csv_file, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            _write_csv(answers, file)
    if as_json:
        print_json(answers)
    elif csv_file is None:
        _print_answers(answers)


def _with_progress(items: Iterator[Any], total: int, quiet: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    yield from track(
        items, "predicting", total=total, console=console, transient=True, disable=hidden
    )


def check_csv(file: Path, as_json: bool) -> None:
    """Refuse what the answers must not be written to; `-` is stdout."""
    if file == STDOUT:
        if as_json:
            raise UserError("--json and --csv - would both write to stdout; give --csv a file")
        return
    if not file.parent.is_dir():
        raise UserError(f"--csv {file}: the folder {file.parent} does not exist")
    # Of `--csv *.jpg` the first photo would be the table, and be lost.
    if file.is_file() and file.suffix.lower() not in TABLES:
        raise UserError(
            f"--csv {file}: that file exists and is no table, so it is not overwritten; "
            f"name one that ends in {', '.join(TABLES)}"
        )


def find_images(images: Sequence[Path]) -> tuple[list[Path], list[Answer]]:
    """The files that are meant, and an answer for each argument that means none.

    Raises:
        UserError: there is no file at all.
    """
    paths: list[Path] = []
    missing: list[Answer] = []
    for image in images:
        try:
            paths += list_images(image)
        except UserError as error:
            reason = str(error).removeprefix(f"{image}: ")
            missing.append({"path": str(image), "top": [], "error": reason})
    messages = [f"{answer['path']}: {answer['error']}" for answer in missing]
    if not paths:
        raise UserError("\n".join(messages))
    for message in messages:
        say(f"unreadable: {message}")
    return paths, missing


def _picture_names(paths: Sequence[Path]) -> list[str]:
    """A name of its own for each photo; never that of a photo, should the folder hold photos."""
    names: dict[str, None] = {}
    for path in paths:
        stem = os.fsencode(path.stem)[:MAX_STEM].decode(errors="ignore")
        name = f"{stem}{OVERLAY}"
        numbered = (f"{stem}-{n}{OVERLAY}" for n in count(2))
        while name in names:
            name = next(numbered)
        names[name] = None
    return list(names)


def _write_csv(answers: Sequence[Answer], file: TextIO) -> None:
    """One row a photo: path, then label and probability of each place, then the error."""
    places = range(1, max(len(answer["top"]) for answer in answers) + 1)
    header = [text for n in places for text in (f"label_{n}", f"probability_{n}")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", *header, "error"])
    for answer in answers:
        cells = [cell for one in answer["top"] for cell in (one["label"], one["probability"])]
        cells += [""] * (len(header) - len(cells))
        writer.writerow([answer["path"], *cells, answer.get("error", "")])


def _print_answers(answers: Sequence[Answer]) -> None:
    rows = []
    for answer in answers:
        shown = [(one["label"], percent(one["probability"])) for one in answer["top"]]
        (label, share), *others = shown or [("unreadable", "–")]
        rows.append([answer["path"], label, share, ", ".join(map(" ".join, others))])
    print_table(["photo", "answer", "probability", "then"], rows, right=["probability"])
