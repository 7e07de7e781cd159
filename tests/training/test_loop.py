import csv
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xception.data.loader import LoaderError
from xception.errors import Diverged, UserError
from xception.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from xception.training.distributed import World
from xception.training.feeds import Validation
from xception.training.interrupts import Interrupted, StopRequest
from xception.training.loop import Trainer
from xception.training.objectives import PhotoLabels
from xception.training.progress import Silent

from .conftest import tiny


class Numbers:
    """A feed of ten rows of four numbers: two steps an epoch, five rows each."""

    steps_per_epoch = 2

    def __init__(self, scores=()):
        self.scores = iter(scores)
        rng = np.random.default_rng(0)
        self.x = torch.from_numpy(rng.normal(size=(10, 4)).astype(np.float32))
        self.y = F.one_hot((self.x[:, 0] > 0).long(), 2).float()

    def training(self, first_step, last_step):
        for step in range(first_step, last_step):
            half = slice(5 * (step % 2), 5 * (step % 2) + 5)
            yield self.x[half], self.y[half]

    def validation(self, module):
        score = next(self.scores, None)
        return None if score is None else Validation(score, 0.5, {"val_top1": score})


def line():
    module = nn.Linear(4, 2)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def trainer(tmp_path, *, feed=None, module=None, scores=None, kept=None, **changes):
    values = {"optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0, "weight_decay": 0}}
    config = tiny(**{"schedule": {"name": "constant"}, "average_decay": None, **values, **changes})

    def keep_best(candidate, figures):
        if kept is not None:
            kept.append((figures, {k: v.clone() for k, v in candidate.state_dict().items()}))

    return Trainer(
        module or line(),
        feed or Numbers(scores or ()),
        PhotoLabels(multilabel=False),
        config,
        World(),
        keep_best=keep_best,
        folder=tmp_path,
        fingerprint="f",
        progress=Silent(),
    )


def test_the_time_left_counts_the_pixels_that_are_to_come(tmp_path, monkeypatch):
    rows, steps = [], []
    one = trainer(tmp_path, epochs=4, preprocess={"size": 32}, progressive={"start": 16})
    monkeypatch.setattr(one.progress, "epoch", rows.append)
    monkeypatch.setattr(
        one.progress, "step", lambda step, row: steps.append((one.at.epoch_seconds, row))
    )
    one.run(StopRequest())
    # Two epochs of 16 pixels cost a quarter of the two that follow: 1 + 1 + 4 + 4, or in steps,
    # of which an epoch has two: 1 1 1 1 4 4 4 4.
    for row, done in zip(rows, (1, 2, 6, 10), strict=True):
        assert row["seconds_left"] == pytest.approx(row["seconds"] * (10 - done) / done)
    counted = ((1, 19), (2, 18), (1, 17), (2, 16), (4, 12), (8, 8), (4, 4), (8, 0))
    for (seconds, row), (done, left) in zip(steps, counted, strict=True):
        assert row.seconds_left == pytest.approx(seconds * left / done)


def weights_of(one):
    return [parameter.detach().numpy() for parameter in one.module.parameters()]


def test_two_epochs_of_sgd_by_hand(tmp_path):
    feed = Numbers()
    one = trainer(tmp_path, feed=feed, epochs=2)
    one.run(StopRequest())
    weight, bias = np.zeros((2, 4)), np.zeros(2)
    for step in range(4):
        x, y = (t[5 * (step % 2) : 5 * (step % 2) + 5].double().numpy() for t in (feed.x, feed.y))
        p = np.exp(x @ weight.T + bias)
        gradient = (p / p.sum(1, keepdims=True) - y) / 5  # of softmax cross-entropy
        weight -= 0.5 * gradient.T @ x
        bias -= 0.5 * gradient.sum(0)
    np.testing.assert_allclose(weights_of(one)[0], weight, atol=1e-6)
    np.testing.assert_allclose(weights_of(one)[1], bias, atol=1e-6)


def test_accumulated_parts_give_the_gradient_of_the_whole(tmp_path):
    runs = []
    for parts in (1, 2, 3):  # 5 rows in parts of 5, 3 + 2 and 2 + 2 + 1
        one = trainer(tmp_path, accumulate=parts, epochs=3)
        one.run(StopRequest())
        runs.append(weights_of(one)[0])
    np.testing.assert_allclose(runs[1], runs[0], atol=1e-6)
    np.testing.assert_allclose(runs[2], runs[0], atol=1e-6)


def test_clipping_bounds_the_step(tmp_path):
    one = trainer(tmp_path, clip_norm=0.01, epochs=1)
    one.run(StopRequest())
    moved = torch.cat([p.detach().flatten() for p in one.module.parameters()]).norm()
    assert 0 < float(moved) <= 2 * 0.5 * 0.01 + 1e-6  # two steps of learning rate 0.5


def test_the_best_epoch_is_kept_and_the_first_of_equals(tmp_path):
    kept = []
    one = trainer(tmp_path, scores=[0.2, 0.8, 0.8, 0.5], kept=kept, epochs=4)
    one.run(StopRequest())
    assert [figures for figures, _ in kept] == [{"val_top1": 0.2}, {"val_top1": 0.8}]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [row["best"] for row in rows] == ["True", "True", "False", "False"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    kept = []
    trainer(tmp_path, kept=kept, epochs=3).run(StopRequest())
    assert len(kept) == 3


def test_validation_can_be_rarer_but_never_misses_the_last_epoch(tmp_path):
    kept = []
    one = trainer(tmp_path, scores=[0.4, 0.6, 0.5], kept=kept, epochs=5, validate_every=2)
    one.run(StopRequest())
    assert [figures for figures, _ in kept] == [{"val_top1": 0.4}, {"val_top1": 0.6}]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [row["val_top1"] for row in rows] == ["", "0.4", "", "0.6", "0.5"]
    assert [row["best"] for row in rows] == ["False", "True", "False", "True", "False"]


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_batch_statistics_stay_while_the_rest_learns(tmp_path, frozen):
    torch.manual_seed(0)
    norm, dropout = nn.BatchNorm1d(4), nn.Dropout(0.5)
    module = nn.Sequential(norm, nn.Linear(4, 2), dropout)
    before = norm.get_buffer("running_mean").clone(), norm.weight.detach().clone()
    settings = {"batch_statistics": "frozen"} if frozen else {}
    trainer(tmp_path, module=module, epochs=2, **settings).run(StopRequest())
    assert torch.equal(norm.get_buffer("running_mean"), before[0]) == frozen
    assert not torch.equal(norm.weight, before[1])
    assert dropout.training


class StopsAt(Silent):
    def __init__(self, request, step, signum=signal.SIGTERM):
        self.request, self.at, self.signum = request, step, signum

    def step(self, step, row):
        if step == self.at:
            self.request.signum = self.signum


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_signal_saves_and_the_rest_is_the_same(tmp_path, step, decay):
    settings = {"epochs": 4, "average_decay": decay, "optimizer": {"name": "adamw"}}
    whole = trainer(tmp_path / "..", **settings)
    whole.run(StopRequest())
    stop = StopRequest()
    cut = trainer(tmp_path, **settings)
    cut.progress = StopsAt(stop, step)
    with pytest.raises(Interrupted) as caught:
        cut.run(stop)
    assert caught.value.signum == signal.SIGTERM
    rest = trainer(tmp_path, **settings)
    rest.resume()
    assert rest.at.step == step
    rest.run(StopRequest())
    for a, b in zip(rest.final.parameters(), whole.final.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = [[row["train_loss"] for row in t.at.history] for t in (rest, whole)]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trainer(tmp_path, epochs=1).run(StopRequest())
    other = trainer(tmp_path, epochs=1)
    other.fingerprint = "g"
    with pytest.raises(UserError, match="other photos"):
        other.resume()


def test_a_loss_that_is_not_a_number_stops_and_names_the_way_out(tmp_path):
    one = trainer(tmp_path, epochs=2)
    one.run(StopRequest())
    before = (tmp_path / "last.ckpt").read_bytes()
    feed = Numbers()
    feed.x[7, 2] = float("nan")
    bad = trainer(tmp_path, feed=feed, epochs=2)
    with pytest.raises(UserError, match=r"step 2.*lower learning rate than 0\.5.*from before"):
        bad.run(StopRequest())
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_saves_come_by_the_clock_too(tmp_path):
    one = trainer(tmp_path, epochs=1, checkpoint_minutes=1e-9)
    saved = []
    save = one.save
    one.save = lambda: (saved.append(one.at.step), save())[1]
    one.run(StopRequest())
    assert saved == [1, 2, 2]  # after each step, and at the end of the epoch


def test_a_checkpoint_without_its_parts_is_refused(tmp_path):
    one = trainer(tmp_path, epochs=1)
    save_checkpoint(one.checkpoint, {"fingerprint": "f", "module": {}})
    with pytest.raises(CheckpointError, match="incomplete"):
        one.resume()


def test_weights_that_are_no_numbers_are_refused_before_validation(tmp_path, monkeypatch):
    def run_away():
        next(one.module.parameters()).data.fill_(float("inf"))

    class Poison(Numbers):
        """Its last batch is followed by weights that have run away."""

        def training(self, first_step, last_step):
            for number, batch in enumerate(super().training(first_step, last_step)):
                if number == 1:
                    monkeypatch.setattr(one.optimizer, "step", run_away)
                yield batch

    one = trainer(tmp_path, feed=Poison(), epochs=1)
    with pytest.raises(Diverged, match=r"weights are no longer a number.*lower learning rate"):
        one.run(StopRequest())


class Dies(Numbers):
    """A feed whose workers are gone after the first batch, with a signal or without."""

    def __init__(self, stop, signum):
        super().__init__()
        self.stop, self.signum = stop, signum

    def training(self, first_step, last_step):
        yield self.x[:5], self.y[:5]
        self.stop.signum = self.signum
        raise LoaderError("a worker died")


def test_a_signal_that_took_the_loader_too_still_saves(tmp_path):
    stop = StopRequest()
    feed = Dies(stop, signal.SIGTERM)
    one = trainer(tmp_path, feed=feed, epochs=2)
    with pytest.raises(Interrupted):
        one.run(stop)
    assert load_checkpoint(one.checkpoint)["position"]["step"] == 1


def test_a_loader_that_dies_by_itself_is_an_error(tmp_path):
    with pytest.raises(LoaderError, match="a worker died"):
        trainer(tmp_path, feed=Dies(StopRequest(), None), epochs=2).run(StopRequest())
