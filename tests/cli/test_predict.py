import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from xception.deploy.runtime import Predictor
from xception.weights.model_file import load_model, save_model


def test_json_is_what_the_predictor_says(xception, photos: Path, trained: Path):
    paths = [photos / f"test/{name}/0.png" for name in ("red", "blue")]
    result = xception("predict", trained, *paths, "--json")
    assert result.status == 0
    answers = json.loads(result.stdout)
    assert [answer["path"] for answer in answers] == [str(path) for path in paths]
    predictor = Predictor(trained)
    for path, answer in zip(paths, answers, strict=True):
        expected = predictor(path).top(5)
        assert [one["label"] for one in answer["top"]] == [label for label, _ in expected]
        shares = [one["probability"] for one in answer["top"]]
        assert shares == pytest.approx([share for _, share in expected], abs=1e-5)
        assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_folders_and_patterns(xception, photos: Path, trained: Path):
    def count(*images: str | Path) -> int:
        return len(json.loads(xception("predict", trained, *images, "--json").stdout))

    assert count(photos / "test") == 12
    assert count(f"{photos}/test/*/[01].png") == 6
    assert count(photos / "test/red", photos / "test/blue/0.png") == 5


def test_table(xception, photos: Path, trained: Path):
    result = xception("predict", trained, photos / "test/red/0.png", "--top", "2")
    heading, row = result.stdout.splitlines()
    assert heading.split() == ["photo", "answer", "probability", "then"]
    assert str(photos / "test/red/0.png") in row
    assert row.count("%") == 2
    assert result.stderr == ""


def test_csv_to_a_file_and_to_stdout(xception, photos: Path, trained: Path, tmp_path: Path):
    image = photos / "test/red/0.png"
    result = xception("predict", trained, image, "--top", "2", "--csv", "-")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert list(row) == ["path", "label_1", "probability_1", "label_2", "probability_2", "error"]
    assert row["path"] == str(image)
    assert float(row["probability_1"]) >= float(row["probability_2"])

    file = tmp_path / "answers é.csv"
    result = xception("predict", trained, image, "--top", "2", "--csv", file)
    assert result.stdout == ""
    assert list(csv.DictReader(io.StringIO(file.read_text("utf-8")))) == [row]
    both = xception("predict", trained, image, "--csv", file, "--json")
    assert json.loads(both.stdout)[0]["top"][0]["label"] == row["label_1"]
    wrong = xception("predict", trained, image, "--csv", "-", "--json")
    assert wrong.status == 2


def test_an_unreadable_file_stops_nothing(xception, photos: Path, trained: Path, tmp_path: Path):
    broken = tmp_path / "a broken one.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing more")
    good = photos / "test/red/0.png"
    result = xception("predict", trained, broken, good, "--json")
    assert result.status == 1
    first, second = json.loads(result.stdout)
    assert first["path"] == str(broken)
    assert first["top"] == []
    assert "JPEG" in first["error"]
    assert second["top"]
    unreadable, total = result.stderr.splitlines()
    assert unreadable.startswith(f"unreadable: {broken}")
    assert total == "1 of 2 files could not be read"

    table = xception("predict", trained, broken, good).stdout
    assert "unreadable" in table
    rows = list(
        csv.DictReader(io.StringIO(xception("predict", trained, broken, good, "--csv", "-").stdout))
    )
    assert rows[0]["error"] == first["error"]
    assert rows[0]["label_1"] == ""
    alone = xception("predict", trained, broken, "--csv", "-")
    assert alone.status == 1
    assert alone.stdout.splitlines()[0] == "path,error"


def test_explanations(xception, photos: Path, trained: Path, tmp_path: Path):
    out = tmp_path / "where"
    images = [photos / f"test/{name}/{i}.png" for name in ("red", "blue") for i in (0, 1)]
    result = xception("predict", trained, *images, "--explain", out, "--json")
    assert result.status == 0
    written = [Path(answer["explanation"]) for answer in json.loads(result.stdout)]
    names = ["0.gradcam.jpg", "1.gradcam.jpg", "0-2.gradcam.jpg", "1-2.gradcam.jpg"]
    assert [path.name for path in written] == names
    assert {path.name for path in out.iterdir()} == set(names)
    for path in written:
        with Image.open(path) as image:
            assert image.size == (480, 480)


def test_what_is_not_there(xception, photos: Path, trained: Path, tmp_path: Path):
    image = photos / "test/red/0.png"
    for arguments, message in [
        ((tmp_path, image), "no model.safetensors there"),
        ((tmp_path / "no", image), "no"),
        ((trained, photos / "test/rad/0.png"), "does not exist"),
        ((trained, ""), "the path is empty"),
        ((trained, f"{photos}/*.bmp"), "no image files there"),
        ((image, image), "0.png"),
    ]:
        result = xception("predict", *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr
        assert len(result.stderr.splitlines()) <= 2


def test_answers_that_cannot_be_written_are_refused_first(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    image = photos / "test/red/0.png"
    taken = tmp_path / "file"
    taken.touch()
    for option, value, message in [
        ("--csv", tmp_path / "no/such.csv", "no does not exist"),
        ("--csv", tmp_path, "is a directory"),
        ("--csv", "", "the path is empty"),
        ("--explain", "/dev/null", "/dev/null: file exists"),
        ("--explain", "/proc/x", "/proc/x: "),
        ("--explain", "x" * 300, "file name too long"),
        ("--batch-size", "1" + "0" * 22, "not in the range"),
        ("--explain", taken, "is a file"),
    ]:
        result = xception("predict", trained, image, option, value)
        assert result.status == 2
        assert message in result.stderr
        assert result.stdout == ""


def test_a_forgotten_name_of_the_table_costs_no_photo(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    """Of `--csv *.jpg` the first photo is the name of the table."""
    mine = tmp_path / "mine.png"
    mine.write_bytes((photos / "test/red/0.png").read_bytes())
    result = xception("predict", trained, photos / "test/red/1.png", "--csv", mine)
    assert result.status == 2
    assert "is no table, so it is not overwritten" in result.stderr
    assert mine.read_bytes() == (photos / "test/red/0.png").read_bytes()
    for name in ("new.answers", "old.TXT"):
        (tmp_path / "old.TXT").touch()
        again = xception("predict", trained, mine, "--csv", tmp_path / name)
        assert again.status == 0
        assert (tmp_path / name).read_text("utf-8").startswith("path,label_1")


def test_a_file_that_is_not_there_stops_nothing(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    image = photos / "test/red/0.png"
    result = xception("predict", trained, tmp_path / "no.jpg", image, "--json")
    assert result.status == 1
    missing, found = json.loads(result.stdout)
    assert missing == {"path": str(tmp_path / "no.jpg"), "top": [], "error": "does not exist"}
    assert found["path"] == str(image)
    assert found["top"]
    assert result.stderr.splitlines() == [
        f"unreadable: {tmp_path / 'no.jpg'}: does not exist",
        "1 of 2 files could not be read",
    ]


def test_a_damaged_network_is_refused(xception, photos: Path, trained: Path, tmp_path: Path):
    model = load_model(trained / "model.safetensors")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    save_model(tmp_path / "m.safetensors", model, model.card)
    result = xception("predict", tmp_path / "m.safetensors", photos / "test/red/0.png")
    assert (result.status, result.stdout) == (2, "")
    assert "with NaN or infinity" in result.stderr


def test_pictures_of_photos_with_long_names(xception, photos: Path, trained: Path, tmp_path: Path):
    folder = tmp_path / "long"
    folder.mkdir()
    for last in "ab":
        name = "é" * 120 + last + ".png"
        (folder / name).write_bytes((photos / "test/red/0.png").read_bytes())
    result = xception("predict", trained, folder, "--explain", folder, "--json")
    assert result.status == 0
    written = [Path(answer["explanation"]) for answer in json.loads(result.stdout)]
    assert [path.name for path in written] == [
        "é" * 100 + ".gradcam.jpg", "é" * 100 + "-2.gradcam.jpg",
    ]  # fmt: skip
    assert all(path.exists() for path in written)
    again = xception("predict", trained, folder, "--json")  # the pictures are no photos
    assert len(json.loads(again.stdout)) == 2


def test_a_terminal_is_not_told_what_to_do_by_names(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    image = tmp_path / "\x1b[2J\u202e\n.png"
    image.write_bytes((photos / "test/red/0.png").read_bytes())
    broken = tmp_path / "\x1b]0;title\x07.png"
    broken.touch()
    result = xception("predict", trained, image, broken)
    assert result.status == 1
    assert r"\x1b[2J\u202e\n.png" in result.stdout
    assert r"\x1b]0;title\x07.png" in result.stderr
    assert not set("\x1b\x07\u202e") & set(result.stdout + result.stderr)
