import pickle

import pytest
from model_files import card_of, join, small_model, split
from pydantic import ValidationError

from xception._version import __version__
from xception.errors import UserError
from xception.weights import card as card_module
from xception.weights import model_file
from xception.weights.card import ModelFileError, read_card
from xception.weights.model_file import load_model, save_model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_a_card_says_who_wrote_it():
    card = card_of(small_model())
    assert (card.format, card.version, card.package_version) == (
        "xception",
        card_module.VERSION,
        __version__,
    )


def test_an_older_minor_version_loads_with_the_defaults_of_what_it_lacks(path, good, monkeypatch):
    header, card, values = split(good)
    for later in ("training", "metrics", "license"):
        del card[later]
    path.write_bytes(join(header, card, values))
    monkeypatch.setattr(card_module, "VERSION", "1.7")
    loaded = load_model(path).card
    assert loaded.version == card["version"]
    assert (loaded.training, loaded.metrics, loaded.license) == ({}, {}, None)


def test_a_newer_minor_version_loads_without_what_is_not_known(path, good):
    header, card, values = split(good)
    card["version"] = "1.12"
    card["mood"] = "sunny"
    card["architecture"]["colour"] = "blue"
    card["preprocess"]["gamma"] = 2.2
    path.write_bytes(join(header, card, values))
    loaded = load_model(path)
    assert loaded.card == read_card(path)
    assert loaded.card.classes == card_of(small_model()).classes
    assert loaded.card.version == "1.12"
    save_model(path, loaded, loaded.card)  # what is written is what this program knows
    assert read_card(path).version == card_module.VERSION


def test_the_same_unknown_field_in_our_own_version_is_an_error(path, unsound):
    path.write_bytes(unsound("card", "mood", "sunny"))
    with pytest.raises(ModelFileError, match="its card is wrong at 'mood'"):
        load_model(path)


def test_a_card_of_version_1_0_loads(path, good):
    header, card, values = split(good)
    card["version"] = "1.0"
    path.write_bytes(join(header, card, values))
    assert load_model(path).card.version == "1.0"


def test_only_a_card_about_whole_images_has_an_image_task():
    card = card_of(small_model(), task="multilabel")
    assert card.image_task == "multilabel"
    with pytest.raises(UserError, match="this model segments images"):
        card_of(small_model(), task="segmentation").image_task  # noqa: B018


@pytest.mark.parametrize("version", ["2.0", "0.9"])
def test_another_major_version_is_refused(path, unsound, version):
    path.write_bytes(unsound("card", "version", version))
    with pytest.raises(ModelFileError, match=f"version {version}, this program reads 1.x"):
        read_card(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": ()},
        {"classes": ("a", "a", "b")},
        {"task": "detection"},
        {"mood": 1},
        {"colours": ((0, 0, 0),)},
        {"colours": ((0, 0, 256),) * 3},
    ],
)
def test_wrong_cards_are_refused(fields):
    model = small_model()
    with pytest.raises(ValidationError):
        card_of(model, **fields)


def test_a_card_cannot_be_changed():
    card = card_of(small_model())
    with pytest.raises(ValidationError):
        card.task = "multilabel"


def test_the_error_travels_between_processes(path):
    with pytest.raises(ModelFileError) as caught:
        read_card(path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.reason) == (path, caught.value.reason)
    assert str(again) == str(caught.value)


def test_the_version_that_is_written_is_the_one_that_is_read():
    assert model_file.VERSION == card_module.VERSION
