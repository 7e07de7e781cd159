"""What `xception predict --resume` does with what an earlier run has left."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from xception.cli import answers
from xception.cli.answers import Screen
from xception.weights.model_file import load_model, save_model


def read(table: Path) -> list[dict[str, str]]:
    if table.suffix == ".csv":
        with table.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in table.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(("option", "name"), [("--csv", "t.csv"), ("--jsonl", "t.jsonl")])
def test_photos_with_an_error_are_tried_again(
    xception, photos: Path, trained: Path, tmp_path: Path, option: str, name: str
):
    good = (photos / "test/red/0.png").read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    for number, data in enumerate((good, good[:40], good[:50])):
        (folder / f"{number}.png").write_bytes(data)
    table = tmp_path / name
    command = ("predict", trained, folder, tmp_path / "none.jpg", option, table, "--resume")
    first = xception(*command)
    assert first.status == 1
    before = table.read_bytes()
    assert len(read(table)) == 4

    again = xception(*command)
    assert again.status == 1  # they still cannot be read
    assert "1 photo skipped" in again.stderr
    assert "3 of 3 files could not be read" in again.stderr
    assert table.read_bytes() == before  # which the table says already

    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(good)
    (tmp_path / "none.jpg").write_bytes(good)
    last = xception(*command)
    assert last.status == 0, last.stderr
    rows = read(table)
    assert table.read_bytes().startswith(before)
    assert [Path(row["path"]).name for row in rows[4:]] == ["1.png", "2.png", "none.jpg"]
    assert not any(row.get("error") for row in rows[4:])
    assert "4 photos skipped" in xception(*command).stderr


def test_parquet_with_an_error(xception, photos: Path, trained: Path, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="NOT TESTED: Parquet without pyarrow")
    photo, table = tmp_path / "a.png", tmp_path / "t.parquet"
    photo.touch()
    command = ("predict", trained, photo, "--parquet", table, "--resume")
    assert [xception(*command).status for _ in range(2)] == [1, 1]
    assert parquet.read_table(table).num_rows == 1
    photo.write_bytes((photos / "test/red/0.png").read_bytes())
    assert [xception(*command).status for _ in range(2)] == [0, 0]
    assert [row["error"] is None for row in parquet.read_table(table).to_pylist()] == [False, True]


@pytest.mark.parametrize(
    ("option", "name"), [("--csv", "t.csv"), ("--jsonl", "t.jsonl"), ("--parquet", "t")]
)
def test_answers_of_two_models_are_not_mixed(
    xception, photos: Path, trained: Path, tmp_path: Path, option: str, name: str
):
    if option == "--parquet":
        pytest.importorskip("pyarrow", reason="NOT TESTED: Parquet without pyarrow")
    model = load_model(trained / "model.safetensors")
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    other = tmp_path / "other.safetensors"
    save_model(other, model, model.card)
    table, origin = tmp_path / name, tmp_path / f"{name}.resume.json"
    arguments = (photos / "test", option, table, "--resume")
    assert xception("predict", trained, photos / "test/red", option, table).status == 0
    said = origin.read_bytes()
    kept = {path: path.read_bytes() for path in tmp_path.rglob(f"{name}*") if path.is_file()}
    refused = xception("predict", other, *arguments)
    assert refused.status == 2
    assert "are those of another model" in refused.stderr
    refused = xception("predict", trained, *arguments, "--top", "2")
    assert refused.status == 2
    assert "give the same --top" in refused.stderr
    origin.unlink()
    refused = xception("predict", trained, *arguments)
    assert refused.status == 2
    assert f"no {origin.name} beside it" in refused.stderr
    origin.write_bytes(said)
    assert {path: path.read_bytes() for path in kept} == kept
    again = xception("predict", trained, *arguments)
    assert again.status == 0, again.stderr
    assert "4 photos skipped" in again.stderr


def test_a_new_table_takes_the_place_of_another_models(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    """Stopped before its first row, it holds nothing that another model could not go on with."""
    table = tmp_path / "t.csv"
    (tmp_path / "t.csv.resume.json").write_text('{"sha256": "0", "top": 3}')
    table.write_text(
        "path,label_1,probability_1,label_2,probability_2,label_3,probability_3,error\n"
    )
    result = xception("predict", trained, photos / "test", "--csv", table, "--resume")
    assert result.status == 0, result.stderr
    assert xception("predict", trained, photos, "--csv", table, "--resume").status == 0


def test_no_picture_is_written_over_another_photos(
    xception, photos: Path, trained: Path, tmp_path: Path
):
    table, where = tmp_path / "t.jsonl", tmp_path / "where"
    command = ("--jsonl", table, "--explain", where, "--resume")
    assert xception("predict", trained, photos / "test/blue", *command).status == 0
    before = {path.name: path.read_bytes() for path in where.iterdir()}
    assert xception("predict", trained, photos / "test", *command).status == 0
    rows = read(table)
    assert len(rows) == len({row["explanation"] for row in rows}) == 12
    assert {name: (where / name).read_bytes() for name in before} == before
    # A run that does not go on writes its own pictures again, under their names.
    assert xception("predict", trained, photos / "test/blue", "--explain", where).status == 0
    assert len(list(where.iterdir())) == 12


def test_a_folder_that_cannot_be_read_stops_nothing(
    xception, photos: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scandir, closed = os.scandir, photos / "test/green"

    def refuse(path: Path | str = "."):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    table = tmp_path / "t.jsonl"
    command = ("predict", trained, photos / "test")
    result = xception(*command, "--json")
    assert result.status == 1
    found = json.loads(result.stdout)
    assert len(found) == 9
    assert found[4] == {
        "path": str(closed),
        "top": [],
        "error": "the folder cannot be read (Permission denied)",
    }
    assert f"unreadable: {closed}: the folder cannot be read" in result.stderr
    assert "1 of 9 files could not be read" in result.stderr
    assert xception(*command, "--jsonl", table).status == 1
    monkeypatch.undo()
    assert xception(*command, "--jsonl", table, "--resume").status == 0
    assert len([row for row in read(table) if "error" not in row]) == 12


def test_the_table_on_the_screen_keeps_few_rows(
    xception, photos: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = xception("predict", trained, photos / "test").stdout.splitlines()
    monkeypatch.setattr(answers, "SHOWN_ROWS", 5)
    found = xception("predict", trained, photos / "test").stdout.splitlines()
    assert len(found) == 1 + 12
    assert [line.split() for line in found] == [line.split() for line in whole]


def test_the_screen_shows_rows_before_the_end(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answers, "SHOWN_ROWS", 2)
    screen = Screen()
    for number in range(4):
        screen.write([{"path": f"{number}.jpg", "top": [{"label": "a", "probability": 0.5}]}])
    before = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in before] == ["photo", "0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    screen.close()
    assert capfd.readouterr().out == ""
