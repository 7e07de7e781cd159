"""Hundreds of damaged and hostile files: each becomes a picture or an `ImageError`, and soon."""

import io
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from xception.data.images import ImageError, decode

SECONDS = 5.0
MEGABYTES = 900


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def sound_files() -> dict[str, bytes]:
    """Small files of every kind, none damaged."""
    noise = np.random.default_rng(0).integers(0, 60, (48, 64, 3))
    y, x = np.mgrid[0:48, 0:64]
    image = Image.fromarray((noise + (x + y)[..., None]).astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    files = {
        "jpeg": encoded(image, "JPEG", exif=turned),
        "progressive": encoded(image, "JPEG", progressive=True),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "mpo": encoded(image, "MPO", **frames),
        "png": encoded(image, "PNG"),
        "apng": encoded(image, "PNG", **frames),
        "palette": encoded(image.quantize(16), "PNG", transparency=3),
        "deep": encoded(Image.fromarray((x * 900).astype(np.uint16)), "PNG"),
        "webp": encoded(image, "WEBP"),
        "lossless": encoded(image, "WEBP", lossless=True),
        "moving": encoded(image, "WEBP", **frames),
        "bmp": encoded(image, "BMP"),
        "gif": encoded(image, "GIF", **frames),
        "tiff": encoded(image, "TIFF"),
        "floats": encoded(Image.fromarray(x.astype(np.float32)), "TIFF"),
    }
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        files[compression] = encoded(image, "TIFF", compression=compression)
    return files


def damaged_files(each: int) -> Iterator[tuple[str, bytes]]:
    """`each` truncations, bit flips and overwritten stretches of every kind; exchanged headers."""
    files = sound_files()
    chance = random.Random(0)
    for kind, data in files.items():
        for _ in range(each):
            yield f"{kind} truncated", data[: chance.randrange(len(data))]
            flipped = bytearray(data)
            for _ in range(chance.choice((1, 3, 30))):
                reach = chance.choice((len(data), min(200, len(data))))  # headers deserve more
                flipped[chance.randrange(reach)] ^= 1 << chance.randrange(8)
            yield f"{kind} flipped", bytes(flipped)
            start, length = chance.randrange(len(data)), chance.choice((1, 4, 64))
            yield f"{kind} overwritten", data[:start] + b"\xff" * length + data[start + length :]
        for other in files.values():
            yield f"{kind} header", data[:12] + other[12:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, extra: bytes = b"",
        raw: int = 0) -> bytes:  # fmt: skip
    """A PNG of zeros with a true checksum everywhere; `raw` bytes before compression."""
    packer = zlib.compressobj()
    block = bytes(2**20)
    packed = b"".join(packer.compress(block[: raw - at]) for at in range(0, raw, 2**20))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = header + extra + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gif(screen: tuple[int, int], frame: tuple[int, int], extra: bytes = b"") -> bytes:
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF7, 0, 0) + bytes(768) + extra
    return start + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\x00;"


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that ask for much memory or time."""
    packed = zlib.compress(bytes(50_000_000), 9)
    yield "png: 60000 x 60000", png(60_000, 60_000)
    yield "png: 8192 x 8192 in 16 bits", png(8192, 8192, depth=16, colour=0, raw=8192 * 16385)
    yield "png: more data than pixels", png(9, 9, raw=50_000_000)
    yield "png: profile", png(9, 9, raw=252, extra=chunk(b"iCCP", b"a\0\0" + packed))
    yield "png: texts", png(9, 9, raw=252, extra=chunk(b"zTXt", b"a\0\0" + packed) * 50)
    yield "png: parts", png(9, 9, raw=252, extra=chunk(b"abCd", b"") * 400_000)
    yield "gif: screen", gif((65_535, 65_535), (1, 1))
    yield "gif: frame beyond its screen", gif((9, 9), (60_000, 60_000))
    yield "gif: 8000 x 8000 of nothing", gif((8000, 8000), (8000, 8000))
    yield "gif: comments", gif((9, 9), (9, 9), b"!\xfe" + b"\x01a" * 1_000_000 + b"\0")
    header = struct.pack("<IiiHHIIiiII", 40, 8000, 8000, 1, 8, 1, 100, 0, 0, 256, 0) + bytes(1024)
    rle = b"\x01\x01" * 2_000_000 + b"\0\1"
    yield "bmp: runs of one", b"BM" + struct.pack("<IHHI", 2000, 0, 0, 1078) + header + rle
    frames = {"save_all": True, "append_images": [Image.new("RGB", (9, 9), "red")]}
    webp = bytearray(encoded(Image.new("RGB", (9, 9)), "WEBP", **frames))
    canvas = webp.index(b"VP8X") + 12
    webp[canvas : canvas + 6] = b"\xfe\x3f\0\xfe\x3f\0"
    yield "webp: canvas of 16383 x 16383", bytes(webp)
    size = struct.pack("<HHII", 256, 4, 1, 64)
    tiff = encoded(Image.new("L", (64, 65)), "TIFF")
    for typed in (size, struct.pack("<HHIHH", 256, 3, 1, 64, 0)):
        tiff = tiff.replace(typed, struct.pack("<HHII", 256, 4, 1, 2_000_000_000))
    yield "tiff: wider than the world", tiff
    yield "tiff: its own next page", tiff[:-4] + tiff[4:8]
    small = encoded(Image.new("RGB", (64, 64)), "JPEG")
    side = struct.pack(">HH", 64, 64)
    yield "jpeg: 65500 x 65500", small.replace(side, struct.pack(">HH", 65_500, 65_500))
    yield "jpeg: larger than its data", small.replace(side, struct.pack(">HH", 4000, 4000))
    yield "jpeg: fill bytes", small[:2] + b"\xff" * 2_000_000 + small[2:]
    yield "jpeg: comments", small[:2] + b"\xff\xfe\0\2" * 400_000 + small[2:]
    scans = encoded(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    last = scans[scans.rindex(b"\xff\xda") : -2]
    yield "jpeg: scans", scans[:-2] + last * 20_000 + scans[-2:]


def attempt(data: bytes) -> tuple[str, float]:
    """What came of a file, and the seconds of this process that it took."""
    start = time.process_time()  # other processes may be busy too
    try:
        image = decode(data, "x.jpg")
        outcome = "picture" if image.mode == "RGB" and min(image.size) > 0 else "nothing"
    except ImageError as error:
        outcome = "error" if error.name == "x.jpg" and error.reason else "nothing said"
    return outcome, time.process_time() - start


def test_damaged_files_are_pictures_or_errors(capfd: pytest.CaptureFixture[str]) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for what, data in damaged_files(each=12):
        outcome, seconds = attempt(data)
        counts[what.split()[1], outcome] += 1
        assert outcome in ("picture", "error"), what
        assert seconds < SECONDS, what
    capfd.readouterr()  # libtiff complains on its own
    print(dict(counts))
    assert counts.total() >= 500
    # Both outcomes must occur, or the damage was not of the interesting kind.
    assert counts["flipped", "picture"] > 20
    assert counts["flipped", "error"] > 20
    assert counts["truncated", "error"] > 150


@pytest.mark.parametrize(("what", "data"), [pytest.param(w, d, id=w) for w, d in bombs()])
def test_bombs_cost_little(what: str, data: bytes) -> None:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    outcome, seconds = attempt(data)
    assert outcome in ("picture", "error")
    assert seconds < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before < MEGABYTES
    if what not in (
        "png: 8192 x 8192 in 16 bits",
        "png: more data than pixels",
        "jpeg: larger than its data",
    ):
        assert outcome == "error"


def test_scans_of_thumbnails_and_films_do_not_count() -> None:
    # A phone appends a film; by chance it holds many bytes that look like the start of a scan.
    photo = encoded(Image.new("RGB", (4000, 4000), "red"), "JPEG", progressive=True)
    film = b"\xff\xda\0\x08" * 5000
    assert decode(photo + film, "x").size == (4000, 4000)
