"""Random changes of the training images, each of which can be switched off.

On one image, in this order: crop and resize, shift, flips, colour, RandAugment, erasing
(`augment`); then on a whole batch, on the training device: mixup and CutMix (`mix`).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from xception.data import mixing
from xception.data.preprocess import Box, Preprocess, to_array
from xception.data.rand_augment import MAX_MAGNITUDE, rand_augment

# Shares of red, green and blue in the luminance (ITU-R 601-2, as Pillow's "L").
_LUMINANCE = np.array([0.299, 0.587, 0.114])

# Attempts to place the erased rectangle; as the paper, but not for ever.
_ATTEMPTS = 10

# Sizes and shapes of the erased rectangle: Zhong et al., section 5 (s_l, s_h, r_1).
_ERASED_AREA = (0.02, 0.4)
_ERASED_RATIO = (0.3, 1 / 0.3)


class Augment(BaseModel):
    """What is changed at random in training; the defaults change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop_scale: tuple[float, float] | None = None
    """Share of the image's area in a random crop, (least, most); None keeps evaluation's crop."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the random crop, (least, most)."""
    pad_crop: int = Field(default=0, ge=0, le=1024)
    """Shift by up to so many pixels in each direction, black coming in; 0 is off."""
    flip: bool = False
    """Mirror left to right, half of the time."""
    vertical_flip: bool = False
    """Mirror top to bottom, half of the time."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Brightness times a factor within 1 ± this; 0 is off."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Distance to the mean luminance times a factor within 1 ± this; 0 is off."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Distance to the pixel's own luminance times a factor within 1 ± this; 0 is off."""
    rand_augment_layers: int = Field(default=0, ge=0, le=14)
    """Operations of RandAugment per image; 0 is off."""
    rand_augment_magnitude: float = Field(default=9.0, ge=0, le=MAX_MAGNITUDE)
    """Strength of these operations, 0 to 10."""
    erase: float = Field(default=0.0, ge=0, le=1)
    """Probability of random erasing; 0 is off."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of mixup's Beta(alpha, alpha) distribution; 0 is off."""
    cutmix: float = Field(default=0.0, ge=0)
    """Alpha of CutMix's Beta(alpha, alpha) distribution; 0 is off. With mixup: either, evenly."""

    @model_validator(mode="after")
    def _ranges(self) -> "Augment":
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale must be two rising shares of the area within (0, 1]")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError("crop_ratio must be two rising positive numbers")
        return self


class Crop(NamedTuple):
    """A random crop, drawn before anything is known of the image."""

    area: float
    """Share of the image's area."""
    ratio: float
    """Width over height, in pixels."""
    x: float
    y: float
    """Place within the room left, 0 to 1, from the left and from the top."""

    def box(self, width: int, height: int) -> Box:
        """Left, top, right, bottom in a width×height image, in pixels.

        A crop that does not fit keeps its ratio and shrinks until it does.
        """
        crop_width = math.sqrt(self.area * width * height * self.ratio)
        crop_height = crop_width / self.ratio
        fit = min(1.0, width / crop_width, height / crop_height)
        crop_width, crop_height = min(width, crop_width * fit), min(height, crop_height * fit)
        left, top = self.x * (width - crop_width), self.y * (height - crop_height)
        return left, top, min(width, left + crop_width), min(height, top + crop_height)

    def min_side(self, size: int) -> int:
        """The shorter side that a reduced decoding must keep so that no box is upsampled.

        With a shorter side m, the image's area is m² or more, so the box's shorter side is at least
        m √(area / stretch), or m / stretch where it had to shrink.
        """
        stretch = max(self.ratio, 1 / self.ratio)
        return math.ceil(size / min(math.sqrt(self.area / stretch), 1 / stretch))


def draw_crop(augment: Augment, rng: np.random.Generator) -> Crop | None:
    """Area and log-ratio drawn evenly, as for Inception (Szegedy et al. 2015, section 6).

    None where `augment` has no random crop.
    """
    if augment.crop_scale is None:
        return None
    low, high = augment.crop_scale
    area = low + (high - low) * rng.random()
    return Crop(area, _draw_ratio(augment.crop_ratio, rng), rng.random(), rng.random())


def augment(
    image: Image.Image,
    preprocess: Preprocess,
    augment: Augment,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w c"]:
    """An RGB image as a changed `size`×`size` array that may be written to."""
    return augment_cropped(image, draw_crop(augment, rng), preprocess, augment, rng)


def augment_cropped(
    image: Image.Image,
    crop: Crop | None,
    preprocess: Preprocess,
    augment: Augment,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w c"]:
    """`augment` with a crop drawn before, which the decoder may have needed to know."""
    if crop is None:
        image = preprocess.fit(image)
    else:
        box = crop.box(*image.size)
        image = preprocess.resample(image, (preprocess.size, preprocess.size), box)
    if augment.pad_crop:
        image = _shift(image, augment.pad_crop, rng)
    if augment.flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augment.vertical_flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if augment.brightness or augment.contrast or augment.saturation:
        image = recolour(
            image,
            brightness=_factor(augment.brightness, rng),
            contrast=_factor(augment.contrast, rng),
            saturation=_factor(augment.saturation, rng),
        )
    if augment.rand_augment_layers:
        layers, magnitude = augment.rand_augment_layers, augment.rand_augment_magnitude
        image = rand_augment(image, layers, magnitude, rng)
    pixels = to_array(image, preprocess.channels)
    if augment.erase and rng.random() < augment.erase:
        erase(pixels, rng)
    return pixels


def _shift(image: Image.Image, most: int, rng: np.random.Generator) -> Image.Image:
    """Pad by `most` on all sides and cut the same size out again (He et al. 2015, section 4.2)."""
    left = int(rng.random() * (2 * most + 1)) - most
    top = int(rng.random() * (2 * most + 1)) - most
    return image.crop((left, top, left + image.width, top + image.height))


def _factor(strength: float, rng: np.random.Generator) -> float:
    return 1 + strength * (2 * rng.random() - 1) if strength else 1.0


def recolour(
    image: Image.Image, *, brightness: float, contrast: float, saturation: float
) -> Image.Image:
    """Saturation, contrast and brightness of an RGB image times the given factors, in one pass.

    All three are linear, so that they are one 3×4 matrix: saturation s keeps each pixel's
    luminance l, contrast c the image's mean luminance m, brightness b scales everything:
    b (c (s v + (1 - s) l) + (1 - c) m).
    """
    grey = np.tile(_LUMINANCE, (3, 1))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    mean = _mean_luminance(image) if contrast != 1 else 0.0
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    return image.convert("RGB", tuple(np.hstack([matrix, offset]).ravel().tolist()))


def _mean_luminance(image: Image.Image) -> float:
    """From the histogram: exact, and three times as fast as a mean over all pixels."""
    counts = np.reshape(image.histogram(), (3, 256))
    return float(counts @ np.arange(256) / (image.width * image.height) @ _LUMINANCE)


def erase(pixels: UInt8[np.ndarray, "h w c"], rng: np.random.Generator) -> None:
    """Fill a random rectangle with random values, in place.

    Zhong, Zheng, Kang, Li, Yang: "Random Erasing Data Augmentation" (2020), in its best form, RE-R.
    """
    height, width = pixels.shape[:2]
    low, high = _ERASED_AREA
    for _ in range(_ATTEMPTS):
        area = height * width * (low + (high - low) * rng.random())
        ratio = _draw_ratio(_ERASED_RATIO, rng)
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top = int(rng.random() * (height - rows + 1))
            left = int(rng.random() * (width - columns + 1))
            patch = pixels[top : top + rows, left : left + columns]
            patch[:] = rng.integers(0, 256, size=patch.shape, dtype=np.uint8)
            return


def _draw_ratio(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return math.exp(low + (high - low) * rng.random())


def mix(
    images: Float[Tensor, "b c h w"],
    targets: Float[Tensor, "b k"],
    augment: Augment,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k"]]:
    """Mixup or CutMix with the neighbour in the batch, one share for all; both off: unchanged.

    The draws depend on `rng` alone, so processes with equal generators mix alike.
    """
    if not augment.mixup and not augment.cutmix:
        return images, targets
    cut = rng.random() < 0.5 if augment.mixup and augment.cutmix else augment.cutmix > 0
    if cut:
        share = float(rng.beta(augment.cutmix, augment.cutmix))
        return mixing.cutmix(images, targets, share, (rng.random(), rng.random()))
    return mixing.mixup(images, targets, float(rng.beta(augment.mixup, augment.mixup)))
