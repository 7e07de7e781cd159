"""RandAugment (Cubuk, Zoph, Shlens, Le: "RandAugment: Practical automated data augmentation with a
reduced search space", 2020): a few operations drawn evenly from fourteen, all at one magnitude.

The magnitude runs from 0 to 10, where 10 is the far end of the ranges of AutoAugment (Cubuk et al.
2019, Table 6). Unlike the first implementation, every operation grows stronger with it: at 0 the
graded ones leave the image as it is, and enhancements go up or down from 1 at random.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 10.0

# What comes in from outside the image when it is turned or moved: mid grey.
_FILL = (128, 128, 128)

# Each takes the signed strength in [-1, 1].
Operation = Callable[[Image.Image, float], Image.Image]


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """The matrix (a, b, c, d, e, f) maps output (x, y) to input (ax + by + c, dx + ey + f)."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BILINEAR,
        fillcolor=_FILL,
    )


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    shear = 0.3 * strength
    return _affine(image, (1, shear, -shear * image.height / 2, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    shear = 0.3 * strength
    return _affine(image, (1, 0, 0, shear, 1, -shear * image.width / 2))


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    # 150 of the 331 pixels of AutoAugment's images.
    return _affine(image, (1, 0, -150 / 331 * strength * image.width, 0, 1, 0))


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, -150 / 331 * strength * image.height))


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength, resample=Image.Resampling.BILINEAR, fillcolor=_FILL)


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, threshold=round(256 * (1 - abs(strength))))


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, bits=8 - round(4 * abs(strength)))


def _color(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + 0.9 * strength)


def _contrast(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength)


def _brightness(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength)


def _sharpness(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength: image,
    "autocontrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}

_CHOICES = tuple(OPERATIONS.values())


def rand_augment(
    image: Image.Image, layers: int, magnitude: float, rng: np.random.Generator
) -> Image.Image:
    """Apply `layers` operations drawn with replacement to an RGB image; its size stays."""
    for _ in range(layers):
        operation = _CHOICES[int(rng.random() * len(_CHOICES))]
        sign = 1 if rng.random() < 0.5 else -1
        image = operation(image, sign * magnitude / MAX_MAGNITUDE)
    return image
