import json
import os

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from model_files import KEY, card_of, join, small_model, split

from xception.errors import UserError
from xception.models.inception_v3 import InceptionV3
from xception.models.xception import Xception
from xception.models.zoo import create_model
from xception.weights.card import ModelFileError, read_card
from xception.weights.model_file import load_model, load_weights, save_model, start_from


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ein Modell ü.safetensors"


@pytest.mark.parametrize(
    "options", [{}, {"in_channels": 1, "fully_connected": [7]}, {"residual": False}]
)
def test_what_is_loaded_is_what_was_saved(path, options):
    model = small_model(**options)
    card = card_of(model, metrics={"top1": 0.5}, training={"epochs": 3}, license="CC0-1.0")
    save_model(path, model, card)
    loaded = load_model(path)
    assert isinstance(loaded, Xception)
    assert not loaded.training
    assert loaded.card == card == read_card(path)
    assert loaded.options == model.options
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    x = torch.randn(2, model.options["in_channels"], 20, 20)
    assert torch.equal(loaded(x), model(x))


def test_no_length_of_the_header_makes_it_a_pickle(path):
    model = small_model()
    lengths = set()
    for pad in range(0, 256, 8):  # the header is filled up to a multiple of 8
        card = card_of(model, metrics={"note": "x" * pad})
        save_model(path, model, card)
        lengths.add(path.read_bytes()[0])
        assert read_card(path) == card
    assert 0x80 in lengths


def test_a_loaded_model_can_be_trained_on(path):
    model = small_model()
    save_model(path, model, card_of(model))
    loaded = load_model(str(path)).train()
    loaded(torch.randn(4, 3, 16, 16)).sum().backward()
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    pairs = zip(loaded.parameters(), model.parameters(), strict=True)
    assert any(not torch.equal(trained, before) for trained, before in pairs)


def test_the_file_is_one_that_other_programs_read(path):
    model = small_model()
    save_model(path, model, card_of(model))
    arrays = safetensors.numpy.load_file(path)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata().keys() == {KEY}


def test_the_same_weights_and_card_give_the_same_bytes(path):
    model = small_model()
    save_model(path, model, card_of(model, training={"b": 1, "a": 2}))
    first = path.read_bytes()
    again = load_model(path)
    again.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    save_model(path, again, card_of(model, training={"a": 2, "b": 1}))
    assert path.read_bytes() == first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_as_float32(path, dtype):
    model = small_model().to(dtype)
    save_model(path, model, card_of(model))
    loaded = load_model(path)
    for name, tensor in model.state_dict().items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded.state_dict()[name], expected)


def test_a_new_file_has_the_usual_rights(path):
    model = small_model()
    umask = os.umask(0o022)
    try:
        save_model(path, model, card_of(model))
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a", "b")}, "2 classes, but 3 logits"),
        ({"metrics": {"loss": float("nan")}}, "not JSON compliant"),
        ({"training": {"notes": "x" * (3 << 20)}}, "too long"),
        ({"training": {"list": [1] * 300_000}}, "more than 250,000 items"),
        ({"architecture": {"name": "xception", "options": {}}}, "but model of"),
    ],
)
def test_a_card_that_could_not_be_read_back_is_not_written(path, fields, message):
    model = small_model()
    with pytest.raises(ValueError, match=message):
        save_model(path, model, card_of(model, **fields))
    assert not path.exists()


def test_channels_of_card_and_model_must_agree(path):
    model = small_model(in_channels=1)
    card = card_of(small_model()).model_copy(update={"architecture": card_of(model).architecture})
    with pytest.raises(ValueError, match="preprocessing gives 3 channels, the network takes 1"):
        save_model(path, model, card)


@pytest.mark.parametrize("place", ["missing/model.safetensors", "file/model.safetensors", "folder"])
def test_what_cannot_be_written_is_told_in_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    model = small_model()
    with pytest.raises(UserError, match=r"^cannot write .*: ") as caught:
        save_model(tmp_path / place, model, card_of(model))
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_full_disk_leaves_the_old_file(path, good, monkeypatch):
    path.write_bytes(good)
    model = small_model()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_model(path, model, card_of(model))
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == [path.name]


def test_start_from_a_file_with_the_same_classes(path):
    source = small_model()
    save_model(path, source, card_of(source))
    target = create_model("xception", **source.options | {"dropout": 0.5})
    assert load_weights(target, path) == []
    assert all(map(torch.equal, source.state_dict().values(), target.state_dict().values()))


@pytest.mark.parametrize(
    ("classes", "given"),
    [
        (5, None),
        (5, ("a", "b", "c", "d", "e")),
        (3, ("a", "b", "c")),  # as many, but others
        (3, ("Größe 1", "Größe 0", "Größe 2")),  # another order
    ],
)
def test_other_classes_leave_the_last_layer_fresh(path, classes, given):
    source = small_model(fully_connected=[6])
    save_model(path, source, card_of(source))
    target = create_model("xception", **source.options | {"num_classes": classes})
    fresh = target.classifier.weight.clone()
    kept = load_weights(target, path, classes=given)
    assert kept == ["head.classifier.weight", "head.classifier.bias"]
    for name, tensor in source.state_dict().items():
        if name not in kept:
            assert torch.equal(tensor, target.state_dict()[name]), name
    assert torch.equal(target.classifier.weight, fresh)


def test_the_same_classes_in_the_same_order_keep_the_last_layer(path):
    source = small_model()
    save_model(path, source, card_of(source))
    classes = card_of(source).classes
    assert load_weights(create_model("xception", **source.options), path, classes=classes) == []


def test_another_architecture_cannot_start_this_one(path):
    source = small_model()
    save_model(path, source, card_of(source))
    target = create_model("xception", **source.options | {"width": 0.02, "middle": 2})
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(target, path)
    assert "holds a Xception(width 0.01, middle 1), which cannot start a " in str(caught.value)
    assert "Xception(width 0.02, middle 2)" in str(caught.value)
    assert all(torch.equal(before[name], target.state_dict()[name]) for name in before)


def test_tensors_may_stand_in_any_order(path, good):
    header, card, values = split(good)
    path.write_bytes(join(dict(reversed(header.items())), card, values))
    assert torch.equal(
        load_model(path).state_dict()["stem.0.weight"], small_model().state_dict()["stem.0.weight"]
    )


def test_an_integer_may_not_stand_for_a_fraction(path, good):
    header, card, _ = split(good)
    counts = [name for name in header if header[name]["dtype"] == "I64"]
    tensors = safetensors.torch.load(good)
    tensors[counts[0]] = tensors[counts[0]].float()
    text = json.dumps(card)
    path.write_bytes(safetensors.torch.save(tensors, {KEY: text}))
    with pytest.raises(ModelFileError, match="another shape or kind"):
        load_model(path)


def test_a_tower_can_be_left_behind_and_added():
    with_tower, without = (
        InceptionV3(num_classes=3, width=0.02, multiple=1, auxiliary=tower)
        for tower in (True, False)
    )
    assert start_from(without, with_tower, "x") == []
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_tower.state_dict()[name])
    fresh = start_from(with_tower, without, "x")
    assert {name.split(".")[0] for name in fresh} == {"auxiliary"}
