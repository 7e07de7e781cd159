from functools import cache
from typing import Any

import keras
import oracles
import pytest
import torch
from networks import fill_keras, lively, pictures
from torch import nn

from xception.layers import SeparableConv2d
from xception.models.mobilenet_v1 import MobileNetV1


def image(height: int, width: int) -> torch.Tensor:
    torch.manual_seed(height)
    return pictures(1, 3, height, width)


def blocks(model: MobileNetV1) -> list[SeparableConv2d]:
    """The separable convolutions, in order."""
    return [module for module in model.modules() if isinstance(module, SeparableConv2d)]


@cache
def ours(alpha: float) -> MobileNetV1:
    torch.manual_seed(0)
    return lively(MobileNetV1(width=alpha), 128)


@cache
def keras_mobilenet(alpha: float):
    """Keras' MobileNet with the weights of ours; its `call` takes images of any size."""
    assert keras.backend.backend() == "torch"
    model = ours(alpha)
    theirs = keras.applications.MobileNet(
        alpha=alpha,
        weights=None,  # pyright: ignore[reportArgumentType]  (not annotated, says "imagenet")
        classifier_activation=None,  # pyright: ignore[reportArgumentType]
    )
    layers: dict[str, nn.Module] = {"conv1": model.stem[0], "conv1_bn": model.stem[1]}
    for i, block in enumerate(blocks(model), start=1):
        layers[f"conv_dw_{i}"] = block.depthwise
        layers[f"conv_dw_{i}_bn"] = block.norm_between
        layers[f"conv_pw_{i}"] = block.pointwise
        layers[f"conv_pw_{i}_bn"] = block.norm_after
    layers["conv_preds"] = model.classifier
    fill_keras(theirs, layers)
    return theirs


def with_options(model: MobileNetV1, **options: Any) -> MobileNetV1:
    """The same weights in a network of other options."""
    with torch.device("meta"):
        other = MobileNetV1(**model.options | options).eval()
    other.load_state_dict(model.state_dict(), assign=True)
    return other


SIZES = [
    *((alpha, (size, size)) for alpha in (1.0, 0.75, 0.5, 0.25) for size in (224, 192, 160, 128)),
    (1.0, (225, 199)),  # odd at the first layer, and further on
    (0.5, (130, 131)),
    (0.3, (97, 64)),
]


@pytest.mark.parametrize(("alpha", "size"), SIZES)
def test_logits_equal_keras(alpha, size):
    x = image(*size)
    with torch.no_grad():
        expected = keras_mobilenet(alpha).call(x.permute(0, 2, 3, 1), training=False)
        logits = ours(alpha)(x)
    assert expected.std() > 1  # logits as a trained network has them
    assert (logits - expected).abs().max() <= 1e-4


def test_the_weights_show_a_pixel_of_padding():
    x = image(128, 128)
    with torch.no_grad():
        expected = keras_mobilenet(0.25).call(x.permute(0, 2, 3, 1), training=False)
        same = with_options(ours(0.25), padding="same")(x)
        symmetric = with_options(ours(0.25), padding="symmetric")(x)
    assert (same - expected).abs().max() <= 1e-4  # at multiples of 32
    assert (symmetric - expected).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(224, 224), (161, 98)])
def test_logits_equal_timm(size):
    model = with_options(ours(1.0), padding="symmetric", norm_epsilon=1e-5)
    with torch.device("meta"):
        theirs = oracles.timm().create_model("mobilenetv1_100").eval()
    # Both register their layers from the image on, each convolution before its normalisation; in
    # ours, the two normalisations of a block stand behind the two convolutions.
    parts: list[nn.Module] = [*model.stem]
    for block in blocks(model):
        parts += (block.depthwise, block.norm_between, block.pointwise, block.norm_after)
    parts.append(model.classifier)
    tensors = [tensor for part in parts for tensor in part.state_dict().values()]
    names = theirs.state_dict()
    theirs.load_state_dict(dict(zip(names, tensors, strict=True)), strict=True, assign=True)
    x = image(*size)
    with torch.no_grad():
        expected = theirs(x)
        logits = model(x)
    assert expected.std() > 1
    assert (logits - expected).abs().max() <= 1e-4
