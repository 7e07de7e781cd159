"""Where the answers of `xception predict` go: a table on the screen, JSON, or files that grow."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path

import click

from xception.cli.output import percent, print_table
from xception.deploy.origin import Origin, origin_of, settle
from xception.deploy.results import (
    Answer,
    CsvTable,
    Done,
    JsonLinesTable,
    Table,
    open_csv,
    open_json_lines,
    open_parquet,
)
from xception.errors import UserError

STDOUT = Path("-")
TABLES = (".csv", ".tsv", ".txt")
SHOWN_ROWS = 1000  # of the table on the screen, at a time
LINES = (".jsonl", ".ndjson", ".json", ".txt")


class Outlets:
    """Takes one answer after the other.

    Args:
        tables: where to.
        done: what the table of an earlier run holds.
    """

    def __init__(self, tables: Sequence[Table], done: Done):
        self._tables, self._done = tables, done
        self.tried = self.unreadable = self.skipped = 0

    def write(self, answer: Answer) -> None:
        """Put an answer into all tables."""
        path = str(answer["path"])
        if path in self._done:  # an argument that is there no more
            return
        self.tried += 1
        if "error" in answer:
            self.unreadable += 1
            if self._done.failed(path):  # an earlier run had to say the same
                return
        for table in self._tables:
            table.write([answer])

    def not_done(self, paths: Iterator[Path | str]) -> Iterator[Path | str]:
        """The paths that no earlier run has answered."""
        for path in paths:
            if str(path) in self._done:
                self.skipped += 1
            else:
                yield path


def narrow() -> bool:
    """Whether stdout could not hold every letter: JSON is in ASCII there."""
    return "utf" not in (sys.stdout.encoding or "").lower()


class JsonArray:
    """One JSON document on stdout, the answers one after the other."""

    def __init__(self) -> None:
        self._begun = False
        self._narrow = narrow()

    def write(self, answers: Sequence[Answer]) -> None:
        """As `Table`."""
        for answer in answers:
            text = json.dumps(answer, indent=2, ensure_ascii=self._narrow, allow_nan=False)
            click.echo(",\n" if self._begun else "[\n", nl=False)
            click.echo("  " + text.replace("\n", "\n  "), nl=False)
            self._begun = True

    def close(self) -> None:
        """As `Table`."""
        click.echo("\n]" if self._begun else "[]")


class Screen:
    """A table for people, printed in the end; of many photos a part of it whenever it is full."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._begun = False

    def write(self, answers: Sequence[Answer]) -> None:
        """As `Table`."""
        for answer in answers:
            shown = [(one["label"], percent(one["probability"])) for one in answer["top"]]
            (label, share), *others = shown or [("unreadable", "–")]
            self._rows.append([answer["path"], label, share, ", ".join(map(" ".join, others))])
            if len(self._rows) == SHOWN_ROWS:
                self._print()

    def close(self) -> None:
        """As `Table`."""
        if self._rows or not self._begun:
            self._print()

    def _print(self) -> None:
        headings = ["photo", "answer", "probability", "then"]
        print_table(headings, self._rows, right=["probability"], heading=not self._begun)
        self._rows, self._begun = [], True


def open_outlets(
    csv_file: Path | None,
    lines_file: Path | None,
    parquet_folder: Path | None,
    *,
    as_json: bool,
    resume: bool,
) -> Callable[[Path, int], AbstractContextManager[Outlets]]:
    """Checks where the answers shall go, and gives what opens it: model, places -> `Outlets`.

    Nothing is touched before that is called.

    Raises:
        UserError: two would write to stdout or to one file, a file that is no table would be
            overwritten, a folder is not there, or `resume` without exactly one table to go on with.
    """
    files = [file for file in (csv_file, lines_file, parquet_folder) if file is not None]
    if as_json + files.count(STDOUT) > 1:
        raise UserError("--json, --csv - and --jsonl - write to stdout; give all but one a file")
    places = [file.resolve() for file in files if file != STDOUT]
    for place in places:
        if places.count(place) > 1:
            raise UserError(f"{place}: named for two tables; give each a file of its own")
    for option, file, endings in (("--csv", csv_file, TABLES), ("--jsonl", lines_file, LINES)):
        if file is not None and file != STDOUT:
            check_file(option, file, endings)
    if parquet_folder is not None and not parquet_folder.resolve().parent.is_dir():
        raise UserError(f"--parquet {parquet_folder}: the folder around it does not exist")
    if resume and (as_json or len(files) != 1 or STDOUT in files):
        raise UserError("--resume goes on with one table: give one of --csv, --jsonl and --parquet")
    return partial(_opened, csv_file, lines_file, parquet_folder, as_json, resume)


def check_file(option: str, file: Path, endings: Sequence[str]) -> None:
    """Refuse what answers must not be written to."""
    if not file.parent.is_dir():
        raise UserError(f"{option} {file}: the folder {file.parent} does not exist")
    # Of `--csv *.jpg` the first photo would be the table, and be lost.
    if file.is_file() and file.suffix.lower() not in endings:
        raise UserError(
            f"{option} {file}: that file exists and is no table, so it is not overwritten; "
            f"name one that ends in {', '.join(endings)}"
        )


@contextmanager
def _opened(
    csv_file: Path | None,
    lines_file: Path | None,
    parquet_folder: Path | None,
    as_json: bool,
    resume: bool,
    run: Path,
    places: int,
) -> Iterator[Outlets]:
    """All outlets. Files are closed whatever happens; the screen is for what went well."""
    done = Done()
    files: list[Table] = []
    stdout: list[Table] = []
    ended: list[Table] = []  # by a last line, if all is well

    @cache  # a large model is read once for all tables
    def origin() -> Origin:
        return origin_of(run, places)

    def keep(path: Path, table: Table, held: Done) -> Done:
        files.append(table)
        settle(path, origin(), begun=len(held) > 0)
        return held

    try:
        if csv_file == STDOUT:
            stdout.append(CsvTable(sys.stdout, places))
        elif csv_file is not None:
            done = keep(csv_file, *open_csv(csv_file, places, resume=resume))
        if lines_file == STDOUT:
            stdout.append(JsonLinesTable(sys.stdout, narrow=narrow()))
        elif lines_file is not None:
            done = keep(lines_file, *open_json_lines(lines_file, resume=resume))
        if parquet_folder is not None:
            done = keep(parquet_folder, *open_parquet(parquet_folder, places, resume=resume))
        if as_json:
            ended.append(JsonArray())
        elif not (files or stdout):
            ended.append(Screen())
        yield Outlets([*files, *stdout, *ended], done)
        for table in ended:
            table.close()
    finally:
        for table in files:
            table.close()
