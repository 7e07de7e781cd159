"""`Predictor` for models that segment: from a photo to the class of each of its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from xception.data.images import decode, read_file, to_rgb, upright
from xception.data.preprocess import to_array
from xception.deploy.runtime import Source
from xception.deploy.segment import open_segmenter
from xception.evaluation.inference import index_map
from xception.evaluation.mask_pictures import shares


@dataclass(frozen=True)
class MaskPrediction:
    """What a model says about the pixels of one photo."""

    classes: tuple[str, ...]
    mask: UInt8[np.ndarray, "h w"]
    """The number of the likeliest class of each pixel of the photo, upright."""

    @property
    def coverage(self) -> dict[str, float]:
        """The share of the pixels that each class has."""
        return dict(zip(self.classes, shares(self.mask, len(self.classes)), strict=True))


class MaskPredictor:
    """A trained model that takes photos of any size as they are, and gives their masks.

    The answers are the same whatever computes them: torch, ONNX Runtime or OpenVINO.

    Args:
        path: a run folder, a model file, or one that `xception export` wrote.
        device: where torch computes; exported files are computed on the CPU.
        scales: sizes at which it sees a photo; the mean of its answers counts.
        mirror: whether it sees the photo mirrored too; None leaves it to the model's card.
        output_stride: 32, 16 or 8; None is that of the training.

    Raises:
        UserError: there is no sound model at `path`, it classifies, or a library is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        scales: Sequence[float] = (1.0,),
        mirror: bool | None = None,
        output_stride: int | None = None,
    ):
        self.segmenter = open_segmenter(
            path, device=device, scales=scales, mirror=mirror, output_stride=output_stride
        )
        self.card = self.segmenter.card
        self.classes = self.card.classes

    def __call__(self, image: Source) -> MaskPrediction:
        """The mask of one photo. Raises `ImageError` if it cannot be read or is too large."""
        pixels = self.pixels(image)
        size = pixels.shape[0], pixels.shape[1]
        return MaskPrediction(self.classes, index_map(self.segmenter(pixels), size))

    def probabilities(self, image: Source) -> Float[np.ndarray, "k h w"]:
        """Of each class in each pixel, float32: 4 bytes times classes times pixels."""
        pixels = self.pixels(image)
        found = np.empty((len(self.classes), *pixels.shape[:2]), np.float32)
        for top, left, part in self.segmenter(pixels):
            _, height, width = part.shape
            found[:, top : top + height, left : left + width] = part.cpu().numpy()
        return found

    def pixels(self, image: Source) -> UInt8[Tensor, "h w c"]:
        """A photo in its own size, as bytes. Raises `ImageError`, as for its mask."""
        name = "the image"
        if isinstance(image, Image.Image):
            picture = to_rgb(upright(image))
        elif isinstance(image, bytes):
            picture = decode(image, name)
        else:
            name = str(image)
            picture = decode(read_file(Path(image), name), name)
        self.segmenter.check(picture.height, picture.width, name)
        return torch.from_numpy(to_array(picture, self.card.preprocess.channels))
