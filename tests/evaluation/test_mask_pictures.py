import io

import numpy as np
import pytest
from PIL import Image

from xception.data.masks import IGNORED
from xception.evaluation.mask_pictures import (
    errors,
    jpeg,
    overlay,
    paletted,
    shares,
    short,
    shown_at,
    with_legend,
)

COLOURS = ((0, 0, 0), (200, 0, 0), (0, 0, 250))
NAMES = ("background", "cat", "dog")
CLASSES = np.array([[0, 1], [2, IGNORED]], np.uint8)


def grey(value: int, height: int = 2, width: int = 2) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_palette_image_keeps_the_numbers_and_shows_the_colours():
    file = io.BytesIO()
    paletted(CLASSES, COLOURS).save(file, "PNG")
    with Image.open(file) as image:
        assert image.mode == "P"
        assert (np.asarray(image) == CLASSES).all()
        shown = np.asarray(image.convert("RGB"))
    assert shown[0, 1].tolist() == [200, 0, 0]
    assert shown[1, 0].tolist() == [0, 0, 250]


def test_the_photo_under_the_colours():
    mixed = overlay(grey(100), CLASSES, COLOURS, NAMES, strength=0.5)
    assert mixed.tolist() == [[[100] * 3, [150, 50, 50]], [[50, 50, 175], [177] * 3]]
    plain = overlay(grey(100), CLASSES, COLOURS, strength=1.0)
    assert plain.tolist() == [[[0] * 3, [200, 0, 0]], [[0, 0, 250], [255] * 3]]
    large = overlay(grey(100, 600, 3), np.ones((600, 3), np.uint8), COLOURS, strength=1.0)
    assert (large == [200, 0, 0]).all()


def test_errors_are_red_and_what_does_not_count_is_white():
    answer = np.array([[0, 2], [2, 1]], np.uint8)
    right, wrong, fine, ignored = errors(grey(100), CLASSES, answer).reshape(4, 3).tolist()
    assert right == fine == [125, 125, 125]
    assert wrong[0] > 170 > 110 > wrong[2]
    assert ignored == [255, 255, 255]


def test_shares():
    assert shares(CLASSES, 3) == [0.25, 0.25, 0.25]
    assert shares(np.zeros((700, 3), np.uint8), 2) == [1.0, 0.0]


def test_a_legend_below_the_picture():
    picture = Image.new("RGB", (300, 100), (9, 9, 9))
    entries = [("sky", (0, 0, 250), 0.25), ("never", (1, 2, 3), 0.0), ("road", (200, 0, 0), 0.75)]
    image = with_legend(picture, entries)
    assert image.width == 300
    assert image.height > 112
    pixels = np.asarray(image)
    assert (pixels[:100] == 9).all()
    reds = (pixels == (200, 0, 0)).all(axis=2).nonzero()
    blues = (pixels == (0, 0, 250)).all(axis=2).nonzero()
    assert len(reds[0]) > 80
    assert reds[1].max() < blues[1].min()  # the larger share comes first
    assert not (pixels == (1, 2, 3)).all(axis=2).any()
    assert with_legend(picture, []).size == picture.size


def test_a_legend_of_many_classes_fits_the_width():
    picture = Image.new("RGB", (300, 300))
    entries = [(f"a class with a long name {i}", (i, i, i), 0.01) for i in range(60)]
    image = with_legend(picture, entries)
    assert image.width == 300
    assert image.height > 300 + 24 * 12


@pytest.mark.parametrize("ignored", ["", "white: pixels that do not count, wherever they are"])
def test_a_legend_below_a_narrow_picture_is_not_cut_off(ignored: str):
    """It is what stands below a wide one, whose paper is blank behind the widest label."""
    entries = [("a class with a long name", (0, 0, 250), 0.6), ("road", (200, 0, 0), 0.4)]
    narrow = with_legend(Image.new("RGB", (40, 300)), entries, ignored=ignored)
    pixels = np.asarray(narrow)
    assert (pixels[:300, :40] == 0).all()
    assert (pixels[:300, 40:] == 255).all()
    assert narrow.width < 400
    widest = [] if ignored else entries[:1]
    alone = with_legend(Image.new("RGB", (900, 300)), widest, ignored=ignored)
    shown = (np.asarray(alone)[300:] != 255).any(axis=(0, 2)).nonzero()[0]
    inked = (pixels[300:] != 255).any(axis=(0, 2)).nonzero()[0]
    assert inked.max() == shown.max() < narrow.width


def test_names_in_one_short_line():
    assert short("two\nlines") == "two lines"
    assert len(short("x" * 100)) == 28


def test_pictures_of_a_page():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 600, 3)).astype(np.uint8)
    small = shown_at(pixels, 200)
    assert small.shape == (100, 200, 3)
    assert shown_at(small, 400).shape == (100, 200, 3)  # never enlarged
    values = np.unique(shown_at(pixels[:, :, :1].repeat(3, 2) // 255 * 255, 100, sharp=True))
    assert set(values.tolist()) <= {0, 255}
    with Image.open(io.BytesIO(jpeg(small))) as image:
        assert (image.format, image.size) == ("JPEG", (200, 100))
