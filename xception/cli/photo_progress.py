"""How a prediction of many photos fares: a bar on a terminal, a line now and then in a pipe."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xception.cli.output import counted, say
from xception.training.progress import duration

EVERY_S = 30.0  # between lines in a pipe, as a training has them

Item = TypeVar("Item")


def followed(
    items: Iterator[Item],
    done: Callable[[], int],
    total: Callable[[], int | None],
    *,
    quiet: bool,
) -> Iterator[Item]:
    """The items, with progress on stderr while they come.

    Args:
        items: what is waited for, one for each photo.
        done: how many photos need nothing more, with those of an earlier run.
        total: how many there are in all, None where nobody knows; asked once, when it is shown.
        quiet: show nothing.
    """
    if quiet:
        return items
    return (_bar if sys.stderr.isatty() else _lines)(items, done, total)


def _bar(
    items: Iterator[Item], done: Callable[[], int], total: Callable[[], int | None]
) -> Iterator[Item]:
    columns = (
        TextColumn("predicting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Rich would take over stdout too; what goes to a file or a pipe is not to end on the terminal.
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task("", total=total())
        for item in items:
            yield item
            progress.update(task, completed=done())


def _lines(
    items: Iterator[Item], done: Callable[[], int], total: Callable[[], int | None]
) -> Iterator[Item]:
    start = last = time.monotonic()
    known: int | None = None
    told = False
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last < EVERY_S:
            continue
        last = now
        known, told = (known if told else total()), True
        say(line(done(), known, number / (now - start)))


def line(done: int, total: int | None, per_second: float) -> str:
    """How far it is, for a pipe."""
    if total is None or total < done:  # photos came while they were counted
        return f"{counted(done, 'photo')} done, {per_second:.1f}/s"
    left = duration((total - done) / per_second)
    return f"{done:,} of {counted(total, 'photo')} done, {per_second:.1f}/s, {left} left"
