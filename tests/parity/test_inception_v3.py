from collections.abc import Mapping
from functools import cache
from typing import Any

import keras
import oracles
import pytest
import torch
from networks import fill_keras, lively, pictures
from torch import nn

from xception.models.inception_v3 import InceptionV3


def image(height: int, width: int) -> torch.Tensor:
    torch.manual_seed(height)
    return pictures(1, 3, height, width)


@cache
def ours(norm_scale: bool) -> InceptionV3:
    """As Keras has it, or as torch's ports have it."""
    torch.manual_seed(0)
    if norm_scale:
        return lively(InceptionV3(pool_border="include", auxiliary=True), 299)
    model = lively(InceptionV3(norm_scale=False), 299)
    with torch.no_grad():
        model.classifier.weight *= 0.5  # logits of a spread of 1 to 5, and not of up to 10
    return model


@cache
def keras_inception() -> Any:
    """Keras' Inception V3 with the weights of ours; its `call` takes images of any size."""
    assert keras.backend.backend() == "torch"
    model = ours(norm_scale=False)
    theirs = keras.applications.InceptionV3(
        weights=None,  # pyright: ignore[reportArgumentType]  (not annotated, says "imagenet")
        classifier_activation=None,  # pyright: ignore[reportArgumentType]
    )

    # Its layers have no names of their own, only numbers that grow as they are made: branch by
    # branch, from the image on, which is the order of ours.
    def numbered(kind: type) -> list[str]:
        names = [layer.name for layer in theirs.layers if isinstance(layer, kind)]
        ends = {name: name.rpartition("_")[2] for name in names}  # the first has no number
        return sorted(names, key=lambda name: int(ends[name]) if ends[name].isdigit() else 0)

    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    layers: dict[str, nn.Module] = {"predictions": model.classifier}
    layers |= zip(numbered(keras.layers.Conv2D), convs, strict=True)
    layers |= zip(numbered(keras.layers.BatchNormalization), norms, strict=True)
    fill_keras(theirs, layers)
    return theirs


def with_options(model: InceptionV3, **options: Any) -> InceptionV3:
    """The same weights in a network of other options."""
    with torch.device("meta"):
        other = InceptionV3(**model.options | options).eval()
    other.load_state_dict(model.state_dict(), assign=True)
    return other


@pytest.mark.parametrize("size", [(299, 299), (224, 150), (75, 98)])
def test_logits_equal_keras(size):
    x = image(*size)
    model = ours(norm_scale=False)
    with torch.no_grad():
        expected = keras_inception().call(x.permute(0, 2, 3, 1), training=False)
        logits = model(x)
        included = with_options(model, pool_border="include")(x)
    assert expected.std() > 1  # logits as a trained network has them
    assert (logits - expected).abs().max() <= 1e-4
    # The test notices what the average pooling divides by at the edges.
    assert (included - expected).abs().max() > 1e-2


def in_their_names(model: InceptionV3, names: Mapping[str, torch.Tensor]) -> dict:
    """The tensors of ours by the names of theirs.

    All three register the layers of the trunk in one order; where the tower stands, they differ.
    """
    mine = model.state_dict()
    tower = [value for name, value in mine.items() if name.startswith("auxiliary.")]
    trunk = [value for name, value in mine.items() if not name.startswith("auxiliary.")]
    their_tower = [name for name in names if name.startswith("AuxLogits.")]
    their_trunk = [name for name in names if not name.startswith("AuxLogits.")]
    if not their_tower:
        tower = []
    return {
        **dict(zip(their_trunk, trunk, strict=True)),
        **dict(zip(their_tower, tower, strict=True)),
    }


def test_both_logits_equal_torchvision():
    model = ours(norm_scale=True)
    with torch.device("meta"):
        theirs = oracles.torchvision_models().inception_v3(
            weights=None, init_weights=False, aux_logits=True, transform_input=False, dropout=0.0
        )
    theirs.load_state_dict(in_their_names(model, theirs.state_dict()), strict=True, assign=True)
    theirs.train()  # gives the second logits
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = image(300, 299)
    with torch.no_grad():
        expected, expected_auxiliary = theirs(x)
        logits, auxiliary = model.forward_both(x)
        assert torch.equal(model(x), logits)
    assert expected.std() > 1
    assert expected_auxiliary.std() > 0.01
    assert (logits - expected).abs().max() <= 1e-4
    assert (auxiliary - expected_auxiliary).abs().max() <= 1e-4


@pytest.mark.parametrize("size", [(75, 98), (160, 131)])
def test_logits_equal_timm(size):
    model = ours(norm_scale=True)
    with torch.device("meta"):
        theirs = oracles.timm().create_model("inception_v3").eval()
    theirs.load_state_dict(in_their_names(model, theirs.state_dict()), strict=True, assign=True)
    x = image(*size)
    with torch.no_grad():
        expected = theirs(x)
        logits = model(x)
    assert expected.std() > 1
    assert (logits - expected).abs().max() <= 1e-4
