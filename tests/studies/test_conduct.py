import csv
import sys
from pathlib import Path

import pytest

from xception.errors import UserError
from xception.studies.cells import cells
from xception.studies.claims import Better
from xception.studies.conduct import Conducted, conduct
from xception.studies.study import Arm, Study

FAKE = [sys.executable, str(Path(__file__).with_name("fake_training.py"))]
STUDY = Study(
    name="letters",
    title="<Letters>",
    sentence="B is better than a.",
    source="Nobody 2026, Table 0",
    claim=Better("b", than=("a",)),
    arms=(
        Arm("a", {"model_options": {"name": "a"}}),
        Arm("b", {"model_options": {"name": "b"}}),
    ),
    remarks=("Only letters.",),
)
# What stands in for a training runs nothing of ours, dozens of times.
pytestmark = pytest.mark.usefixtures("unmeasured_children")
TIMINGS = ("steps_per_second", "seconds")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    path = tmp_path / "photos.zip"
    path.touch()
    return path


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw them takes longer than all else."""
    monkeypatch.setattr("xception.studies.conduct.write_pages", lambda folder, *_: folder)


def run(photos: Path, folder: Path, told: list[str] | None = None, seeds: int = 3) -> Conducted:
    return conduct(
        STUDY,
        photos,
        folder,
        scale="full",
        seeds=seeds,
        processes=2,
        launcher=FAKE,
        command="xception study letters",
        tell=(told if told is not None else []).append,
    )


def table(done: Conducted) -> list[dict[str, str]]:
    with done.table.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]


def test_from_cells_to_pages(photos: Path, tmp_path: Path):
    told: list[str] = []
    done = run(photos, tmp_path / "study", told)
    assert done.found.verdict == "supported"
    assert [round(arm.score.value, 6) for arm in done.found.arms] == [0.51, 0.61]
    assert done.found.arms[0].curves[2].scores == [0.3, 0.4]
    rows = table(done)
    assert [(row["arm"], row["seed"], row["steps"]) for row in rows] == [
        (arm, seed, "20") for seed in "012" for arm in "ab"
    ]
    assert told[-1] == "6 of 6 cells done, 0 running"

    page = done.page.read_text("utf-8")
    assert "Supported: B is better than a." in page
    assert "<title>&lt;Letters&gt;</title>" in page
    assert "Only letters." in page
    assert page.count("<svg") == 2
    document = done.page.with_name("report.md").read_text("utf-8")
    assert "| b | a | +10.0 (10.0 to 10.0) | 0.000 |" in document
    assert (done.page.with_name("steps.svg")).exists()


@pytest.mark.usefixtures("no_pages")
def test_a_killed_study_goes_on_to_the_same_table(photos: Path, tmp_path: Path):
    whole = run(photos, tmp_path / "whole")
    (photos.parent / "die").touch()
    for _ in range(3):  # two cells at a time, each of which dies once
        with pytest.raises(UserError, match="exit status 9: the lights went out"):
            run(photos, tmp_path / "study")
    (photos.parent / "die").unlink()
    assert table(run(photos, tmp_path / "study")) == table(whole)


@pytest.mark.usefixtures("no_pages")
def test_finished_cells_are_never_run_again(photos: Path, tmp_path: Path):
    first = table(run(photos, tmp_path / "study"))
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("answer.json")}
    again = run(photos, tmp_path / "study", seeds=4)
    assert table(again)[:6] == first
    assert len(table(again)) == 8
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


@pytest.mark.usefixtures("no_pages")
def test_leftovers_of_a_run_without_its_first_file_are_cleared(photos: Path, tmp_path: Path):
    (cell, *_) = cells(STUDY, "full", 3, tmp_path / "study")
    cell.run.mkdir(parents=True)
    (cell.run / ".lock").touch()
    assert len(table(run(photos, tmp_path / "study"))) == 6


@pytest.mark.usefixtures("no_pages")
def test_what_stands_in_the_way_is_named(photos: Path, tmp_path: Path):
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "letter.txt").touch()
    with pytest.raises(UserError, match=r"letter\.txt, and no study"):
        run(photos, strange)
    run(photos, tmp_path / "study")
    (cell, *_) = cells(STUDY, "full", 3, tmp_path / "study")
    cell.result.write_text("{")
    with pytest.raises(UserError, match="damaged: remove it"):
        run(photos, tmp_path / "study")
    settings = cell.folder / "config.yaml"
    settings.write_text(settings.read_text().replace("epochs: 100", "epochs: 99"))
    with pytest.raises(UserError, match="begun with other settings"):
        run(photos, tmp_path / "study")


def test_a_claim_about_arms_that_are_not_there():
    with pytest.raises(ValueError, match="letters: no arm is called"):
        Study("letters", "", "", "", Better("c", than=("a",)), STUDY.arms)
