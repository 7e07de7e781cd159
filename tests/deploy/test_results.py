import csv
import json
from pathlib import Path
from typing import Any

import pytest

from xception.deploy import results
from xception.deploy.results import (
    Done,
    JsonLinesTable,
    Table,
    open_csv,
    open_json_lines,
    open_parquet,
)
from xception.errors import UserError


def answer(path: str, *top: tuple[str, float], error: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"path": path, "top": [{"label": a, "probability": b} for a, b in top]}
    return found | ({"error": error} if error else {})


ANSWERS = [
    answer("a.jpg", ("cat", 0.75), ("dog", 0.25)),
    answer('b, "quoted"\nand broken.jpg', ("dog, the other", 0.5), ("cat", 0.5)),
    answer("c é.jpg", error="truncated"),
    answer("d.jpg", ("cat", 1.0), ("dog", 0.0)),
]


def fill(table: Table, answers: list[dict[str, Any]]) -> None:
    for one in answers:
        table.write([one])
    table.close()


def left(done: Done) -> list[dict[str, Any]]:
    """What a table that holds these rows lacks."""
    return [one for one in ANSWERS if not (one["path"] in done or done.failed(one["path"]))]


def test_csv_rows(tmp_path: Path):
    table, done = open_csv(tmp_path / "t.csv", 2, resume=False)
    fill(table, ANSWERS)
    assert len(done) == 0
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label_1", "probability_1", "label_2", "probability_2", "error"]
    assert rows[1] == ["a.jpg", "cat", "0.75", "dog", "0.25", ""]
    assert rows[2][0] == 'b, "quoted"\nand broken.jpg'
    assert rows[3] == ["c é.jpg", "", "", "", "", "truncated"]


def test_csv_goes_on_wherever_it_was_cut(tmp_path: Path):
    """Cut at every byte: what was whole stays and is done, and the rest is written again."""
    file = tmp_path / "t.csv"
    fill(open_csv(file, 2, resume=False)[0], ANSWERS)
    whole = file.read_bytes()
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        table, done = open_csv(file, 2, resume=True)
        assert file.read_bytes().startswith(whole[: file.stat().st_size])
        fill(table, left(done))
        assert file.read_bytes() == whole, length


def test_json_lines_go_on_wherever_they_were_cut(tmp_path: Path):
    file = tmp_path / "t.jsonl"
    fill(open_json_lines(file, resume=False)[0], ANSWERS)
    whole = file.read_bytes()
    assert [json.loads(line) for line in whole.splitlines()] == ANSWERS
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        table, done = open_json_lines(file, resume=True)
        fill(table, left(done))
        assert file.read_bytes() == whole, length


def test_json_lines_where_not_every_letter_can_be_written(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    file = path.open("w", encoding="ascii", errors="backslashreplace")
    fill(JsonLinesTable(file, narrow=True), ANSWERS)
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == ANSWERS


def test_nothing_there_to_go_on_with(tmp_path: Path):
    for table, done in (
        open_csv(tmp_path / "t.csv", 1, resume=True),
        open_json_lines(tmp_path / "t.jsonl", resume=True),
    ):
        assert len(done) == 0
        fill(table, [answer("a", ("b", 1.0))])
    assert (tmp_path / "t.csv").read_text("utf-8") == "path,label_1,probability_1,error\na,b,1.0,\n"


def test_another_table_is_not_touched(tmp_path: Path):
    file = tmp_path / "t.csv"
    for content in (
        "path,label_1,probability_1,error\n",
        "x,y\n1,2\n",
        "\x00\n",
        '"' * 3,
        "path,label_1,probability_1,e",
    ):
        file.write_text(content)
        with pytest.raises(UserError, match="other columns"):
            open_csv(file, 2, resume=True)
        assert file.read_text() == content
    file.write_text("path,label_1,probability_1,error\n" + 'a"' + "x\n" * 2**20)
    with pytest.raises(UserError, match="no row"):
        open_csv(file, 1, resume=True)
    for content in ("1\n", "{}\n", "no\n"):
        file.write_text(content)
        with pytest.raises(UserError, match="line 1 is no answer"):
            open_json_lines(file, resume=True)
        assert file.read_text() == content


def test_names_that_are_not_utf8(tmp_path: Path):
    odd = answer("caf\udce9.jpg", ("cat", 1.0))
    fill(open_csv(tmp_path / "t.csv", 1, resume=False)[0], [odd])
    fill(open_json_lines(tmp_path / "t.jsonl", resume=False)[0], [odd])
    for table, done in (
        open_csv(tmp_path / "t.csv", 1, resume=True),
        open_json_lines(tmp_path / "t.jsonl", resume=True),
    ):
        table.close()
        assert odd["path"] in done
        assert "cafe.jpg" not in done


def test_done():
    many = [f"folder/{i}.jpg" for i in range(5000)]
    done = Done((path, True) for path in many)
    assert len(done) == 5000
    assert all(path in done for path in many)
    assert not any(f"folder/{i}.png" in done for i in range(5000))
    assert "x" not in Done()
    twice = Done([("a", False), ("b", False), ("a", True)])
    assert len(twice) == 1
    assert "a" in twice
    assert "b" not in twice
    assert twice.failed("b")
    assert not twice.failed("c")


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="NOT TESTED: Parquet, because pyarrow is not installed"
    )
    monkeypatch.setattr(results, "PART_ROWS", 3)
    folder = tmp_path / "t.parquet"
    table, _ = open_parquet(folder, 2, resume=False)
    for one in ANSWERS:
        table.write([one])
    assert [path.name for path in folder.iterdir()] == ["part-000000.parquet"]  # and one to come
    with pytest.raises(UserError, match="--resume continues it"):
        open_parquet(folder, 2, resume=False)
    again, done = open_parquet(folder, 2, resume=True)
    assert [one["path"] in done for one in ANSWERS] == [True, True, False, False]
    assert [done.failed(one["path"]) for one in ANSWERS] == [False, False, True, False]
    fill(again, ANSWERS[3:])
    rows = parquet.read_table(folder).to_pylist()
    assert [row["path"] for row in rows] == [one["path"] for one in ANSWERS]
    assert rows[0] == {
        "path": "a.jpg",
        "label_1": "cat",
        "probability_1": 0.75,
        "label_2": "dog",
        "probability_2": 0.25,
        "error": None,
    }
    assert rows[2]["label_1"] is None
    with pytest.raises(UserError, match="other columns"):
        open_parquet(folder, 1, resume=True)
    (folder / "part-000001.parquet").write_bytes(b"damaged")
    with pytest.raises(UserError, match="part-000001"):
        open_parquet(folder, 2, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        open_parquet(tmp_path / "file", 2, resume=False)
