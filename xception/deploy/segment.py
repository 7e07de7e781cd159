"""Photos of any size to the class of each pixel, as a trained model says it.

One answer, or the mean of several: at the scales of Chen et al. 2018, arXiv:1802.02611 (Table 5:
0.5 to 1.75), mirrored, at another output stride than the network was trained with. What is larger
than memory should hold at once passes through the network in bands (`bands`), whose result is that
of the whole photo; the probabilities of all its classes are never there together.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from xception.data.images import MAX_PIXELS, ImageError
from xception.data.legend import default_colours
from xception.deploy.bands import BAND_BYTES, BandedImage
from xception.deploy.engines import STATISTICS, Engine, EngineModule, TorchEngine, open_engine
from xception.deploy.fold import fold
from xception.errors import UserError
from xception.evaluation.inference import Rows, View, WholePhoto, probabilities
from xception.evaluation.segmentation import IGNORED, Piece
from xception.models.deeplab_v3plus import DeepLabV3Plus
from xception.models.network import Network
from xception.models.surgery import operate
from xception.models.zoo import create_model
from xception.weights.card import Card

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # Table 5, "MS"
WHOLE_PIXELS = 1500 * 1500  # of the network's image, beyond which it comes in bands
MOST_PIXELS = 4 * MAX_PIXELS  # of the network's image: the largest photo at twice its sides
PIECE_BYTES = 48 * 2**20  # of the probabilities that are there at once
STEPS = 2**16 - 1  # of the probabilities of large photos, while those of several views are added


class PhotoSegmenter:
    """A trained model that takes photos of any size; gives their pieces.

    Args:
        engine: of a model that segments.
        scales: sizes at which it sees a photo; the mean of its probabilities counts.
        mirror: whether it sees the photo mirrored too; None leaves it to the model's card.
        whole_pixels: an image of more pixels than this passes through the network in bands.
        band_bytes: of the largest map between two layers, then.
        most_pixels: a photo whose image would have more than this is refused.

    Raises:
        UserError: the model does not segment, or its card is not sound.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        scales: Sequence[float] = (1.0,),
        mirror: bool | None = None,
        whole_pixels: int = WHOLE_PIXELS,
        band_bytes: int = BAND_BYTES,
        most_pixels: int = MOST_PIXELS,
    ):
        self.card: Card = engine.card
        if self.card.task != "segmentation":
            raise UserError("this model classifies images; one that segments them is needed")
        if len(self.card.classes) > IGNORED:
            raise UserError(f"more classes than a mask can hold: {len(self.card.classes)}")
        self.classes = self.card.classes
        # Those of the masks that it learnt from, where it knows.
        self.colours = self.card.colours or default_colours(len(self.classes))
        self.whole_pixels, self.band_bytes = whole_pixels, band_bytes
        self.most_pixels = most_pixels
        options, self.device = self.card.architecture.options, torch.device("cpu")
        if isinstance(engine, TorchEngine):
            options, self.device = engine.network.options, engine.device
        self.network = engine.network if isinstance(engine, TorchEngine) else EngineModule(engine)
        self.whole = WholePhoto(
            self.network,
            self.card.preprocess,
            device=self.device,
            output_stride=_whole_number(options.get("output_stride"), "output_stride"),
            minimum_size=engine.minimum_size,
            shorter_side=shorter_side(self.card),
            scales=scales,
            mirror=mirror,
        )

    def in_bands(self, height: int, width: int) -> bool:
        """Whether a photo of this size is too large for the network to see it at once."""
        return math.prod(self.image_size(height, width)) > self.whole_pixels

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the largest image that the network sees of a photo of this size."""
        return max((view.outer for view in self.whole.views(height, width)), key=math.prod)

    def check(self, height: int, width: int, name: str = "the photo") -> None:
        """Refuse a photo of which the network would see too large an image.

        That the photo is small does not mean that the image is: where the training scaled photos
        to one shorter side, a sliver becomes as long as its shape asks for.

        Raises:
            ImageError: the image would have more than `most_pixels`, or, of an exported model,
                `whole_pixels`; `name` is that of the photo.
        """
        size = self.image_size(height, width)
        seen = f"an image of {size[0]}x{size[1]} pixels is too large"
        if math.prod(size) > self.most_pixels:
            reason = f"{seen} for the network, which is shown up to {self.most_pixels:,}; cut it up"
            raise ImageError(name, reason)
        if math.prod(size) > self.whole_pixels and not isinstance(self.network, DeepLabV3Plus):
            raise ImageError(
                name,
                f"{seen} for an exported model: it is computed at once, up to "
                f"{self.whole_pixels:,} pixels; the model file (.safetensors) takes larger ones",
            )

    def __call__(self, pixels: UInt8[Tensor, "h w c"]) -> Iterator[Piece]:
        """The pieces of a photo, from top to bottom.

        Raises:
            ImageError: the photo is too large, see `check`.
            UserError: the network answers with NaN or infinity.
        """
        height, width, _ = pixels.shape
        self.check(height, width)
        if height * width <= self.whole_pixels and not self.in_bands(height, width):
            yield from self.whole(pixels)
            return
        views = self.whole.views(height, width)
        if len(views) == 1:
            yield from self._by_rows(views[0], pixels)
            return
        # All probabilities of a large photo, added up in half of the memory: rounding them costs
        # less than 1e-5 each.
        unit = STEPS // len(views)
        total = np.zeros((len(self.classes), height, width), np.uint16)
        for view in views:
            for top, _, found in self._by_rows(view, pixels):
                total[:, top : top + found.shape[1]] += _rounded(found, unit)
        for rows in self._bands(height, width):
            part = torch.from_numpy(total[:, rows].astype(np.float32))
            yield Piece(rows.start, 0, part / (unit * len(views)))

    def _by_rows(self, view: View, pixels: UInt8[Tensor, "h w c"]) -> Iterator[Piece]:
        seen = self._seen(view, pixels)
        for rows in self._bands(view.height, view.width):
            with torch.inference_mode():
                logits = view.logits(seen, rows.start, rows.stop)
                piece = Piece(rows.start, 0, probabilities(logits))
            yield piece

    def _seen(self, view: View, pixels: UInt8[Tensor, "h w c"]) -> Rows:
        """The network's logits for its image; a large photo may well have a small one."""
        if math.prod(view.outer) <= self.whole_pixels:
            return self.whole.logits(view, pixels)
        preprocess = self.card.preprocess
        assert isinstance(self.network, DeepLabV3Plus)  # or `check` has refused
        with torch.inference_mode():
            scaled = view.scaled(pixels, preprocess)
            image = BandedImage(
                self.network, view, scaled, preprocess, self.device, band_bytes=self.band_bytes
            )
        return image.rows

    def _bands(self, height: int, width: int) -> Iterator[slice]:
        rows = max(PIECE_BYTES // (4 * len(self.classes) * width), 1)
        for top in range(0, height, rows):
            yield slice(top, min(top + rows, height))


def open_segmenter(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    scales: Sequence[float] = (1.0,),
    mirror: bool | None = None,
    output_stride: int | None = None,
) -> PhotoSegmenter:
    """The model at a path, ready for photos; on a CPU with its normalisations folded.

    Args:
        path: a run folder, a model file, or an exported one.
        device: where to compute.
        scales: see `PhotoSegmenter`.
        mirror: the same.
        output_stride: 32, 16 or 8; None is that of the training.

    Raises:
        UserError: there is no sound model, it does not segment, or it is an exported one, which
            keeps its output stride.
    """
    engine = open_engine(path, device=device)
    if engine.card.task != "segmentation":
        raise UserError(f"{path}: classifies images; a model that segments them is needed")
    if isinstance(engine, TorchEngine):
        network = engine.network
        if output_stride is not None:
            network = at_output_stride(network, output_stride)
        if engine.device.type == "cpu":
            fold(network)
        engine = TorchEngine(network, device)
    elif output_stride not in (None, engine.card.architecture.options.get("output_stride")):
        raise UserError(f"{path}: an exported model keeps its output stride; give the model file")
    return PhotoSegmenter(engine, scales=scales, mirror=mirror)


def at_output_stride(network: Network, output_stride: int) -> Network:
    """The same network with the same weights at another output stride (Table 5, "eval OS").

    Raises:
        UserError: there is no such output stride.
    """
    if network.options.get("output_stride") == output_stride:
        return network
    name = network.card.architecture.name
    weights = network.state_dict()
    with torch.device("meta"):
        other = create_model(name, **{**network.options, "output_stride": output_stride})
        operate(other, network.surgery)
        if not any(key.endswith(STATISTICS) for key in weights):
            fold(other)
    other.load_state_dict(weights, assign=True)
    other.card = network.card
    return other.eval()


def shorter_side(card: Card) -> int | None:
    """The pixels of the shorter side to which the training scaled photos; None: their own.

    Raises:
        UserError: the card is not sound.
    """
    joint = card.training.get("joint")
    side = joint.get("shorter_side") if isinstance(joint, dict) else None
    return None if side is None else _whole_number(side, "joint.shorter_side")


def _whole_number(value: object, name: str) -> int:
    if type(value) is not int or not 1 <= value <= 2**16:
        raise UserError(f"the model's card is wrong at {name!r}: {value!r:.60}")
    return value


def _rounded(found: Float[Tensor, "k h w"], unit: int) -> np.ndarray:
    return (found * unit).round().cpu().numpy().astype(np.uint16)
