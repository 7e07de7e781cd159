"""Answers written as they come, so that a run over a million photos can be stopped and goes on.

Three kinds of table, with one row a photo: CSV and JSON Lines are single files that grow; Parquet,
whose files cannot grow, is a folder of parts that readers of Parquet take as one table. Whatever
kills the program, complete rows stay; a torn last one is cut off when the table goes on.
"""

import csv
import hashlib
import io
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TextIO, runtime_checkable

import numpy as np

from xception.deploy import extras
from xception.errors import UserError

Answer = dict[str, Any]
"""`path`, `top` (label and probability, likeliest first), and `error` or `explanation`."""

PART_ROWS = 10_000  # of a part of a Parquet table; as many answers are lost at most
MOST_TORN_BYTES = 1 << 20  # a longer end without a row is no torn row, but another kind of file


@runtime_checkable
class Table(Protocol):
    """Where answers go."""

    def write(self, answers: Sequence[Answer]) -> None:
        """Put rows below the others."""
        ...

    def close(self) -> None:
        """Nothing more is to come."""
        ...


class CsvTable:
    """Columns: path, label and probability of each place, and the error.

    Args:
        file: open for text; it is flushed after each call, and closed in the end.
        places: how many classes a row has.
        begun: the heading is already there.
    """

    def __init__(self, file: TextIO, places: int, *, begun: bool = False):
        self._file = file
        self._writer = csv.writer(file, lineterminator="\n")
        self._places = places
        if not begun:
            self._writer.writerow(columns(places))
            file.flush()

    def write(self, answers: Sequence[Answer]) -> None:
        """As `Table`."""
        self._writer.writerows(cells(answer, self._places) for answer in answers)
        self._file.flush()

    def close(self) -> None:
        """As `Table`."""
        self._file.close()


class JsonLinesTable:
    """One JSON object a line, as `xception predict --json` has them.

    Args:
        file: open for text; it is flushed after each call, and closed in the end.
        narrow: write ASCII, with JSON's escapes, because the file could not hold every letter.
    """

    def __init__(self, file: TextIO, *, narrow: bool = False):
        self._file, self._narrow = file, narrow

    def write(self, answers: Sequence[Answer]) -> None:
        """As `Table`."""
        for one in answers:
            text = json.dumps(one, ensure_ascii=self._narrow, allow_nan=False)
            self._file.write(text + "\n")
        self._file.flush()

    def close(self) -> None:
        """As `Table`."""
        self._file.close()


class ParquetTable:
    """The columns of `CsvTable` as a folder of parts, each written whole or not at all.

    Args:
        folder: of the parts; it is there.
        places: how many classes a row has.
    """

    def __init__(self, folder: Path, places: int):
        self._arrow = extras.pyarrow()
        self._folder, self._places = folder, places
        self._rows: list[list[Any]] = []
        numbers = [int(path.stem.removeprefix("part-")) for path in parts(folder)]
        self._next = max(numbers, default=-1) + 1

    def write(self, answers: Sequence[Answer]) -> None:
        """As `Table`."""
        for answer in answers:
            row = cells(answer, self._places)
            self._rows.append([None if cell == "" else cell for cell in row])
            if len(self._rows) == PART_ROWS:
                self._write_part()

    def close(self) -> None:
        """As `Table`."""
        if self._rows:
            self._write_part()

    def _write_part(self) -> None:
        arrow = self._arrow
        names = columns(self._places)
        kinds = [arrow.float32() if "probability" in name else arrow.string() for name in names]
        values = [
            arrow.array(column, kind)
            for column, kind in zip(zip(*self._rows, strict=True), kinds, strict=True)
        ]
        file = self._folder / f"part-{self._next:06}.parquet"
        hidden = file.with_name(f".{file.name}")
        arrow.parquet.write_table(arrow.table(values, names=names), hidden)
        os.replace(hidden, file)
        self._next += 1
        self._rows = []


Row = tuple[str, bool]
"""Of a table that is there: the path, and whether it was answered, not with an error."""


class Done:
    """The paths that a table holds answers for, in 8 bytes each.

    Hashes of 64 bits: among ten million paths, one in 370,000 tables has two with the same.
    """

    def __init__(self, rows: Iterable[Row] = ()):
        failed = array("Q")

        def answered() -> Iterator[np.uint64]:
            for path, good in rows:
                if good:
                    yield _hash(path)
                else:
                    failed.append(int(_hash(path)))

        self._answered = np.sort(np.fromiter(answered(), np.uint64))
        self._failed = np.sort(np.array(failed, np.uint64))

    def __len__(self) -> int:
        return len(self._answered)

    def __contains__(self, path: object) -> bool:
        return _holds(self._answered, str(path))

    def failed(self, path: str) -> bool:
        """Whether the table has an error for it."""
        return _holds(self._failed, path)


def _holds(hashes: np.ndarray, path: str) -> bool:
    wanted = _hash(path)
    place = int(np.searchsorted(hashes, wanted))
    return place < len(hashes) and bool(hashes[place] == wanted)


def _hash(path: str) -> np.uint64:
    # As the files hold it: what is not UTF-8 in a name is written as an escape.
    data = path.encode(errors="backslashreplace")
    return np.uint64(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))


def columns(places: int) -> list[str]:
    """The heading of a table."""
    pairs = [text for n in range(1, places + 1) for text in (f"label_{n}", f"probability_{n}")]
    return ["path", *pairs, "error"]


def cells(answer: Answer, places: int) -> list[Any]:
    """The row of an answer; what it lacks is empty."""
    found = [cell for one in answer["top"] for cell in (one["label"], one["probability"])]
    found += [""] * (2 * places - len(found))
    path = str(answer["path"]).encode(errors="backslashreplace").decode()
    return [path, *found, answer.get("error", "")]


def open_csv(path: Path, places: int, *, resume: bool) -> tuple[Table, Done]:
    """A CSV file for answers, and what it already holds (nothing unless `resume`).

    Raises:
        UserError: it is to go on, but has other columns or is no such file.
    """
    if not (resume and path.exists() and path.stat().st_size):
        return CsvTable(_text(path, "w"), places), Done()
    with path.open("rb+") as file:
        records = _csv_records(file, path)
        heading = next(records, None)
        expected = ",".join(columns(places)) + "\n"
        if heading is None and expected.encode().startswith(file.read()):  # torn: begun anew
            return CsvTable(_text(path, "w"), places), Done()
        if heading != columns(places):
            raise UserError(
                f"--resume: {path} has other columns than this run would write; "
                "give the same --top and model, or another file"
            )
        done = Done((record[0], not record[-1]) for record in records if record)
        file.truncate()
    return CsvTable(_text(path, "a"), places, begun=True), done


def open_json_lines(path: Path, *, resume: bool) -> tuple[Table, Done]:
    """The same for JSON Lines.

    Raises:
        UserError: it is to go on, but is no such file.
    """
    if not (resume and path.exists()):
        return JsonLinesTable(_text(path, "w")), Done()
    with path.open("rb+") as file:
        done = Done(_json_rows(file, path))
        file.truncate()
    return JsonLinesTable(_text(path, "a")), done


def open_parquet(folder: Path, places: int, *, resume: bool) -> tuple[Table, Done]:
    """The same for a folder of Parquet.

    Raises:
        UserError: pyarrow is not installed, there are parts that are not to go on, or what is
            there is no such table.
    """
    arrow = extras.pyarrow()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--parquet {folder}: is a file; Parquet is written as a folder of parts")
    folder.mkdir(parents=True, exist_ok=True)
    found = parts(folder)
    if not found:
        return ParquetTable(folder, places), Done()
    if not resume:
        raise UserError(
            f"--parquet {folder}: holds {found[0].name}; --resume continues it, or name another"
        )

    def rows() -> Iterator[Row]:
        for part in found:
            try:
                table = arrow.parquet.read_table(part)
            except (arrow.ArrowException, OSError) as error:
                raise UserError(f"--resume: {part}: {str(error).splitlines()[0]:.120}") from error
            if table.column_names != columns(places):
                raise UserError(
                    f"--resume: {part} has other columns than this run would write; "
                    "give the same --top and model, or another folder"
                )
            for path, error in zip(table["path"].to_pylist(), table["error"], strict=True):
                yield path, not error.is_valid

    done = Done(rows())
    return ParquetTable(folder, places), done


def parts(folder: Path) -> list[Path]:
    """The parts of a Parquet table, in order."""
    return sorted(path for path in folder.glob("part-*.parquet") if path.stem[5:].isdecimal())


def _text(path: Path, mode: Literal["w", "a"]) -> TextIO:
    return open(path, mode, encoding="utf-8", errors="backslashreplace", newline="")


def _csv_records(file: BinaryIO, path: Path) -> Iterator[list[str]]:
    """The complete records from the beginning; the file then stands behind the last of them."""
    whole = size = quotes = 0
    record: list[bytes] = []  # lines: a field between quotes may have several
    for line in file:
        record.append(line)
        size += len(line)
        quotes += line.count(b'"')
        if size > MOST_TORN_BYTES:
            break
        if line.endswith(b"\n") and quotes % 2 == 0:
            whole += size
            text = b"".join(record).decode("utf-8", "backslashreplace")
            size, record = 0, []
            yield next(csv.reader(io.StringIO(text, newline="")), [])
    _step_back(file, path, whole, size)


def _json_rows(file: BinaryIO, path: Path) -> Iterator[Row]:
    """The rows of the complete lines; the file then stands behind the last of them."""
    whole, rest = 0, 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            rest = len(line)
            break
        try:
            answer = json.loads(line)
            row = str(answer["path"]), "error" not in answer
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--resume: {path}: line {number} is no answer of this kind") from error
        whole += len(line)
        yield row
    _step_back(file, path, whole, rest)


def _step_back(file: BinaryIO, path: Path, whole: int, torn: int) -> None:
    if torn > MOST_TORN_BYTES:
        raise UserError(f"--resume: {path} ends in {torn:,} bytes that are no row")
    file.seek(whole)
