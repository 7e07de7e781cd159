import csv
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from xception.errors import UserError
from xception.studies.alone import passed, take
from xception.studies.cells import TIMINGS, cells
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
        Arm("a", {"model_options": {"activation": "relu"}}),
        Arm("b", {"model_options": {"activation": "elu"}}),
    ),
    remarks=("Only letters.",),
)
# What stands in for a training runs nothing of ours, dozens of times.
pytestmark = pytest.mark.usefixtures("unmeasured_children")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "validation", "test"):
            for name in ("cat", "dog"):
                archive.writestr(f"{split}/{name}/1.png", b"never looked at")
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
    # 20 steps of 32 photos, half of them at 320 photos a second, half at 160.
    with done.table.open(newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["steps_per_second"]) == pytest.approx(20 / (320 / 320 + 320 / 160))
    assert first["processor"] == "the processor"

    page = done.page.read_text("utf-8")
    assert "Supported: B is better than a." in page
    assert "<title>&lt;Letters&gt;</title>" in page
    assert "Only letters." in page
    assert page.count("<svg") == 3
    assert "accuracy on 100 test photos" in page
    assert "measured on them once" in page
    assert "the highest mean is that of b" in page.lower()
    document = done.page.with_name("report.md").read_text("utf-8")
    assert "| b | a | +10.0 (10.0 to 10.0) | 0.000 |" in document
    assert "the processor, the threads threads a training" in document
    assert str(datetime.now(UTC).year) in document
    for name in ("steps", "seconds", "scores"):
        assert done.page.with_name(f"{name}.svg").exists()


def test_without_test_photos_the_pages_say_so(photos: Path, tmp_path: Path):
    (photos.parent / "split").write_text("validation")
    done = run(photos, tmp_path / "study")
    for page in (done.page, done.page.with_name("report.md")):
        text = page.read_text("utf-8")
        assert "accuracy on 100 validation photos" in text
        assert "There were no test photos" in text
        assert "test photos;" not in text


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that trains in the folder until a line tells it to end."""
    code = "import sys, pathlib; from xception.training.lock import hold\n"
    code += "with hold(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    call = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
        if child.poll() is None:
            child.communicate(b"\n")


@pytest.mark.usefixtures("no_pages")
def test_one_study_at_a_time_and_of_the_same_photos(photos: Path, tmp_path: Path):
    run(photos, tmp_path / "study")
    other = tmp_path / "other.zip"
    other.touch()
    with pytest.raises(UserError, match=r"was begun with .*photos\.zip: --out names another"):
        run(other, tmp_path / "study")
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path / "mistyped.zip", tmp_path / "another")
    run(photos, tmp_path / "another")  # a mistake is not held against the study
    with held_elsewhere(tmp_path / "study"), pytest.raises(UserError, match="another process"):
        run(photos, tmp_path / "study")
    run(photos, tmp_path / "study")


@pytest.mark.usefixtures("no_pages")
def test_a_training_that_outlived_its_study_is_waited_for(photos: Path, tmp_path: Path):
    (cell, *_) = cells(STUDY, "full", 3, tmp_path / "study")
    cell.run.mkdir(parents=True)
    with held_elsewhere(cell.run) as child:
        told: list[str] = []

        def tell(line: str) -> None:
            told.append(line)
            if line.startswith("5 of 6 cells done, 0 running") and child.poll() is None:
                assert cell.row() is None  # all others went on
                child.communicate(b"\n")

        conduct(
            STUDY, photos, tmp_path / "study", scale="full", seeds=3, processes=2, launcher=FAKE,
            command="", tell=tell,
        )  # fmt: skip
    assert told[-1].startswith("6 of 6")


@pytest.mark.usefixtures("no_pages")
def test_a_training_that_still_loads_is_waited_for(photos: Path, tmp_path: Path):
    """Its study was killed: it holds the lock that it inherited, and no run folder yet."""
    (cell, *_) = cells(STUDY, "full", 3, tmp_path / "study")
    lock = take(cell.folder)
    assert lock is not None
    call = [sys.executable, "-c", "input()"]
    with subprocess.Popen(call, stdin=subprocess.PIPE, pass_fds=passed(lock)) as child:
        lock.close()
        told: list[str] = []

        def tell(line: str) -> None:
            told.append(line)
            if line.startswith("5 of 6 cells done, 0 running") and child.poll() is None:
                assert not cell.run.exists()
                child.communicate(b"\n")

        conduct(
            STUDY, photos, tmp_path / "study", scale="full", seeds=3, processes=2, launcher=FAKE,
            command="", tell=tell,
        )  # fmt: skip
    assert told[-1].startswith("6 of 6")


@pytest.mark.usefixtures("no_pages")
@pytest.mark.parametrize("code", ["", "print('[1]')", 'print(\'{"split": "test"}\')'])
def test_a_launcher_that_does_not_train_is_refused(photos: Path, tmp_path: Path, code: str):
    with pytest.raises(UserError, match=r"answer\.json does not hold .*: --launcher must run it"):
        conduct(
            STUDY, photos, tmp_path / "study", scale="full", seeds=1, processes=2,
            launcher=[sys.executable, "-c", code], command="", tell=lambda _: None,
        )  # fmt: skip


DIVERGING = """
import pathlib, runpy, sys
run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
if run.parent.name == "seed-1" and run.parent.parent.name == "a":
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,step,seconds,val_top1\\n1,10,1.5,0.1\\n")
    sys.exit(3)
runpy.run_path({fake!r}, run_name="__main__")
"""


def test_a_training_that_diverges_is_a_result(photos: Path, tmp_path: Path):
    study = replace(STUDY, arms=(Arm("a"), Arm("b", {"model_options": {"middle": 4}})))
    done = conduct(
        study, photos, tmp_path / "study", scale="full", seeds=3, processes=2,
        launcher=[sys.executable, "-c", DIVERGING.format(fake=FAKE[1])],
        command="", tell=lambda _: None,
    )  # fmt: skip
    (row,) = [row for row in table(done) if row["diverged"]]
    assert (row["arm"], row["seed"], row["epochs"], row["steps"]) == ("a", "1", "1", "10")
    assert float(row["top1"]) == 0.5  # of two classes
    assert (row["split"], row["samples"]) == ("test", "2")
    assert int(row["parameters"]) > 1e5
    assert done.found.arms[0].score.value == pytest.approx((0.50 + 0.5 + 0.52) / 3)
    assert len(done.found.arms[0].curves) == 2
    assert "The training of a with seed 1 diverged" in done.page.read_text("utf-8")


@pytest.mark.usefixtures("no_pages")
@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_photos_may_have_any_name(photos: Path, tmp_path: Path):
    odd = photos.rename(tmp_path / os.fsdecode(b"photos-\xff.zip"))
    for _ in range(2):  # the second time it is compared
        assert len(table(run(odd, tmp_path / "study", seeds=1))) == 2


@pytest.mark.usefixtures("no_pages")
def test_settings_for_all_cells(photos: Path, tmp_path: Path):
    grid = cells(STUDY, "tiny", 1, tmp_path, {"epochs": 30, "model_options.middle": 3})
    assert [cell.config.epochs for cell in grid] == [30, 30]
    assert [cell.config.model_options["activation"] for cell in grid] == ["relu", "elu"]
    assert [cell.config.model_options["middle"] for cell in grid] == [3, 3]
    with pytest.raises(UserError, match="no setting is called 'epoch'"):
        cells(STUDY, "tiny", 1, tmp_path, {"epoch": 30})


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
