"""What every segmentation network of the zoo has in common: one answer per pixel."""

from jaxtyping import Float
from torch import Tensor, nn

from xception.models.classifier import Classifier
from xception.models.network import Network, initialize_classifier


class Segmenter(Network):
    """Images to logits for every pixel.

    A model of the zoo builds its layers and its `head`, whose last layer is a 1x1 convolution
    called `classifier`, sets the attributes of `Network`, and gives `forward_features`.
    """

    TASKS = ("segmentation",)

    backbone: Classifier  # without its head: what a classifier's weights can start

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """One logit per class and pixel, at exactly the height and width of the images."""
        raise NotImplementedError

    @property
    def classifier(self) -> nn.Conv2d:
        """The last layer."""
        layer = self.head.get_submodule("classifier")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def reset_head(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`; all before it stays."""
        old = self.classifier
        fresh = nn.Conv2d(old.in_channels, num_classes, 1).to(old.weight)
        initialize_classifier(fresh)
        self.head.add_module("classifier", fresh)
        self.options["num_classes"] = num_classes
