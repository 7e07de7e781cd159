"""The same random change of a photo and of its mask.

Chen et al. 2018 (DeepLab V3+), section 4, and its code: scale by a random factor, cut a random crop
out, mirror. A scaled photo smaller than the crop stands at the top left of it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xception.data.masks import IGNORED
from xception.data.preprocess import Preprocess, to_array
from xception.data.transforms import recolour

_MOST = 8192  # pixels a side of a crop, and of a scaled photo's shorter side


class JointAugment(BaseModel):
    """What is changed at random in training; the defaults only cut a crop out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: tuple[int, int] = (513, 513)
    """Height and width in pixels of what the network sees; one number stands for both."""
    shorter_side: int | None = Field(default=None, ge=1, le=_MOST)
    """Scale every photo to so many pixels first; None keeps its own size."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Then scale by a factor drawn evenly from here, (least, most)."""
    scale_step: float = Field(default=0.0, ge=0)
    """Only factors least, least + step, least + 2 step, …; 0 draws any."""
    flip: bool = False
    """Mirror left to right, half of the time."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Brightness times a factor within 1 ± this; 0 is off."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Distance to the mean luminance times a factor within 1 ± this; 0 is off."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Distance to the pixel's own luminance times a factor within 1 ± this; 0 is off."""

    @field_validator("crop", mode="before")
    @classmethod
    def _both_sides(cls, crop: Any) -> Any:
        return (crop, crop) if isinstance(crop, int) else crop

    @model_validator(mode="after")
    def _ranges(self) -> "JointAugment":
        if not 1 <= min(self.crop) <= max(self.crop) <= _MOST:
            raise ValueError(f"crop must be a height and a width of 1 to {_MOST} pixels")
        if not 0.01 <= self.scale[0] <= self.scale[1] <= 100:
            raise ValueError("scale must be two rising factors within 0.01 … 100")
        return self


class Geometry(NamedTuple):
    """A drawn change of place and size, before anything is known of the photo."""

    factor: float
    x: float
    y: float
    """Place of the crop within the room left, 0 to 1, from the left and from the top."""
    mirrored: bool

    def scaled(self, size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
        """Width and height that a photo of this width and height is scaled to, in pixels."""
        factor = self.factor
        if shorter_side is not None:
            factor *= shorter_side / min(size)
        width, height = (max(1, math.floor(side * factor + 0.5)) for side in size)
        return width, height


def draw_geometry(augment: JointAugment, rng: np.random.Generator) -> Geometry:
    """The factor evenly, or evenly among the steps; the place evenly; mirrored half of the time."""
    low, high = augment.scale
    share, x, y, side = rng.random(4).tolist()
    if augment.scale_step:
        steps = math.floor((high - low) / augment.scale_step + 1e-9) + 1
        factor = low + augment.scale_step * int(share * steps)
    else:
        factor = low + (high - low) * share
    return Geometry(factor, x, y, augment.flip and side < 0.5)


def augment_pair(
    image: Image.Image,
    mask: UInt8[np.ndarray, "h w"],
    augment: JointAugment,
    preprocess: Preprocess,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "a b c"], UInt8[np.ndarray, "a b"]]:
    """Pixels and class numbers of a crop, through one geometry; the mask is never interpolated.

    The photo is resampled as `preprocess` says, the mask takes the value at the middle of each
    pixel. Beyond the photo the pixels have the mean colour of `preprocess` and the mask is
    `IGNORED`.
    """
    return augment_drawn(image, mask, draw_geometry(augment, rng), augment, preprocess, rng)


def augment_drawn(
    image: Image.Image,
    mask: UInt8[np.ndarray, "h w"],
    geometry: Geometry,
    augment: JointAugment,
    preprocess: Preprocess,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "a b c"], UInt8[np.ndarray, "a b"]]:
    """`augment_pair` with a geometry drawn before, which the decoder may have needed to know.

    `image` may be decoded at reduced scale; the size of the photo is that of its mask.
    """
    height, width = mask.shape
    scaled_width, scaled_height = geometry.scaled((width, height), augment.shorter_side)
    crop_height, crop_width = augment.crop
    seen_width, seen_height = min(crop_width, scaled_width), min(crop_height, scaled_height)
    left = int(geometry.x * (scaled_width - seen_width + 1))
    top = int(geometry.y * (scaled_height - seen_height + 1))

    box = (left, top, left + seen_width, top + seen_height)
    patch = _patch(image, box, (scaled_width, scaled_height), preprocess)
    factors = [_factor(s, rng) for s in (augment.brightness, augment.contrast, augment.saturation)]
    if factors != [1, 1, 1]:
        patch = recolour(patch, brightness=factors[0], contrast=factors[1], saturation=factors[2])
    pixels = np.empty((crop_height, crop_width, preprocess.channels), np.uint8)
    if patch.size != (crop_width, crop_height):
        pixels[:] = [round(255 * min(1.0, max(0.0, value))) for value in preprocess.mean]
    pixels[:seen_height, :seen_width] = to_array(patch, preprocess.channels)

    targets = np.full((crop_height, crop_width), IGNORED, np.uint8)
    rows = _nearest(top, seen_height, scaled_height, height)
    columns = _nearest(left, seen_width, scaled_width, width)
    targets[:seen_height, :seen_width] = mask[rows[:, None], columns]
    if geometry.mirrored:
        return pixels[:, ::-1], targets[:, ::-1]
    return pixels, targets


def _patch(
    image: Image.Image,
    box: tuple[int, int, int, int],
    scaled: tuple[int, int],
    preprocess: Preprocess,
) -> Image.Image:
    """What stands in a box of the image scaled to a size, without scaling the rest of it."""
    if image.size == scaled:
        return image.crop(box)
    (left, top, right, bottom), (width, height) = box, image.size
    within = (
        left * width / scaled[0],
        top * height / scaled[1],
        right * width / scaled[0],
        bottom * height / scaled[1],
    )
    return preprocess.resample(image, (right - left, bottom - top), within)


def _nearest(start: int, count: int, scaled: int, full: int) -> Int64[np.ndarray, " n"]:
    """Which of `full` pixels lie under the middles of `count` scaled ones from `start` on."""
    # In whole numbers, so that no rounding ever moves a border: (start + i + 1/2) · full / scaled.
    return ((2 * np.arange(start, start + count) + 1) * full) // (2 * scaled)


def _factor(strength: float, rng: np.random.Generator) -> float:
    return 1 + strength * (2 * rng.random() - 1) if strength else 1.0
