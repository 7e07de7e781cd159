"""The one truth of how an image becomes what a network sees.

The record stands in the card of every model file. Training, evaluation, prediction, exported files
and the server read it and call the same three steps: geometry to uint8 pixels (`pixels`), pixels to
normalised floats (`normalize`), or both from a file's bytes (`tensor`); and ask the network by one
more (`answers`).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from xception.data.images import decode

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

# An antialiased filter looks at every source pixel, which is slow for large reductions. With a gap
# of 3 Pillow averages whole blocks of pixels first where the image is at least 6 times too large.
# JPEGs arrive reduced by the decoder, so this matters for the other formats only.
REDUCING_GAP = 3.0

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Preprocess(BaseModel):
    """From an RGB image of any size to `size`×`size` normalised values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(ge=1, le=4096)
    """Side of the square input, in pixels."""
    resize: Literal["crop", "squash", "pad"] = "crop"
    """How a rectangle becomes a square: cut the middle, change the aspect, or add borders."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """The share of each side that the centre crop keeps."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """The filter of the resizing (antialiased)."""
    channels: Literal[1, 3] = 3
    """3 for RGB, 1 for luminance (ITU-R 601-2)."""
    mean: tuple[float, ...] = Field(default=(0.5,), validate_default=True)
    """Subtracted from values in [0, 1], per channel; a single number stands for all channels."""
    std: tuple[float, ...] = Field(default=(0.5,), validate_default=True)
    """Divided by afterwards. The defaults give [-1, 1], the "tf" mode of Keras."""
    mirror: bool = False
    """Whether the network sees the photo and its mirror image, and the mean of its two answers
    counts: twice the work, for the errors that come from one direction only."""

    @field_validator("mean", "std")
    @classmethod
    def _one_per_channel(cls, values: tuple[float, ...], info: Any) -> tuple[float, ...]:
        channels = info.data.get("channels", 3)  # absent when it was itself refused
        if len(values) == 1:
            values = values * channels
        if len(values) != channels:
            raise ValueError(f"{len(values)} numbers for {channels} channels")
        if info.field_name == "std" and min(values) <= 0:
            raise ValueError("only positive numbers")
        return values

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, that a reduced decoding must keep to avoid upsampling."""
        return math.ceil(self.size / self.crop)

    def pixels(self, image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
        """Resize and crop an RGB image for evaluation; the array may be written to."""
        return to_array(self.fit(image), self.channels)

    def fit(self, image: Image.Image) -> Image.Image:
        """The geometry of `pixels` alone: an RGB image of `size`×`size`."""
        width, height = image.size
        if self.resize == "crop":
            kept_width = kept_height = min(width, height) * self.crop
        else:
            kept_width, kept_height = width * self.crop, height * self.crop
        left, top = (width - kept_width) / 2, (height - kept_height) / 2
        box = (left, top, left + kept_width, top + kept_height)
        if self.resize != "pad":
            return self.resample(image, (self.size, self.size), box)
        scale = self.size / max(kept_width, kept_height)
        inner = (max(1, round(kept_width * scale)), max(1, round(kept_height * scale)))
        # Borders of the mean colour are (almost) zero for the network.
        border = [round(255 * min(1.0, max(0.0, value))) for value in self.mean]
        red, green, blue = border if self.channels == 3 else border * 3
        canvas = Image.new("RGB", (self.size, self.size), (red, green, blue))
        corner = ((self.size - inner[0]) // 2, (self.size - inner[1]) // 2)
        canvas.paste(self.resample(image, inner, box), corner)
        return canvas

    def resample(self, image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
        """Crop `box` (in pixels, fractions allowed) and resize it to (width, height)."""
        return image.resize(size, RESAMPLING[self.interpolation], box, REDUCING_GAP)

    def normalize(self, pixels: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
        """(pixels / 255 - mean) / std as float32 in channels_last memory, on the pixels' device."""
        std = torch.tensor(self.std)
        scale = 1 / (255 * std)
        shift = -torch.tensor(self.mean) / std
        # One pass over whole rows, with the constants repeated along them: a loop over the three
        # channels of each pixel takes several times as long on a CPU.
        batch, height, width, channels = pixels.shape
        rows = pixels.reshape(batch, height, width * channels).float()
        scale, shift = (x.repeat(width).to(pixels.device) for x in (scale, shift))
        torch.addcmul(shift, rows, scale, out=rows)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def answers(
        self, network: Callable[[Tensor], Tensor], x: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b k"]:
        """What the network answers, or with `mirror` the mean over it and over the mirror image.

        `network` may give logits or an embedding: the head of an embedding is linear but for what
        fully connected layers do.
        """
        return (network(x) + network(x.flip(3))) / 2 if self.mirror else network(x)

    def tensor(self, data: bytes, name: str) -> Float[Tensor, "1 c h w"]:
        """From a file's bytes to the network's input; raises `ImageError` naming the file."""
        image = decode(data, name, min_side=self.min_side)
        return self.normalize(torch.from_numpy(self.pixels(image))[None])


def to_array(image: Image.Image, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an RGB image as a writable array, with `channels` 1 as luminance."""
    if channels == 1:
        return np.array(image.convert("L"))[:, :, None]
    return np.array(image)
