import json
from pathlib import Path
from typing import Any

import pytest

from xception.studies.cells import Cell, cells
from xception.studies.claims import Better
from xception.studies.remarks import remarks
from xception.studies.study import Arm, Study

STUDY = Study("two", "", "", "", Better("a", than=("b",)), (Arm("a"), Arm("b")))
MACHINE = {
    "xception": "1.0",
    "python": "3.11",
    "torch": "2.13",
    "system": "Linux 6",
    "processor": "Abacus",
    "threads": "1",
    "device": "cpu",
}


@pytest.fixture
def grid(tmp_path: Path) -> list[Cell]:
    grid = cells(STUDY, "tiny", 2, tmp_path)
    for cell in grid:
        cell.folder.mkdir(parents=True)
        own = {"study": "two", "arm": cell.arm, "seed": cell.seed, "trained_in": f"two/{cell.arm}"}
        cell.result.write_text(json.dumps(own | MACHINE))
    return grid


def change(cell: Cell, **changes: Any) -> None:
    cell.result.write_text(json.dumps({**(cell.row() or {}), **changes}))


def test_of_cells_alike_there_is_nothing_to_say(grid: list[Cell]):
    assert remarks(grid) == ()


def test_what_diverged_is_named(grid: list[Cell]):
    change(grid[3], diverged=True)
    (remark,) = remarks(grid)
    assert remark.startswith("The training of b with seed 1 diverged: the loss was no longer")


def test_timings_of_another_study_are_named(grid: list[Cell]):
    change(grid[1], trained_in="one/plain")
    (remark,) = remarks(grid)
    assert "are those of that training" in remark


def test_other_machines_are_named_with_their_cells(grid: list[Cell]):
    change(grid[1], processor="Slide rule", threads="4")
    change(grid[2], processor=None)  # the first versions did not note it
    (remark,) = remarks(grid)
    assert (
        "processor Abacus (2), Slide rule (1), not noted (1); threads 1 (3), 4 (1), with" in remark
    )
    assert "cannot be compared" in remark
    assert "torch" not in remark
