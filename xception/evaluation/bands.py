"""DeepLab V3+ on images that memory does not hold at once.

The image passes through the network in bands of rows (`streaming`), whose overlaps are what each
layer looks at, so that the answer is that of the whole image: also where bands meet. The image
pooling, too, sees the mean of the whole image: as it enters the encoder's last convolution through
a sum, it is added when all bands have passed. Kept of each place meanwhile are the encoder's answer
and the reduced details, about 16 bytes for each pixel at output stride 16 and 28 at 8.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from xception.data.preprocess import Preprocess
from xception.evaluation.inference import View, between
from xception.evaluation.streaming import Chain, Step, Stream
from xception.models.aligned_xception import AlignedXception, Block
from xception.models.classifier import Classifier
from xception.models.deeplab_v3plus import DeepLabV3Plus
from xception.models.mobilenet_v1 import MobileNetV1
from xception.models.xception import Shortcut, Xception

BAND_BYTES = 48 * 2**20  # of the largest map between two layers; within them it is several times


class BandedImage:
    """The logits of a network for a large image; `rows` gives them.

    Args:
        network: in evaluation mode, within `torch.inference_mode`.
        view: how it sees the photo.
        scaled: the photo's pixels, `view.scaled`.
        preprocess: its normalisation.
        device: where the network is.
        band_bytes: of the largest map between two layers.
    """

    def __init__(
        self,
        network: DeepLabV3Plus,
        view: View,
        scaled: UInt8[Tensor, "a b c"],
        preprocess: Preprocess,
        device: torch.device,
        *,
        band_bytes: int = BAND_BYTES,
    ):
        self.network, self.size = network, view.outer
        height, width = self.size
        steps, self._before_low, low = steps_of(network.backbone)
        narrow = max(view.minimum, 2 * view.output_stride + 1)
        sample = torch.zeros(1, scaled.shape[2], height, narrow, device=device)
        chain = Chain(steps, sample, widening=width / narrow, band_bytes=band_bytes)
        low_rows = chain.streams[self._before_low].after
        self._low = Stream(low, low_rows, low_rows)
        places = chain.streams[-1].after
        pyramid = _pyramid(network)
        # Its overlaps are the widest: so many rows again keep it from doing most of its work twice.
        rows = max(pyramid.above + pyramid.below, 1)
        self._pyramid = Stream(pyramid, places, places, rows, most=rows)
        self._details, self._encoded = _Collected(low_rows), _Collected(places)
        self._sum = torch.zeros(1, network.backbone.num_features, dtype=torch.float64)
        self._places = 0
        for top in range(0, height, chain.image_rows):
            part = slice(top, min(top + chain.image_rows, height))
            self._pass(chain, view.image(scaled, preprocess, device, part))
        self._finish(band_bytes)

    def _pass(self, chain: Chain, band: Float[Tensor, "1 c h w"]) -> None:
        decoder = self.network.decoder
        for i, given in chain.push(band):
            if i == self._before_low and decoder is not None:
                for low in self._low.push(given):
                    self._details.add(decoder.reduce(low))
            if i == len(chain.streams) - 1:
                self._sum += given.sum((2, 3), dtype=torch.float64).cpu()
                self._places += given.shape[2] * given.shape[3]
                for mixed in self._pyramid.push(given):
                    self._encoded.add(mixed)

    def _finish(self, band_bytes: int) -> None:
        """Let the mean of all places take part, and what follows the sum."""
        aspp, encoded = self.network.aspp, self._encoded.whole
        conv, *rest = aspp.project
        if aspp.pooling is not None:
            mean = (self._sum / self._places).to(encoded)[:, :, None, None]
            seen = aspp.pooling(mean)
            others = seen.new_zeros(1, seen.shape[1] * len(aspp.branches), 1, 1)
            alone = torch.cat([seen, others], dim=1)
            # A folded convolution has an offset, which is in the sum already.
            encoded += conv(alone) - conv(torch.zeros_like(alone))
        rows = max(band_bytes // encoded[:, :, :1].nbytes, 1)
        for top in range(0, encoded.shape[2], rows):
            part = slice(top, top + rows)
            encoded[:, :, part] = nn.Sequential(*rest)(encoded[:, :, part])

    def rows(self, first: int, last: int) -> Float[Tensor, "k h w"]:
        """The logits of the rows from `first` to `last` (excluded) of the image."""
        height, width = self.size
        source = self._encoded if self.network.decoder is None else self._details
        places = _corner_to_corner(height, source.rows)[first:last]
        top, bottom = int(places[0]), min(int(places[-1]) + 1, source.rows - 1)
        return _stretched(self._answers(top, bottom + 1), places - top, width)[0]

    def _answers(self, first: int, last: int) -> Float[Tensor, "1 k h w"]:
        """Some rows of the logits at the resolution at which they are computed."""
        decoder, head = self.network.decoder, self.network.head
        if decoder is None:
            return head(self._encoded.whole[:, :, first:last])
        reach = Step.of(decoder.refine)
        low, high = max(first - reach.above, 0), min(last + reach.below, self._details.rows)
        details = self._details.whole[:, :, low:high]
        places = _corner_to_corner(self._details.rows, self._encoded.rows)[low:high]
        top, bottom = int(places[0]), min(int(places[-1]) + 1, self._encoded.rows - 1)
        part = self._encoded.whole[:, :, top : bottom + 1]
        encoded = _stretched(part, places - top, details.shape[3])
        refined = decoder.refine(torch.cat([encoded, details], dim=1))
        return head(refined[:, :, first - low : last - low])


class _Collected:
    """A map of `rows` rows that comes band by band."""

    def __init__(self, rows: int):
        self.rows, self.filled = rows, 0
        self._whole: Tensor | None = None

    def add(self, band: Float[Tensor, "1 c h w"]) -> None:
        if self._whole is None:
            _, channels, _, width = band.shape
            memory = band.new_empty(1, self.rows, width, channels)
            self._whole = memory.permute(0, 3, 1, 2)  # channels last
        self._whole[:, :, self.filled : self.filled + band.shape[2]] = band
        self.filled += band.shape[2]

    @property
    def whole(self) -> Float[Tensor, "1 c h w"]:
        if self._whole is None or self.filled != self.rows:
            raise RuntimeError(f"{self.filled} of {self.rows} rows have come")
        return self._whole


def steps_of(backbone: Classifier) -> tuple[list[Step], int, Step]:
    """The layers of a backbone as steps with at most one stride each.

    Returns:
        The steps; the number of the one whose output the low-level stage is made from; and the step
        that makes it.

    Raises:
        TypeError: a backbone whose layers are not known here.
    """
    if isinstance(backbone, AlignedXception):
        lowering = backbone.entry[backbone.lowering]
        assert isinstance(lowering, Block)
        reach = Step.of(*list(lowering.separables)[:2])
        low = Step(lambda x: lowering.both(x)[0], reach.above, reach.below)
        modules = [backbone.stem, *backbone.entry, *backbone.middle, *backbone.exit]
        return _steps(modules), backbone.lowering, low
    if isinstance(backbone, Xception):
        entries = [backbone.entry1, backbone.entry2, backbone.entry3]
        pooled = backbone.entry2
        body = list(pooled.body if isinstance(pooled, Shortcut) else pooled)
        modules = [backbone.stem, *entries, *backbone.middle, *backbone.exit]
        return _steps(modules), 1, Step.of(*body[:-1])
    if isinstance(backbone, MobileNetV1):
        shallow = [backbone.stem, *backbone.stage1, *backbone.stage2]
        deep = [*backbone.stage3, *backbone.stage4, *backbone.stage5]
        return _steps([*shallow, *deep]), len(shallow) - 1, Step.of(nn.Identity())
    raise TypeError(f"the layers of a {type(backbone).__name__} are not known")


def _steps(modules: Sequence[nn.Module]) -> list[Step]:
    return [Step.of(module) for module in modules]


def _pyramid(network: DeepLabV3Plus) -> Step:
    """What the encoder's last convolution makes of all views of a place but the mean."""
    aspp = network.aspp
    conv = aspp.project[0]
    reaches = [Step.of(branch) for branch in aspp.branches]

    def run(x: Tensor) -> Tensor:
        views = [branch(x) for branch in aspp.branches]
        if aspp.pooling is not None:
            views.insert(0, torch.zeros_like(views[0]))
        return conv(torch.cat(views, dim=1))

    return Step(run, max(s.above for s in reaches), max(s.below for s in reaches))


def _corner_to_corner(many: int, few: int) -> Float64[Tensor, " many"]:
    """Where `many` rows lie among `few` if the first and the last ones fall on one another."""
    return torch.arange(many, dtype=torch.float64) * ((few - 1) / max(many - 1, 1))


def _stretched(
    x: Float[Tensor, "1 c h w"], places: Float64[Tensor, " i"], width: int
) -> Float[Tensor, "1 c i j"]:
    """Interpolated at some rows, and to a width such that the corners fall on one another."""
    wide = F.interpolate(x, (x.shape[2], width), mode="bilinear", align_corners=True)
    return between(wide, places, 2)
