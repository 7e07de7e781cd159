import csv
import io
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from xception.cli import predict
from xception.data.images import ImageError
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
    # The columns depend on the model alone, so that a table can go on.
    heading = "path,label_1,probability_1,label_2,probability_2,label_3,probability_3,error"
    assert alone.stdout.splitlines()[0] == heading


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


def test_a_photo_that_cannot_be_read_again_to_be_explained_stops_nothing(
    xception, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = [photos / f"test/red/{i}.png" for i in (0, 1)]

    def read(path: str | Path) -> bytes:
        if path == images[0]:
            raise ImageError(str(path), "slow down")
        return Path(path).read_bytes()

    monkeypatch.setattr(predict, "read_photo", read)  # the second reading alone
    result = xception("predict", trained, *images, "--explain", tmp_path / "where", "--json")
    assert result.status == 1
    first, second = json.loads(result.stdout)
    assert first == {"path": str(images[0]), "top": [], "error": "slow down"}
    assert Path(second["explanation"]).is_file()
    assert second["top"]
    assert f"unreadable: {images[0]}: slow down" in result.stderr
    assert "1 of 2 files could not be read" in result.stderr


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


def test_json_lines(xception, photos: Path, trained: Path, tmp_path: Path):
    images = [photos / f"test/{name}/0.png" for name in ("red", "blue")]
    expected = json.loads(xception("predict", trained, *images, "--json").stdout)
    result = xception("predict", trained, *images, "--jsonl", "-")
    assert [json.loads(line) for line in result.stdout.splitlines()] == expected
    file = tmp_path / "answers.jsonl"
    assert xception("predict", trained, *images, "--jsonl", file).status == 0
    assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == expected


@pytest.mark.parametrize(("option", "name"), [("--csv", "t.csv"), ("--jsonl", "t.jsonl")])
def test_an_interrupted_run_goes_on(
    xception, photos: Path, trained: Path, tmp_path: Path, option: str, name: str
):
    table, whole = tmp_path / name, tmp_path / f"whole-{name}"
    # One by one: the last digits depend on which photos are computed together.
    command = ("predict", trained, photos / "test", "--batch-size", "1", option)
    assert xception(*command, whole).status == 0
    content = whole.read_bytes()
    whole.with_name(f"{whole.name}.resume.json").rename(tmp_path / f"{name}.resume.json")
    for cut in (0, 40, len(content) // 2, len(content) - 1, len(content)):
        table.write_bytes(content[:cut] if cut != 40 or option == "--jsonl" else b"")
        result = xception(*command, table, "--resume")
        assert result.status == 0, result.stderr
        assert table.read_bytes() == content
        assert result.stderr.endswith(" skipped, done before\n")
    assert "12 photos skipped" in result.stderr  # nothing was left to do
    fewer = xception("predict", trained, photos, "--top", "1", "--csv", whole, "--resume")
    assert fewer.status == 2


def test_parquet_goes_on(xception, photos: Path, trained: Path, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="NOT TESTED: Parquet without pyarrow")
    table = tmp_path / "t.parquet"
    first = xception("predict", trained, photos / "test/red", "--parquet", table)
    assert first.status == 0, first.stderr
    again = xception("predict", trained, photos / "test", "--parquet", table, "--resume")
    assert again.status == 0
    assert "4 photos skipped" in again.stderr
    rows = parquet.read_table(table).to_pylist()
    assert len(rows) == len({row["path"] for row in rows}) == 12
    refused = xception("predict", trained, photos / "test", "--parquet", table)
    assert refused.status == 2
    assert "--resume continues it" in refused.stderr


def test_photos_by_url_have_the_same_answers(xception, photos: Path, trained: Path, tmp_path: Path):
    here = json.loads(xception("predict", trained, photos / "test", "--json").stdout)
    there = xception("predict", trained, f"file://{photos}/test", "--json", "--explain", tmp_path)
    assert there.status == 0, there.stderr
    found = json.loads(there.stdout)
    assert len(list(tmp_path.iterdir())) == len(found) == 12
    for answer, expected in zip(found, here, strict=True):
        assert answer["path"] == f"file://{expected['path']}"
        assert answer["top"] == expected["top"]
    none = xception("predict", trained, "memory://no/photos", "--json")
    assert none.status == 2
    assert "memory://no/photos: no such file or folder" in none.stderr


def test_ray_is_asked_for_in_words(
    xception, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # what is set here must not stay
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    monkeypatch.setitem(sys.modules, "ray", None)
    for arguments, message in [
        (("--engine", "ray"), 'pip install "xception[ray]"'),
        (("--engine", "ray", "--explain", tmp_path / "where"), "leave out --engine ray"),
        (("--workers", "2"), "those of --engine ray"),
        (("--engine", "spark"), "is not one of 'local', 'ray'"),
    ]:
        table = tmp_path / "t.csv"
        result = xception("predict", trained, photos / "test", "--csv", table, *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr
        assert list(tmp_path.iterdir()) == []


def test_what_cannot_go_on(xception, photos: Path, trained: Path, tmp_path: Path):
    image = photos / "test/red/0.png"
    for arguments, message in [
        (("--resume",), "give one of --csv"),
        (("--resume", "--json"), "give one of --csv"),
        (("--resume", "--csv", "-"), "give one of --csv"),
        (("--resume", "--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"), "give one of"),
        (("--jsonl", "-", "--json"), "give all but one a file"),
        (("--jsonl", image), "is no table"),
        (("--parquet", tmp_path / "no" / "such"), "does not exist"),
        (("--out", tmp_path), "for models that segment"),
    ]:
        result = xception("predict", trained, image, *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr
        assert result.stdout == ""


def test_answers_are_written_as_they_come(
    xception, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Something fails in the third batch: what was answered before is in the file."""
    table = tmp_path / "t.csv"
    predict, calls = Predictor.predict, []

    def fail(self: Predictor, x: torch.Tensor):
        calls.append(len(x))
        if len(calls) == 3:
            raise RuntimeError("no more")
        return predict(self, x)

    monkeypatch.setattr(Predictor, "predict", fail)
    arguments = ("predict", trained, photos / "test", "--csv", table, "--batch-size", "2")
    with pytest.raises(RuntimeError, match="no more"):
        xception(*arguments)
    assert len(table.read_text("utf-8").splitlines()) == 1 + 4
    monkeypatch.undo()
    result = xception(*arguments, "--resume")
    assert "4 photos skipped" in result.stderr
    paths = [row["path"] for row in csv.DictReader(io.StringIO(table.read_text("utf-8")))]
    assert len(paths) == len(set(paths)) == 12
