"""Model files of networks that were operated on."""

import json

import pytest
import torch
from model_files import card_of, join, small_model, split

from xception.errors import UserError
from xception.models.surgery import Exchange, operate
from xception.weights.card import ModelFileError, read_card
from xception.weights.model_file import load_model, load_weights, save_model

LAYER = "stem.3"
RECORD = {"layer": LAYER, "order": "depthwise_first", "ranks": [1, 2, 1, 0, 3, 1, 1, 2],
          "bias": True}  # fmt: skip


def operated():
    """A small network after surgery, with random weights where it was operated on."""
    model = small_model()
    operate(model, [Exchange.model_validate(RECORD)])
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.get_submodule(LAYER).parameters():
            parameter.normal_()
    return model


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    model = operated()
    save_model(path, model, card_of(model, surgery=model.surgery))
    return path


def test_it_loads_like_any_other(path):
    loaded, model = load_model(path), operated()
    assert loaded.surgery == model.surgery == loaded.card.surgery
    x = torch.randn(2, 3, 20, 20)
    assert torch.equal(loaded(x), model(x))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    again = path.with_name("again.safetensors")
    save_model(again, loaded, loaded.card)
    assert again.read_bytes() == path.read_bytes()


def test_the_card_and_the_network_must_agree(path):
    model = operated()
    with pytest.raises(ValueError, match="surgery"):
        save_model(path, model, card_of(model))
    plain = small_model()
    with pytest.raises(ValueError, match="surgery"):
        save_model(path, plain, card_of(plain, surgery=model.surgery))


def test_files_from_before_surgery_load(path):
    model = small_model()
    save_model(path, model, card_of(model))
    header, card, values = split(path.read_bytes())
    assert card["surgery"] == []
    for version in ("1.0", "1.1"):
        card["version"] = version
        card.pop("surgery", None)
        path.write_bytes(join(header, card, values))
        assert load_model(path).card.surgery == ()


def test_it_starts_only_a_network_after_the_same_surgery(path):
    with pytest.raises(UserError, match="exchanged for separable ones"):
        load_weights(small_model(), path)
    same = operated()
    assert load_weights(same, path) == []


HOSTILE = [
    None,
    "x",
    {},
    [1],
    [{}],
    [{**RECORD, "layer": "stem.0"}],  # there, but not what the tensors are of
    [{**RECORD, "layer": "stem.9"}],
    [{**RECORD, "layer": "__class__"}],
    [{**RECORD, "layer": "head.classifier"}],
    [{**RECORD, "layer": "x" * 100_000}],
    [RECORD, RECORD],
    [RECORD] * 20_000,
    [],
    [{**RECORD, "ranks": 10**12}],
    [{**RECORD, "ranks": [1] * 100_000}],
    [{**RECORD, "ranks": 9}],
    [{**RECORD, "order": "pointwise_first"}],
    [{**RECORD, "bias": False}],
    [{**RECORD, "kernel_size": 10**6}],
]


@pytest.mark.parametrize("surgery", HOSTILE, ids=lambda value: json.dumps(value)[:40])
def test_a_record_that_lies_is_refused_in_one_line(path, surgery):
    header, card, values = split(path.read_bytes())
    card["surgery"] = surgery
    path.write_bytes(join(header, card, values))
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 400


def test_the_card_alone_can_be_read(path):
    (one,) = read_card(path).surgery
    assert one == Exchange.model_validate(RECORD)
    assert one.ranks == tuple(RECORD["ranks"])
