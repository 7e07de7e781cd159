"""Trainings of the head on a frozen backbone, and trainings that start from a file of weights."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings

from xception.errors import UserError
from xception.training.interrupts import Interrupted
from xception.training.progress import Silent
from xception.training.run import train

from .conftest import tiny


class Stopped(Silent):
    """A SIGTERM in the second epoch."""

    def step(self, step: int, row: Any) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def weights(photos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    train(photos, tiny(epochs=1), folder / "run")
    shutil.copy(folder / "run" / "model.safetensors", folder / "w.safetensors")
    return folder / "w.safetensors"


def test_two_processes_give_the_numbers_of_one_with_averages(photos, weights, tmp_path):
    """Saving the best average must not touch the head that is trained, on the leader alone."""
    config = tiny(
        epochs=4,
        weights=str(weights),
        freeze="backbone",
        average_decay=0.9,
        optimizer={"name": "sgd", "learning_rate": 0.05},
    )
    alone = train(photos, config, tmp_path / "1")
    together = trainings.train_together(2, photos, config, tmp_path / "2")[0]
    for a, b in zip(alone.history, together, strict=True):
        for key in ("train_loss", "val_loss", "val_top1", "step"):
            assert a[key] == pytest.approx(b[key], abs=1e-5), key


def test_processes_that_cannot_share_a_batch(photos, weights, tmp_path):
    config = tiny(epochs=1, weights=str(weights), freeze="backbone", batch_size=7)
    with pytest.raises(AssertionError):
        trainings.train_together(2, photos, config, tmp_path / "run")


def stopped(photos, config, folder: Path) -> None:
    with pytest.raises(Interrupted):
        train(photos, config, folder, progress=Stopped())


def test_another_backbone_under_the_same_name_is_refused(photos, weights, tmp_path):
    start = tmp_path / "w.safetensors"
    shutil.copy(weights, start)
    config = tiny(epochs=3, weights=str(start), freeze="backbone")
    stopped(photos, config, tmp_path / "run")
    train(photos, tiny(epochs=1, seed=5), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", start)
    with pytest.raises(UserError):
        train(photos, None, tmp_path / "run", resume=True)
    shutil.copy(weights, start)
    assert len(train(photos, None, tmp_path / "run", resume=True).history) == 3


def test_a_run_goes_on_when_the_file_that_it_started_from_is_gone(photos, weights, tmp_path):
    start = tmp_path / "w.safetensors"
    shutil.copy(weights, start)
    config = tiny(epochs=3, weights=str(start))
    whole = train(photos, config, tmp_path / "whole")
    stopped(photos, config, tmp_path / "cut")
    start.unlink()
    cut = train(photos, None, tmp_path / "cut", resume=True)
    for one, other in zip(
        whole.model.state_dict().values(), cut.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "xceptoin"}, "xceptoin"),
        ({"model_options": {"widht": 0.1}}, "widht"),
        ({"schedule": {"name": "exponential"}}, "every_epochs"),
    ],
)
def test_a_wrong_setting_leaves_no_run_behind(photos, tmp_path, settings, said):
    with pytest.raises(UserError, match=said):
        train(photos, tiny(epochs=1, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parts_of_a_batch_are_as_equal_as_can_be(photos, tmp_path):
    """Of ten photos in four parts none stands alone, of which batch statistics would be nothing."""
    config = tiny(epochs=1, batch_size=10, accumulate=4, model_options={"width": 0.01, "middle": 0})
    assert len(train(photos, config, tmp_path / "run").history) == 1


def test_a_full_disk_is_said_and_leaves_no_features(photos, weights, tmp_path, monkeypatch):
    def full(file, arr):
        file.write(b"half")
        raise OSError("672 requested and 4 written")  # NumPy's words, without a number

    monkeypatch.setattr("numpy.save", full)
    config = tiny(epochs=1, weights=str(weights), freeze="backbone")
    with pytest.raises(UserError, match=r"cannot write .*train\.npy: 672 requested"):
        train(photos, config, tmp_path / "run")
    assert list((tmp_path / "run" / "features").iterdir()) == []
