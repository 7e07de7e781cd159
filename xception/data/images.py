"""The one decoder: bytes of an image file -> the RGB picture a person would see.

The format is decided by the first bytes, never by the file's ending, and only the formats of
`FORMATS` are ever handed to a parser. Whatever is wrong with a file becomes an `ImageError` that
names it; nothing else leaves this module.

Embedded ICC profiles are *not* converted: values are taken as sRGB, as the training pipelines of
this field do, so that numbers stay comparable between libraries. A wide-gamut photo therefore looks
a little paler to the network than on a calibrated screen.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from xception.data.guards import Reader, strict
from xception.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

#: File endings that folders are searched for (lower case). A table may name files of any ending.
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

#: The largest picture decoded: 8192 × 8192. It takes up to 0.8 GB while it is converted.
MAX_PIXELS = 2**26
#: The largest file read into memory.
MAX_FILE_BYTES = 256 * 2**20
#: Pixels of a JPEG times its scans. A progressive one has about ten, each a pass over the picture.
MAX_SCANNED_PIXELS = 2**30

_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\x00|MM\x00[*+]")),
    ("BMP", re.compile(rb"BM")),
)
# What people take for one of ours: named, so that they know what to do about it.
_FOREIGN = (
    ("a HEIC photo (export it as JPEG)", re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL)),
    ("an AVIF photo (export it as JPEG)", re.compile(rb"....ftypavi", re.DOTALL)),
    ("a video", re.compile(rb"....ftyp", re.DOTALL)),
    ("a PDF document", re.compile(rb"%PDF")),
    ("an SVG drawing or a web page", re.compile(rb"\s*<")),
    ("a zip archive", re.compile(rb"PK\x03\x04")),
    ("a Git LFS pointer (run `git lfs pull`)", re.compile(rb"version https://git-lfs")),
)
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_ORIENTATION_TAG = 0x0112  # of EXIF, page 2 of any camera's manual: 1 … 8
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))


class ImageError(UserError):
    """A file that cannot be shown as a picture: `name` of the file, `reason` in a few words."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both, so that the error survives pickling
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Decoded(NamedTuple):
    """A picture and what its file said about itself."""

    image: Image.Image
    """Mode RGB, upright, perhaps at reduced scale."""
    format: str
    """One of `FORMATS`."""
    shorter_side: int
    """Pixels of the shorter side at full scale."""
    size: tuple[int, int]
    """Width and height at full scale, upright."""


def decode(data: bytes, name: str, *, min_side: int | None = None) -> Image.Image:
    """Decode one image file to mode RGB, upright, as a person would see it.

    EXIF orientation is applied; transparency stands on white; CMYK (Adobe's inverted ones too),
    palette, grey, 16-bit and floating-point pictures become 8-bit RGB; of an animation or a
    document of several pages the first one is taken.

    With `min_side` a JPEG may be decoded at 1/2, 1/4 or 1/8 scale, as long as its shorter side
    keeps at least that many pixels. Other formats have no such short cut and stay whole.

    `name` is only used to say which file is wrong.

    Raises `ImageError` for everything that is not a whole, sound picture within the limits.
    """
    return inspect(data, name, min_side=min_side).image


def read_image(path: str | Path, *, min_side: int | None = None) -> Image.Image:
    """`decode` for a file on disk. Raises `ImageError`, also when the file cannot be read."""
    return decode(read_file(Path(path), str(path)), str(path), min_side=min_side)


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a file of at most `MAX_FILE_BYTES`. Raises `ImageError`."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ImageError(name, "is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ImageError(name, (error.strerror or str(error)).lower()) from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(name, _too_large())
    return data


def sniff(data: bytes) -> str | None:
    """The format that the first bytes promise, one of `FORMATS`, or None."""
    return next((format for format, start in _SIGNATURES if start.match(data)), None)


def inspect(data: bytes, name: str, *, min_side: int | None = None) -> Decoded:
    """`decode`, together with what the file said about itself. Raises `ImageError`."""
    with opened(data, name) as image:
        width, height = image.size
        if min_side is not None and sniff(data) == "JPEG":
            image.draft(None, (min_side, min_side))
        image.load()
        turn = _turn(image)
        size = (height, width) if turn in _SIDEWAYS else (width, height)
        turned = image if turn is None else image.transpose(turn)
        return Decoded(to_rgb(turned), sniff(data) or "", min(size), size)


@contextmanager
def opened(data: bytes, name: str) -> Iterator[ImageFile.ImageFile]:
    """The file as Pillow opens it, not decoded yet, with all the guards of this module around it.

    Raises `ImageError`, also for whatever goes wrong with the picture while it is open.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(name, _too_large())
    format = sniff(data)
    if format is None:
        raise ImageError(name, _not_an_image(data))
    try:
        with strict, Image.open(Reader(data), formats=(format,)) as image:
            _refuse_bombs(image, data, name)
            yield image
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, f"damaged: starts like a {format} file but is none") from error
    except Image.DecompressionBombError as error:
        raise ImageError(name, f"more than the {MAX_PIXELS:,} pixels allowed") from error
    except Exception as error:  # parsers fail in every way there is: struct.error, SyntaxError …
        detail = str(error) or type(error).__name__
        raise ImageError(name, f"truncated or damaged {format} ({detail})") from error


def upright(image: Image.Image) -> Image.Image:
    """Turn a loaded image as its EXIF orientation says; out of range or unreadable: leave it."""
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # damaged metadata; a viewer shows such a photo unturned
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes to RGB, transparency on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_to_rgb(image)
    if image.mode in ("La", "LA", "PA", "RGBa", "RGBA") or "transparency" in image.info:
        picture = image.convert("LA") if image.mode == "La" else image
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floating point to RGB.

    16 bits: 0 … 65535 is black … white. Floating point: 0 … 1 is black … white if all values lie
    there. Anything else has no agreed white: its smallest value becomes black, its largest white,
    and what is no number black.
    """
    if image.mode.startswith("I;16"):
        grey_of = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # rounded x / 257
        if "transparency" in image.info:
            grey_of[image.info["transparency"]] = 255
        return Image.fromarray(grey_of[np.asarray(image)]).convert("RGB")
    values = np.array(image, np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = values[finite].min() if finite.any() else 0
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    values -= low
    values *= 255 / max(high - low, 1e-30)
    return Image.fromarray(np.rint(values, out=values).clip(0, 255).astype(np.uint8)).convert("RGB")


def _refuse_bombs(image: Image.Image, data: bytes, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            name, f"{width} × {height} pixels, more than the {MAX_PIXELS:,} allowed: scale it down"
        )
    allowed = MAX_SCANNED_PIXELS // (width * height)
    # Counting bytes is quick and never too low; too high where other data follow the picture.
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > allowed:
        scans = _count_jpeg_scans(data)
        if scans > allowed:
            raise ImageError(name, f"{scans} scans, more than the {allowed} allowed for its size")


def _count_jpeg_scans(data: bytes) -> int:
    """Scans of the first picture in the file, not of thumbnails or videos stored along with it."""
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(data, position)) and marker[1] != b"\xd9":
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        scans += marker[1] == b"\xda"
        position = marker.end() + max(length, 2)
    return scans


def _not_an_image(data: bytes) -> str:
    if not data:
        return "the file is empty"
    looks = next((what for what, start in _FOREIGN if start.match(data)), None)
    return "not a JPEG, PNG, WebP, BMP, GIF or TIFF image" + (f" but {looks}" if looks else "")


def _too_large() -> str:
    return f"more than the {MAX_FILE_BYTES // 2**20} MiB allowed for one file"
