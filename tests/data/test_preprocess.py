import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from xception.data.images import ImageError, decode
from xception.data.preprocess import Preprocess


def gradient(width: int, height: int) -> Image.Image:
    """Red is the column, green the row, blue is 7: every pixel says where it comes from."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :] % 256
    pixels[..., 1] = np.arange(height)[:, None] % 256
    pixels[..., 2] = 7
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def test_an_image_of_the_right_size_stays_as_it_is():
    image = gradient(8, 8)
    for resize in ("crop", "squash", "pad"):
        pixels = Preprocess(size=8, resize=resize).pixels(image)
        np.testing.assert_array_equal(pixels, np.asarray(image))


def test_crop_takes_the_middle_square():
    # 12 columns, 8 rows: the middle square is columns 2 to 9.
    pixels = Preprocess(size=8).pixels(gradient(12, 8))
    np.testing.assert_array_equal(pixels[..., 0], np.tile(np.arange(2, 10), (8, 1)))
    # Half of it: columns 4 to 7 and rows 2 to 5.
    pixels = Preprocess(size=4, crop=0.5).pixels(gradient(12, 8))
    np.testing.assert_array_equal(pixels[..., 0], np.tile(np.arange(4, 8), (4, 1)))
    np.testing.assert_array_equal(pixels[..., 1], np.tile(np.arange(2, 6), (4, 1)).T)


def test_squash_sees_the_whole_image():
    # Two columns to one: 0 1 2 3 … and a filter of two pixels' width on each side keeps a gradient.
    image = gradient(16, 8)
    pixels = Preprocess(size=8, resize="squash").pixels(image)
    np.testing.assert_array_equal(pixels[0, :, 1], np.zeros(8))
    inner = pixels[0, 1:-1, 0].astype(float)
    np.testing.assert_allclose(inner, 2 * np.arange(1, 7) + 0.5, atol=0.51)


def test_pad_keeps_the_shape_and_fills_with_the_mean():
    preprocess = Preprocess(size=8, resize="pad", mean=(0.2, 0.4, 1.0))
    pixels = preprocess.pixels(gradient(8, 4))
    np.testing.assert_array_equal(pixels[2:6], np.asarray(gradient(8, 4)))
    for rows in (pixels[:2], pixels[6:]):
        np.testing.assert_array_equal(rows, np.broadcast_to([51, 102, 255], (2, 8, 3)))


def test_a_large_reduction_averages():
    # 64 times smaller, black and white columns by turns: grey, not one of the two.
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[:, ::2] = 255
    small = Preprocess(size=8).pixels(Image.fromarray(pixels))
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_bicubic_is_sharper_at_an_edge_than_bilinear():
    pixels = np.full((32, 32, 3), 64, np.uint8)
    pixels[:, 16:] = 192
    image = Image.fromarray(pixels)
    bilinear = Preprocess(size=8, interpolation="bilinear").pixels(image)
    bicubic = Preprocess(size=8, interpolation="bicubic").pixels(image)
    assert bilinear.min() == 64  # no overshoot
    assert bilinear.max() == 192
    assert bicubic.min() < 64
    assert bicubic.max() > 192


def test_one_channel_is_luminance():
    image = Image.new("RGB", (5, 5), (200, 100, 50))
    pixels = Preprocess(size=5, channels=1).pixels(image)
    assert pixels.shape == (5, 5, 1)
    assert (pixels == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all()


def test_pixels_can_be_written_to_and_shared_with_torch():
    pixels = Preprocess(size=4).pixels(gradient(4, 4))
    shared = torch.from_numpy(pixels)  # warns, which is an error here, if the array is read-only
    pixels[0, 0] = 7
    assert shared[0, 0].tolist() == [7, 7, 7]


def test_normalize_by_hand():
    pixels = torch.tensor([[[[0, 51, 255], [255, 102, 0]]]], dtype=torch.uint8)  # 1 row, 2 columns
    values = Preprocess(size=2).normalize(pixels)
    assert values.shape == (1, 3, 1, 2)
    torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))
    torch.testing.assert_close(values[0, :, 0, 1], torch.tensor([1.0, -0.2, -1.0]))
    own = Preprocess(size=2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2)).normalize(pixels)
    torch.testing.assert_close(own[0, :, 0, 0], torch.tensor([-0.2, 0.0, 3.5]))


def test_normalize_gives_channels_last_float32():
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    values = Preprocess(size=8).normalize(pixels)
    assert values.dtype == torch.float32
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert values.stride() == (105, 1, 21, 3)


def test_tensor_is_decode_pixels_normalize():
    image = gradient(6, 4)
    preprocess = Preprocess(size=4)
    values = preprocess.tensor(encoded(image), "a.png")
    assert values.shape == (1, 3, 4, 4)
    torch.testing.assert_close(values[0, 0, 0], torch.tensor([1.0, 2, 3, 4]) / 127.5 - 1)


def test_the_decoder_keeps_what_the_crop_needs():
    # Half scale of 800×600 has 300 rows: enough for 300 or for half a crop of 150, not for 301.
    data = encoded(gradient(800, 600), "JPEG")
    for size, crop, decoded in (
        (300, 1.0, (400, 300)),
        (150, 0.5, (400, 300)),
        (301, 1.0, (800, 600)),
        (150, 0.49, (800, 600)),
    ):
        min_side = Preprocess(size=size, crop=crop).min_side
        assert decode(data, "a.jpg", min_side=min_side).size == decoded


def test_a_damaged_file_is_named():
    with pytest.raises(ImageError, match=r"broken\.png"):
        Preprocess(size=4).tensor(encoded(gradient(6, 4))[:60], "broken.png")


@given(
    width=st.sampled_from([1, 2, 3, 31, 4000]),
    height=st.sampled_from([1, 2, 5, 64]),
    size=st.sampled_from([1, 2, 32, 33]),
    crop=st.sampled_from([0.01, 0.3, 0.875, 1.0]),
    resize=st.sampled_from(["crop", "squash", "pad"]),
    channels=st.sampled_from([1, 3]),
)
def test_every_image_becomes_the_asked_size(width, height, size, crop, resize, channels):
    preprocess = Preprocess(size=size, crop=crop, resize=resize, channels=channels)
    pixels = preprocess.pixels(Image.new("RGB", (width, height), (255, 255, 255)))
    assert pixels.shape == (size, size, channels)
    assert pixels.dtype == np.uint8
    if resize != "pad":
        assert (pixels == 255).all()


def test_one_number_stands_for_all_channels():
    assert Preprocess(size=4).mean == (0.5, 0.5, 0.5)
    assert Preprocess(size=4, channels=1).std == (0.5,)
    assert Preprocess(size=4, std=(0.2,)).std == (0.2, 0.2, 0.2)


def test_with_mirror_the_answer_is_the_mean_over_both_images():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)

    def left_column(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, :, 0]

    plain, both = Preprocess(size=4), Preprocess(size=4, mirror=True)
    assert plain.answers(left_column, x).tolist() == [[0, 4, 8]]
    assert both.answers(left_column, x).tolist() == [[1.5, 5.5, 9.5]]  # columns 0 and 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 100_000},
        {"crop": 0.0},
        {"crop": 1.1},
        {"resize": "stretch"},
        {"interpolation": "nearest"},
        {"channels": 2},
        {"mean": (0.1, 0.2)},
        {"mean": (float("nan"),) * 3},
        {"std": (0.5, 0.0, 0.5)},
        {"std": (float("inf"),)},
        {"colour": 1},
    ],
)
def test_wrong_records_are_refused(wrong):
    with pytest.raises(ValidationError):
        Preprocess.model_validate({"size": 4} | wrong)


def test_the_record_survives_json():
    preprocess = Preprocess(size=299, crop=0.875, mean=(0.485, 0.456, 0.406))
    assert Preprocess.model_validate_json(preprocess.model_dump_json()) == preprocess
