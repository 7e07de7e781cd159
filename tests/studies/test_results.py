import json
import math
from pathlib import Path
from typing import Any

import pytest

from xception.errors import UserError
from xception.studies import charts
from xception.studies.cells import Cell, cells
from xception.studies.claims import Better, SomeBetter
from xception.studies.page import write_pages
from xception.studies.results import Curve, findings
from xception.studies.study import Arm, Study

STUDY = Study("two", "", "", "", Better("a", than=("b",)), (Arm("a"), Arm("b")))
EVERY = "epoch,step,seconds,val_top1\n1,10,1.5,0.3\n2,20,3.0,0.4\n"
EVERY_OTHER = "epoch,step,seconds,val_top1\n1,10,1.5,\n2,20,3.0,0.4\n3,30,4.0,\n4,40,5.5,0.5\n"


def row(cell: Cell, **changes: Any) -> dict[str, Any]:
    own = {"study": "two", "arm": cell.arm, "seed": cell.seed, "trained_in": f"two/{cell.arm}"}
    score = {"top1": 0.5 + 0.01 * cell.seed, "parameters": 7, "macs": 9, "steps_per_second": 4.0}
    seen = {"steps": 20, "seconds": 3.0, "split": "test", "samples": 100, "date": "2026-11-29"}
    made = {"xception": "1.0", "torch": "2.13", "device": "cpu"}
    return {**own, **score, **seen, **made, **changes}


def done(study: Study, folder: Path, history: str = EVERY, **changes: Any) -> list[Cell]:
    """Cells that came to what `row` says."""
    grid = cells(study, "tiny", 3, folder)
    for cell in grid:
        cell.run.mkdir(parents=True)
        (cell.run / "metrics.csv").write_text(history)
        cell.result.write_text(json.dumps(row(cell, **changes)))
    return grid


def test_epochs_that_were_not_validated_are_no_points(tmp_path: Path):
    found = findings(STUDY, done(STUDY, tmp_path, EVERY_OTHER))
    assert found.arms[0].curves == 3 * [Curve([20, 40], [3.0, 5.5], [0.4, 0.5])]


def test_a_cell_without_the_score_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"result\.json has no top1, by which the study judges"):
        findings(STUDY, done(STUDY, tmp_path, top1=None))


def test_a_refutation_is_shown_with_the_intervals_that_refute(tmp_path: Path):
    """t of two degrees: 4.30 of one interval of 95 %, 7.65 of three that share the 5 %."""
    names = ("a", "b", "c", "base")
    claim = SomeBetter(names[:3], than="base")
    study = Study("two", "", "", "", claim, tuple(Arm(name) for name in names))
    grid = done(study, tmp_path)
    for cell in grid:
        gap = 0.0 if cell.arm == "base" else 0.010 + 0.003 * (cell.seed - 1)
        cell.result.write_text(json.dumps(row(cell, top1=0.8 - gap)))
    found = findings(study, grid)
    assert found.verdict == "not supported"
    reach = 4.302653 * 0.003 / 3**0.5  # mean 0.010, standard deviation 0.003, three repeats
    for pair in found.comparisons:
        assert pair.difference.high == pytest.approx(-0.010 + reach, abs=1e-6)
        assert pair.difference.high < 0
    assert "the other way are needed against the claim" in found.rule
    page = write_pages(tmp_path, study, "tiny", grid, found, "xception study two")
    for file in (page, page.with_name("report.md")):
        text = file.read_text("utf-8")
        assert found.rule in text
        assert "Bonferroni" not in text  # which is the rule of another verdict


def test_an_arm_that_always_diverged_has_no_curves_and_can_be_drawn(tmp_path: Path):
    grid = done(STUDY, tmp_path)
    for cell in grid:
        if cell.arm == "a":
            cell.result.write_text(json.dumps(row(cell, diverged=True, steps_per_second=None)))
    arms = findings(STUDY, grid).arms
    assert [len(arm.curves) for arm in arms] == [0, 3]
    assert not math.isfinite(arms[0].steps_per_second.value)
    drawn = charts.learning(arms, "steps")
    assert drawn.count("<svg") == 1
