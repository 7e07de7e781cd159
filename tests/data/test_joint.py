"""The joint change against the long way: scale the whole picture, pad it, cut the crop out."""

import math

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from xception.data.joint import (
    Geometry,
    JointAugment,
    augment_drawn,
    augment_pair,
    draw_geometry,
)
from xception.data.preprocess import Preprocess

PREPROCESS = Preprocess(size=8, mean=(0.2, 0.4, 0.6))
BORDER = [51, 102, 153]  # 255 times the mean


def picture(width: int, height: int, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels), rng.integers(0, 5, (height, width)).astype(np.uint8)


def the_long_way(
    image: Image.Image, mask: np.ndarray, geometry: Geometry, augment: JointAugment
) -> tuple[np.ndarray, np.ndarray]:
    width, height = image.size
    factor = geometry.factor
    if augment.shorter_side is not None:
        factor *= augment.shorter_side / min(width, height)
    scaled = (max(1, math.floor(width * factor + 0.5)), max(1, math.floor(height * factor + 0.5)))
    whole = np.array(image.resize(scaled, Image.Resampling.BILINEAR))
    labels = np.empty((scaled[1], scaled[0]), np.uint8)
    for y in range(scaled[1]):
        for x in range(scaled[0]):
            source = int((y + 0.5) * height / scaled[1]), int((x + 0.5) * width / scaled[0])
            labels[y, x] = mask[source]
    rows, columns = max(augment.crop[0], scaled[1]), max(augment.crop[1], scaled[0])
    canvas = np.empty((rows, columns, 3), np.uint8)
    canvas[:] = BORDER
    canvas[: scaled[1], : scaled[0]] = whole
    truth = np.full((rows, columns), 255, np.uint8)
    truth[: scaled[1], : scaled[0]] = labels
    top = int(geometry.y * (rows - augment.crop[0] + 1))
    left = int(geometry.x * (columns - augment.crop[1] + 1))
    window = slice(top, top + augment.crop[0]), slice(left, left + augment.crop[1])
    canvas, truth = canvas[window], truth[window]
    return (canvas[:, ::-1], truth[:, ::-1]) if geometry.mirrored else (canvas, truth)


@pytest.mark.parametrize("size", [(30, 20), (21, 33), (7, 5), (1, 9)])
@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("crop", [(12, 16), (5, 40), (64, 64)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_it_is_the_long_way(
    size: tuple[int, int], factor: float, crop: tuple[int, int], mirrored: bool
) -> None:
    image, mask = picture(*size)
    augment = JointAugment(crop=crop)
    for x, y in ((0.0, 0.0), (0.37, 0.81), (0.999, 0.999)):
        geometry = Geometry(factor, x, y, mirrored)
        made = augment_drawn(image, mask, geometry, augment, PREPROCESS, np.random.default_rng(0))
        expected = the_long_way(image, mask, geometry, augment)
        assert np.array_equal(made[1], expected[1])
        # Pillow rounds twice, once a direction, in another order perhaps.
        assert np.abs(made[0].astype(int) - expected[0]).max() <= 1


def test_the_photo_at_its_own_size_is_not_touched() -> None:
    image, mask = picture(30, 20)
    pixels, targets = augment_drawn(
        image, mask, Geometry(1.0, 0.5, 0.5, False), JointAugment(crop=(20, 30)), PREPROCESS,
        np.random.default_rng(0),
    )  # fmt: skip
    assert np.array_equal(pixels, np.array(image))
    assert np.array_equal(targets, mask)


def test_a_shorter_side_makes_photos_alike_in_scale() -> None:
    augment = JointAugment(crop=(10, 10), shorter_side=10)
    for size in ((30, 20), (60, 40), (20, 300)):
        image, mask = picture(*size)
        geometry = Geometry(1.0, 0.2, 0.3, False)
        assert min(geometry.scaled(size, 10)) == 10
        made = augment_drawn(image, mask, geometry, augment, PREPROCESS, np.random.default_rng(0))
        assert np.array_equal(made[1], the_long_way(image, mask, geometry, augment)[1])
        assert (made[1] != 255).all()


def test_a_reduced_decoding_keeps_the_place() -> None:
    # A photo whose colour says where it is, decoded at half the scale.
    y, x = np.mgrid[0:64, 0:96]
    pixels = np.stack([x * 2, y * 3, np.zeros_like(x)], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels)
    mask = ((x // 32) + 3 * (y // 32)).astype(np.uint8)
    augment = JointAugment(crop=(20, 24))
    for geometry in (Geometry(0.5, 0.9, 0.4, False), Geometry(0.4, 0.3, 0.9, True)):
        rng = np.random.default_rng(0)
        whole = augment_drawn(image, mask, geometry, augment, PREPROCESS, rng)
        half = augment_drawn(image.reduce(2), mask, geometry, augment, PREPROCESS, rng)
        assert np.array_equal(whole[1], half[1])
        assert np.abs(whole[0].astype(int) - half[0]).max() <= 6  # 1.5 pixels


def test_masks_are_never_interpolated() -> None:
    image, mask = picture(40, 40)
    mask[:] = np.where(mask < 2, 3, 200)
    augment = JointAugment(crop=(32, 32), scale=(0.3, 3.0), flip=True, contrast=0.5)
    rng = np.random.default_rng(5)
    for _ in range(40):
        _, targets = augment_pair(image, mask, augment, PREPROCESS, rng)
        assert set(np.unique(targets)) <= {3, 200, 255}


def test_colours_change_the_photo_and_neither_the_mask_nor_the_border() -> None:
    image, mask = picture(20, 10)
    plain = JointAugment(crop=(16, 20))
    coloured = plain.model_copy(update={"brightness": 0.5, "contrast": 0.5, "saturation": 0.5})
    geometry = Geometry(1.0, 0, 0, False)
    one = augment_drawn(image, mask, geometry, plain, PREPROCESS, np.random.default_rng(0))
    other = augment_drawn(image, mask, geometry, coloured, PREPROCESS, np.random.default_rng(0))
    assert np.array_equal(one[1], other[1])
    assert (one[0][:10] != other[0][:10]).any()
    assert (other[0][10:] == BORDER).all()
    assert (other[1][10:] == 255).all()


def test_grey_input() -> None:
    image, mask = picture(20, 10)
    grey = Preprocess(size=8, channels=1, mean=(0.5,), std=(0.5,))
    pixels, targets = augment_pair(
        image, mask, JointAugment(crop=(12, 20)), grey, np.random.default_rng(0)
    )
    assert pixels.shape == (12, 20, 1)
    assert np.array_equal(pixels[:10, :, 0], np.array(image.convert("L")))
    assert (pixels[10:] == 128).all()
    assert np.array_equal(targets[:10], mask)


def test_the_papers_factors() -> None:
    paper = JointAugment(scale=(0.5, 2.0), scale_step=0.25, flip=True)
    rng = np.random.default_rng(0)
    drawn = [draw_geometry(paper, rng) for _ in range(2000)]
    factors = [geometry.factor for geometry in drawn]
    assert set(factors) == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}
    for factor in set(factors):
        assert 200 < factors.count(factor) < 380  # 286 ± 16
    assert 900 < sum(geometry.mirrored for geometry in drawn) < 1100
    uneven = JointAugment(scale=(1.0, 1.25), scale_step=0.1)
    assert {round(draw_geometry(uneven, rng).factor, 9) for _ in range(200)} == {1.0, 1.1, 1.2}


def test_any_factor_without_a_step() -> None:
    rng = np.random.default_rng(0)
    free = JointAugment(scale=(0.5, 2.0))
    factors = [draw_geometry(free, rng).factor for _ in range(500)]
    assert len(set(factors)) == 500
    assert 0.5 <= min(factors) < 0.55
    assert 1.95 < max(factors) <= 2.0
    assert not any(draw_geometry(free, rng).mirrored for _ in range(20))


def test_the_crop_reaches_every_place() -> None:
    image, mask = Image.new("RGB", (9, 7)), np.arange(63, dtype=np.uint8).reshape(7, 9)
    rng = np.random.default_rng(0)
    corners = {
        int(augment_pair(image, mask, JointAugment(crop=(5, 6)), PREPROCESS, rng)[1][0, 0])
        for _ in range(300)
    }
    assert corners == {9 * top + left for top in range(3) for left in range(4)}


def test_settings() -> None:
    assert JointAugment.model_validate({"crop": 300}).crop == (300, 300)
    assert JointAugment.model_validate({"crop": [360, 480]}).crop == (360, 480)
    for wrong in (
        {"crop": (0, 5)},
        {"crop": 10_000},
        {"scale": (2.0, 1.0)},
        {"scale": (0.0, 1.0)},
        {"scale_step": -1},
        {"shorter_side": 0},
        {"flips": True},
    ):
        with pytest.raises(ValidationError):
            JointAugment.model_validate(wrong)
