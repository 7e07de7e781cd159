"""What the cells themselves give a reader to keep in mind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xception.studies.cells import MACHINE, Cell


def remarks(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Sentences about the cells that are done, for the page of their study."""
    rows = [row for cell in cells if (row := cell.row()) is not None]
    return tuple(filter(None, (_diverged(rows), _taken_over(rows), _machines(rows))))


def _diverged(rows: Sequence[Mapping[str, Any]]) -> str:
    named = [f"{row['arm']} with seed {row['seed']}" for row in rows if row.get("diverged")]
    if not named:
        return ""
    return (
        f"The training of {', '.join(named)} diverged: the loss was no longer a number. It counts "
        "as chance, one class of all, and is left out of the curves and of the steps a second."
    )


def _taken_over(rows: Sequence[Mapping[str, Any]]) -> str:
    if all(row["trained_in"] == f"{row['study']}/{row['arm']}" for row in rows):
        return ""
    return (
        "The seconds and the steps a second of cells that were trained in another study are those "
        "of that training: on the same kind of machine, perhaps under another load."
    )


def _machines(rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for name in ("xception", *MACHINE):
        counts = Counter(str(row.get(name) or "not noted") for row in rows)
        if len(counts) > 1:
            values = ", ".join(f"{value} ({number})" for value, number in counts.items())
            parts.append(f"{name} {values}")
    if not parts:
        return ""
    return (
        f"Not all cells were trained with the same: {'; '.join(parts)}, with the number of cells. "
        "Their seconds and their steps a second cannot be compared."
    )
