import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from xception.data.preprocess import Preprocess
from xception.data.transforms import Augment, Crop, augment, draw_crop, erase, recolour

EVERYTHING = Augment(
    crop_scale=(0.08, 1.0),
    pad_crop=2,
    flip=True,
    vertical_flip=True,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    rand_augment_layers=2,
    erase=0.5,
)


def marked(width: int, height: int) -> Image.Image:
    """Red is 1 + the column, green 1 + the row: none is black, each says where it comes from."""
    pixels = np.full((height, width, 3), 9, np.uint8)
    pixels[..., 0] = 1 + np.arange(width)[None, :]
    pixels[..., 1] = 1 + np.arange(height)[:, None]
    return Image.fromarray(pixels)


def changed(image: Image.Image, seed: int, size: int = 8, **options) -> np.ndarray:
    return augment(image, Preprocess(size=size), Augment(**options), np.random.default_rng(seed))


def test_everything_off_is_evaluation():
    image = marked(12, 8)
    for seed in range(3):
        np.testing.assert_array_equal(changed(image, seed), Preprocess(size=8).pixels(image))


def test_flips_are_mirrors_half_of_the_time():
    image = marked(8, 8)
    plain = np.asarray(image)
    for option, mirrored in (("flip", plain[:, ::-1]), ("vertical_flip", plain[::-1])):
        flips = 0
        for seed in range(200):
            result = changed(image, seed, **{option: True})
            flipped = np.array_equal(result, mirrored)
            assert flipped or np.array_equal(result, plain)
            flips += flipped
        assert 70 < flips < 130  # 100 ± 4 standard deviations


def test_pad_crop_shifts_and_fills_with_black():
    image = marked(8, 8)
    padded = np.zeros((12, 12, 3), np.uint8)
    padded[2:10, 2:10] = np.asarray(image)
    seen = set()
    for seed in range(400):
        result = changed(image, seed, pad_crop=2)
        places = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(result, padded[top : top + 8, left : left + 8])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 25  # every shift from -2 to 2, in both directions


def test_a_crop_by_hand():
    # A quarter of 16×8 = 128 pixels is 32; twice as wide as high: 8×4. Room: 8 columns, 4 rows.
    assert Crop(0.25, 2.0, 0.5, 1.0).box(16, 8) == (4, 4, 12, 8)
    # All of it, square: does not fit, shrinks to the height.
    assert Crop(1.0, 1.0, 0.25, 0.5).box(16, 8) == (2, 0, 10, 8)
    assert Crop(1.0, 0.5, 0.0, 0.0).box(16, 8) == (0, 0, 4, 8)


def test_crops_show_the_part_of_the_image_that_they_took():
    # Unchanged scale: an 8×8 crop of 16×16 is a quarter of the area. Places between pixels blend
    # two neighbours, so a step from column to column stays 1.
    image = marked(16, 16)
    starts = []
    for seed in range(50):
        pixels = changed(image, seed, crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0))
        red, green, blue = np.moveaxis(pixels.astype(int), 2, 0)
        assert (np.diff(red, axis=1) == 1).all()
        assert (np.diff(green, axis=0) == 1).all()
        assert (blue == 9).all()
        starts.append((red[0, 0], green[0, 0]))
    for axis in (0, 1):
        places = [start[axis] for start in starts]
        assert min(places) <= 2
        assert max(places) >= 8  # the last possible start is 9


@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    area=st.floats(0.001, 1),
    ratio=st.floats(0.25, 4),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
)
def test_crops_lie_within_the_image(width, height, area, ratio, x, y):
    left, top, right, bottom = Crop(area, ratio, x, y).box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert math.isclose((right - left) / (bottom - top), ratio, rel_tol=1e-6)
    assert (right - left) * (bottom - top) <= area * width * height * (1 + 1e-6)


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    area=st.floats(0.01, 1),
    ratio=st.floats(0.5, 2),
    size=st.integers(1, 64),
)
def test_an_image_of_min_side_is_not_upsampled(width, height, area, ratio, size):
    crop = Crop(area, ratio, 0.5, 0.5)
    scale = crop.min_side(size) / min(width, height)
    left, top, right, bottom = crop.box(round(width * scale), round(height * scale))
    # The rounding of the decoded size may cost half a pixel.
    assert min(right - left, bottom - top) > size - 0.5


def test_crops_are_drawn_evenly():
    options = Augment(crop_scale=(0.2, 0.6), crop_ratio=(0.5, 2.0))
    rng = np.random.default_rng(0)
    crops = [draw_crop(options, rng) for _ in range(4000)]
    drawn = np.array([(c.area, math.log2(c.ratio), c.x, c.y) for c in crops if c])
    assert drawn.shape == (4000, 4)
    low, high = np.array([0.2, -1, 0, 0]), np.array([0.6, 1, 1, 1])
    even = (drawn - low) / (high - low)
    assert even.min() > 0
    assert even.max() < 1
    np.testing.assert_allclose(even.mean(0), 0.5, atol=0.02)  # standard deviation 0.0046
    np.testing.assert_allclose(even.var(0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(even.T) - np.eye(4)).max() < 0.07


def test_colour_by_hand():
    image = Image.new("RGB", (2, 1))
    image.putpixel((0, 0), (100, 50, 200))
    image.putpixel((1, 0), (100, 150, 0))
    luminance = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in ((100, 50, 200), (100, 150, 0))]

    def result(**factors):
        neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
        return np.asarray(recolour(image, **(neutral | factors))).astype(float)[0]

    np.testing.assert_array_equal(result(), np.asarray(image)[0])
    np.testing.assert_allclose(result(brightness=0.5)[0], [50, 25, 100], atol=1)
    np.testing.assert_allclose(result(brightness=1.5)[0], [150, 75, 255], atol=1)  # 300 is cut
    np.testing.assert_allclose(result(saturation=0.0), np.outer(luminance, [1, 1, 1]), atol=1)
    mean = sum(luminance) / 2
    np.testing.assert_allclose(result(contrast=0.0), np.full((2, 3), mean), atol=1)
    np.testing.assert_allclose(
        result(contrast=0.5)[1], [(mean + 100) / 2, (mean + 150) / 2, mean / 2], atol=1
    )
    # Together: saturation, then contrast, then brightness.
    grey = np.array([luminance[0]] * 3)
    saturated = grey + 0.8 * (np.array([100, 50, 200]) - grey)
    expected = 0.9 * (mean + 1.1 * (saturated - mean))
    np.testing.assert_allclose(
        result(brightness=0.9, contrast=1.1, saturation=0.8)[0], expected, atol=1
    )


def test_colour_strength_bounds_the_factor():
    image = Image.new("RGB", (4, 4), (100, 100, 100))
    values = [changed(image, seed, size=4, brightness=0.3)[0, 0, 0] for seed in range(300)]
    assert 69 <= min(values) < 75
    assert 125 < max(values) <= 130
    # Grey has neither contrast nor saturation to change.
    for seed in range(5):
        same = changed(image, seed, size=4, contrast=0.9, saturation=0.9)
        np.testing.assert_allclose(same, 100, atol=1)


def test_erasing_fills_one_rectangle_of_the_papers_size():
    areas = []
    for seed in range(300):
        pixels = np.zeros((40, 40, 1), np.uint8)
        erase(pixels, np.random.default_rng(seed))
        rows, columns = np.nonzero(pixels[..., 0])
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        # One in 256 random values is 0, so nearly all of the bounding box is filled.
        assert len(rows) > 0.9 * height * width
        areas.append(height * width / 1600)
        assert 0.25 < width / height < 4  # 0.3 to 3.3, rounded to pixels
    assert 0.015 < min(areas) < 0.06
    assert 0.35 < max(areas) < 0.43


def test_erasing_happens_as_often_as_asked():
    image = Image.new("RGB", (16, 16), (0, 0, 0))
    erased = sum(changed(image, seed, size=16, erase=0.25).any() for seed in range(400))
    assert 65 < erased < 135  # 100 ± 4 standard deviations


def test_the_same_generator_gives_the_same_pixels():
    image = marked(37, 23)
    first, again, other = (
        augment(image, Preprocess(size=16), EVERYTHING, np.random.default_rng(seed))
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@given(
    shape=st.sampled_from([(1, 1), (1, 4000), (4000, 1), (2, 3), (64, 48)]),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([1, 2, 31, 32]),
    seed=st.integers(0, 2**32),
)
def test_any_image_becomes_uint8_of_the_asked_size(shape, channels, size, seed):
    image = Image.new("RGB", shape, (10, 200, 90))
    preprocess = Preprocess(size=size, channels=channels)
    pixels = augment(image, preprocess, EVERYTHING, np.random.default_rng(seed))
    assert pixels.shape == (size, size, channels)
    assert pixels.dtype == np.uint8
    pixels[:] = 0  # may be written to


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 0.4)},
        {"crop_scale": (0.5, 1.5)},
        {"crop_scale": (math.nan, 1.0)},
        {"crop_ratio": (0.0, 1.0)},
        {"crop_ratio": (1.0, math.inf)},
        {"pad_crop": -1},
        {"brightness": 1.5},
        {"rand_augment_magnitude": 11},
        {"erase": 2},
        {"mixup": -0.1},
        {"cutmix": math.inf},
        {"flipp": True},
    ],
)
def test_wrong_records_are_refused(wrong):
    with pytest.raises(ValidationError):
        Augment.model_validate(wrong)
