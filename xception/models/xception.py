"""Xception. Chollet 2017, arXiv:1610.02357, Figure 5.

36 convolutional layers in 14 modules; 22,855,952 trainable parameters with 1000 classes (Table 3),
22,910,480 with the running statistics. Input 299x299x3 in [-1, 1].
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from xception.layers import Conv2d, MaxPool2d, SeparableConv2d
from xception.layers.separable import segment_sizes
from xception.models.budget import width_for
from xception.models.classifier import JSON, Classifier, classifier_head, initialize
from xception.models.network import scaled
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
STAGES = {  # channels of what `forward_features` gives
    "stem": STEM[-1],
    "entry1": ENTRY[0].widths[-1],
    "entry2_unpooled": ENTRY[1].widths[-1],  # what goes into its pooling
    "entry2": ENTRY[1].widths[-1],
    "entry3": ENTRY[2].widths[-1],
    "middle": MIDDLE.widths[-1],
    "exit": LAST[-1],
}

SMALLEST = {2: 7, 1: 5}  # pixels, by stride of the stem: "valid" windows must fit twice

# ε is that of Keras' Xception. The statistics, though, follow the last ten batches (torch's 0.1),
# not the last hundred (Keras' 0.99, which is 0.01 here): from scratch, a small folder of photos has
# a few hundred steps in all, and statistics that remember the first ones spoil the validation.
EPSILON, MOMENTUM = 1e-3, 0.1


class Xception(Classifier):
    """Figure 5, and the variations that the paper tries.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: share of the features dropped before the logistic regression (§4.3: 0.5).
        fully_connected: widths of optional layers before it (§4.1: two of 4096); never scaled.
        residual: with the shortcuts, or without any (§4.6).
        activation: "none", "relu" or "elu" between depthwise and pointwise convolution (§4.7).
        width: all other numbers of channels times this, to the nearest multiple above 0 of:
        multiple: 8, 4, 2 or 1.
        stem_stride: 2, or 1 for images of 32 to 96 pixels.
        middle: how often the module of the middle flow is repeated.
        order: "depthwise_first" as in the figure, or "pointwise_first" as in an Inception module;
            the paper (§2) thinks it unimportant.
        segments: groups of channels that each separable convolution keeps apart, from 1 (regular
            convolutions) to all of them (None, the default); §1.2. Layers with fewer channels than
            that keep all of theirs apart.
        parameters: in the place of `width` and `multiple`, which are chosen such that the network
            has that many trainable parameters within 1 %. It makes points of the spectrum
            comparable.
        norm_epsilon: ε of the batch normalisation; 1e-3 in Keras, 1e-5 in its ports to torch.
        padding: of the pooling. "same" is TensorFlow's: (0, 1) pixels at even sizes, (1, 1) at odd
            ones. "symmetric" is (1, 1), as in the ports.
        output_stride: 32, 16 or 8, at most. Poolings beyond it take a window at every pixel, and
            the layers behind them are dilated; the weights stay the same, and so do the features
            at every second (fourth) pixel.

    Raises:
        ValueError: an option is out of range, or no network has the `parameters` asked for.
    """

    LOW_LEVEL = "entry2_unpooled"

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
        multiple: int = 8,
        stem_stride: int = 2,
        middle: int = 8,
        order: str = "depthwise_first",
        segments: int | None = None,
        parameters: int | None = None,
        norm_epsilon: float = EPSILON,
        padding: str = "same",
        output_stride: int = 32,
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
            "multiple": choice("multiple", multiple, (1, 2, 4, 8)),
            "stem_stride": choice("stem_stride", stem_stride, (1, 2)),
            "middle": whole("middle", middle, 0, 64),
            "order": choice("order", order, ("depthwise_first", "pointwise_first")),
            "segments": None if segments is None else whole("segments", segments, 1, 65_536),
            "norm_epsilon": number("norm_epsilon", norm_epsilon, 1e-12, 1),
            "padding": choice("padding", padding, ("same", "symmetric")),
            "output_stride": choice("output_stride", output_stride, (8, 16, 32)),
        }
        if parameters is not None:
            if (width, multiple) != (1, 8):
                raise ValueError("width and multiple follow from parameters: leave them out")
            whole("parameters", parameters, 1, 10**12)
            width, multiple = width_for(partial(count_parameters, self.options), parameters)
            self.options |= {"width": width, "multiple": multiple}
        scale = partial(scaled, width=width, multiple=multiple)
        self.MINIMUM_SIZE = SMALLEST[stem_stride]
        norm = partial(nn.BatchNorm2d, eps=norm_epsilon, momentum=MOMENTUM)
        make = _Maker(residual, activation, scale, order, segments, norm, padding)
        first, second = (scale(channels) for channels in STEM)
        self.stem = nn.Sequential(
            Conv2d(in_channels, first, 3, stride=stem_stride, padding="valid", bias=False),
            norm(first),
            nn.ReLU(inplace=True),
            Conv2d(first, second, 3, padding="valid", bias=False),
            norm(second),
            nn.ReLU(inplace=True),
        )
        *entry, rate, last = _rates(stem_stride, output_stride)
        self.entry1 = make.block(STAGES["stem"], ENTRY[0], entry[0], entry[1])
        self.entry2 = make.block(STAGES["entry1"], ENTRY[1], entry[1], entry[2])
        self.entry3 = make.block(STAGES["entry2"], ENTRY[2], entry[2], rate)
        deep = STAGES["entry3"]
        self.middle = nn.Sequential(*(make.block(deep, MIDDLE, rate, rate) for _ in range(middle)))
        self.exit = nn.Sequential(
            make.block(deep, EXIT, rate, last),
            make.separable(EXIT.widths[-1], LAST[0], last),
            nn.ReLU(inplace=True),
            make.separable(*LAST, last),
            nn.ReLU(inplace=True),
        )
        self.stage_channels = {name: scale(channels) for name, channels in STAGES.items()}
        self.num_features = self.stage_channels["exit"]
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
        unpooled, x = _with_and_without_pooling(self.entry2, x)
        stages["entry2_unpooled"] = unpooled  # 74x74x256
        stages["entry2"] = x  # 37x37x256
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


def _with_and_without_pooling(
    block: nn.Sequential | Shortcut, x: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b f h w"], Float[Tensor, "b f i j"]]:
    """What goes into the pooling of a block, and the output of the block."""
    body = block.body if isinstance(block, Shortcut) else block
    *convolutions, pooling = body
    unpooled = x
    for layer in convolutions:
        unpooled = layer(unpooled)
    pooled = pooling(unpooled)
    if isinstance(block, Shortcut):
        pooled = pooled.add_(block.shortcut(x))
    return unpooled, pooled


def _rates(stem_stride: int, output_stride: int) -> tuple[int, ...]:
    """Dilation before, between and behind the four poolings.

    Until the output stride is reached, a pooling doubles the stride; from then on it is dense and
    the dilation doubles, for what comes after it (as in TensorFlow's DeepLab: the module that loses
    its stride keeps its dilation).
    """
    rates, stride = [1], stem_stride
    for _ in range(4):
        dense = stride == output_stride
        rates.append(rates[-1] * 2 if dense else rates[-1])
        stride = stride if dense else stride * 2
    return tuple(rates)


class _Maker(NamedTuple):
    """Builds the parts of Figure 5 as the options want them."""

    residual: bool
    activation: str
    scale: Callable[[int], int]  # numbers of channels of the figure to those of this network
    order: str
    segments: int | None
    norm: Callable[[int], nn.BatchNorm2d]
    padding: str

    def separable(self, before: int, after: int, rate: int) -> nn.Module:
        """A separable convolution between two numbers of channels of the figure."""
        inside, outside = self.scale(before), self.scale(after)
        first = self.order == "depthwise_first"
        filtered = inside if first else outside
        return SeparableConv2d(
            inside,
            outside,
            dilation=rate,
            order="depthwise_first" if first else "pointwise_first",
            segments=min(self.segments or filtered, filtered),
            activation=self.activation,
            norm_after=self.norm,
        )

    def block(self, before: int, block: Block, rate: int, later: int) -> nn.Sequential | Shortcut:
        """One module of the figure, with its shortcut; `later` is the dilation behind it."""
        body: list[nn.Module] = []
        channels = before
        for i, after in enumerate(block.widths):
            # The first ReLU may not overwrite its input: the shortcut takes that too.
            if i > 0 or not block.rectified:
                body.append(nn.ReLU(inplace=i > 0))
            body.append(self.separable(channels, after, rate))
            channels = after
        dense = later > rate
        if block.pooled:
            padding = "same" if self.padding == "same" else 1
            body.append(MaxPool2d(3, 2, dilation=rate, padding=padding, dense=dense))
        if not self.residual:
            return nn.Sequential(*body)
        if not block.pooled:
            return Shortcut(nn.Sequential(*body), nn.Identity())
        inside, outside = self.scale(before), self.scale(channels)
        projection = Conv2d(inside, outside, 1, stride=1 if dense else 2, bias=False)
        return Shortcut(nn.Sequential(*body), nn.Sequential(projection, self.norm(outside)))


def count_parameters(options: dict[str, JSON], width: float, multiple: int) -> int:
    """Trainable parameters of the network of these options, but of this width and multiple.

    By addition, without building it: a search for a width asks often.
    """
    segments, residual = options["segments"], options["residual"]
    first = options["order"] == "depthwise_first"

    def convolution(before: int, after: int, taps: int) -> int:
        return taps * before * after + 2 * after  # with its normalisation

    def separable(before: int, after: int) -> int:
        filtered = before if first else after
        sizes = segment_sizes(filtered, min(segments or filtered, filtered))
        spatial = 9 * sum(number * size * size for size, number in sizes)
        return spatial + convolution(before, after, 1)

    def chain(*widths: int) -> int:
        return sum(separable(scale(a), scale(b)) for a, b in pairwise(widths))

    def scale(channels: int) -> int:
        return scaled(channels, width, multiple)

    total = convolution(options["in_channels"], scale(STEM[0]), 9)
    total += convolution(scale(STEM[0]), scale(STEM[1]), 9)
    before = STEM[1]
    for block in (*ENTRY, *(MIDDLE,) * options["middle"], EXIT):
        total += chain(before, *block.widths)
        if residual and block.pooled:
            total += convolution(scale(before), scale(block.widths[-1]), 1)
        before = block.widths[-1]
    total += chain(before, *LAST)
    head = [scale(LAST[-1]), *options["fully_connected"], options["num_classes"]]
    return total + sum((a + 1) * b for a, b in pairwise(head))
