"""What a segmentation network says about photos of any size.

A photo gets a border of the mean colour on the right and below, until its sides are a multiple of
the output stride plus one: then each feature stands for the pixel that it is computed around, and
the network's stretching of features to pixels is exact (Chen et al.'s code pads to 513 for this).
What is said about the border is cut off. So every photo is seen at its own size, and a part of it
exactly as in the whole.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.evaluation.evaluate import evaluating
from xception.evaluation.segmentation import Piece


class WholePhoto:
    """Segments a photo in one go.

    Args:
        network: images to one logit per class and pixel; already on `device`. It works in
            evaluation mode and gets its modes back.
        preprocess: its normalisation; with `mirror` the mean of the probabilities for the photo
            and its mirror image counts.
        device: where to compute.
        output_stride: of the network, `network.options["output_stride"]`.
        minimum_size: the least that a side of its image may have, in pixels.
        precision: run the network under autocast to this type; None keeps float32.
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
    ):
        self.network, self.preprocess, self.precision = network, preprocess, precision
        self.device = torch.device(device)
        self.output_stride, self.minimum_size = output_stride, minimum_size

    def __call__(self, pixels: UInt8[Tensor, "h w c"]) -> list[Piece]:
        """The photo as one piece. Raises `UserError` if the answer is NaN or infinite."""
        with evaluating(self.network), torch.inference_mode():
            return [Piece(0, 0, self._probabilities(pixels))]

    def _probabilities(self, pixels: UInt8[Tensor, "h w c"]) -> Float[Tensor, "k h w"]:
        height, width, _ = pixels.shape
        x = self.preprocess.normalize(pixels[None].to(self.device, non_blocking=True))
        least = self.minimum_size
        x = bordered(x, *(grid_size(side, self.output_stride, least) for side in (height, width)))
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
            answers = [self.network(x)]
            if self.preprocess.mirror:
                answers.append(self.network(x.flip(3)).flip(3))
        found = [probabilities(logits[0, :, :height, :width]) for logits in answers]
        return sum(found[1:], start=found[0]) / len(found)


def grid_size(side: int, output_stride: int, minimum: int = 1) -> int:
    """The next multiple of the output stride plus one, in pixels, that is at least `minimum`."""
    return -(-(max(side, minimum) - 1) // output_stride) * output_stride + 1


def bordered(x: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "b c i j"]:
    """The image with a border of zeros, which are the mean colour, on the right and below."""
    right, below = width - x.shape[3], height - x.shape[2]
    return F.pad(x, (0, right, 0, below)) if right or below else x


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
