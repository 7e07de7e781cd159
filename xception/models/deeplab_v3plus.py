"""DeepLab V3+. Chen et al. 2018, arXiv:1802.02611, Figure 2.

A classifier's network made dense by dilation, five views of its last features (atrous spatial
pyramid pooling), and a decoder that adds details from a fourth of the resolution. Over aligned
Xception of 65 layers, with 21 classes, 41,055,413 trainable parameters. Input 513x513x3 in [-1, 1].
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xception.errors import UserError
from xception.layers import Conv2d, Dropout, SeparableConv2d
from xception.models.aligned_xception import Xception41, Xception65, Xception71
from xception.models.building import build
from xception.models.classifier import JSON, Classifier
from xception.models.mobilenet_v1 import MobileNetV1
from xception.models.network import initialize_classifier, initialize_layers
from xception.models.options import choice, number, whole, wholes
from xception.models.segmenter import Segmenter
from xception.models.xception import Xception

BACKBONES: Mapping[str, Callable[..., Classifier]] = MappingProxyType(
    {
        "xception41": Xception41,
        "xception65": Xception65,
        "xception71": Xception71,
        "xception": Xception,
        "mobilenet_v1": MobileNetV1,
    }
)
DECIDED = ("num_classes", "in_channels", "dropout", "output_stride", "fully_connected")
"""Options of a backbone that are DeepLab's own, or of a head that it does not have."""
CENTRED: Mapping[str, Mapping[str, JSON]] = MappingProxyType(
    {"mobilenet_v1": MappingProxyType({"padding": "same"})}
)
"""Options for which a backbone has another default here, lest its features drift to one side."""

RATES = (6, 12, 18)  # at output stride 16, twice as many pixels at 8 (DeepLab V3, §3.3)


class DeepLabV3Plus(Segmenter):
    """Figure 2, and the variations of Tables 1, 5 and 7.

    Answers are stretched to the size of what they meet, and in the end to the image's, such that
    the corner pixels fall on one another (`align_corners`), as in the released code. It is what the
    aligned backbones mean, and MobileNet with "same" or "symmetric" padding: their windows stand
    symmetrically on every second pixel, so that feature i of a 513-pixel row describes pixel 16·i,
    and the last one the last pixel. Xception's first convolutions are not padded: its first and
    last features describe pixels a little inside the image.

    Args:
        num_classes: number of logits per pixel (Pascal VOC: 20 and the background).
        in_channels: channels of the image.
        dropout: share of the encoder's features dropped in training (released code: 0.1).
        backbone: "xception41", "xception65", "xception71", "xception" or "mobilenet_v1".
        backbone_options: its options, but for those that are options here. By default MobileNet is
            padded as "same" here: "keras" drifts to one side at odd sizes, 128 features for 513.
        output_stride: of the backbone: 16, or 8 for results a little finer at three times the cost.
        rates: distances between the taps of the atrous convolutions, in pixels of the features at
            output stride 16; scaled for another. May be empty: without these convolutions.
        image_pooling: with the branch that sees the mean of all features.
        decoder: with details from the "low_level" stage, or straight from the encoder's answer.
        separable: atrous and decoder's convolutions separable, or regular (Table 5, "SC").
        encoder_channels: of each branch and of the encoder's answer.
        low_level_channels: what the low-level features are reduced to (Table 1).
        decoder_channels: of its two convolutions (Table 2).
        norm_epsilon: ε of the normalisation outside the backbone; 1e-5 in the released code.

    Raises:
        ValueError: an option is out of range.
        UserError: an option of the backbone is not right.
    """

    def __init__(
        self,
        *,
        num_classes: int = 21,
        in_channels: int = 3,
        dropout: float = 0.1,
        backbone: str = "xception65",
        backbone_options: Mapping[str, JSON] = MappingProxyType({}),
        output_stride: int = 16,
        rates: Sequence[int] = RATES,
        image_pooling: bool = True,
        decoder: bool = True,
        separable: bool = True,
        encoder_channels: int = 256,
        low_level_channels: int = 48,
        decoder_channels: int = 256,
        norm_epsilon: float = 1e-5,
    ):
        super().__init__()
        choice("backbone", backbone, tuple(BACKBONES))
        choice("output_stride", output_stride, (8, 16, 32))
        whole("in_channels", in_channels, 1, 1024)
        self.backbone = headless(
            backbone,
            backbone_options,
            {"in_channels": in_channels, "output_stride": output_stride},
        )
        made_with = self.backbone.options
        self.options = {
            "num_classes": whole("num_classes", num_classes, 1, 1_000_000),
            "in_channels": in_channels,
            "dropout": number("dropout", dropout, 0, 0.99),
            "backbone": backbone,
            "backbone_options": {key: made_with[key] for key in made_with if key not in DECIDED},
            "output_stride": output_stride,
            "rates": wholes("rates", rates, 1, 1000, longest=8),
            "image_pooling": image_pooling,
            "decoder": decoder,
            "separable": separable,
            "encoder_channels": whole("encoder_channels", encoder_channels, 1, 65_536),
            "low_level_channels": whole("low_level_channels", low_level_channels, 1, 65_536),
            "decoder_channels": whole("decoder_channels", decoder_channels, 1, 65_536),
            "norm_epsilon": number("norm_epsilon", norm_epsilon, 1e-12, 1),
        }
        self.MINIMUM_SIZE = self.backbone.MINIMUM_SIZE
        make = _Maker(separable, norm_epsilon)
        self.aspp = PyramidPooling(
            self.backbone.num_features,
            encoder_channels,
            [max(rate * 16 // output_stride, 1) for rate in rates],
            image_pooling=image_pooling,
            dropout=dropout,
            make=make,
        )
        self.decoder = None
        if decoder:
            details = self.backbone.stage_channels[self.backbone.LOW_LEVEL]
            widths = (encoder_channels, details, low_level_channels, decoder_channels)
            self.decoder = Decoder(*widths, make=make)
        classifier = nn.Conv2d(decoder_channels if decoder else encoder_channels, num_classes, 1)
        self.head = nn.Sequential(OrderedDict(classifier=classifier))
        for part in (self.aspp, self.decoder):
            if part is not None:
                initialize_layers(part.modules())
        initialize_classifier(classifier)

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """The stages of the backbone, then "encoder" and, where there is one, "decoder".

        Raises:
            UserError: the images are smaller than MINIMUM_SIZE, or one image alone is to give
                statistics of its mean features.
        """
        stages = self.backbone.forward_features(x)
        *_, last = stages.values()  # 33x33x2048 for a 513x513 image
        encoded = self.aspp(last)  # 33x33x256
        stages["encoder"] = encoded
        if self.decoder is not None:
            details = stages[self.backbone.LOW_LEVEL]  # 129x129x256
            stages["decoder"] = self.decoder(encoded, details)  # 129x129x256
        return stages

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """One logit per class and pixel, at exactly the height and width of the images.

        Raises:
            UserError: as `forward_features`.
        """
        *_, last = self.forward_features(x).values()
        return stretched(self.head(last), x)  # 513x513x21


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling: one place seen alone, at several distances, and as a whole.

    Args:
        in_channels: channels of the features.
        channels: of each branch and of the answer.
        rates: distance between the taps of each 3x3 branch, in pixels.
        image_pooling: with a branch that sees the mean over all places.
        dropout: share of the answer dropped in training.
        make: builds the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int],
        *,
        image_pooling: bool,
        dropout: float,
        make: "_Maker",
    ):
        super().__init__()
        self.pooling = make.pointwise(in_channels, channels) if image_pooling else None
        branches = [make.pointwise(in_channels, channels)]
        branches += [make.window(in_channels, channels, rate) for rate in rates]
        self.branches = nn.ModuleList(branches)
        views = len(branches) + image_pooling
        self.project = nn.Sequential(*make.pointwise(views * channels, channels), Dropout(dropout))

    def forward(self, x: Float[Tensor, "b c i j"]) -> Float[Tensor, "b f i j"]:
        """All views of each place, mixed."""
        views = [branch(x) for branch in self.branches]
        if self.pooling is not None:
            norm = self.pooling[1]  # one that counts in other processes too is of another class
            if len(x) == 1 and norm.training and isinstance(norm, nn.BatchNorm2d):
                raise UserError(
                    "one image alone has no batch statistics of its mean features: train on two "
                    "or more at a time, freeze the statistics, or set image_pooling=false"
                )
            # Stretching the one pixel of the mean over the places only repeats it.
            views.insert(0, self.pooling(x.mean((2, 3), keepdim=True)).expand_as(views[0]))
        return self.project(torch.cat(views, dim=1))


class Decoder(nn.Module):
    """The encoder's answer, refined by details from a fourth of the image's resolution.

    Args:
        in_channels: of the encoder's answer.
        details: channels of the low-level features.
        reduced: what a 1x1 convolution makes of those, lest they outweigh the answer.
        channels: of the two 3x3 convolutions.
        make: builds the convolutions.
    """

    def __init__(
        self, in_channels: int, details: int, reduced: int, channels: int, *, make: "_Maker"
    ):
        super().__init__()
        self.reduce = make.pointwise(details, reduced)
        self.refine = nn.Sequential(
            make.window(in_channels + reduced, channels), make.window(channels, channels)
        )

    def forward(
        self, encoded: Float[Tensor, "b c i j"], details: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, "b f h w"]:
        """Stretch, put side by side, refine."""
        reduced = self.reduce(details)
        return self.refine(torch.cat([stretched(encoded, reduced), reduced], dim=1))


class _Maker(NamedTuple):
    """Builds the convolutions as the options want them, a ReLU behind each normalisation."""

    separable: bool
    norm_epsilon: float

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Its momentum is torch's; models/xception.py says why."""
        return nn.BatchNorm2d(channels, eps=self.norm_epsilon, momentum=0.1)

    def pointwise(self, before: int, after: int) -> nn.Sequential:
        """A 1x1 convolution."""
        conv = Conv2d(before, after, 1, bias=False)
        return nn.Sequential(conv, self.norm(after), nn.ReLU(inplace=True))

    def window(self, before: int, after: int, rate: int = 1) -> nn.Sequential:
        """A 3x3 convolution; a separable one has a ReLU between its halves too."""
        if not self.separable:
            conv = Conv2d(before, after, 3, dilation=rate, bias=False)
            return nn.Sequential(conv, self.norm(after), nn.ReLU(inplace=True))
        separable = SeparableConv2d(
            before,
            after,
            dilation=rate,
            norm_between=self.norm,
            activation=nn.ReLU(inplace=True),
            norm_after=self.norm,
        )
        return nn.Sequential(separable, nn.ReLU(inplace=True))


def headless(name: str, options: Mapping[str, JSON], own: Mapping[str, JSON]) -> Classifier:
    """A backbone by name, without the layers that would classify whole images.

    Args:
        name: one of BACKBONES.
        options: what the user wants of it.
        own: its options that DeepLab decides.

    Raises:
        UserError: an option or its value is not right.
    """
    for option in DECIDED:
        if option in options:
            raise UserError(f"backbone_options cannot have {option}: the network around decides it")
    given = {**CENTRED.get(name, {}), **options, **own, "num_classes": 1}
    backbone = build(f"backbone {name}", BACKBONES[name], given)
    backbone.head = nn.Sequential()
    return backbone


def stretched(
    x: Float[Tensor, "b c i j"], to: Float[Tensor, "b _ h w"]
) -> Float[Tensor, "b c h w"]:
    """`x` at the height and width of another; corner pixels fall on corner pixels."""
    return F.interpolate(x, to.shape[2:], mode="bilinear", align_corners=True)
