"""`xception study`: a comparison of a paper, run again."""

import math
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from xception.cli import options
from xception.cli.assignments import parse_assignment
from xception.cli.output import print_json, say, show
from xception.cli.study_progress import Line
from xception.errors import UserError
from xception.studies.catalogue import STUDIES
from xception.studies.conduct import Conducted, conduct
from xception.studies.statistics import Difference, Mean
from xception.studies.study import Scale
from xception.training.problems import closest

FOLDER = Path("studies")


@click.command("study")
@click.argument("name", required=False)
@click.option(
    "--data",
    type=options.FilePath(),
    metavar="PHOTOS",
    help="What `xception train` takes; at scale tiny, CIFAR-10 is meant.",
)
@click.option(
    "--scale",
    type=click.Choice(("tiny", "full")),
    default="tiny",
    show_default=True,
    help="Small networks and pictures, or the settings of the paper.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="Trainings of each network.",
)
@click.option(
    "--out",
    type=options.FilePath(),
    metavar="FOLDER",
    help="Where it all goes; by default studies/NAME-SCALE. What is done there is not run again.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Trainings at a time; they share the cores.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of all trainings, e.g. epochs=30; may be repeated.",
)
@click.option(
    "--launcher",
    metavar="COMMAND",
    help="What starts each training, e.g. 'torchrun --nproc-per-node 8'.",
)
@options.as_json
@options.quiet
def command(
    name: str | None,
    data: Path | None,
    scale: Scale,
    seeds: int,
    out: Path | None,
    processes: int,
    assignments: tuple[str, ...],
    launcher: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Repeat a comparison of the Xception paper: train its networks, judge its claim.

    Without a NAME, lists the studies. Stopped or killed anywhere, the same command goes on.

    \b
    Examples:
      xception study
      xception study residuals --data cifar10.zip
      xception study segments --data cifar10.zip --seeds 5 --processes 2
      xception study activation --data cifar10.zip --seeds 5 --set epochs=30
      xception study order --data imagenet/ --scale full --launcher 'torchrun --nproc-per-node 8'
    """
    if name is None:
        listing(as_json)
        return
    if name not in STUDIES:
        raise UserError(f"no study is called {name!r}{closest(name, STUDIES)}")
    if data is None:
        raise UserError("--data PHOTOS: which photos shall the networks be trained on?")
    line = Line(quiet)
    try:
        done = conduct(
            STUDIES[name],
            data,
            out if out is not None else FOLDER / f"{name}-{scale}",
            scale=scale,
            seeds=seeds,
            settings=dict(map(parse_assignment, assignments)),
            processes=processes,
            launcher=taken_apart(launcher) if launcher else None,
            command=writable(shlex.join(["xception", *sys.argv[1:]])),
            tell=line,
        )
    finally:
        line.close()
    if as_json:
        print_json(answer(name, done))
        return
    show(f"{done.found.verdict}: {STUDIES[name].sentence}")
    say(f"report: {done.page}", quiet=quiet)


def writable(text: str) -> str:
    r"""Text for a page: what of a file's name is not UTF-8 is shown (`\udcff`)."""
    return text.encode(errors="backslashreplace").decode()


def taken_apart(launcher: str) -> list[str]:
    """The words of a command, as a shell takes them."""
    try:
        return shlex.split(launcher)
    except ValueError as error:
        raise UserError(f"--launcher {launcher!r}: {str(error).lower()}") from None


def listing(as_json: bool) -> None:
    """The studies, with what they put to the test."""
    if as_json:
        print_json(
            [{"name": s.name, "claim": s.sentence, "source": s.source} for s in STUDIES.values()]
        )
        return
    for study in STUDIES.values():
        show(f"{study.name}\n    {study.sentence}\n    {study.source}")


def answer(name: str, done: Conducted) -> dict[str, Any]:
    """What a program may want to know of a finished study."""
    return {
        "study": name,
        "verdict": done.found.verdict,
        "seeds": done.found.seeds,
        "report": str(done.page),
        "results": str(done.table),
        "arms": [
            {
                "name": arm.name,
                "parameters": arm.parameters,
                "macs": arm.macs,
                "score": bounded(arm.score),
            }
            for arm in done.found.arms
        ],
        "comparisons": [
            {"first": pair.first, "second": pair.second, **bounded(pair.difference)}
            for pair in done.found.comparisons
        ],
    }


def bounded(value: Mean | Difference) -> dict[str, float | None]:
    """The numbers of an estimate; null for a bound that a single repeat does not have."""
    return {name: x if math.isfinite(x) else None for name, x in value._asdict().items()}
