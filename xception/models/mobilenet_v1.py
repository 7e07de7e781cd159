"""MobileNet. Howard et al. 2017, arXiv:1704.04861, Table 1.

One convolution and 13 separable ones; 4,231,976 trainable parameters with 1000 classes and α = 1,
4,253,864 with the running statistics. Input 224x224x3 in [-1, 1].
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from xception.layers import Conv2d, Padding, SeparableConv2d
from xception.models.classifier import Classifier, classifier_head, initialize
from xception.models.options import choice, number, whole


class Stage(NamedTuple):
    """Rows of Table 1 between two changes of resolution."""

    name: str
    width: int  # output channels of each of its separable convolutions
    repeats: int
    stride: int  # of the first of them


STEM = 32
STAGES = (
    Stage("stage1", 64, 1, 1),
    Stage("stage2", 128, 2, 2),
    Stage("stage3", 256, 2, 2),
    Stage("stage4", 512, 6, 2),
    Stage("stage5", 1024, 2, 2),  # the table gives its second layer stride 2 too: a misprint
)

# What a window of three pixels at stride 2 finds beyond the edges of an image.
PADDINGS: Mapping[str, Padding] = MappingProxyType(
    {"keras": (0, 1, 0, 1), "same": "same", "symmetric": 1}
)


class MobileNetV1(Classifier):
    """Table 1 and its width multiplier α (§3.3).

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: share of the features dropped before the classifier (Keras: 0.001).
        width: α; every number of channels c becomes int(c·α), but at least 1.
        norm_epsilon: ε of the batch normalisation; 1e-3 in TensorFlow and Keras, 1e-5 in timm.
        padding: of the layers with stride 2. "same" is TensorFlow's: (0, 1) pixels at even sizes,
            (1, 1) at odd ones. "keras" pads its depthwise layers by (0, 1) at any size, so that
            odd sizes are rounded down. "symmetric" is (1, 1), as in timm. At sizes that are
            multiples of 32, "keras" and "same" are one.
        output_stride: 32, 16 or 8; beyond it, strides become dilation.

    Raises:
        ValueError: an option is out of range.
    """

    LOW_LEVEL = "stage2"  # at stride 4, before the next stride
    stage1: nn.Sequential
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    stage5: nn.Sequential

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        width: float = 1.0,
        norm_epsilon: float = 1e-3,
        padding: str = "keras",
        output_stride: int = 32,
    ):
        super().__init__()
        self.options = {
            "num_classes": whole("num_classes", num_classes, 1, 1_000_000),
            "in_channels": whole("in_channels", in_channels, 1, 1024),
            "dropout": number("dropout", dropout, 0, 0.99),
            "width": number("width", width, 0.01, 16),
            "norm_epsilon": number("norm_epsilon", norm_epsilon, 1e-12, 1),
            "padding": choice("padding", padding, tuple(PADDINGS)),
            "output_stride": choice("output_stride", output_stride, (8, 16, 32)),
        }
        # Rounding down, a size below the stride vanishes; the first layer rounds up.
        self.MINIMUM_SIZE = output_stride - 1 if padding == "keras" else 1
        make = _Maker(width, norm_epsilon, padding)
        channels = make.channels(STEM)
        self.stem = make.stem(in_channels, channels)
        self.stage_channels = {"stem": channels}
        reached, dilation = 2, 1  # stride so far, and what of it became dilation instead
        for stage in STAGES:
            stride = stage.stride if reached * stage.stride <= output_stride else 1
            # A layer that lost its stride still sees neighbours; those behind it, every other.
            later = dilation * stage.stride // stride
            before, channels = channels, make.channels(stage.width)
            blocks = [make.block(before, channels, stride, dilation)]
            blocks += [make.block(channels, channels, 1, later) for _ in range(stage.repeats - 1)]
            self.add_module(stage.name, nn.Sequential(*blocks))
            self.stage_channels[stage.name] = channels
            reached, dilation = reached * stride, later
        self.num_features = channels
        self.head = classifier_head(channels, num_classes, (), dropout)
        initialize(self)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The named stages, shallow to deep; the shapes are those of a 224x224 image and α = 1.

        Raises:
            UserError: the images are smaller than MINIMUM_SIZE.
        """
        self.check_size(x)
        stages = {}
        stages["stem"] = x = self.stem(x)  # 112x112x32
        stages["stage1"] = x = self.stage1(x)  # 112x112x64
        stages["stage2"] = x = self.stage2(x)  # 56x56x128
        stages["stage3"] = x = self.stage3(x)  # 28x28x256
        stages["stage4"] = x = self.stage4(x)  # 14x14x512
        stages["stage5"] = self.stage5(x)  # 7x7x1024
        return stages


class _Maker(NamedTuple):
    """Builds the parts of Table 1 as the options want them."""

    width: float
    norm_epsilon: float
    padding: str

    def channels(self, channels: int) -> int:
        """A number of channels of the table, times α."""
        return max(int(channels * self.width), 1)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Its momentum is torch's; models/xception.py says why not Keras'."""
        return nn.BatchNorm2d(channels, eps=self.norm_epsilon, momentum=0.1)

    def stem(self, before: int, after: int) -> nn.Sequential:
        """The one regular convolution; Keras, too, pads this one as TensorFlow does."""
        padding = "same" if self.padding == "keras" else PADDINGS[self.padding]
        conv = Conv2d(before, after, 3, stride=2, padding=padding, bias=False)
        return nn.Sequential(conv, self.norm(after), nn.ReLU6(inplace=True))

    def block(self, before: int, after: int, stride: int, dilation: int) -> nn.Sequential:
        """Depthwise and pointwise convolution, a normalisation and a ReLU6 after each (Fig. 3)."""
        separable = SeparableConv2d(
            before,
            after,
            stride=stride,
            dilation=dilation,
            padding=PADDINGS[self.padding] if stride == 2 else "same",
            norm_between=self.norm,
            activation=nn.ReLU6(inplace=True),
            norm_after=self.norm,
        )
        return nn.Sequential(separable, nn.ReLU6(inplace=True))
