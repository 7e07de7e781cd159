"""Small models, their cards, and model files taken apart and put together, for several tests."""

import json
import struct
from typing import Any

import torch

from xception.data.preprocess import Preprocess
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card

OPTIONS = {"num_classes": 3, "width": 0.01, "middle": 1, "stem_stride": 1}
KEY = "xception.card"


def small_model(**options: Any):
    """A network of a few thousand parameters whose statistics are not those of a fresh one."""
    torch.manual_seed(0)
    model = create_model("xception", **OPTIONS | options)
    with torch.no_grad():
        model(torch.randn(4, model.options["in_channels"], 16, 16))
    return model.eval()


def card_of(model, **fields: Any) -> Card:
    """A card for `model`."""
    standard: dict[str, Any] = {
        "architecture": Architecture(name="xception", options=model.options),
        "task": "classification",
        "classes": tuple(f"Größe {i}" for i in range(model.options["num_classes"])),
        "preprocess": Preprocess(size=32, channels=model.options["in_channels"]),
    }
    return Card(**standard | fields)


def split(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header without its metadata, card, and values of a model file."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    card = json.loads(header.pop("__metadata__")[KEY])
    return header, card, content[8 + length :]


def join(header: Any, card: Any, values: bytes) -> bytes:
    """The file of the three; text is taken as it is, anything else as JSON."""
    if not isinstance(header, str):
        card = card if isinstance(card, str) else json.dumps(card)
        header = json.dumps({"__metadata__": {KEY: card}} | header)
    raw = header.encode()
    return struct.pack("<Q", len(raw)) + raw + values
