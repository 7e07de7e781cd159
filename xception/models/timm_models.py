"""Any classification network of timm as a model of the zoo: `timm:NAME`.

timm (Wightman, github.com/huggingface/pytorch-image-models) has the networks that the papers
compare themselves with, VGG-16 and ResNet-152 among them. It is an extra, imported when such a name
is asked for. The weights are fresh: nothing is fetched.
"""

from difflib import get_close_matches
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, fx

from xception.errors import UserError
from xception.models.classifier import Classifier, classifier_head
from xception.models.network import initialize_classifier
from xception.models.options import number, short, whole

PREFIX = "timm:"
CITATION = "Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861"
SIZE = 224  # pixels, where timm does not say
SMALLEST = 32  # pixels, the stride of most of its networks


class TimmClassifier(Classifier):
    """timm's network up to the features before its last layer, and a last layer of ours.

    It is no backbone for a decoder: it has neither `LOW_LEVEL` nor `stage_channels`.

    Args:
        architecture: timm's name of the network.
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: share of the features dropped before the last layer; there is none elsewhere.

    Raises:
        UserError: timm is not there, or has no such network.
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        architecture: str = "resnet18",
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.options = {
            "architecture": known(architecture),
            "num_classes": whole("num_classes", num_classes, 1, 1_000_000),
            "in_channels": whole("in_channels", in_channels, 1, 1024),
            "dropout": number("dropout", dropout, 0, 0.99),
        }
        self.backbone: Any = _backbone(architecture, in_channels)
        card: dict[str, Any] = self.backbone.default_cfg
        self.size = card["input_size"][-1]
        self.any_size = not card.get("fixed_input_size", False)
        least = card.get("min_input_size") or (in_channels, SMALLEST, SMALLEST)
        self.MINIMUM_SIZE = least[-1] if self.any_size else self.size
        self.num_features = self.backbone.head_hidden_size
        self.head = classifier_head(self.num_features, num_classes, (), dropout)
        initialize_classifier(self.classifier)

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """What timm's network gives to its last layer.

        Raises:
            UserError: the images are too small, or not of the only size that the network takes.
        """
        self.check_size(x)
        return self.backbone(x)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """timm's intermediate features, from "stage1" on, and the last ones, "features".

        Raises:
            UserError: the images are too small, or the features are no maps (see `has_maps`).
        """
        self.check_size(x)
        if not self.has_maps:
            raise UserError(
                f"timm:{self.options['architecture']} makes no maps of its images, but lists of "
                "tokens: its features have no places that could be shown"
            )
        last, maps = self.backbone.forward_intermediates(x)
        stages = {f"stage{i}": stage for i, stage in enumerate(maps, start=1)}
        return stages | {"features": last.permute(0, 3, 1, 2) if self._layout == "nhwc" else last}

    def embedding_of(self, stage: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """The embedding that timm makes of "features": their mean, for many of its networks."""
        last = stage.permute(0, 2, 3, 1) if self._layout == "nhwc" else stage
        return self.backbone.forward_head(last, pre_logits=True)

    @property
    def has_maps(self) -> bool:
        """Whether the last features are a map of places; transformers may have tokens instead."""
        return self._layout != "tokens"

    @cached_property
    def _layout(self) -> Literal["nchw", "nhwc", "tokens"]:
        """The order of the axes of timm's last features, seen from a pass on shapes alone."""
        channels = self.options["in_channels"]
        with torch.device("meta"), torch.no_grad():
            backbone = _backbone(self.options["architecture"], channels).eval()
            last = backbone.forward_features(torch.zeros(1, channels, self.size, self.size))
        channels = backbone.num_features
        if isinstance(last, Tensor) and last.ndim == 4:
            if last.shape[1] == channels:
                return "nchw"
            if last.shape[3] == channels:
                return "nhwc"
        return "tokens"

    def check_size(self, x: Float[Tensor, "b c h w"]) -> None:
        """Raise UserError if the network does not take images of this size."""
        super().check_size(x)
        if not self.any_size:
            _check_exactly(x, self.size, self.options["architecture"])


@fx.wrap  # as that of `Network`
def _check_exactly(x: Tensor, side: int, architecture: str) -> None:
    height, width = x.shape[2:]
    if (height, width) != (side, side):
        raise UserError(
            f"timm:{architecture} takes images of {side}x{side} pixels only, not {height}x{width}"
        )


def _backbone(architecture: str, in_channels: int) -> Any:
    """timm's network, fresh and without its last layer."""
    return timm().create_model(architecture, pretrained=False, num_classes=0, in_chans=in_channels)


def timm() -> ModuleType:
    """The package.

    Raises:
        UserError: it is not installed, or does not import.
    """
    try:
        import timm as package
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise UserError(f"timm is installed, but lacks {error.name}") from error
        raise UserError(
            'models called timm:… need timm; install it with: pip install "xception[timm]"'
        ) from error
    except (ImportError, RuntimeError, OSError) as error:  # as beside a foreign torchvision
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"timm is installed, but does not import: {reason:.120}") from error
    return package


def known(architecture: str) -> str:
    """The name, if timm has a network that is called so.

    Raises:
        UserError: it has none; says which comes closest.
    """
    names = timm().list_models()
    if architecture in names:
        return architecture
    bare, _, tag = architecture.partition(".")
    if tag and bare in names:
        raise UserError(
            f"timm:{short(architecture)[1:-1]} names weights, and none are fetched; "
            f"timm:{bare} is the network"
        )
    near = get_close_matches(bare, names, n=1)
    hint = f"did you mean timm:{near[0]}?" if near else f"it has {len(names)} others"
    raise UserError(f"timm has no network called {short(architecture)}; {hint}")


def image_size(architecture: str) -> int:
    """Pixels of the side of the images for which timm has made a network."""
    card = timm().get_pretrained_cfg(known(architecture), allow_unregistered=True)
    return SIZE if card is None else card.input_size[-1]
