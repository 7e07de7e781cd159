"""The decoder of masks: bytes of an image file -> the numbers or colours that stand in it.

Nothing is converted, blended or interpolated: a mask is read exactly or refused. So only lossless
formats with at most 8 bits a channel are masks, and transparency is none of them.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8, UInt32
from PIL import Image

from xception.data.images import ImageError, opened, sniff, upright

RGB = tuple[int, int, int]

#: The class number of pixels that count neither in the loss nor in the measure.
IGNORED = 255
#: What stands for an entry that a palette does not have.
NO_COLOUR = 2**32 - 1

#: Different values of one mask that are counted: more than there can be classes.
KEPT = 257

Kind = Literal["grey", "palette", "colour"]

_LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
_TIFF_BLACK_IS_ZERO, _TIFF_PALETTE, _TIFF_RGB = 1, 3, 2
_SHOWN = 8  # unknown values that a message lists


class MaskError(ImageError):
    """A file that is no mask, or not the mask of its photo: `name` of the file, and `reason`."""


class UnknownValues(MaskError):
    """A mask holds values that mean nothing: `counts` says how many pixels of each."""

    def __init__(self, name: str, counts: Mapping[str, int]):
        most = sorted(counts, key=lambda value: -counts[value])
        shown = ", ".join(f"{value} ({counts[value]:,} pixels)" for value in most[:_SHOWN])
        more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
        super().__init__(name, f"unknown mask values: {shown}{more}")
        self.counts = {value: counts[value] for value in most[:KEPT]}
        self.args = (name, self.counts)  # what makes the error anew after pickling


class RawMask(NamedTuple):
    """What stands in the file of a mask."""

    kind: Kind
    values: UInt8[np.ndarray, "h w"] | None
    """The number of each pixel; None for masks of colours."""
    colours: UInt32[np.ndarray, "h w"] | None
    """Red, green and blue packed into 24 bits; None for masks of numbers."""
    palette: UInt32[np.ndarray, "256"] | None
    """The packed colour of each number, `NO_COLOUR` where there is none; only of a palette."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        pixels = self.colours if self.values is None else self.values
        assert pixels is not None
        return pixels.shape[1], pixels.shape[0]

    def as_colours(self) -> UInt32[np.ndarray, "h w"]:
        """The packed colour of each pixel; a grey one where it is a number without a palette."""
        if self.values is None:
            assert self.colours is not None
            return self.colours
        if self.palette is not None:
            return self.palette[self.values]
        return self.values.astype(np.uint32) * np.uint32(0x010101)

    def as_values(self) -> UInt8[np.ndarray, "h w"] | None:
        """The number of each pixel, also of colours that are all grey; None of other colours."""
        if self.values is not None:
            return self.values
        colours = self.as_colours()
        low = colours & 0xFF
        grey = bool((colours == low * np.uint32(0x010101)).all())
        return low.astype(np.uint8) if grey else None


def decode_mask(data: bytes, name: str) -> RawMask:
    """Read a mask exactly, upright as its photo.

    Numbers of 1, 2, 4 or 8 bits, with or without a palette, or red, green and blue. `name` is only
    used to say which file is wrong.

    Raises `MaskError` for what cannot be a mask (lossy formats, more than 8 bits, transparency),
    `ImageError` for what is no sound picture within the limits of `images`.
    """
    format = sniff(data)
    if format is not None and format not in _LOSSLESS:
        raise MaskError(name, f"a {format} blurs the borders of classes: save masks as PNG")
    with opened(data, name) as image:
        bits = _bits(image, data, name)
        image.load()
        return _read(upright(image), bits, name)


def check_sizes(name: str, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raises `MaskError` if width and height of the mask `name` are not those of its photo."""
    if mask == photo:
        return
    turned = ""
    if mask == (photo[1], photo[0]):
        turned = "; it may have been drawn on the photo before that was turned upright (EXIF)"
    raise MaskError(
        name, f"{mask[0]} × {mask[1]} pixels, but its photo has {photo[0]} × {photo[1]}{turned}"
    )


def pack(colour: RGB) -> int:
    """Red, green, blue in 24 bits."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def unpack(colour: int) -> RGB:
    """The colour that `pack` packed."""
    return colour >> 16 & 255, colour >> 8 & 255, colour & 255


def hexadecimal(colour: int) -> str:
    """A packed colour as people write it: "#ff8000"."""
    return "no colour" if colour == NO_COLOUR else f"#{colour:06x}"


def tally(pixels: UInt8[np.ndarray, "*n"] | UInt32[np.ndarray, "*n"]) -> dict[int, int]:
    """How many pixels each value has; of colours the `KEPT` most frequent."""
    if pixels.dtype == np.uint8:
        counts = np.bincount(pixels.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(pixels, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:KEPT]
    return {int(values[i]): int(counts[i]) for i in most}


def _bits(image: Image.Image, data: bytes, name: str) -> int:
    """Bits a channel, which Pillow's modes do not tell. Raises `MaskError` for more than 8."""
    bits = 8
    if image.format == "PNG":
        if data[12:16] != b"IHDR":
            raise MaskError(name, "damaged: a PNG without its header in front")
        bits = data[24]
    elif image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        bits = max(tags.get(_TIFF_BITS, (1,)))
        meant = tags.get(_TIFF_PHOTOMETRIC)
        if meant not in (_TIFF_BLACK_IS_ZERO, _TIFF_PALETTE, _TIFF_RGB):
            raise MaskError(name, "a TIFF of an unusual kind: save masks as PNG")
    if bits > 8 or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise MaskError(
            name, "more than 8 bits a pixel: class numbers go up to 255, save masks with 8 bits"
        )
    return bits


def _read(image: Image.Image, bits: int, name: str) -> RawMask:
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        image = _opaque(image, name)
    if image.mode == "1":
        return RawMask("grey", np.array(image, np.uint8), None, None)
    if image.mode == "L":
        values = np.array(image)
        # Pillow stretches 2 and 4 bits to 0 … 255.
        return RawMask("grey", values // {2: 85, 4: 17}.get(bits, 1), None, None)
    if image.mode == "P":
        palette = np.full(256, NO_COLOUR, np.uint32)
        entries = np.array(image.getpalette("RGB") or [], np.uint32).reshape(-1, 3)
        palette[: len(entries)] = entries @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        return RawMask("palette", np.array(image), None, palette)
    if image.mode == "RGB":
        channels = np.asarray(image)
        packed = channels[..., 0].astype(np.uint32)
        for channel in (1, 2):  # in place: a mask may have 64 million pixels
            packed <<= 8
            packed |= channels[..., channel]
        return RawMask("colour", None, packed, None)
    raise MaskError(name, f"the colours are of the kind {image.mode}: save masks as PNG")


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """The picture without its transparency, of which there must be none."""
    whole = image.convert("RGBA") if image.mode in ("PA", "La", "RGBa") else image
    clear: Bool[np.ndarray, "h w"] = np.array(whole.getchannel("A")) != 255
    if clear.any():
        raise MaskError(
            name,
            f"{int(clear.sum()):,} pixels are transparent, which says no class: "
            "save masks without transparency",
        )
    return whole.convert("L" if image.mode == "LA" else "RGB")
