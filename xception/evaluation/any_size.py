"""Photos of any size to the class of each pixel.

What is larger than memory should hold at once passes through the network in bands (`bands`), whose
result is that of the whole photo; the probabilities of all its classes are never there together.
Training, evaluation and prediction all look at photos so.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from xception.data.images import MAX_PIXELS, ImageError, opened
from xception.data.preprocess import Preprocess
from xception.data.store import Store
from xception.evaluation.bands import BAND_BYTES, BandedImage
from xception.evaluation.evaluate import evaluating
from xception.evaluation.inference import Rows, View, WholePhoto, probabilities
from xception.evaluation.segmentation import Piece
from xception.models.deeplab_v3plus import DeepLabV3Plus

WHOLE_PIXELS = 1500 * 1500  # of the network's image, beyond which it comes in bands
MOST_PIXELS = 4 * MAX_PIXELS  # of the network's image: the largest photo at twice its sides
PIECE_BYTES = 48 * 2**20  # of the probabilities that are there at once
STEPS = 2**16 - 1  # of the probabilities of large photos, while those of several views are added


class AnyPhoto:
    """Segments photos of any size; gives their pieces.

    Args:
        network: see `WholePhoto`.
        preprocess: the same.
        num_classes: of the network's answers.
        device: see `WholePhoto`.
        output_stride: the same.
        minimum_size: the same.
        shorter_side: the same.
        scales: the same.
        mirror: the same.
        whole_pixels: an image of more pixels than this passes through the network in bands.
        band_bytes: of the largest map between two layers, then.
        most_pixels: a photo whose image would have more than this is refused.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        *,
        num_classes: int,
        device: torch.device | str,
        output_stride: int,
        minimum_size: int = 1,
        shorter_side: int | None = None,
        scales: Sequence[float] = (1.0,),
        mirror: bool | None = None,
        whole_pixels: int = WHOLE_PIXELS,
        band_bytes: int = BAND_BYTES,
        most_pixels: int = MOST_PIXELS,
    ):
        self.network, self.device = network, torch.device(device)
        self.num_classes = num_classes
        self.whole_pixels, self.band_bytes = whole_pixels, band_bytes
        self.most_pixels = most_pixels
        self.whole = WholePhoto(
            network,
            preprocess,
            device=device,
            output_stride=output_stride,
            minimum_size=minimum_size,
            shorter_side=shorter_side,
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
        total = np.zeros((self.num_classes, height, width), np.uint16)
        for view in views:
            for top, _, found in self._by_rows(view, pixels):
                total[:, top : top + found.shape[1]] += _rounded(found, unit)
        for rows in self._bands(height, width):
            part = torch.from_numpy(total[:, rows].astype(np.float32))
            yield Piece(rows.start, 0, part / (unit * len(views)))

    def _by_rows(self, view: View, pixels: UInt8[Tensor, "h w c"]) -> Iterator[Piece]:
        seen = self._seen(view, pixels)
        # A photo that is shown enlarged has more pixels of the image behind each of its rows.
        behind = math.ceil(math.prod(view.outer) / view.height)
        for rows in self._bands(view.height, max(view.width, behind)):
            with evaluating(self.network), torch.inference_mode():
                logits = view.logits(seen, rows.start, rows.stop)
                piece = Piece(rows.start, 0, probabilities(logits))
            yield piece

    def _seen(self, view: View, pixels: UInt8[Tensor, "h w c"]) -> Rows:
        """The network's logits for its image; a large photo may well have a small one."""
        if math.prod(view.outer) <= self.whole_pixels:
            return self.whole.logits(view, pixels)
        preprocess = self.whole.preprocess
        assert isinstance(self.network, DeepLabV3Plus)  # or `check` has refused
        with evaluating(self.network), torch.inference_mode():
            scaled = view.scaled(pixels, preprocess)
            image = BandedImage(
                self.network, view, scaled, preprocess, self.device, band_bytes=self.band_bytes
            )
        return image.rows

    def _bands(self, height: int, width: int) -> Iterator[slice]:
        rows = max(PIECE_BYTES // (4 * self.num_classes * width), 1)
        for top in range(0, height, rows):
            yield slice(top, min(top + rows, height))


def too_large(segment: AnyPhoto, store: Store, photos: Iterable[str]) -> dict[str, str]:
    """The photos that `AnyPhoto.check` refuses, each with the reason, before any is shown.

    The heads of the files say the sizes, and nothing is decoded; a photo that is turned on its side
    is as large as the upright one. Files that cannot be read are not judged: the audit names them.
    """
    refused = {}
    for name in photos:
        try:
            with opened(store.read(name), name) as image:
                width, height = image.size
        except ImageError:
            continue
        try:
            segment.check(height, width, name)
        except ImageError as error:
            refused[name] = error.reason
    return refused


def _rounded(found: Float[Tensor, "k h w"], unit: int) -> np.ndarray:
    return (found * unit).round().cpu().numpy().astype(np.uint16)
