"""Files that Keras wrote, read by our own reader: the same answers, there and back."""

import importlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from xception.models.network import Network
from xception.weights.convert import read_foreign
from xception.weights.foreign_files import choose_source, write_foreign
from xception.weights.model_file import load_model, save_model

NETWORKS = {"xception": "Xception", "mobilenet_v1": "MobileNet", "inception_v3": "InceptionV3"}
CLASSES = 4

# Keras' torch backend turns variables into arrays in a way that NumPy 2 frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    os.environ["KERAS_BACKEND"] = "torch"
    module = importlib.import_module("keras")
    assert module.backend.backend() == "torch"
    return module


@pytest.fixture(scope="module")
def build(keras) -> Callable[..., Any]:
    """Networks of Keras whose every weight is random, the statistics of the norms too.

    Each is built once, for it takes seconds; whoever changes its weights puts them back.
    """

    @cache
    def made(model: str, top: bool = True) -> Any:
        make = getattr(keras.applications, NETWORKS[model])
        head = {"classes": CLASSES, "classifier_activation": None} if top else {}
        network = make(weights=None, include_top=top, **head)
        generator = np.random.default_rng(0)
        for weight in network.weights:
            fan_in = max(1, np.prod(weight.shape[:-1]))
            spread = fan_in**-0.5 if len(weight.shape) > 1 else 0.1
            values = spread * generator.standard_normal(weight.shape, np.float32)
            if weight.name in ("gamma", "moving_variance"):
                values = 1 + np.abs(values)
            weight.assign(values.astype(np.float32))
        return network

    return made


def answer(network, image: np.ndarray) -> np.ndarray:
    """What a network of Keras answers to an image of any size."""
    with torch.no_grad():
        return network.call(np.moveaxis(image, 1, -1), training=False).detach().numpy()


def image(size: int) -> np.ndarray:
    return np.random.default_rng(size).uniform(-1, 1, (1, 3, size, size + 1)).astype(np.float32)


@pytest.mark.parametrize("model", NETWORKS)
def test_the_same_answers_and_back_the_same_bytes(build, model: str, tmp_path: Path):
    network = build(model)
    file, ours, again = (
        tmp_path / name for name in ("a.weights.h5", "b.safetensors", "c.weights.h5")
    )
    network.save_weights(file)
    converted = read_foreign(file)
    assert converted.source.network == NETWORKS[model]
    assert not converted.left_out
    for size in (96, 107):
        with torch.inference_mode():
            found = converted.model(torch.from_numpy(image(size))).numpy()
        expected = answer(network, image(size))
        assert np.std(expected) > 1e-2
        np.testing.assert_allclose(found, expected, atol=1e-4)
    save_model(ours, converted.model, converted.model.card)
    write(again, load_model(ours), model)
    network_equal(network, again)


@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ("mobilenet_v1", ".keras"),
        ("mobilenet_v1", ".h5"),
        ("xception", ".h5"),
        pytest.param("xception", ".keras", marks=pytest.mark.slow),
        pytest.param("inception_v3", ".h5", marks=pytest.mark.slow),
        pytest.param("inception_v3", ".keras", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_whole_models_of_keras_2_and_3(build, model: str, ending: str, tmp_path: Path):
    network = build(model)
    file, weights = tmp_path / f"whole{ending}", tmp_path / "a.weights.h5"
    network.save(file)
    network.save_weights(weights)
    one, other = (read_foreign(path).model.state_dict() for path in (file, weights))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    "model",
    [
        "mobilenet_v1",
        pytest.param("xception", marks=pytest.mark.slow),
        pytest.param("inception_v3", marks=pytest.mark.slow),
    ],
)
def test_without_top(build, model: str, tmp_path: Path):
    network = build(model, top=False)
    file, again = tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"
    network.save_weights(file)
    converted = read_foreign(file)
    assert converted.headless
    assert not converted.model.classifier.weight.any()
    write(again, converted.model, model)
    network_equal(network, again)


def test_optimizer_tensors_are_left_out_by_name(build, tmp_path: Path):
    network = build.__wrapped__("mobilenet_v1")  # one of its own, for it is changed
    network.compile(optimizer="adam", loss="mse")
    network.optimizer.build(network.trainable_variables)
    file = tmp_path / "trained.weights.h5"
    network.save_weights(file)
    left_out = read_foreign(file).left_out
    assert left_out
    assert all(name.startswith("optimizer/") for name in left_out)


def write(path: Path, model: Network, name: str) -> None:
    source = choose_source(path, name, None)
    assert source is not None
    write_foreign(path, model, source)


def network_equal(network, file: Path) -> None:
    """What a network loads from a file is what it had."""
    before = [weight.numpy().copy() for weight in network.weights]
    for weight in network.weights:
        weight.assign(np.full(weight.shape, np.nan, np.float32))
    network.load_weights(file)
    for weight, value in zip(network.weights, before, strict=True):
        assert np.array_equal(weight.numpy(), value), weight.path
