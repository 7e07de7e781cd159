import json
import sys
import zipfile
from pathlib import Path

import pytest

from xception.cli import study as verb
from xception.errors import Diverged
from xception.studies.claims import Better
from xception.studies.study import Arm, Study

FAKE = Path(__file__).parent.parent / "studies/fake_training.py"
TINY = ["--set", "model_options={width: 0.01, middle: 0, stem_stride: 1}", "--size", "16"]
TINY += ["--batch-size", "8", "--workers", "0", "--device", "cpu"]
LETTERS = Study(
    name="letters",
    title="Letters",
    sentence="B is better than a.",
    source="Nobody 2026",
    claim=Better("b", than=("a",)),
    arms=(
        Arm("a", {"model_options.activation": "relu"}),
        Arm("b", {"model_options.activation": "elu"}),
    ),
)

pytestmark = pytest.mark.usefixtures("unmeasured_children")  # which stand in for trainings


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(verb, "STUDIES", {"letters": LETTERS})
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "validation", "test"):
            for name in ("cat", "dog"):
                archive.writestr(f"{split}/{name}/1.png", b"never looked at")
    return path


def test_a_study_from_the_command(xception, letters: Path):
    call = ("study", "letters", "--data", str(letters), "--scale", "full", "--seeds", "2")
    call += ("--launcher", f"{sys.executable} {FAKE}")
    first = xception(*call)
    assert first.status == 0
    assert first.stdout == "supported: B is better than a.\n"
    assert "4 of 4 cells done" in first.stderr
    assert "report: studies/letters-full/report.html" in first.stderr
    assert Path("studies/letters-full/results.csv").read_text().count("\n") == 5

    again = xception(*call, "--json", "--quiet")
    answer = json.loads(again.stdout)
    assert again.stderr == ""
    assert answer["verdict"] == "supported"
    assert [arm["score"]["value"] for arm in answer["arms"]] == pytest.approx([0.505, 0.605])
    assert answer["comparisons"][0]["value"] == pytest.approx(0.1)


def test_one_seed_has_no_bounds_in_json(xception, letters: Path):
    call = ("study", "letters", "--data", str(letters), "--scale", "full", "--seeds", "1")
    answer = json.loads(xception(*call, "--launcher", f"{sys.executable} {FAKE}", "--json").stdout)
    assert answer["verdict"] == "undecided"
    assert answer["comparisons"][0]["low"] is None


def test_the_list(xception):
    result = xception("study")
    assert result.status == 0
    assert "residuals\n" in result.stdout
    names = [study["name"] for study in json.loads(xception("study", "--json").stdout)]
    assert {"inception-vs-xception", "residuals", "activation", "segments", "order"} <= {*names}


def test_what_was_asked_wrongly(xception):
    result = xception("study", "residual", "--data", "photos")
    assert result.status == 2
    assert "residuals" in result.stderr
    result = xception("study", "residuals")
    assert result.status == 2
    assert "--data" in result.stderr


def test_a_launcher_with_an_open_quote_is_refused(xception, letters: Path):
    call = ("study", "letters", "--data", str(letters), "--launcher", "torchrun 'x")
    result = xception(*call)
    assert result.status == 2
    assert """--launcher "torchrun 'x": no closing quotation""" in result.stderr


def test_a_command_is_written_down_whatever_its_bytes():
    assert verb.writable("é photos-\udcff.zip") == "é photos-\\udcff.zip"


def test_a_training_that_diverges_has_a_status_of_its_own(xception, photos: Path, tmp_path: Path):
    """By which a study knows it."""
    call = ("train", photos, "--out", tmp_path / "run", *TINY, "--epochs", "3", "--lr", "1e30")
    result = xception(*call)
    assert "no longer a number" in result.stderr
    assert result.status == Diverged.status == 3
