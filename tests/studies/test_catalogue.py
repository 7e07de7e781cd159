import json
from functools import cache

import pytest
import torch

from xception import create_model
from xception.cost.count import count
from xception.studies.catalogue import STUDIES
from xception.studies.study import Arm, Scale, Study
from xception.training.config import TrainConfig

CLASSES = {"tiny": 10, "full": 1000}


@cache
def network_of(model: str, options: str) -> torch.nn.Module:
    with torch.device("meta"):
        return create_model(model, **json.loads(options))


def network(config: TrainConfig, scale: Scale) -> torch.nn.Module:
    options = {**config.model_options, "num_classes": CLASSES[scale]}
    return network_of(config.model, json.dumps(options))


def parameters(config: TrainConfig, scale: Scale) -> int:
    return sum(p.numel() for p in network(config, scale).parameters())


@pytest.mark.parametrize(
    ("study", "scale"),
    [
        pytest.param(study, scale, id=f"{name}-{scale}")
        for name, study in STUDIES.items()
        for scale in ("tiny", "full")
        if scale == "tiny" or study.no_full is None
    ],
)
def test_every_network_can_be_built_and_differs_from_the_others(study: Study, scale: Scale):
    configs = [study.config(arm, 1, scale) for arm in study.arms]
    sizes = [parameters(config, scale) for config in configs]
    if study.name in ("inception-vs-xception", "segments"):
        check_equal_parameters(study.name, sizes, scale)
    assert {config.seed for config in configs} == {1}
    assert len({json.dumps(config.model_dump(mode="json")) for config in configs}) == len(configs)
    assert study.sentence.endswith(".")
    assert study.source


def check_equal_parameters(name: str, sizes: list[int], scale: Scale) -> None:
    # Table 3 has its two within 3.5 %; ours are chosen within 1 %.
    allowed = 0.035 if (name, scale) == ("inception-vs-xception", "full") else 0.01
    budget = sizes[0] if name == "inception-vs-xception" else sizes[-1]
    assert all(abs(size - budget) <= allowed * budget for size in sizes)
    if allowed == 0.035:
        assert sizes == [23_626_728, 22_855_952]


def macs(study: Study, arm: Arm, scale: Scale) -> int:
    config = study.config(arm, 0, scale)
    return count(network(config, scale), config.preprocess.size).total["macs"]


def test_arms_of_equal_multiply_adds():
    study = STUDIES["segments-macs"]
    found = [macs(study, arm, "tiny") for arm in study.arms]
    assert max(found) <= 1.01 * min(found)


@pytest.mark.slow
def test_arms_of_equal_multiply_adds_at_full_scale():
    study = STUDIES["segments-macs"]
    found = [macs(study, arm, "full") for arm in study.arms]
    assert max(found) <= 1.01 * min(found)
