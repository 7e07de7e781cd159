"""Masks and photos as bytes, and folders of them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(height: int = 12, width: int = 16, seed: int = 0, **options: object) -> bytes:
    """A JPEG unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return encoded(image, "JPEG", quality=90, **options)


def mask(values: object, palette: list[int] | None = None) -> bytes:
    """A PNG of numbers, or of colours where there is a third axis."""
    image = Image.fromarray(np.array(values, np.uint8))
    if palette is not None:
        image.putpalette(palette + (768 - len(palette)) * [0])  # fewer would cost bits of numbers
    return encoded(image)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG written by hand: bit depth, colour type, filtered rows, chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def halves(height: int = 12, width: int = 16, left: int = 0, right: int = 1) -> np.ndarray:
    """Numbers: the left half one, the right half the other."""
    values = np.full((height, width), left, np.uint8)
    values[:, width // 2 :] = right
    return values


def pairs_of(count: int, **numbers: int) -> dict[str, bytes]:
    """Sound files in the plainest layout with splits: 2 in 4 for training, 1 and 1 for the rest."""
    files = {}
    for i in range(count):
        split = ("train", "train", "val", "test")[i % 4]
        files[f"{split}/images/{i}.jpg"] = photo(seed=i)
        files[f"{split}/masks/{i}.png"] = mask(halves(**numbers))
    return files
