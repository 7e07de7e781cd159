import io
import sys
from pathlib import Path

import pytest

from xception.cli import photo_progress
from xception.cli.photo_progress import followed, line
from xception.cli.predict import count_photos


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then_in_a_pipe(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    asked: list[int] = []
    monkeypatch.setattr(photo_progress.time, "monotonic", lambda: clock[0])

    def total() -> int:
        asked.append(1)
        return 1000

    done = [900]  # by an earlier run
    for _ in followed(iter(range(100)), lambda: done[0], total, quiet=False):
        clock[0] += 1.0
        done[0] += 1
    assert capfd.readouterr().err.splitlines() == [
        "930 of 1,000 photos done, 1.0/s, 1 min 10 s left",
        "960 of 1,000 photos done, 1.0/s, 40 s left",
        "990 of 1,000 photos done, 1.0/s, 10 s left",
    ]
    assert len(asked) == 1
    for _ in followed(iter(range(100)), lambda: 0, total, quiet=True):
        clock[0] += 1.0
    assert capfd.readouterr().err == ""
    assert line(31, None, 2.5) == line(31, 30, 2.5) == "31 photos done, 2.5/s"


def test_a_bar_leaves_stdout_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """`xception predict RUN photos/ --json > answers.json`, where only stderr is a terminal."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    for number in followed(iter(range(3)), lambda: 1, lambda: 3, quiet=False):
        print(number)
    assert capfd.readouterr().out == "0\n1\n2\n"
    assert "predicting" in screen.getvalue()


def test_photos_are_counted_where_that_is_cheap(photos: Path):
    assert count_photos([photos / "test"], 60) == 12
    assert count_photos([photos / "test", photos / "test/red/0.png", photos / "none"], 60) == 14
    assert count_photos([photos / "test"], -1) is None
    assert count_photos([photos / "test", f"file://{photos}/test"], 60) is None
