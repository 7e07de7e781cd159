"""The network that a verb was given: a name of the zoo, of timm, a model file or a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xception.deploy.runtime import find_model
from xception.errors import UserError
from xception.models.network import Network
from xception.models.zoo import ZOO, create_model, find_entry
from xception.weights.model_file import load_model

TIMM = "timm:"
OPTIONS_OF_TRAIN = "model_options."  # what `train --set` writes before an option of the model


@dataclass(frozen=True)
class Asked:
    """A network, and the images that it is to be given."""

    name: str
    model: Network
    size: tuple[int, int]  # height and width
    in_channels: int

    @property
    def title(self) -> str:
        """Its name and its images, for a person."""
        height, width = self.size
        return f"{self.name} at {height}x{width}x{self.in_channels}"


def find_network(
    name: str, options: Mapping[str, Any], size: tuple[int, int] | None, *, empty: bool
) -> Asked:
    """The network that is meant.

    Args:
        name: of the zoo, "timm:NAME", or a path.
        options: of the model, as `create_model` takes them; a model file has its own.
        size: height and width of the image, or None for the size that the model was made for.
        empty: without memory for its weights, where it is a fresh one.

    Raises:
        UserError: there is no such model, or its options are not right.
    """
    options = {key.removeprefix(OPTIONS_OF_TRAIN): value for key, value in options.items()}
    path = Path(name)
    if name not in ZOO and (path.exists() or path.suffix == ".safetensors"):
        if options:
            raise UserError(
                f"{name} is a trained model: its options are what they are, without --set"
            )
        model = load_model(find_model(path))
        preprocess = model.card.preprocess
        side = (preprocess.size, preprocess.size)
        return Asked(path.resolve().name, model, size or side, preprocess.channels)
    try:
        entry = find_entry(name)
    except UserError as error:
        if name.startswith(TIMM):
            raise
        raise UserError(f"{error}; nor is there a file or folder of that name") from error
    with torch.device("meta" if empty else "cpu"):
        model = create_model(name, **options)
    channels = model.options.get("in_channels", 3)
    return Asked(name, model, size or (entry.size, entry.size), channels)
