"""Inception V3. Szegedy et al. 2015, arXiv:1512.00567, Figures 5 to 8 and 10.

94 convolutions; 23,834,568 trainable parameters with 1000 classes, 27,161,264 with the auxiliary
tower. Without scales in the normalisation, as in Keras, 23,817,352; 23,851,784 with the running
statistics. Input 299x299x3 in [-1, 1].

Table 1 of the paper shows the layout before the last changes. Here is the network that was
published: 1x1x80, 3x3x192 and a maximum pooling in front of the modules, none of them padded, and a
5x5 where Figure 5 has two 3x3.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from xception.errors import UserError
from xception.models.classifier import Classifier, classifier_head, initialize
from xception.models.inception_parts import Branch, Conv, Fork, Module, Parts, Pool
from xception.models.network import initialize_classifier
from xception.models.options import choice, number, whole, wholes


class Grid(NamedTuple):
    """The modules between two changes of resolution."""

    name: str  # by the size of its feature maps for a 299x299 image
    modules: tuple[Module, ...]


AVERAGE = Pool("average", 1)
HALVE = Pool("maximum", 2)
WIDE, TALL = (1, 7), (7, 1)
SPLIT = Fork((Conv(384, (1, 3)), Conv(384, (3, 1))))


def figure5(pooled: int) -> Module:
    """The module of the 35x35 grid; its branch with the pooling ends in `pooled` channels."""
    return (
        (Conv(64),),
        (Conv(48), Conv(64, (5, 5))),
        (Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3))),
        (AVERAGE, Conv(pooled)),
    )


def figure6(inner: int, first: int) -> Module:
    """The module of the 17x17 grid, n = 7, with `inner` channels within its branches.

    Those of the first layer of the longest branch are `first`.
    """
    double = (Conv(inner, TALL), Conv(inner, WIDE), Conv(inner, TALL), Conv(192, WIDE))
    return (
        (Conv(192),),
        (Conv(inner), Conv(inner, WIDE), Conv(192, TALL)),
        (Conv(first), *double),
        (AVERAGE, Conv(192)),
    )


def figure7() -> Module:
    """The module of the 8x8 grid."""
    return (
        (Conv(320),),
        (Conv(384), SPLIT),
        (Conv(448), Conv(384, (3, 3)), SPLIT),
        (AVERAGE, Conv(192)),
    )


def figure10_to_17() -> Module:
    """From the 35x35 grid to that of 17x17."""
    return (
        (Conv(384, (3, 3), padded=False, stride=2),),
        (Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3), padded=False, stride=2)),
        (HALVE,),
    )


def figure10_to_8(pool: Pool) -> Module:
    """From the 17x17 grid to that of 8x8."""
    seven = (Conv(192, WIDE), Conv(192, TALL))
    return (
        (Conv(192), Conv(320, (3, 3), padded=False, stride=2)),
        (Conv(192), *seven, Conv(192, (3, 3), padded=False, stride=2)),
        (pool,),
    )


STEM1: tuple[Conv, ...] = (
    Conv(32, (3, 3), padded=False, stride=2),
    Conv(32, (3, 3), padded=False),
    Conv(64, (3, 3)),
)
STEM2: Branch = (HALVE, Conv(80), Conv(192, (3, 3), padded=False))
GRIDS = (
    Grid("grid35", (figure5(32), figure5(64), figure5(64))),
    Grid(
        "grid17",
        (
            figure10_to_17(),
            figure6(128, 128),
            figure6(160, 160),
            figure6(160, 160),
            figure6(192, 192),
        ),
    ),
    Grid("grid8", (figure10_to_8(HALVE), figure7(), figure7())),
)
SMALLEST = {2: 75, 1: 23}  # pixels that leave one place of the last grid, by stride of the stem
TOWER: Branch = (Conv(128), Conv(768, (5, 5), padded=False))  # Figure 8
TOWER_SIZE = 299  # pixels that leave 5x5 places to its last convolution


class InceptionV3(Classifier):
    """The network, and what differs between its published forms.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: share of the features dropped before the classifier (TF-slim: 0.2).
        fully_connected: widths of optional layers before it (Xception's §4.1: two of 4096).
        norm_scale: whether the normalisation has scales: in torch's ports it has, in Keras not.
        norm_epsilon: ε of the normalisation.
        pool_border: what average pooling divides by at the edges: "exclude" the number of pixels
            that are there, as TensorFlow does; "include" 9, as torch's ports do.
        auxiliary: with the tower of Figure 8, whose loss training adds to that of the last layer
            (see `forward_both`); predictions do not ask it.
        width: all numbers of channels times this, to the nearest multiple above 0 of:
        multiple: 8, 4, 2 or 1.
        stem_stride: 2, or 1 for images of 32 to 96 pixels: the first convolution then sees every
            pixel, and there is no pooling right before the modules.

    Raises:
        ValueError: an option is out of range, or the tower is to stand on small images.
    """

    SIDE_LAYERS = ("auxiliary.classifier",)
    GRIDS: ClassVar[tuple[Grid, ...]] = GRIDS
    NORM_LAST: ClassVar[bool] = False
    grid35: nn.Sequential
    grid17: nn.Sequential
    grid8: nn.Sequential

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        fully_connected: Sequence[int] = (),
        norm_scale: bool = True,
        norm_epsilon: float = 1e-3,
        pool_border: str = "exclude",
        auxiliary: bool = False,
        width: float = 1.0,
        multiple: int = 8,
        stem_stride: int = 2,
    ):
        super().__init__()
        if auxiliary and stem_stride == 1:
            raise ValueError("the auxiliary tower needs stem_stride 2")
        self.options = {
            "num_classes": whole("num_classes", num_classes, 1, 1_000_000),
            "in_channels": whole("in_channels", in_channels, 1, 1024),
            "dropout": number("dropout", dropout, 0, 0.99),
            "fully_connected": wholes("fully_connected", fully_connected, 1, 65_536, longest=8),
            "norm_scale": norm_scale,
            "norm_epsilon": number("norm_epsilon", norm_epsilon, 1e-12, 1),
            "pool_border": choice("pool_border", pool_border, ("exclude", "include")),
            "auxiliary": auxiliary,
            "width": number("width", width, 0.01, 16),
            "multiple": choice("multiple", multiple, (1, 2, 4, 8)),
            "stem_stride": choice("stem_stride", stem_stride, (1, 2)),
        }
        self.MINIMUM_SIZE = SMALLEST[stem_stride]
        parts = Parts(norm_scale, norm_epsilon, pool_border, self.NORM_LAST, width, multiple)
        widths = self.stage_channels = {}
        first, *others = STEM1
        stem1 = (first._replace(stride=stem_stride), *others)
        self.stem1, widths["stem1"] = parts.branch(in_channels, stem1)
        self.stem2, widths["stem2"] = parts.branch(widths["stem1"], STEM2)
        channels, count = widths["stem2"], 0
        self.pool = parts.pool(HALVE) if stem_stride == 2 else nn.Identity()
        for grid in self.GRIDS:
            modules: OrderedDict[str, nn.Module] = OrderedDict()
            for module in grid.modules:
                modules[f"mixed{count}"], channels = parts.module(channels, module)
                count += 1
            self.add_module(grid.name, nn.Sequential(modules))
            widths[grid.name] = channels
        self.num_features = channels
        self.head = classifier_head(channels, num_classes, fully_connected, dropout)
        self.auxiliary = Tower(parts, widths["grid17"], num_classes) if auxiliary else None
        initialize(self)
        if self.auxiliary is not None:
            initialize_classifier(self.auxiliary.classifier)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The named stages, shallow to deep; the shapes are those of a 299x299 image.

        Raises:
            UserError: the images are smaller than MINIMUM_SIZE.
        """
        self.check_size(x)
        stages = {}
        stages["stem1"] = x = self.stem1(x)  # 147x147x64
        stages["stem2"] = x = self.stem2(x)  # 71x71x192
        stages["grid35"] = x = self.grid35(self.pool(x))  # 35x35x288
        stages["grid17"] = x = self.grid17(x)  # 17x17x768
        stages["grid8"] = self.grid8(x)  # 8x8x2048
        return stages

    def forward_both(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """The logits of `forward` and those of the auxiliary tower, for a loss of each.

        Raises:
            ValueError: the network was built without the tower.
            UserError: the images are too small for it.
        """
        if self.auxiliary is None:
            raise ValueError("the network has no auxiliary tower; build it with auxiliary=True")
        if min(x.shape[2:]) < TOWER_SIZE:
            height, width = x.shape[2:]
            raise UserError(
                f"images of {height}x{width} pixels are too small for the auxiliary tower: "
                f"{TOWER_SIZE}x{TOWER_SIZE} is the least"
            )
        stages = self.forward_features(x)
        logits = self.head(stages["grid8"].mean((2, 3)))
        return logits, self.auxiliary(stages["grid17"])

    def reset_head(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`, and that of the tower too."""
        super().reset_head(num_classes)
        if self.auxiliary is not None:
            old = self.auxiliary.classifier
            self.auxiliary.classifier = nn.Linear(old.in_features, num_classes).to(old.weight)
            initialize_classifier(self.auxiliary.classifier)


class Tower(nn.Module):
    """The auxiliary classifier of Figure 8, on the last feature maps of the 17x17 grid."""

    def __init__(self, parts: Parts, channels: int, num_classes: int):
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.convs, channels = parts.branch(channels, TOWER)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """One logit per class; the shapes are those of a 299x299 image."""
        x = self.convs(self.pool(x))  # 1x1x768
        return self.classifier(x.mean((2, 3)))
