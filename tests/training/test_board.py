import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xception.errors import UserError
from xception.training.board import Board
from xception.training.progress import Silent, Step


def test_the_figures_can_be_read_back(tmp_path):
    board = Board(tmp_path, Silent())
    for epoch, loss in enumerate((0.5, 0.25), start=1):
        board.epoch({"epoch": epoch, "step": 10 * epoch, "val_loss": loss, "best": True})
    board.writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    read = [(event.step, event.value) for event in events.Scalars("val_loss")]
    assert read == [(10, 0.5), (20, 0.25)]
    assert events.Tags()["scalars"] == ["val_loss"]


class Heard(Silent):
    def __init__(self):
        self.rows = []

    def step(self, step, row):
        self.rows.append((step, row))


def test_steps_are_passed_on(tmp_path):
    heard = Heard()
    row = Step(epoch=0.5, loss=1.0, accuracy=None, images_per_second=1.0, seconds_left=2.0)
    Board(tmp_path, heard).step(3, row)
    assert heard.rows == [(3, row)]


def test_its_absence_is_said_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'xception\[tensorboard\]'"):
        Board(tmp_path, Silent())
