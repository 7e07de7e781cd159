"""A study from its photos to its pages."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from xception.errors import UserError
from xception.studies.cells import Cell, cells
from xception.studies.known import take_over
from xception.studies.page import write_pages
from xception.studies.photos import prepare
from xception.studies.preflight import settle
from xception.studies.remarks import remarks
from xception.studies.results import Findings, findings, write_table
from xception.studies.runner import run_cells, threads
from xception.studies.study import NOTHING, Scale, Settings, Study
from xception.training.lock import hold
from xception.weights.atomic import write_whole

SOURCE = "photos.txt"  # where the photos are that the study was begun with


class Conducted(NamedTuple):
    """What a study leaves behind."""

    page: Path
    table: Path
    found: Findings


def conduct(
    study: Study,
    source: Path,
    folder: Path,
    *,
    scale: Scale,
    seeds: int,
    settings: Settings = NOTHING,
    processes: int,
    launcher: list[str] | None,
    command: str,
    tell: Callable[[str], None],
) -> Conducted:
    """Train every cell that is not done, here or in a study beside; judge; write the pages.

    Args:
        study: what is compared.
        source: the photos.
        folder: new, empty, or that of the same study, which is gone on with.
        scale: "tiny" or "full".
        seeds: trainings of each arm.
        settings: what all cells change of the study's own settings.
        processes: trainings at a time.
        launcher: what starts python's modules; None is this interpreter.
        command: what repeats the study, for its page.
        tell: takes a line about how it fares.

    Raises:
        UserError: the photos, the folder or a training stand in the way; what is done stays.
    """
    grid = cells(study, scale, seeds, folder, settings)
    _claim(folder)
    with hold(folder):
        _check_source(source, folder)
        ready = prepare(source, folder, study.photos, scale)
        place = os.fsencode(source.resolve())  # a name need not be UTF-8
        write_whole(folder / SOURCE, lambda file: file.write(place))
        grid = settle(study, scale, grid, ready.photos)
        take_over(grid, folder, threads(processes))

        def done(cell: Cell) -> None:
            write_table(folder, grid)

        run_cells(grid, ready, processes=processes, launcher=launcher, tell=tell, done=done)
        found = findings(study, grid)
        table = write_table(folder, grid)
        told = replace(study, remarks=(*study.remarks, *remarks(grid)))
        page = write_pages(folder, told, scale, grid, found, command)
    return Conducted(page, table, found)


def _claim(folder: Path) -> None:
    """Make the folder, or refuse one in which something else lies."""
    begun = folder / "cells"
    try:
        strange = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        if strange and not begun.exists():
            raise UserError(
                f"{folder} holds {strange[0]}, and no study: --out names another folder"
            )
        begun.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from None


def _check_source(source: Path, folder: Path) -> None:
    """UserError if the study was begun with the photos of another place."""
    note = folder / SOURCE
    if note.exists() and (before := os.fsdecode(note.read_bytes())) != str(source.resolve()):
        raise UserError(
            f"{folder} was begun with {before}: --out names another folder; if those are the same "
            f"photos, remove {note}"
        )
