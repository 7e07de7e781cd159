import json
from pathlib import Path

import pytest

from xception._version import __version__
from xception.evaluation.machine import environment
from xception.studies.alone import take
from xception.studies.cells import Cell, cells
from xception.studies.claims import Better
from xception.studies.known import take_over
from xception.studies.photos import ZIP
from xception.studies.study import Arm, Study
from xception.training.distributed import pick_device

HERE = {**environment(pick_device("auto")), "xception": __version__, "threads": "3"}
PLAIN = {"model_options": {"middle": 1}}


def study(name: str, *arms: Arm) -> Study:
    return Study(name, "", "", "", Better(arms[0].name, than=(arms[1].name,)), arms)


ONE = study("one", Arm("plain", PLAIN), Arm("deep", {"model_options": {"middle": 4}}))
TWO = study("two", Arm("reference", PLAIN), Arm("wide", {"model_options": {"width": 2}}))


def begun(which: Study, folder: Path, photos: str, seeds: int = 2) -> list[Cell]:
    grid = cells(which, "tiny", seeds, folder)
    folder.mkdir()
    (folder / ZIP).write_text(photos)
    return grid


@pytest.fixture
def finished(tmp_path: Path) -> list[Cell]:
    grid = begun(ONE, tmp_path / "one", "the photos")
    for cell in grid:
        cell.prepare()
        cell.run.mkdir()
        (cell.run / "metrics.csv").write_text(f"epoch,step\n1,{cell.seed}\n")
        row = {"study": "one", "arm": cell.arm, "seed": cell.seed, "trained_in": f"one/{cell.arm}"}
        cell.result.write_text(json.dumps({**row, **HERE, "top1": 0.1 * cell.seed}))
    return grid


def test_the_same_settings_photos_and_seed_are_trained_once(finished, tmp_path):
    grid = begun(TWO, tmp_path / "two", "the photos", seeds=3)
    take_over(grid, tmp_path / "two", "3")
    done = [cell for cell in grid if cell.row()]
    assert [(cell.arm, cell.seed) for cell in done] == [("reference", 0), ("reference", 1)]
    assert done[1].row() == {
        "study": "two",
        "arm": "reference",
        "seed": 1,
        "trained_in": "one/plain",
        **HERE,
        "top1": 0.1,
    }
    assert done[1].history() == [{"epoch": "1", "step": "1"}]


def test_other_photos_are_another_training(finished, tmp_path):
    grid = begun(TWO, tmp_path / "two", "other photos")
    take_over(grid, tmp_path / "two", "3")
    assert not any(cell.row() for cell in grid)


def test_what_was_begun_is_gone_on_with(finished, tmp_path):
    grid = begun(TWO, tmp_path / "two", "the photos")
    for cell in grid:
        cell.prepare()
        cell.run.mkdir()
        (cell.run / "config.yaml").touch()
    take_over(grid, tmp_path / "two", "3")
    assert not any(cell.row() for cell in grid)


def test_what_is_about_to_begin_is_left_alone(finished, tmp_path, monkeypatch):
    grid = begun(TWO, tmp_path / "two", "the photos")
    grid[0].run.mkdir(parents=True)
    monkeypatch.setattr("xception.studies.known.held", lambda run: run == grid[0].run)
    take_over(grid, tmp_path / "two", "3")
    assert grid[0].row() is None
    assert [cell.seed for cell in grid if cell.row()] == [1]


def test_what_is_being_started_is_left_alone(finished, tmp_path):
    """A training that still loads holds no run folder, but the lock of its cell."""
    grid = begun(TWO, tmp_path / "two", "the photos")
    lock = take(grid[0].folder)
    assert lock is not None
    with lock:
        take_over(grid, tmp_path / "two", "3")
    assert grid[0].row() is None
    assert [cell.seed for cell in grid if cell.row()] == [1]


def test_a_taking_over_that_was_killed_is_begun_again(finished, tmp_path):
    grid = begun(TWO, tmp_path / "two", "the photos")
    for cell in grid:
        cell.run.mkdir(parents=True)  # as far as it came
    take_over(grid, tmp_path / "two", "3")
    assert [cell.arm for cell in grid if cell.row()] == ["reference", "reference"]


@pytest.mark.parametrize("name", ["xception", "torch", "device", "processor", "threads", "system"])
def test_another_version_or_machine_is_another_training(finished, tmp_path, name):
    for cell in finished:
        cell.result.write_text(json.dumps({**cell.row(), name: "0.1"}))
    grid = begun(TWO, tmp_path / "two", "the photos")
    take_over(grid, tmp_path / "two", "3")
    assert not any(cell.row() for cell in grid)


@pytest.mark.parametrize(
    ("name", "text"), [("result.json", "{"), ("result.json", "[]"), ("config.yaml", "colour: red")]
)
def test_what_is_damaged_elsewhere_is_passed_over(finished, tmp_path, name, text):
    (finished[0].folder / name).write_text(text)  # plain, seed 0
    grid = begun(TWO, tmp_path / "two", "the photos")
    take_over(grid, tmp_path / "two", "3")
    assert [cell.seed for cell in grid if cell.row()] == [1]


def test_photos_that_were_not_made_for_studies_are_not_compared(finished, tmp_path):
    grid = begun(TWO, tmp_path / "two", "the photos")
    (tmp_path / "two" / ZIP).unlink()
    take_over(grid, tmp_path / "two", "3")
    assert not any(cell.row() for cell in grid)
