"""Small scenes of shapes with exact masks: for tests, and for a demonstration without a network.

A scene is a brushed background with two to five shapes on it, each with its own brightness and
grain. Which class a pixel has is decided by a formula at its middle, so that the mask is exact.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from xception.data.masks import RGB

#: Class names and the colours of masks, by class number.
SCENE_CLASSES: tuple[tuple[str, RGB], ...] = (
    ("ground", (0, 0, 0)),
    ("disc", (200, 60, 40)),
    ("square", (40, 160, 70)),
    ("triangle", (60, 90, 210)),
)
_HUES = np.array([[120, 115, 105], [190, 90, 70], [90, 160, 90], [85, 105, 180]], np.float64)
_SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2

_Plane = Float[np.ndarray, "h w"]
_Inside = Bool[np.ndarray, "h w"]


def write_scenes(folder: Path, count: int, size: int, seed: int) -> None:
    """`count` scenes of `size`×`size` pixels below `folder`: {train,validation,test}/{images,masks}
    and classes.txt.

    Of every ten scenes the first seven are for training, then one for validation, two for the test.
    The photos are JPEGs, the masks PNGs with a palette; the bytes depend on the arguments alone.

    Raises `ValueError` for a size below 16 pixels.
    """
    if size < 16:
        raise ValueError(f"scenes of {size} pixels a side; at least 16")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} {red} {green} {blue}\n" for name, (red, green, blue) in SCENE_CLASSES]
    (folder / "classes.txt").write_text("".join(lines), encoding="utf-8")
    for number in range(count):
        photo, mask = scene(size, np.random.default_rng([seed, number]))
        place = folder / _SPLITS[number % len(_SPLITS)]
        for kind, name, data in (
            ("images", f"{number:04}.jpg", _encoded(Image.fromarray(photo), "JPEG")),
            ("masks", f"{number:04}.png", _encoded(_with_palette(mask), "PNG")),
        ):
            (place / kind).mkdir(parents=True, exist_ok=True)
            (place / kind / name).write_bytes(data)


def scene(
    size: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """A photo of shapes and the class of each pixel, a position in `SCENE_CLASSES`."""
    y, x = np.mgrid[0:size, 0:size] + 0.5  # the middles of the pixels
    slope = rng.uniform(-1, 1, 2) * 40 / size
    light = slope[0] * (x - size / 2) + slope[1] * (y - size / 2)
    photo = _HUES[0] + light[..., None] + rng.normal(0, 12, (size, size, 1))
    mask = np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(2, 6)):
        number = int(rng.integers(1, len(SCENE_CLASSES)))
        radius = size * rng.uniform(0.12, 0.28)
        turn, middle = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.85, 2) * size
        across = (x - middle[0]) * np.cos(turn) + (y - middle[1]) * np.sin(turn)
        along = (y - middle[1]) * np.cos(turn) - (x - middle[0]) * np.sin(turn)
        inside = _SHAPES[number - 1](across / radius, along / radius)
        grain = rng.normal(0, 8, (size, size, 1)) + rng.normal(0, 15)
        photo[inside] = (_HUES[number] + rng.normal(0, 12, 3) + grain + light[..., None])[inside]
        mask[inside] = number
    return photo.round().clip(0, 255).astype(np.uint8), mask


def _disc(across: _Plane, along: _Plane) -> _Inside:
    return across**2 + along**2 <= 1


def _square(across: _Plane, along: _Plane) -> _Inside:
    return np.maximum(np.abs(across), np.abs(along)) <= 0.85


def _triangle(across: _Plane, along: _Plane) -> _Inside:
    """Equilateral, its corners on the unit circle."""
    half = np.sqrt(3) / 2
    sides = (-along, along / 2 + half * across, along / 2 - half * across)
    return np.maximum.reduce(sides) <= 0.5


_SHAPES: tuple[Callable[[_Plane, _Plane], _Inside], ...] = (_disc, _square, _triangle)


def _with_palette(mask: UInt8[np.ndarray, "h w"]) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette([part for _, colour in SCENE_CLASSES for part in colour])
    return image


def _encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()
