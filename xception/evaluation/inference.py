"""What a segmentation network says about photos of any size.

A photo gets a border of the mean colour on the right and below, until its sides are a multiple of
the output stride plus one: then each feature stands for the pixel that it is computed around, and
the network's stretching of features to pixels is exact (Chen et al.'s code pads to 513 for this).
What is said about the border is cut off. A network may be shown the photo larger, smaller or
mirrored; its answer is always brought back to the photo's own pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.evaluation.evaluate import evaluating
from xception.evaluation.segmentation import Piece

Rows = Callable[[int, int], Float[Tensor, "k h w"]]
"""The rows from the first to the last (excluded) of a network's logits for its image."""


@dataclass(frozen=True)
class View:
    """A photo as a network is shown it.

    Args:
        height: of the photo, in pixels.
        width: the same.
        scale: sides of the image, measured in those of the photo.
        mirrored: left and right exchanged.
        output_stride: of the network, which the image's sides must fit (see above).
        minimum: the least that a side of its image may have.
    """

    height: int
    width: int
    scale: float = 1.0
    mirrored: bool = False
    output_stride: int = 16
    minimum: int = 1

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the scaled photo."""
        return max(round(self.height * self.scale), 1), max(round(self.width * self.scale), 1)

    @property
    def outer(self) -> tuple[int, int]:
        """Height and width of the image, with its border."""
        height, width = (self._with_border(side) for side in self.inner)
        return height, width

    def _with_border(self, side: int) -> int:
        stride = self.output_stride
        return -(-(max(side, self.minimum) - 1) // stride) * stride + 1

    def scaled(
        self, pixels: UInt8[Tensor, "h w c"], preprocess: Preprocess
    ) -> UInt8[Tensor, "a b c"]:
        """The pixels at the size of `inner`, by the filter of the preprocessing."""
        height, width = self.inner
        if (height, width) == (self.height, self.width):
            return pixels
        array = pixels.numpy()
        image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        image = preprocess.resample(image, (width, height), (0, 0, self.width, self.height))
        resized = np.array(image)
        return torch.from_numpy(resized[:, :, None] if resized.ndim == 2 else resized)

    def image(
        self,
        scaled: UInt8[Tensor, "a b c"],
        preprocess: Preprocess,
        device: torch.device,
        rows: slice = slice(None),
    ) -> Float[Tensor, "1 c i j"]:
        """The network's image, or some of its rows."""
        height, width = self.outer
        first, last, _ = rows.indices(height)
        part = scaled[first:last].to(device, non_blocking=True)
        x = preprocess.normalize(part[None]) if len(part) else self._blank(scaled, device)
        right, below = width - x.shape[3], (last - first) - x.shape[2]
        if right or below:
            x = F.pad(x, (0, right, 0, below))
        return x.flip(3) if self.mirrored else x

    def _blank(self, scaled: UInt8[Tensor, "a b c"], device: torch.device) -> Tensor:
        return torch.zeros(1, scaled.shape[2], 0, scaled.shape[1], device=device)

    def logits(self, rows: Rows, first: int, last: int) -> Float[Tensor, "k i j"]:
        """Some rows of the photo: what the network says of its image, at the photo's pixels.

        Args:
            rows: gives rows of the logits of the network's image, `outer` in size.
            first: row of the photo.
            last: the row behind the last one.
        """
        height, width = self.inner
        if (height, width) == (self.height, self.width):
            return self._turned(rows(first, last))
        down = _places(self.height, height)[first:last]
        top, bottom = int(down[0]), min(int(down[-1]) + 1, height - 1)
        part = self._turned(rows(top, bottom + 1))
        return between(between(part, down - top, 1), _places(self.width, width), 2)

    def _turned(self, logits: Float[Tensor, "k i j"]) -> Float[Tensor, "k i m"]:
        """Mirrored back, and without the border on the right."""
        return (logits.flip(2) if self.mirrored else logits)[:, :, : self.inner[1]]


def _places(many: int, few: int) -> Float64[Tensor, " many"]:
    """Where the middles of `many` pixels lie among those of `few`, which span the same length."""
    places = (torch.arange(many, dtype=torch.float64) + 0.5) * (few / many) - 0.5
    return places.clamp(0, few - 1)


def between(x: Float[Tensor, "*shape"], places: Float64[Tensor, " n"], dim: int) -> Tensor:
    """Linear interpolation of `x` along one axis, at places counted in its entries."""
    lower = places.floor().long().clamp(0, x.shape[dim] - 1)
    upper = (lower + 1).clamp(max=x.shape[dim] - 1)
    share = (places - lower).to(x)
    share = share.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    lower, upper = lower.to(x.device), upper.to(x.device)
    return torch.lerp(x.index_select(dim, lower), x.index_select(dim, upper), share)


def probabilities(logits: Float[Tensor, "k h w"]) -> Float[Tensor, "k h w"]:
    """Softmax over the classes of each pixel, in float32.

    Raises:
        UserError: a logit is NaN or infinite.
    """
    logits = logits.float()
    if not bool(logits.isfinite().all()):
        raise UserError(
            "the network answers with NaN or infinity for some pixels of a photo.\n"
            "Its weights are damaged or its training diverged; a lower learning rate or gradient "
            "clipping keeps a training from that."
        )
    return logits.softmax(0)


class WholePhoto:
    """Segments a photo in one go, at its own size.

    Args:
        network: images to one logit per class and pixel; already on `device`. It works in
            evaluation mode and gets its modes back.
        preprocess: its normalisation.
        device: where to compute.
        output_stride: of the network, `network.options["output_stride"]`.
        minimum_size: the least that a side of its image may have, in pixels.
        precision: run the network under autocast to this type; None keeps float32.
        shorter_side: pixels that the network is to see of the shorter side of each photo; None
            shows it the photo as it is.
        scales: sizes, in those of above, at which it sees the photo; the mean of its probabilities
            counts.
        mirror: whether it sees the photo mirrored too; None leaves it to the preprocessing.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        *,
        device: torch.device | str,
        output_stride: int,
        minimum_size: int = 1,
        precision: torch.dtype | None = None,
        shorter_side: int | None = None,
        scales: Sequence[float] = (1.0,),
        mirror: bool | None = None,
    ):
        self.network, self.preprocess, self.precision = network, preprocess, precision
        self.device, self.shorter_side = torch.device(device), shorter_side
        self.output_stride, self.minimum_size = output_stride, minimum_size
        self.scales, self.mirror = scales, preprocess.mirror if mirror is None else mirror

    def __call__(self, pixels: UInt8[Tensor, "h w c"]) -> list[Piece]:
        """The photo as one piece. Raises `UserError` if the answer is NaN or infinite."""
        height, width, _ = pixels.shape
        views = self.views(height, width)
        with torch.inference_mode():
            found = self._answer(views[0], pixels)
            for view in views[1:]:
                found += self._answer(view, pixels)
            return [Piece(0, 0, found.div_(len(views)))]

    def views(self, height: int, width: int) -> list[View]:
        """How the network sees a photo: every scale, as it is and perhaps mirrored."""
        unit = 1.0 if self.shorter_side is None else self.shorter_side / min(height, width)
        return [
            View(height, width, unit * scale, turned, self.output_stride, self.minimum_size)
            for scale in self.scales
            for turned in ((False, True) if self.mirror else (False,))
        ]

    def logits(self, view: View, pixels: UInt8[Tensor, "h w c"]) -> Rows:
        """What the network says of the image that it is shown, at the size of that image."""
        cast = self.precision is not None
        with evaluating(self.network), torch.inference_mode():
            x = view.image(view.scaled(pixels, self.preprocess), self.preprocess, self.device)
            with torch.autocast(self.device.type, self.precision, enabled=cast):
                (logits,) = self.network(x)
        return partial(_rows, logits)

    def _answer(self, view: View, pixels: UInt8[Tensor, "h w c"]) -> Float[Tensor, "k h w"]:
        return probabilities(view.logits(self.logits(view, pixels), 0, view.height))


def _rows(logits: Float[Tensor, "k h w"], first: int, last: int) -> Float[Tensor, "k i w"]:
    return logits[:, first:last]


def index_map(pieces: Iterable[Piece], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The likeliest class of each pixel of a photo of this height and width."""
    classes = np.zeros(size, np.uint8)
    for top, left, found in pieces:
        rows, columns = slice(top, top + found.shape[1]), slice(left, left + found.shape[2])
        classes[rows, columns] = found.argmax(0).to(torch.uint8).cpu().numpy()
    return classes
