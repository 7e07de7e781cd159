import io
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from xception.data import images
from xception.data.images import ImageError, decode, inspect, read_image, sniff

WIDTH, HEIGHT = 48, 32


def picture() -> Image.Image:
    """Smooth, and different in all four corners."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red, green, blue = x * 5, y * 7, np.full_like(x, 90)
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def distance(a: Image.Image, b: Image.Image) -> float:
    """Mean difference in grey levels."""
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())


@pytest.mark.parametrize("format", images.FORMATS)
def test_every_format_is_known_by_content(format: str) -> None:
    decoded = inspect(encoded(picture(), format), "photo.wrong")
    assert (decoded.format, decoded.shorter_side) == (format, HEIGHT)
    assert decoded.image.mode == "RGB"
    # GIF has 256 colours, JPEG and WebP store colour at half the resolution; the rest is exact.
    assert distance(decoded.image, picture()) < (6 if format in ("GIF", "WEBP", "JPEG") else 1e-9)


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        (format, mode)
        for format, modes in {
            "PNG": "RGB L 1 P LA RGBA",
            "TIFF": "RGB L 1 P LA RGBA CMYK",
            "JPEG": "RGB L 1 CMYK",
            "GIF": "RGB L 1 P LA RGBA",
            "WEBP": "RGB L 1 P LA RGBA CMYK",
        }.items()
        for mode in modes.split()
    ],
)
def test_every_mode_becomes_what_a_person_sees(format: str, mode: str) -> None:
    image = picture().convert(mode)
    data = encoded(image, format, **({"lossless": True} if format == "WEBP" else {}))
    assert distance(decode(data, "x"), image.convert("RGB")) < 6


def test_adobe_inverted_cmyk() -> None:
    # Adobe writes CMYK JPEGs with 255 for "no ink"; a white page must not come out black.
    data = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in data
    assert decode(data, "x").getpixel((8, 8)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_stands_the_photo_upright(orientation: int, format: str) -> None:
    # By the EXIF table: where the stored first row and first column are in the upright photo.
    stored = np.asarray(picture())
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: stored.transpose(1, 0, 2)[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    decoded = decode(encoded(picture(), format, exif=exif, **options), "x")
    assert distance(decoded, Image.fromarray(upright)) < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_meaningless_orientation_leaves_the_photo(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert distance(decode(encoded(picture(), "PNG", exif=exif), "x"), picture()) == 0


def test_damaged_exif_leaves_the_photo() -> None:
    # A directory that announces 500 entries and has none.
    broken = b"Exif\0\0II*\0\x08\0\0\0\xf4\x01"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decoded = decode(encoded(picture(), "JPEG", exif=broken), "x")
    assert decoded.size == (WIDTH, HEIGHT)
    assert seen == []


def test_transparency_stands_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert decode(encoded(half, "PNG"), "x").getpixel((0, 0)) == (255, 127, 127)
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    for format in ("PNG", "WEBP", "TIFF"):
        assert decode(encoded(clear, format, **({"lossless": True} if format == "WEBP" else {})),
                      "x").getpixel((0, 0)) == (255, 255, 255)  # fmt: skip
    grey = Image.new("LA", (4, 4), (10, 0))
    assert decode(encoded(grey, "PNG"), "x").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(format: str) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    decoded = decode(encoded(image, format, transparency=0), "x")
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == (200, 100, 50)


def test_transparent_colour_of_a_png_without_alpha_is_white() -> None:
    rgb = Image.new("RGB", (2, 1), (1, 2, 3))
    rgb.putpixel((1, 0), (9, 9, 9))
    decoded = decode(encoded(rgb, "PNG", transparency=(1, 2, 3)), "x")
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]
    deep = Image.fromarray(np.array([[257 * 7, 257 * 9]], np.uint16))
    decoded = decode(encoded(deep, "PNG", transparency=257 * 7), "x")
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_meaning(format: str) -> None:
    values = np.array([[0, 127, 129, 257 * 100, 65535]], np.uint16)
    decoded = np.asarray(decode(encoded(Image.fromarray(values), format), "x"))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 100, 255]  # rounded x / 257
    assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),  # a share of white
        (np.array([[0.25, 0.5]], np.float32), [64, 128]),
        (np.array([[-10.0, 0.0, 30.0]], np.float32), [0, 64, 255]),  # no agreed white: stretched
        (np.array([[np.nan, 2.0, 4.0, np.inf]], np.float32), [0, 0, 255, 0]),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0]),
        (np.array([[1000, 2000, 3000]], np.int32), [0, 128, 255]),
        (np.array([[5, 5]], np.int32), [0, 0]),
    ],
)
def test_deep_tiffs_are_scaled(values: np.ndarray, expected: list[int]) -> None:
    decoded = decode(encoded(Image.fromarray(values), "TIFF"), "x")
    assert np.asarray(decoded)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_frames_the_first_counts(format: str) -> None:
    data = encoded(picture(), format, save_all=True, append_images=[ImageOps.invert(picture())])
    decoded = inspect(data, "x")
    assert distance(decoded.image, picture()) < 6
    assert decoded.format == {"MPO": "JPEG"}.get(format, format)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("min_side", "expected"),
    [(None, 320), (321, 320), (320, 320), (161, 320), (160, 160), (80, 80), (40, 40), (1, 40)],
)
def test_large_jpegs_are_reduced_but_not_below_min_side(
    progressive: bool, turned: bool, min_side: int | None, expected: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    large = picture().resize((480, 320), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=95, progressive=progressive, exif=exif)
    decoded = inspect(data, "x", min_side=min_side)
    assert min(decoded.image.size) == expected
    assert decoded.image.size == ((expected, expected * 3 // 2) if turned else
                                  (expected * 3 // 2, expected))  # fmt: skip
    assert decoded.shorter_side == 320
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert distance(decoded.image, reference.resize(decoded.image.size, Image.Resampling.BOX)) < 2


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_stay_whole(format: str) -> None:
    assert decode(encoded(picture(), format), "x", min_side=4).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC photo (export it as JPEG)"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"%PDF-1.7", "PDF"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04rest", "zip"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"P6 1 1 255 abc", "not a JPEG"),  # a format of Pillow's that is not on the list
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not a JPEG"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, "holiday/beach.jpg")
    assert str(caught.value).startswith("holiday/beach.jpg: ")
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_the_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "torn")))
    assert (type(error), error.name, error.reason) == (ImageError, "a.jpg", "torn")
    assert str(error) == "a.jpg: torn"


def test_truncation_is_an_error_whatever_others_have_switched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(picture(), "JPEG")

    def attempt(data: bytes) -> bool:
        try:
            decode(data, "x")
        except ImageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, [whole, whole[:-40]] * 100))
    assert outcomes == [True, False] * 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = encoded(picture(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    monkeypatch.setattr(images, "MAX_PIXELS", WIDTH * HEIGHT)
    assert decode(data, "x").size == (WIDTH, HEIGHT)
    monkeypatch.setattr(images, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(ImageError, match=r"48 × 32 pixels, more than"):
        decode(data, "x")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data) - 1)
    with pytest.raises(ImageError, match="MiB allowed"):
        decode(data, "x")
    with pytest.raises(ImageError, match="MiB allowed"):
        read_image(tmp_path / "a.png")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        read_image(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(ImageError, match="is not a file"):
            read_image(tmp_path / "pipe.jpg")
    (tmp_path / "größe 1.jpg").write_bytes(encoded(picture(), "JPEG"))
    assert read_image(str(tmp_path / "größe 1.jpg"), min_side=8).size == (12, 8)


def test_sniff_looks_at_the_beginning_only() -> None:
    assert sniff(b"MM\0*....") == sniff(b"II+\0....") == "TIFF"
    assert sniff(b" BM") is None
    assert sniff(b"RIFF1234WAVE") is None
