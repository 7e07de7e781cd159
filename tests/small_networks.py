"""Small trained-looking networks with cards, for the tests of this room."""

from pathlib import Path
from typing import Any

import torch
from networks import lively
from PIL import Image

from xception.data.preprocess import Preprocess
from xception.models.network import Network
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import save_model

SMALL: dict[str, dict[str, Any]] = {
    "xception": {"width": 0.05, "middle": 1},
    "mobilenet_v1": {"width": 0.1},
    "xception41": {"width": 0.05, "middle": 1},
}
DECODER = {"encoder_channels": 8, "decoder_channels": 8, "low_level_channels": 4}


def small(name: str, *, size: int = 64, classes: int = 3, **options: Any) -> Network:
    """A network of the zoo, tiny unless it cannot be, with a card and lively statistics."""
    torch.manual_seed(0)
    segments = name == "deeplab_v3plus"
    options = {**SMALL.get(name, {}), **(DECODER if segments else {}), **options}
    model = lively(create_model(name, num_classes=classes, **options), size)
    model.card = Card(
        architecture=Architecture(name=name, options=model.options),
        task="segmentation" if segments else "classification",
        classes=tuple(f"Größe {i}" for i in range(classes)),
        preprocess=Preprocess(size=size, channels=model.options["in_channels"]),
    )
    return model


def saved(path: Path, model: Network) -> Path:
    """The model file of such a network."""
    save_model(path, model, model.card)
    return path


def photo(seed: int, width: int = 90, height: int = 70) -> Image.Image:
    """Broad patches of colour."""
    torch.manual_seed(seed)
    patches = (255 * torch.rand(6, 8, 3)).to(torch.uint8).numpy()
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)
