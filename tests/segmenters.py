"""Small segmentation networks for tests, with statistics that are not those of a fresh network."""

from typing import Any

import torch
from torch import nn

from xception.data.preprocess import Preprocess
from xception.models.network import Network
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card

CLASSES = ("background", "disc", "square", "trïangle")


def smooth(height: int, width: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """A photo with large and small things in it."""
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, channels, height, width)
    for cell in (3, 17, 60):
        coarse = torch.randn(1, channels, height // cell + 2, width // cell + 2, generator=random)
        total += nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    pixels = (128 + 50 * total[0]).clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous()


def small_segmenter(
    backbone: str = "xception41", seed: int = 0, training: dict[str, Any] | None = None, **options
) -> Network:
    """A DeepLab V3+ of few channels, its card, and answers that differ from place to place."""
    torch.manual_seed(seed)
    small: dict[str, Any] = {"width": 0.25}
    if backbone != "mobilenet_v1":
        small = {"width": 0.05, "middle": 2}
    small |= options.pop("backbone_options", {})
    network = create_model(
        "deeplab_v3plus",
        **{
            "num_classes": len(CLASSES),
            "backbone": backbone,
            "backbone_options": small,
            "encoder_channels": 16,
            "low_level_channels": 8,
            "decoder_channels": 16,
            **options,
        },
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    channels = network.options["in_channels"]
    photos = torch.stack([smooth(129, 129, seed, channels) for seed in (1, 2)])
    preprocess = Preprocess(size=129, channels=channels)
    x = preprocess.normalize(photos)
    with torch.no_grad():
        network.train()(x)
        # Every class is likely somewhere.
        weight = network.get_parameter("head.classifier.weight")
        weight *= 2 / network.eval()(x).std()
        means = network(x).mean((0, 2, 3))
        network.get_parameter("head.classifier.bias").sub_(means)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    network.card = Card(
        architecture=Architecture(name="deeplab_v3plus", options=network.options),
        task="segmentation",
        classes=CLASSES,
        preprocess=preprocess,
        training=training or {},
    )
    return network.eval()
