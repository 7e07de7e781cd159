"""What an exported file says about itself: our card, and what the card of a run does not know."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from xception.weights.card import Card, parse_card
from xception.weights.header import CARD_KEY, MAX_HEADER_BYTES, ModelFileError

PRECISION_KEY = "xception.precision"
MINIMUM_SIZE_KEY = "xception.minimum_size"
QUANTIZATION_KEY = "xception.quantization"
KEYS = (CARD_KEY, PRECISION_KEY, MINIMUM_SIZE_KEY, QUANTIZATION_KEY)
LARGEST_SIZE = 4096  # pixels; a network that takes no smaller image is none of ours

Precision = Literal["fp32", "int8"]


class Stated(NamedTuple):
    """What stands in the metadata."""

    card: Card
    precision: Precision
    minimum_size: int
    """Pixels of the shorter side of the smallest image that the network takes."""
    quantization: str = ""
    """JSON: how the eight bits were chosen; empty without them."""

    def texts(self) -> dict[str, str]:
        """Keys and values as files hold them."""
        card = json.dumps(
            self.card.model_dump(mode="json"),
            sort_keys=True,
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
        found = {
            CARD_KEY: card,
            PRECISION_KEY: self.precision,
            MINIMUM_SIZE_KEY: str(self.minimum_size),
        }
        return found | ({QUANTIZATION_KEY: self.quantization} if self.quantization else {})


def read_stated(texts: Mapping[str, str], path: Path) -> Stated:
    """What the metadata of the file at `path` says, none of which is believed.

    Raises:
        ModelFileError: there is no card of ours, or something in it cannot be.
    """
    card = texts.get(CARD_KEY)
    if card is None:
        raise ModelFileError(path, f"it has no card of ours ({CARD_KEY}): not exported by xception")
    if len(card) > MAX_HEADER_BYTES:
        raise ModelFileError(path, f"its card has {len(card):,} characters")
    precision = texts.get(PRECISION_KEY, "fp32")
    if precision not in ("fp32", "int8"):
        raise ModelFileError(path, f"its precision is said to be {precision!r:.20}")
    size = texts.get(MINIMUM_SIZE_KEY, "1")
    if not (size.isascii() and size.isdigit() and 1 <= int(size[:9]) <= LARGEST_SIZE):
        raise ModelFileError(path, f"its smallest image is said to be {size!r:.20} pixels")
    quantization = texts.get(QUANTIZATION_KEY, "")
    return Stated(parse_card(card, path), precision, int(size), quantization)
