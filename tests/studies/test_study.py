from pathlib import Path
from typing import Any

import pytest

from xception.errors import UserError
from xception.studies.catalogue import STUDIES
from xception.studies.cells import cells
from xception.studies.study import Scale


def refuse(name: str, scale: Scale, settings: dict[str, Any]) -> None:
    cells(STUDIES[name], scale, 1, Path("anywhere"), settings)


@pytest.mark.parametrize(
    ("name", "scale", "key", "value"),
    [
        ("order", "tiny", "model_options.order", "pointwise_first"),
        ("order", "full", "model_options.order", "pointwise_first"),
        ("order", "tiny", "model_options", {"width": 0.5}),  # above what they differ in
        ("residuals", "tiny", "optimizer.learning_rate", 0.1),
        ("residuals", "tiny", "optimizer", {"name": "sgd"}),
        ("segments", "tiny", "model_options.segments", 2),
        ("segments", "tiny", "model_options.segments.any", 2),  # below
        ("segments", "tiny", "model_options.parameters", 1_000_000),
        ("segments-macs", "tiny", "model_options.width", 0.5),
        ("inception-vs-xception", "tiny", "model", "xception"),
        ("inception-vs-xception", "full", "optimizer.weight_decay", 1e-4),
        ("fully-connected", "tiny", "model_options.fully_connected", []),
    ],
)
def test_what_the_networks_differ_in_cannot_be_set(name: str, scale: Scale, key: str, value: Any):
    with pytest.raises(UserError, match=f"--set {key}: the networks of the study {name} differ in"):
        refuse(name, scale, {key: value})


def test_the_seed_cannot_be_set():
    with pytest.raises(UserError, match=r"--set seed: .*; --seeds says how many"):
        refuse("order", "tiny", {"seed": 5})


@pytest.mark.parametrize(
    ("name", "scale", "key", "value"),
    [
        ("order", "tiny", "model_options.width", 0.5),
        ("order", "tiny", "optimizer.learning_rate", 0.1),
        ("residuals", "tiny", "optimizer.momentum", 0.8),
        ("segments", "tiny", "model_options.width", 0.5),
        ("segments", "tiny", "model_options.middle", 4),  # said by each arm, and the same in all
        ("inception-vs-xception", "tiny", "model_options.width", 0.36),
        ("inception-vs-xception", "tiny", "optimizer.weight_decay", 1e-4),  # both have one
        ("fully-connected", "tiny", "epochs", 9),
    ],
)
def test_what_they_share_can_be_set(name: str, scale: Scale, key: str, value: Any):
    refuse(name, scale, {key: value})
    (cell, *_) = cells(STUDIES[name], scale, 1, Path("x"), {key: value})
    assert cell.settings == {key: value}


def test_a_width_is_for_the_network_that_gives_the_number_of_parameters():
    grid = cells(STUDIES["segments"], "tiny", 1, Path("x"), {"model_options.width": 0.5})
    widths = {cell.arm: cell.config.model_options.get("width") for cell in grid}
    assert widths.pop("depthwise") == 0.5
    assert set(widths.values()) == {None}


def test_a_study_without_a_full_scale_says_why():
    with pytest.raises(
        UserError, match=r"fully-connected has no full scale, .*JFT.*: --scale tiny"
    ):
        refuse("fully-connected", "full", {})
    assert [name for name, study in STUDIES.items() if study.no_full] == ["fully-connected"]
