"""What is asked of a separation, and the search for the fewest MACs, on accuracies made up."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from xception.cli.separate import read_target
from xception.cli.separating import Bench, Result, Ways
from xception.cli.separation_reporting import report_separation
from xception.data.folders import open_photos
from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.models.classifier import Classifier
from xception.models.zoo import create_model
from xception.separation.sites import ORDERS
from xception.separation.surgery import prepare
from xception.weights.card import Architecture, Card


def asked(**given: Any):
    nothing = dict.fromkeys(("speedup", "macs", "max_drop", "energy", "rank"))
    return read_target(**{**nothing, **given})


def test_targets():
    assert asked().macs == 0.5
    assert asked(speedup=4.0).macs == 0.25
    words = {
        "25 % of the MACs": asked(speedup=4.0),
        "30 % of the MACs": asked(macs=0.3),
        "at most 1 points of accuracy lost": asked(max_drop=0.01),
        "95 % of the energy of every kernel": asked(energy=0.95),
        "rank 3 everywhere": asked(rank=3),
    }
    assert {target.words for target in words.values()} == set(words)
    assert [one.needs_menu for one in words.values()] == [True, True, True, False, False]
    assert "in other layers" in asked(macs=0.5).why_left
    assert "not become cheaper" in asked(rank=8).why_left
    with pytest.raises(UserError, match="one target, please, and not --speedup and --energy"):
        asked(speedup=2.0, energy=0.9)


@pytest.fixture
def bench(photos: Path) -> Bench:
    model = create_model("xception", num_classes=3, width=0.01, middle=0, stem_stride=1)
    assert isinstance(model, Classifier)
    card = Card(
        architecture=Architecture(name="xception", options=model.options),
        task="classification",
        classes=("blue", "green", "red"),
        preprocess=Preprocess(size=16),
    )
    ways = Ways(ORDERS, False, ())
    return Bench(model, card, open_photos(photos), torch.device("cpu"), 8, 0, 0, ways)


@pytest.mark.parametrize("share", [0.25, 0.7, 2.0])
def test_the_fewest_macs_that_lose_little(bench, monkeypatch, share: float):
    """As if networks answered 90 % rightly from a number of MACs on, and below it half."""
    prepared = prepare(bench.model, 16, 3)
    between = (1 - prepared.least) * prepared.total_macs
    wanted = prepared.least * prepared.total_macs + share * between

    def operate(self, prepared, plan, *, say):
        model = Classifier()
        model.register_buffer("macs", torch.tensor(plan.macs))
        return Result(plan, model, [])

    def score(self, network, split):
        enough = network is self.model or int(network.macs) >= wanted
        return 0.9 if enough else 0.5

    monkeypatch.setattr(Bench, "operate", operate)
    monkeypatch.setattr(Bench, "score", score)
    if share > 1:
        with pytest.raises(UserError, match="no plan loses as little as 1 points"):
            bench.reach(prepared, asked(max_drop=0.01), lambda text: None)
        return
    result, tried = bench.reach(prepared, asked(max_drop=0.01), lambda text: None)
    assert len(tried) == 6
    # Six halvings find the least of 63 budgets between all and the least that can be had.
    budgets = (prepared.least + (1 - prepared.least) * part / 64 for part in range(1, 64))
    plans = (prepared.within(budget) for budget in budgets)
    assert result.plan.macs == next(plan.macs for plan in plans if plan.macs >= wanted)
    assert result.plan.macs == min(one.macs for one in tried if one.data_free == 0.9)
    assert all(one.data_aware is None for one in tried)  # nothing was fitted to photos


def test_a_drop_of_just_so_much_is_allowed(bench, monkeypatch):
    """0.90 - 0.89 is a little above 0.01, as computers subtract."""
    assert 0.90 - 0.89 > 0.01
    monkeypatch.setattr(Bench, "operate", lambda *given, say: Result(given[2], Classifier(), []))
    monkeypatch.setattr(
        Bench, "score", lambda self, network, split: 0.90 if network is self.model else 0.89
    )
    prepared = prepare(bench.model, 16, 3)
    result, tried = bench.reach(prepared, asked(max_drop=0.01), lambda text: None)
    assert len(tried) == 6
    assert result.plan.macs == min(one.macs for one in tried)


@pytest.mark.parametrize(("task", "sigmoid"), [("classification", False), ("multilabel", True)])
def test_the_task_says_what_becomes_of_the_answers(bench, monkeypatch, task: str, sigmoid: bool):
    told = {}

    def looked(*given, **options):
        told.update(options)
        return prepare(*given, **options)

    monkeypatch.setattr("xception.cli.separating.prepare", looked)
    card = bench.card.model_copy(update={"task": task})
    replace(bench, card=card).prepare(0, with_menu=True, say=lambda text: None)
    assert told["sigmoid"] is sigmoid


def test_times_are_of_the_device_that_the_report_names(bench, monkeypatch, tmp_path: Path):
    """No processor is named meta, so that nothing can be measured there; only where it would be."""
    seen = []

    def layers(before, after, sites, image):
        seen.extend([image, *before.parameters(), *after.parameters()])
        return {}

    def networks(before, after, image):
        seen.append(image)
        return 1.0, 1.0

    monkeypatch.setattr("xception.cli.separation_reporting.compare_layers", layers)
    monkeypatch.setattr("xception.cli.separation_reporting.compare_networks", networks)
    monkeypatch.setattr(Bench, "score", lambda self, network, split: 0.9)
    monkeypatch.setattr(Bench, "agreement", lambda self, network: 1.0)
    elsewhere = replace(bench, device=torch.device("meta"))
    prepared = prepare(bench.model, 16, 3)
    result = Result(prepared.within(1), bench.model, [])
    report = report_separation(
        tmp_path, elsewhere, prepared, result, bench.model, None, [],
        images=0, target=asked(), command="",
    )  # fmt: skip
    assert {tensor.device.type for tensor in seen} == {"meta"}
    assert report.environment["device"] == "meta"
    assert {parameter.device.type for parameter in bench.model.parameters()} == {"cpu"}
