"""Masks to look at: with a palette, over their photo, with a legend, and where they are wrong."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFont

from xception.data.legend import default_colours
from xception.data.masks import IGNORED, RGB
from xception.evaluation.charts import PALETTE

BACKGROUND = "background"  # a class of this name is left as the photo shows it
STRENGTH = 0.6  # opacity of the colours over a photo
ROWS = 256  # mixed at once, so that a large photo takes little more memory than itself
JPEG_QUALITY = 88
PAPER, INK = (255, 255, 255), (36, 33, 29)
LEGEND_LETTERS = 28  # of a name
LEGEND_ENTRIES = 24
LEAST_SHARE = 0.0005  # of the photo, for a place in its legend


def paletted(classes: UInt8[np.ndarray, "h w"], colours: Sequence[RGB]) -> Image.Image:
    """A palette image: each pixel the number of its class, the colours those of the classes."""
    image = Image.fromarray(classes).convert("L")
    image.putpalette(_table(colours).tobytes())
    return image


def overlay(
    photo: UInt8[np.ndarray, "h w 3"],
    classes: UInt8[np.ndarray, "h w"],
    colours: Sequence[RGB],
    names: Sequence[str] = (),
    *,
    strength: float = STRENGTH,
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo under the colours of its classes; ignored pixels turn white.

    Args:
        photo: red, green and blue.
        classes: of its pixels.
        colours: of the classes.
        names: of the classes; what is called "background" is left as it is.
        strength: opacity of the colours, in [0, 1].
    """
    table = _table(colours).astype(np.uint16)
    table[IGNORED] = 255
    opacity = np.full(256, round(strength * 256), np.uint16)
    if BACKGROUND in names:
        opacity[names.index(BACKGROUND)] = 0
    mixed = np.empty_like(photo)
    for top in range(0, len(photo), ROWS):
        rows = slice(top, top + ROWS)
        share = opacity[classes[rows]][:, :, None]
        mixed[rows] = (photo[rows] * (256 - share) + table[classes[rows]] * share) >> 8
    return mixed


def errors(
    photo: UInt8[np.ndarray, "h w 3"],
    truth: UInt8[np.ndarray, "h w"],
    answer: UInt8[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo, pale; pixels of a wrong class are red, those that do not count white."""
    grey = photo.mean(axis=2, keepdims=True)
    shown = np.repeat(70 + grey * 0.55, 3, axis=2)
    wrong = (truth != answer) & (truth != IGNORED)
    shown[wrong] = 0.25 * shown[wrong] + 0.75 * np.array(ImageColor.getrgb(PALETTE["bad"]))
    shown[truth == IGNORED] = 255
    return shown.clip(0, 255).astype(np.uint8)


def with_legend(
    image: Image.Image, entries: Sequence[tuple[str, RGB, float]], *, ignored: str = ""
) -> Image.Image:
    """The image with a strip below: the colours of the classes, their names and their shares.

    An image that is too narrow for the widest of them stands on the left of a wider canvas.

    Args:
        image: any picture.
        entries: name, colour and share of each class; those that hardly occur are left out.
        ignored: said behind the last one, if anything is.
    """
    width, height = image.size
    size = max(12, min(width, height) // 36)
    font, gap = _font(size), size // 2
    shown = sorted((e for e in entries if e[2] >= LEAST_SHARE), key=lambda e: -e[2])
    texts = [(f"{short(name)} {_percent(share)}", colour) for name, colour, share in shown]
    left = len(texts) - LEGEND_ENTRIES
    texts = texts[:LEGEND_ENTRIES]
    more = [f"and {left} more"] if left > 0 else []
    labels = [*texts, *((text, None) for text in (*more, ignored) if text)]
    longs = [round(font.getlength(text)) + (size + gap if colour else 0) for text, colour in labels]
    width = max(width, *(gap + long + gap for long in longs), 0)
    places, x, y = [], gap, gap
    for (text, colour), long in zip(labels, longs, strict=True):
        if x > gap and x + long + gap > width:
            x, y = gap, y + size + gap
        places.append((x, y, text, colour))
        x += long + 2 * size
    strip = y + size + gap if labels else 0
    canvas = Image.new("RGB", (width, height + strip), PAPER)
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for x, y, text, colour in places:
        top = height + y
        if colour is not None:
            draw.rectangle((x, top, x + size - 1, top + size - 1), fill=colour, outline=INK)
            x += size + gap
        draw.text((x, top + size // 2), text, fill=INK, font=font, anchor="lm")
    return canvas


def shares(classes: UInt8[np.ndarray, "h w"], count: int) -> list[float]:
    """The share of the pixels that each of the first `count` classes has."""
    found = np.zeros(256, np.int64)
    for top in range(0, len(classes), ROWS):
        found += np.bincount(classes[top : top + ROWS].ravel(), minlength=256)
    return [int(number) / classes.size for number in found[:count]]


def shown_at(
    pixels: UInt8[np.ndarray, "h w 3"], side: int, *, sharp: bool = False
) -> UInt8[np.ndarray, "i j 3"]:
    """A picture whose longer side has at most `side` pixels; `sharp` mixes no neighbours."""
    height, width, _ = pixels.shape
    scale = min(side / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    kind = Image.Resampling.NEAREST if sharp else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize(size, kind))


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def short(name: str) -> str:
    """A name in one line of few letters."""
    name = " ".join(name.split())
    return name if len(name) <= LEGEND_LETTERS else name[: LEGEND_LETTERS - 1] + "…"


def _table(colours: Sequence[RGB]) -> UInt8[np.ndarray, "256 3"]:
    """The colour of each number that a mask may hold; those of no class are the default ones."""
    table = np.array(default_colours(256), np.uint8)
    table[: len(colours)] = np.array(colours, np.uint8).reshape(-1, 3)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib brings a font with Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size
    )
