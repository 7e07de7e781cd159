"""What every classifier of the zoo has in common: stages, an embedding, and a head."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from xception.errors import UserError
from xception.layers import Dropout
from xception.models.network import JSON as JSON
from xception.models.network import Network, initialize_classifier
from xception.models.network import initialize as initialize


class Classifier(Network):
    """Images to logits: `head(embed(x))`.

    A model of the zoo builds its layers and its `head`, sets the attributes below and those of
    `Network`, and gives its named stages in `forward_features`.
    """

    TASKS = ("classification", "multilabel")
    LOW_LEVEL: ClassVar[str]
    """The stage that a decoder takes its details from: of stride 4, the last before stride 8."""

    num_features: int  # length of the embedding
    stage_channels: dict[str, int]  # of the stages of `forward_features`, in their order

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """The last stage, pooled."""
        *_, last = self.forward_features(x).values()
        return self.embedding_of(last)

    def embedding_of(self, stage: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """The embedding that the last stage stands for: its mean over the places."""
        return stage.mean((2, 3))

    @property
    def has_maps(self) -> bool:
        """Whether the stages are maps of places, in which Grad-CAM can show where it looked."""
        return True

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


def as_classifier(model: Network, what: str) -> Classifier:
    """`model`, known to classify whole images.

    Args:
        model: any network.
        what: how to call it in the message.

    Raises:
        UserError: it is not a classifier.
    """
    if not isinstance(model, Classifier):
        raise UserError(f"{what} segments images ({type(model).__name__}); a classifier is needed")
    return model


def classifier_head(
    num_features: int, num_classes: int, fully_connected: Sequence[int], dropout: float
) -> nn.Sequential:
    """Embedding to logits: a ReLU after each fully connected layer, dropout, the classifier."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(fully_connected, start=1):
        layers[f"fc{i}"] = nn.Linear(num_features, width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        num_features = width
    layers["dropout"] = Dropout(dropout)
    layers["classifier"] = nn.Linear(num_features, num_classes)
    return nn.Sequential(layers)
