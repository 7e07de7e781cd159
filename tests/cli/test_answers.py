"""Where the answers of `xception predict` go."""

import json
import sys
from pathlib import Path

import pytest

from xception.cli.answers import STDOUT, open_outlets
from xception.errors import UserError


def test_json_lines_on_a_narrow_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answer = {"path": "é.jpg", "top": [{"label": "猫", "probability": 1.0}]}
    opening = open_outlets(None, STDOUT, None, as_json=False, resume=False)
    file = tmp_path / "stdout"
    with file.open("w", encoding="ascii", errors="backslashreplace") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with opening(Path("run"), 1) as outlets:
            outlets.write(answer)
        monkeypatch.undo()
    assert json.loads(file.read_bytes()) == answer


def test_two_tables_in_one_file_are_refused(tmp_path: Path):
    table = tmp_path / "t.txt"
    (tmp_path / "link.txt").symlink_to(table)
    same = tmp_path / "folder" / ".." / "t.txt"
    (tmp_path / "folder").mkdir()
    for files in (
        (table, table, None),
        (table, same, None),
        (table, tmp_path / "link.txt", None),
        (None, table, table),
    ):
        with pytest.raises(UserError, match="named for two tables; give each a file of its own"):
            open_outlets(*files, as_json=False, resume=False)
    assert not table.exists()
    open_outlets(table, tmp_path / "u.txt", None, as_json=False, resume=False)
    open_outlets(table, STDOUT, None, as_json=False, resume=False)
