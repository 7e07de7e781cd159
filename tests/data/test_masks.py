import contextlib
import pickle

import numpy as np
import pytest
from mask_files import chunk, encoded, mask, photo, png
from PIL import Image

from xception.data.images import ImageError
from xception.data.masks import (
    NO_COLOUR,
    MaskError,
    RawMask,
    UnknownValues,
    check_sizes,
    decode_mask,
    hexadecimal,
    pack,
    tally,
    unpack,
)

NUMBERS = np.array([[0, 1, 2, 255], [7, 7, 200, 3]], np.uint8)


def numbers(raw: RawMask) -> np.ndarray:
    found = raw.as_values()
    assert found is not None
    return found


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_numbers_are_read_as_they_are(format: str) -> None:
    raw = decode_mask(encoded(Image.fromarray(NUMBERS), format), "m")
    assert np.array_equal(numbers(raw), NUMBERS)
    assert raw.size == (4, 2)


def test_a_gif_of_greys_has_a_palette_of_its_own() -> None:
    raw = decode_mask(encoded(Image.fromarray(NUMBERS), "GIF"), "m")
    assert raw.kind == "palette"
    assert np.array_equal(raw.as_colours(), NUMBERS * np.uint32(0x010101))


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF"])
def test_a_palette_is_kept_beside_its_numbers(format: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    raw = decode_mask(encoded(image, format), "m")
    assert raw.kind == "palette"
    assert numbers(raw).tolist() == [[0, 1, 2]]
    assert raw.as_colours().tolist() == [[0x0A141E, 0x28323C, 0x46505A]]


def test_an_entry_that_the_palette_lacks_is_no_colour() -> None:
    data = png(2, 1, 8, 3, b"\0\x01\x05", chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6])))
    raw = decode_mask(data, "m")
    assert numbers(raw).tolist() == [[1, 5]]
    assert raw.as_colours().tolist() == [[0x040506, NO_COLOUR]]
    assert hexadecimal(NO_COLOUR) == "no colour"


@pytest.mark.parametrize("colour", [0, 3])  # grey, palette
@pytest.mark.parametrize(
    ("depth", "rows", "expected"),
    [
        (1, b"\x00\xb0", [1, 0, 1, 1]),
        (2, b"\x00\x1b", [0, 1, 2, 3]),
        (4, b"\x00\x07\xf2", [0, 7, 15, 2]),
        (8, b"\x00\x07\xff\x02\x63", [7, 255, 2, 99]),
    ],
)
def test_numbers_of_fewer_bits_are_not_stretched(
    colour: int, depth: int, rows: bytes, expected: list[int]
) -> None:
    palette = [chunk(b"PLTE", bytes(3 * 2**depth))] if colour == 3 else []
    data = png(4, 1, depth, colour, rows, *palette)
    assert numbers(decode_mask(data, "m")).tolist() == [expected]


def test_colours_are_packed() -> None:
    colours = np.array([[[255, 128, 0], [0, 0, 1]]], np.uint8)
    raw = decode_mask(mask(colours), "m")
    assert raw.kind == "colour"
    assert raw.as_colours().tolist() == [[0xFF8000, 0x000001]]
    assert raw.as_values() is None
    assert pack((255, 128, 0)) == 0xFF8000
    assert unpack(0xFF8000) == (255, 128, 0)
    assert hexadecimal(0x0080FF) == "#0080ff"


def test_numbers_written_as_grey_colours_are_numbers() -> None:
    raw = decode_mask(mask(np.stack([NUMBERS] * 3, axis=-1)), "m")
    assert raw.kind == "colour"
    assert np.array_equal(numbers(raw), NUMBERS)


def test_transparency_only_where_there_is_none() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 4)).astype(np.uint8)
    colours[..., 3] = 255
    opaque = decode_mask(mask(colours), "m")
    plain = decode_mask(mask(colours[..., :3]), "m")
    assert np.array_equal(opaque.as_colours(), plain.as_colours())
    grey = np.stack([NUMBERS, np.full_like(NUMBERS, 255)], axis=-1)
    assert np.array_equal(numbers(decode_mask(mask(grey), "m")), NUMBERS)
    colours[1, 2, 3] = 254
    with pytest.raises(MaskError, match=r"^m: 1 pixels are transparent"):
        decode_mask(mask(colours), "m")
    grey[0, 0, 1] = 0
    with pytest.raises(MaskError, match="1 pixels are transparent"):
        decode_mask(mask(grey), "m")


def test_a_transparent_entry_of_a_palette_changes_no_number() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8])
    data = encoded(image, transparency=0)
    assert numbers(decode_mask(data, "m")).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_more_than_8_bits_are_refused(colour: int) -> None:
    rows = b"\0" + bytes(2 * {0: 1, 2: 3, 4: 2, 6: 4}[colour])
    with pytest.raises(MaskError, match="more than 8 bits"):
        decode_mask(png(1, 1, 16, colour, rows), "m")


def test_other_deep_and_odd_kinds_are_refused() -> None:
    for values in (np.ones((2, 2), np.uint16), np.ones((2, 2), np.float32)):
        with pytest.raises(MaskError, match="more than 8 bits"):
            decode_mask(encoded(Image.fromarray(values), "TIFF"), "m")
    with pytest.raises(MaskError, match="unusual kind"):
        decode_mask(encoded(Image.new("CMYK", (2, 2)), "TIFF"), "m")


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_are_refused(format: str) -> None:
    data = encoded(Image.new("L", (4, 4)), format)
    with pytest.raises(MaskError, match=f"a {format} blurs"):
        decode_mask(data, "m")


def test_a_mask_is_turned_as_its_file_says() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the top of the picture stands at the right: turn it by 90° clockwise
    data = encoded(Image.fromarray(NUMBERS), exif=turned)
    assert np.array_equal(numbers(decode_mask(data, "m")), np.rot90(NUMBERS, -1))


def test_what_is_no_sound_picture_is_an_image_error() -> None:
    whole = mask(np.random.default_rng(0).integers(0, 9, (40, 40)))
    for data in (b"", b"no picture", whole[:60], whole[: len(whole) // 2]):
        with pytest.raises(ImageError, match=r"^m: "):
            decode_mask(data, "m")


def test_hostile_sizes_are_refused_before_decoding() -> None:
    with pytest.raises(ImageError, match="more than the"):
        decode_mask(png(60_000, 60_000, 8, 0, b""), "m")


def test_every_damage_is_an_image_error_or_a_mask() -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 5, (16, 16)).astype(np.uint8))
    image.putpalette(list(range(15)))
    for format in ("PNG", "BMP", "GIF", "TIFF"):
        data = np.frombuffer(encoded(image, format), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[rng.integers(0, min(len(data), 120), 3)] = rng.integers(0, 256, 3)
            with contextlib.suppress(ImageError):  # nothing else may leave
                raw = decode_mask(damaged.tobytes(), "m")
                assert raw.as_colours().size == raw.size[0] * raw.size[1]


def test_sizes_that_differ() -> None:
    check_sizes("m", (4, 3), (4, 3))
    with pytest.raises(MaskError, match=r"^m: 4 × 3 pixels, but its photo has 5 × 3$"):
        check_sizes("m", (4, 3), (5, 3))
    with pytest.raises(MaskError, match="turned upright"):
        check_sizes("m", (4, 3), (3, 4))


def test_a_photo_is_no_mask() -> None:
    with pytest.raises(MaskError, match="save masks as PNG"):
        decode_mask(photo(), "m")


def test_unknown_values_say_how_many_and_survive_pickling() -> None:
    error = UnknownValues("m", {"7": 3, "9": 20_000})
    assert str(error) == "m: unknown mask values: 9 (20,000 pixels), 7 (3 pixels)"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.counts) == (str(error), error.counts)
    many = UnknownValues("m", {str(i): 1 for i in range(1000)})
    assert str(many).endswith("and 992 more")
    assert len(many.counts) < 300


def test_tally() -> None:
    assert tally(NUMBERS) == {0: 1, 1: 1, 2: 1, 3: 1, 7: 2, 200: 1, 255: 1}
    colours = np.array([5, 70_000, 5], np.uint32)
    assert tally(colours) == {5: 2, 70_000: 1}
    assert len(tally(np.arange(5000, dtype=np.uint32))) < 300
