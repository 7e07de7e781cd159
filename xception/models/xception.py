"""Xception. Chollet 2017, arXiv:1610.02357, Figure 5.

36 convolutional layers in 14 modules; 22,855,952 trainable parameters with 1000 classes (Table 3),
22,910,480 with the running statistics. Input 299x299x3 in [-1, 1].
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from xception.layers import Conv2d, MaxPool2d, SeparableConv2d
from xception.models.classifier import Classifier, classifier_head, initialize
from xception.models.options import choice, number, whole, wholes


class Block(NamedTuple):
    """One module of Figure 5 around which a shortcut leads."""

    widths: tuple[int, ...]  # output channels of each separable convolution
    pooled: bool = True  # halve the resolution and project the shortcut
    rectified: bool = False  # its input has just passed a ReLU and needs none


STEM = (32, 64)
ENTRY = (Block((128, 128), rectified=True), Block((256, 256)), Block((728, 728)))
MIDDLE = Block((728, 728, 728), pooled=False)  # eight times
EXIT = Block((728, 1024))
LAST = (1536, 2048)

SMALLEST = {2: 7, 1: 5}  # pixels, by stride of the stem: "valid" windows must fit twice

# ε is that of Keras' Xception. The statistics, though, follow the last ten batches (torch's 0.1),
# not the last hundred (Keras' 0.99, which is 0.01 here): from scratch, a small folder of photos has
# a few hundred steps in all, and statistics that remember the first ones spoil the validation.
Norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)


class Xception(Classifier):
    """Figure 5, and the variations that the paper tries.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: share of the features dropped before the logistic regression (§4.3: 0.5).
        fully_connected: widths of optional layers before it (§4.1: two of 4096); never scaled.
        residual: with the shortcuts, or without any (§4.6).
        activation: "none", "relu" or "elu" between depthwise and pointwise convolution (§4.7).
        width: all other numbers of channels times this, to the nearest multiple of 8 above 0.
        stem_stride: 2, or 1 for images of 32 to 96 pixels.
        middle: how often the module of the middle flow is repeated.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        fully_connected: Sequence[int] = (),
        residual: bool = True,
        activation: str = "none",
        width: float = 1.0,
        stem_stride: int = 2,
        middle: int = 8,
    ):
        super().__init__()
        self.options = {
            "num_classes": whole("num_classes", num_classes, 1, 1_000_000),
            "in_channels": whole("in_channels", in_channels, 1, 1024),
            "dropout": number("dropout", dropout, 0, 0.99),
            "fully_connected": wholes("fully_connected", fully_connected, 1, 65_536, longest=8),
            "residual": residual,
            "activation": choice("activation", activation, ("none", "relu", "elu")),
            "width": number("width", width, 0.01, 16),
            "stem_stride": choice("stem_stride", stem_stride, (1, 2)),
            "middle": whole("middle", middle, 0, 64),
        }
        self.MINIMUM_SIZE = SMALLEST[stem_stride]
        make = _Maker(residual, activation, width)

        first, second = make.channels(STEM)
        self.stem = nn.Sequential(
            Conv2d(in_channels, first, 3, stride=stem_stride, padding="valid", bias=False),
            Norm(first),
            nn.ReLU(inplace=True),
            Conv2d(first, second, 3, padding="valid", bias=False),
            Norm(second),
            nn.ReLU(inplace=True),
        )
        self.entry1 = make.block(STEM[-1], ENTRY[0])
        self.entry2 = make.block(ENTRY[0].widths[-1], ENTRY[1])
        self.entry3 = make.block(ENTRY[1].widths[-1], ENTRY[2])
        deep = ENTRY[2].widths[-1]
        self.middle = nn.Sequential(*(make.block(deep, MIDDLE) for _ in range(middle)))
        self.exit = nn.Sequential(
            make.block(deep, EXIT),
            make.separable(EXIT.widths[-1], LAST[0]),
            nn.ReLU(inplace=True),
            make.separable(*LAST),
            nn.ReLU(inplace=True),
        )
        (self.num_features,) = make.channels(LAST[-1:])
        self.head = classifier_head(self.num_features, num_classes, fully_connected, dropout)
        initialize(self)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The named stages, shallow to deep; the shapes are those of a 299x299 image.

        Raises:
            UserError: the images are smaller than MINIMUM_SIZE.
        """
        self.check_size(x)
        stages = {}
        stages["stem"] = x = self.stem(x)  # 147x147x64
        stages["entry1"] = x = self.entry1(x)  # 74x74x128
        stages["entry2"] = x = self.entry2(x)  # 37x37x256
        stages["entry3"] = x = self.entry3(x)  # 19x19x728
        stages["middle"] = x = self.middle(x)  # 19x19x728
        stages["exit"] = self.exit(x)  # 10x10x2048
        return stages


class Shortcut(nn.Module):
    """`body(x)` plus what the shortcut makes of `x`."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Module):
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """Add the two paths, in the memory of the first (no backward pass reads it again)."""
        return self.body(x).add_(self.shortcut(x))


class _Maker(NamedTuple):
    """Builds the parts of Figure 5 as the options want them."""

    residual: bool
    activation: str
    width: float

    def channels(self, widths: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers of channels of the figure, scaled to the nearest multiple of 8 above 0."""
        return tuple(max(int(c * self.width / 8 + 0.5), 1) * 8 for c in widths)

    def separable(self, before: int, after: int) -> nn.Module:
        """A separable convolution between two numbers of channels of the figure."""
        return SeparableConv2d(
            *self.channels((before, after)), activation=self.activation, norm_after=Norm
        )

    def block(self, before: int, block: Block) -> nn.Module:
        """One module of the figure, with its shortcut."""
        body: list[nn.Module] = []
        channels = before
        for i, after in enumerate(block.widths):
            # The first ReLU may not overwrite its input: the shortcut takes that too.
            if i > 0 or not block.rectified:
                body.append(nn.ReLU(inplace=i > 0))
            body.append(self.separable(channels, after))
            channels = after
        if block.pooled:
            body.append(MaxPool2d(3, 2))
        if not self.residual:
            return nn.Sequential(*body)
        if not block.pooled:
            return Shortcut(nn.Sequential(*body), nn.Identity())
        inside, outside = self.channels((before, channels))
        projection = Conv2d(inside, outside, 1, stride=2, bias=False)
        return Shortcut(nn.Sequential(*body), nn.Sequential(projection, Norm(outside)))
