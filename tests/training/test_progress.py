import io

import pytest

from xception.training.progress import Lines, Silent, Step, duration

STEP = Step(epoch=1.5, loss=0.25, accuracy=0.5, images_per_second=40.0, seconds_left=50.0)
EPOCH = {
    "epoch": 2, "epochs": 5, "train_loss": 0.5, "val_loss": 0.4, "val_top1": 0.75,
    "images_per_second": 40.0, "seconds_left": 125.0, "best": True,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7625, "2 h 07 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_pipe_gets_plain_lines():
    stream = io.StringIO()
    lines = Lines(stream, every_s=0)
    lines.note("hello")
    lines.step(10, STEP)
    lines.epoch(EPOCH)
    text = stream.getvalue()
    assert text.splitlines() == [
        "hello",
        "epoch 1.50  loss 0.250  accuracy 0.500  40 images/s  50 s left",
        "epoch 2/5  train loss 0.500  validation: loss 0.400  top1 0.750"
        "  40 images/s  2 min 05 s left  *",
    ]
    assert "\r" not in text
    assert "\x1b" not in text


def test_steps_in_a_pipe_are_rare():
    stream = io.StringIO()
    lines = Lines(stream)
    for step in range(100):
        lines.step(step, STEP)
    assert stream.getvalue() == ""


def test_a_terminal_rewrites_its_line_and_ends_it(monkeypatch):
    stream = Terminal()
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("xception.training.progress.time.monotonic", lambda: next(clock))
    lines = Lines(stream, _last=-1.0)
    lines.step(1, STEP._replace(accuracy=None))
    lines.step(2, STEP)
    lines.note("done")
    text = stream.getvalue()
    assert text.count("\r\x1b[2K") == 3
    assert "accuracy" in text
    assert text.endswith("\r\x1b[2Kdone\n")


def test_silence():
    silent = Silent()
    assert silent.note("x") is silent.step(1, STEP) is silent.epoch(EPOCH) is None
