"""What every network of the zoo has in common: its options, its stages, and its last layer."""

from collections.abc import Iterable
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, fx, nn

from xception.errors import UserError

JSON = Any
"""A value that JSON can hold; its precise type is recursive and helps no one here."""


class Network(nn.Module):
    """A network of the zoo, which `Classifier` and `Segmenter` make more of.

    It builds itself from its options alone, gives its named stages in `forward_features`, and ends
    in one layer that knows the classes, `classifier`.
    """

    TASKS: ClassVar[tuple[str, ...]]
    """What a model file's card may say that it is for."""
    LAST_LAYER: ClassVar[str] = "head.classifier"
    """The path of the layer that knows the classes."""
    SIDE_LAYERS: ClassVar[tuple[str, ...]] = ()
    """The paths of others that know them, in towers that only help training."""

    options: dict[str, JSON]  # the arguments that build this model again
    MINIMUM_SIZE: int  # pixels of the shorter side of the smallest image that it takes
    head: nn.Sequential  # what comes before the logits; its last layer is called `classifier`
    card: Any = None  # what the model file said, where the model came from one
    surgery: tuple[Any, ...] = ()  # `models.surgery.Exchange`, layers that are no longer its own

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The named stages, in the order in which they are computed."""
        raise NotImplementedError

    @property
    def classifier(self) -> nn.Linear | nn.Conv2d:
        """The last layer."""
        raise NotImplementedError

    def reset_head(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`; all before it stays."""
        raise NotImplementedError

    def check_size(self, x: Float[Tensor, "b c h w"]) -> None:
        """Raise UserError if the images are too small for the network."""
        _check_size(x, self.MINIMUM_SIZE)


@fx.wrap  # one step where a network is written down step by step, as its outcome is no value
def _check_size(x: Tensor, least: int) -> None:
    height, width = x.shape[2:]
    if min(height, width) < least:
        raise UserError(
            f"images of {height}x{width} pixels are too small for this network: "
            f"{least}x{least} is the least"
        )


def initialize(model: Network) -> None:
    """Fresh weights for a network of convolutions with batch normalisation."""
    initialize_layers(model.modules())
    initialize_classifier(model.classifier)


def initialize_layers(modules: Iterable[nn.Module]) -> None:
    """Fresh weights for the convolutions and linear layers among `modules`.

    He et al. 2015, arXiv:1502.01852, by fan-in: right for depthwise kernels too, whose fan-out
    torch would count over all channels. Uniform, because normal random numbers on the meta device,
    where model files are judged, make torch import its compiler (3 s).
    """
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_classifier(layer: nn.Linear | nn.Conv2d) -> None:
    """Small weights, so that a fresh network starts from nearly even odds."""
    nn.init.uniform_(layer.weight, -0.02, 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """`channels` times `width`, to the nearest multiple of `multiple` above 0."""
    return max(int(channels * width / multiple + 0.5), 1) * multiple
