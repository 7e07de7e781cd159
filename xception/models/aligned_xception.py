"""Aligned Xception. Chen et al. 2018 (DeepLab V3+), arXiv:1802.02611, §3.2 and Figure 4.

Xception made deeper, with every pooling replaced by the stride of a separable convolution, and with
a normalisation behind each depthwise convolution too. With 41, 65 and 71 layers and 1000 classes it
has 26,969,560, 39,916,312 and 42,338,736 trainable parameters. Input 299x299x3 in [-1, 1].
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xception.layers import Conv2d, Padding, SeparableConv2d
from xception.models.classifier import Classifier, classifier_head, initialize
from xception.models.network import scaled
from xception.models.options import choice, number, whole


class Stage(NamedTuple):
    """One module of Figure 4 around which a shortcut leads."""

    widths: tuple[int, int, int]  # output channels of its separable convolutions
    stride: int = 2  # of the last of them, and of the shortcut


STEM = (32, 64)
ENTRY = (Stage((128, 128, 128)), Stage((256, 256, 256)), Stage((728, 728, 728)))
DEEP_ENTRY = (  # of 71 layers: the modules of 256 and 728 channels twice
    ENTRY[0],
    Stage((256, 256, 256), stride=1),
    ENTRY[1],
    Stage((728, 728, 728), stride=1),
    ENTRY[2],
)
MIDDLE = Stage((728, 728, 728), stride=1)  # 16 times; 8 times with 41 layers
EXIT = Stage((728, 1024, 1024))
LAST = (1536, 1536, 2048)

# What a window of three pixels at stride 2 finds beyond the edges. The released code pads by hand,
# one pixel on each side at any size, so that every window stands on an even pixel: what a network
# at output stride 32 computes is then part of what it computes at 16 or 8.
PADDINGS: dict[str, Padding] = {"symmetric": 1, "same": "same"}


class AlignedXception(Classifier):
    """Figure 4: `middle=8` has 41 layers, `middle=16` 65, and `deep_entry` too 71.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: share of the features dropped before the classifier (released code: 0.5).
        width: all other numbers of channels times this, to the nearest multiple of 8 above 0.
        middle: how often the module of the middle flow is repeated.
        deep_entry: five modules in the entry flow instead of three.
        activation: between depthwise and pointwise convolution. The paper says "extra batch
            normalization and ReLU"; its released networks have the normalisation alone ("none"),
            but for the last three layers, where "relu" stands in both.
        norm_epsilon: ε of the batch normalisation; 1e-3 in the released networks.
        padding: of the convolutions with stride 2: "symmetric" as in the released code, or
            TensorFlow's "same", which differs at even sizes.
        output_stride: 32, 16 or 8; beyond it, strides become dilation.

    Raises:
        ValueError: an option is out of range.
    """

    LOW_LEVEL = "low_level"
    MINIMUM_SIZE = 1

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        width: float = 1.0,
        middle: int = 16,
        deep_entry: bool = False,
        activation: str = "none",
        norm_epsilon: float = 1e-3,
        padding: str = "symmetric",
        output_stride: int = 32,
    ):
        super().__init__()
        self.options = {
            "num_classes": whole("num_classes", num_classes, 1, 1_000_000),
            "in_channels": whole("in_channels", in_channels, 1, 1024),
            "dropout": number("dropout", dropout, 0, 0.99),
            "width": number("width", width, 0.01, 16),
            "middle": whole("middle", middle, 0, 64),
            "deep_entry": deep_entry,
            "activation": choice("activation", activation, ("none", "relu")),
            "norm_epsilon": number("norm_epsilon", norm_epsilon, 1e-12, 1),
            "padding": choice("padding", padding, tuple(PADDINGS)),
            "output_stride": choice("output_stride", output_stride, (8, 16, 32)),
        }
        make = _Maker(width, activation == "relu", norm_epsilon, PADDINGS[padding])
        entry = DEEP_ENTRY if deep_entry else ENTRY
        stages = (*entry, *[MIDDLE] * middle, EXIT)
        *grids, last_grid = atrous([stage.stride for stage in stages], output_stride)
        self.stem = make.stem(in_channels)
        self.stage_channels = {"stem": make.channels(STEM[-1])}
        blocks = []
        before = STEM[-1]
        for stage, grid in zip(stages, grids, strict=True):
            blocks.append(make.block(before, stage, grid, rectified=not blocks))
            before = stage.widths[-1]
        self.entry = nn.Sequential(*blocks[: len(entry)])
        self.middle = nn.Sequential(*blocks[len(entry) : -1])
        self.exit = nn.Sequential(blocks[-1], *make.last(before, last_grid.dilation))
        # The module that leads from a fourth of the resolution to an eighth.
        self.lowering = [stage.stride for stage in entry].index(2, 1)
        for i, stage in enumerate(entry):
            if i == self.lowering:
                self.stage_channels[self.LOW_LEVEL] = make.channels(stage.widths[1])
            self.stage_channels[f"entry{i + 1}"] = make.channels(stage.widths[-1])
        self.stage_channels["middle"] = make.channels(MIDDLE.widths[-1])
        self.num_features = self.stage_channels["exit"] = make.channels(LAST[-1])
        self.head = classifier_head(self.num_features, num_classes, (), dropout)
        initialize(self)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The named stages, shallow to deep; the shapes are those of 65 layers, a 299x299 image.

        "low_level" lies within the module that follows it: behind the normalisation of its second
        separable convolution and before the third, which has the stride.

        Raises:
            UserError: the images are smaller than MINIMUM_SIZE.
        """
        self.check_size(x)
        stages = {}
        stages["stem"] = x = self.stem(x)  # 150x150x64
        for i, block in enumerate(self.entry):
            assert isinstance(block, Block)
            if i == self.lowering:
                stages[self.LOW_LEVEL], x = block.both(x)  # 75x75x256
            else:
                x = block(x)
            stages[f"entry{i + 1}"] = x  # 75x75x128, 38x38x256, 19x19x728
        stages["middle"] = x = self.middle(x)  # 19x19x728
        stages["exit"] = self.exit(x)  # 10x10x2048
        return stages


Xception41 = partial(AlignedXception, middle=8)
Xception65 = partial(AlignedXception, middle=16)
Xception71 = partial(AlignedXception, middle=16, deep_entry=True)


class Grid(NamedTuple):
    """How a module treats the resolution."""

    stride: int
    dilation: int


def atrous(strides: Sequence[int], output_stride: int) -> list[Grid]:
    """The strides of modules behind a stem of stride 2, and what keeps them within `output_stride`.

    A module that loses its stride still filters what the one before gave it, pixel by pixel; those
    behind it step over the pixels that the stride would have dropped. The released code's rule.

    Returns:
        One for each module, and one for what follows the last.
    """
    grids = []
    reached, dilation = 2, 1
    for stride in (*strides, 1):
        kept = stride if reached * stride <= output_stride else 1
        grids.append(Grid(kept, dilation))
        reached *= kept
        dilation *= stride // kept
    return grids


class Block(nn.Module):
    """Three separable convolutions, a ReLU before each, plus what the shortcut makes of the input.

    Args:
        separables: the three.
        shortcut: what is added to the answer of the last.
        rectified: the input has just passed a ReLU and needs none.
    """

    def __init__(self, separables: Sequence[nn.Module], shortcut: nn.Module, *, rectified: bool):
        super().__init__()
        self.separables = nn.Sequential(*separables)
        self.shortcut = shortcut
        self.rectified = rectified

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """Add the two paths."""
        first, second, third = self.separables
        # The first ReLU may not overwrite its input: the shortcut takes that too.
        y = first(x if self.rectified else F.relu(x))
        y = second(F.relu(y, inplace=True))
        y = third(F.relu(y, inplace=True))
        return y.add_(self.shortcut(x))

    def both(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b g h w"], Float[Tensor, "b f i j"]]:
        """What the second separable convolution gives, and what `forward` does."""
        first, second, third = self.separables
        y = first(x if self.rectified else F.relu(x))
        inside = second(F.relu(y, inplace=True))
        return inside, third(F.relu(inside)).add_(self.shortcut(x))


class _Maker(NamedTuple):
    """Builds the parts of Figure 4 as the options want them."""

    width: float
    relu_between: bool
    norm_epsilon: float
    padding: Padding

    def channels(self, channels: int) -> int:
        """A number of channels of the figure, scaled."""
        return scaled(channels, self.width)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Its momentum is torch's; models/xception.py says why."""
        return nn.BatchNorm2d(channels, eps=self.norm_epsilon, momentum=0.1)

    def stem(self, in_channels: int) -> nn.Sequential:
        """The two regular convolutions."""
        first, second = map(self.channels, STEM)
        return nn.Sequential(
            Conv2d(in_channels, first, 3, stride=2, padding=self.padding, bias=False),
            self.norm(first),
            nn.ReLU(inplace=True),
            Conv2d(first, second, 3, bias=False),
            self.norm(second),
            nn.ReLU(inplace=True),
        )

    def separable(self, before: int, after: int, grid: Grid, *, relu: bool) -> SeparableConv2d:
        """A separable convolution between two numbers of channels of the figure."""
        return SeparableConv2d(
            self.channels(before),
            self.channels(after),
            stride=grid.stride,
            dilation=grid.dilation,
            padding=self.padding if grid.stride > 1 else "same",
            norm_between=self.norm,
            activation=nn.ReLU(inplace=True) if relu else None,
            norm_after=self.norm,
        )

    def block(self, before: int, stage: Stage, grid: Grid, *, rectified: bool) -> Block:
        """A module of the figure; one without a stride that keeps its width adds its input."""
        first, second, third = stage.widths
        dense = Grid(1, grid.dilation)
        separables = [
            self.separable(before, first, dense, relu=self.relu_between),
            self.separable(first, second, dense, relu=self.relu_between),
            self.separable(second, third, grid, relu=self.relu_between),
        ]
        shortcut: nn.Module = nn.Identity()
        if stage.stride > 1 or before != third:
            after = self.channels(third)
            conv = Conv2d(self.channels(before), after, 1, stride=grid.stride, bias=False)
            shortcut = nn.Sequential(conv, self.norm(after))
        return Block(separables, shortcut, rectified=rectified)

    def last(self, before: int, dilation: int) -> Iterator[nn.Module]:
        """The layers behind the last shortcut: here all networks have both ReLUs behind."""
        for after in LAST:
            yield self.separable(before, after, Grid(1, dilation), relu=True)
            yield nn.ReLU(inplace=True)
            before = after
