import pytest
import torch
from pydantic import ValidationError
from torch import nn

from xception.layers.separable import SeparableConv2d
from xception.models.surgery import Exchange, operate
from xception.models.zoo import create_model

OPTIONS = {"num_classes": 3, "width": 0.01, "middle": 1, "stem_stride": 1}
SECOND = "stem.3"  # 8 -> 8 channels, 3x3


def model():
    return create_model("xception", **OPTIONS).eval()


def exchange(layer: str = SECOND, **changes) -> Exchange:
    given = {"order": "depthwise_first", "ranks": 2, "bias": True}
    return Exchange.model_validate({"layer": layer, **given, **changes})


def test_a_network_gets_the_structure_of_its_record():
    changed = model()
    before = changed.get_submodule(SECOND)
    assert isinstance(before, nn.Conv2d)
    operate(changed, [exchange()])
    after = changed.get_submodule(SECOND)
    assert isinstance(after, SeparableConv2d)
    assert after.depthwise.weight.shape == (16, 1, 3, 3)
    assert after.pointwise.weight.shape == (8, 16, 1, 1)
    assert after.pointwise.bias is not None
    assert changed.surgery == (exchange(),)
    x = torch.randn(1, 3, 20, 20)
    assert changed(x).shape == (1, 3)
    assert after(torch.randn(1, 8, 9, 9)).shape == before(torch.randn(1, 8, 9, 9)).shape


def test_without_memory_too():
    with torch.device("meta"):
        changed = model()
        operate(changed, [exchange(order="pointwise_first", ranks=(1, 2, 3, 1, 1, 1, 1, 2))])
    assert all(parameter.is_meta for parameter in changed.parameters())
    weight = changed.state_dict()[f"{SECOND}.pointwise.weight"]
    assert weight.shape == (12, 8, 1, 1)


def test_a_network_operated_on_twice_lists_both():
    changed = create_model("inception_v3", num_classes=3)
    layers = [n for n, m in changed.named_modules() if isinstance(m, nn.Conv2d)]
    square = [n for n in layers if changed.get_submodule(n).kernel_size == (3, 3)][2:4]
    for name in square:
        operate(changed, [exchange(name)])
    assert [one.layer for one in changed.surgery] == square


@pytest.mark.parametrize(
    ("exchanges", "message"),
    [
        ([exchange("stem.9")], "surgery at 'stem.9': the network has no such layer"),
        ([exchange("forward")], "no such layer"),
        ([exchange("head")], "no 2-D convolution"),
        ([exchange(), exchange()], "SeparableConv2d"),
        ([exchange("middle.0.body.1")], "surgery at 'middle.0.body.1'"),
        ([exchange(ranks=10)], "surgery at 'stem.3'"),
        ([exchange(ranks=0)], "surgery at 'stem.3'"),
        ([exchange(ranks=(1, 2))], "surgery at 'stem.3'"),
        ([exchange(ranks=(9,) * 9)], "surgery at 'stem.3'"),
        ([exchange(order="pointwise_first", ranks=9)], "surgery at 'stem.3'"),
    ],
)
def test_what_the_network_does_not_allow_is_refused(exchanges: list[Exchange], message: str):
    with torch.device("meta"):
        changed = model()
        with pytest.raises(ValueError, match=message):
            operate(changed, exchanges)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer": ""},
        {"layer": "x" * 501},
        {"order": "sideways"},
        {"ranks": -1},
        {"ranks": 1.5},
        {"ranks": True},
        {"ranks": "3"},
        {"ranks": [1, "2"]},
        {"ranks": [0, 5000]},
        {"ranks": 10**9},
        {"bias": "perhaps"},
        {"code": "import os"},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(changes: dict):
    with pytest.raises(ValidationError):
        exchange(**changes)
