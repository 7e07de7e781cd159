"""What verbs print: one JSON document or a table on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from xception.cli.printable import printable

_PIPE_WIDTH = 10_000  # characters: in a pipe no line is ever wrapped or cut


def print_json(value: Any) -> None:
    """One JSON document on stdout; in ASCII where stdout could not hold every letter."""
    narrow = "utf" not in (sys.stdout.encoding or "").lower()
    click.echo(json.dumps(value, indent=2, ensure_ascii=narrow, allow_nan=False))


def show(text: str) -> None:
    """Lines on stdout."""
    click.echo(printable(text))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    heading: bool = True,
) -> None:
    """A table on stdout: drawn on a terminal, plain columns in a pipe.

    Args:
        columns: headings.
        rows: their cells, taken literally.
        right: headings of the columns to align right, such as numbers.
        heading: print the headings; a terminal has them in any case.
    """
    terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_header=heading or terminal
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell).replace("\n", r"\n") for cell in row))
    console = Console(
        file=sys.stdout, width=None if terminal else _PIPE_WIDTH, markup=False, emoji=False
    )
    console.print(table, highlight=False)


def say(text: str, *, quiet: bool = False) -> None:
    """A remark on stderr."""
    if not quiet:
        click.echo(printable(text), err=True)


def percent(share: float | None) -> str:
    """0.724 -> "72.4 %"; a share that does not exist is a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """1 -> "1 photo", 1200 -> "1,200 photos"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
