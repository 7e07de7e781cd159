"""What every classifier of the zoo has in common: stages, an embedding, and a head."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from xception.errors import UserError

JSON = Any
"""A value that JSON can hold; its precise type is recursive and helps no one here."""


class Classifier(nn.Module):
    """Images to logits: `head(embed(x))`.

    A model of the zoo builds its layers and its `head`, sets the attributes below, and gives its
    named stages in `forward_features`.
    """

    options: dict[str, JSON]  # the arguments that build this model again
    MINIMUM_SIZE: int  # pixels of the shorter side of the smallest image that it takes
    num_features: int  # length of the embedding
    head: nn.Sequential  # embedding -> logits; its last layer is called `classifier`
    card: Any = None  # what the model file said, where the model came from one

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The named stages, shallow to deep."""
        raise NotImplementedError

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """The last stage, averaged over its places."""
        *_, last = self.forward_features(x).values()
        return last.mean((2, 3))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """One logit per class."""
        return self.head(self.embed(x))

    @property
    def classifier(self) -> nn.Linear:
        """The last layer."""
        layer = self.head.get_submodule("classifier")
        assert isinstance(layer, nn.Linear)
        return layer

    def reset_head(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`; all before it stays."""
        old = self.classifier
        fresh = nn.Linear(old.in_features, num_classes).to(old.weight)
        initialize_classifier(fresh)
        self.head.add_module("classifier", fresh)
        self.options["num_classes"] = num_classes

    def check_size(self, x: Float[Tensor, "b c h w"]) -> None:
        """Raise UserError if the images are too small for the network."""
        height, width = x.shape[2:]
        if min(height, width) < self.MINIMUM_SIZE:
            raise UserError(
                f"images of {height}x{width} pixels are too small for this network: "
                f"{self.MINIMUM_SIZE}x{self.MINIMUM_SIZE} is the least"
            )


def classifier_head(
    num_features: int, num_classes: int, fully_connected: Sequence[int], dropout: float
) -> nn.Sequential:
    """Embedding to logits: a ReLU after each fully connected layer, dropout, the classifier."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(fully_connected, start=1):
        layers[f"fc{i}"] = nn.Linear(num_features, width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        num_features = width
    layers["dropout"] = nn.Dropout(dropout)
    layers["classifier"] = nn.Linear(num_features, num_classes)
    return nn.Sequential(layers)


def initialize(model: Classifier) -> None:
    """Fresh weights for a network of convolutions with batch normalisation.

    He et al. 2015, arXiv:1502.01852, by fan-in: right for depthwise kernels too, whose fan-out
    torch would count over all channels. Uniform, because normal random numbers on the meta device,
    where model files are judged, make torch import its compiler (3 s).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    initialize_classifier(model.classifier)


def initialize_classifier(layer: nn.Linear) -> None:
    """Small weights, so that a fresh network starts from nearly even odds."""
    nn.init.uniform_(layer.weight, -0.02, 0.02)
    nn.init.zeros_(layer.bias)
