"""A CSV of photos: `path,label[,split]`, a line each, several labels joined by `|`."""

import csv
import difflib
import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from xception.data.names import some
from xception.data.splits import SPLITS, Split, split_named
from xception.errors import UserError

_ALIASES = {"path": "path", "label": "label", "labels": "label", "split": "split"}


class Row(NamedTuple):
    """One photo of a table."""

    path: str
    """Relative to the folder of the table, with forward slashes."""
    labels: tuple[str, ...]
    """In the order of the cell, each once; empty if the photo shows none of the classes."""
    split: Split | None
    """None throughout if the table has no such column or leaves it empty in every row."""
    several: bool = False
    """Whether the cell has a |, the mark of a table in which a photo may have several labels."""


def looks_like_table(data: bytes) -> bool:
    """Whether the first line has the columns of a table of photos."""
    try:
        first = data[:10_000].decode("utf-8-sig", errors="replace").splitlines()[0]
        return {"path", "label"} <= set(_columns(first, "")[1])
    except (IndexError, UserError):
        return False


def read_table(data: bytes, name: str, folder: PurePosixPath | None) -> tuple[Row, ...]:
    """All rows, checked.

    `name` stands in the messages. An absolute path is understood if it lies in `folder`.

    Raises `UserError` with the line for: another encoding than UTF-8, a missing header or column,
    a row with too few or too many cells, an empty path or one outside the folder, a path that
    stands twice, an unknown split, a split or a label in some rows only (but for tables of several
    labels, of which some cell has a |); and for a table without rows.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f'{name}: is not UTF-8; save it as "CSV UTF-8"') from error
    delimiter, columns = _columns(text.splitlines()[0] if text.strip() else "", name)
    rows: list[Row] = []
    lines: dict[str, int] = {}
    for line, cells in _records(text, delimiter, len(columns), name):
        row = _row(dict(zip(columns, cells, strict=True)), f"{name}, line {line}", folder)
        if row.path in lines:
            raise UserError(
                f"{name}, line {line}: {row.path} stands in line {lines[row.path]} already; "
                "join several labels of one photo with |"
            )
        lines[row.path] = line
        rows.append(row)
    if not rows:
        raise UserError(f"{name}: has a header but no photos")
    without = [row.path for row in rows if row.split is None]
    if without and len(without) < len(rows):
        raise UserError(
            f"{name}, line {lines[without[0]]}: no split, though other lines have one; "
            "name it in every line or in none"
        )
    bare = [str(lines[row.path]) for row in rows if not row.labels]
    if bare and not any(row.several for row in rows):
        raise UserError(
            f"{name}, line {some(bare)}: no label. Give each photo one; or, if a photo may have "
            "several labels or none, join them with |, or write the first as `label|`"
        )
    return tuple(rows)


def _columns(header: str, name: str) -> tuple[str, list[str]]:
    delimiter = max(",;\t", key=header.count)
    found = [cell.strip().strip('"').lower() for cell in header.split(delimiter)]
    columns = [_ALIASES.get(cell, cell) for cell in found]
    for wanted in ("path", "label"):
        if columns.count(wanted) != 1:
            close = difflib.get_close_matches(wanted, columns, 1, 0.5)
            hint = f" (did you mean that by {close[0]!r}?)" if close else ""
            raise UserError(
                f"{name}: the first line must name the columns, path,label or path,label,split; "
                f"it is {header[:80]!r}, without one column {wanted!r}{hint}"
            )
    return delimiter, columns


def _records(text: str, delimiter: str, width: int, name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        next(reader)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != width:
                raise UserError(
                    f"{name}, line {reader.line_num}: {len(cells)} cells where the header has "
                    f"{width}; put a cell with a {delimiter!r} in it into double quotes"
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}") from error


def _row(cells: dict[str, str], where: str, folder: PurePosixPath | None) -> Row:
    path = PurePosixPath(cells["path"].strip().replace("\\", "/"))
    if folder is not None and path.is_relative_to(folder):
        path = path.relative_to(folder)
    if path == PurePosixPath("."):
        raise UserError(f"{where}: the path is empty")
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        raise UserError(
            f"{where}: {path} lies outside the table's folder; write paths relative to it"
        )
    split = cells.get("split", "").strip()
    if split and split_named(split) is None:
        raise UserError(f"{where}: unknown split {split!r}; there are {', '.join(SPLITS)}")
    labels = (label.strip() for label in cells["label"].split("|"))
    return Row(
        path=str(path),
        labels=tuple(dict.fromkeys(label for label in labels if label)),
        split=split_named(split),
        several="|" in cells["label"],
    )
