import numpy as np
import pytest
from PIL import Image

from xception.data.rand_augment import OPERATIONS, rand_augment

# With the magnitude at 0 these leave every image alone; the others do not depend on it.
GRADED = set(OPERATIONS) - {"autocontrast", "equalize"}


def noise(side: int = 32) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def apply(name: str, image: Image.Image, strength: float) -> np.ndarray:
    return np.asarray(OPERATIONS[name](image, strength)).astype(int)


def test_the_papers_fourteen_operations():
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", sorted(GRADED))
def test_strength_zero_is_the_identity(name):
    np.testing.assert_array_equal(apply(name, noise(), 0.0), np.asarray(noise()))


@pytest.mark.parametrize("name", sorted(GRADED - {"identity"}))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_stronger_operation_changes_more(name, sign):
    # A smooth image, on which a larger movement is a larger difference.
    x, y = np.meshgrid(np.linspace(40, 215, 64), np.linspace(40, 215, 64))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))
    image.paste(noise(16), (24, 24))  # for the sharpness
    plain = np.asarray(image).astype(int)
    changes = [np.abs(apply(name, image, sign * s) - plain).mean() for s in (0.25, 0.5, 1.0)]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_size_and_mode_stay(name):
    for size in ((1, 1), (7, 3), (32, 32)):
        for strength in (-1.0, 0.3, 1.0):
            result = OPERATIONS[name](Image.new("RGB", size, (1, 2, 3)), strength)
            assert (result.size, result.mode) == (size, "RGB")


def test_values_by_hand():
    image = Image.new("RGB", (3, 3), (200, 100, 20))
    assert (apply("brightness", image, 1.0)[0, 0] == [255, 190, 38]).all()  # ×1.9
    assert (apply("brightness", image, -1.0)[0, 0] == [20, 10, 2]).all()  # ×0.1
    assert (apply("posterize", image, 1.0)[0, 0] == [192, 96, 16]).all()  # 4 bits
    assert (apply("posterize", image, -0.5)[0, 0] == [200, 100, 20]).all()  # 6 bits
    assert (apply("solarize", image, 0.5)[0, 0] == [55, 100, 20]).all()  # from 128 on, inverted
    assert (apply("solarize", image, -1.0)[0, 0] == [55, 155, 235]).all()
    luminance = 0.299 * 200 + 0.587 * 100 + 0.114 * 20
    expected = luminance + 0.1 * (np.array([200, 100, 20]) - luminance)
    np.testing.assert_allclose(apply("color", image, -1.0)[0, 0], expected, atol=1)


def test_movements_by_hand():
    # One white column and one white row in the middle of 33×33 black pixels.
    column = Image.new("RGB", (33, 33))
    column.paste((255, 255, 255), (16, 0, 17, 33))
    row = column.transpose(Image.Transpose.TRANSPOSE)

    # A third of 150/331 of 33 pixels is 4.98: the line moves right, or down, by 5.
    third = apply("translate_x", column, 1 / 3)[16, :, 0]
    assert third[5:].argmax() + 5 == 21
    assert (third[:4] == 128).all()  # grey comes in
    assert apply("translate_y", row, -1 / 3)[:29, 16, 0].argmax() == 11

    # Sheared by 0.3 around the middle: the ends move by 0.3·16 = 4.8 in opposite directions.
    sheared = apply("shear_x", column, 1.0)
    brightest = [sheared[y, 6:27, 0].argmax() + 6 for y in (0, 16, 32)]
    assert brightest == [21, 16, 11]
    sheared = apply("shear_y", row, -1.0)
    assert [sheared[6:27, x, 0].argmax() + 6 for x in (0, 16, 32)] == [11, 16, 21]

    # Turned by 30° against the clock: 10 pixels above the middle moves 5 to the left.
    turned = apply("rotate", column, 1.0)
    y, x = 16 - round(10 * np.cos(np.pi / 6)), 16 - round(10 * np.sin(np.pi / 6))
    assert turned[y, x, 0] > 128
    assert turned[6, 16, 0] < 128


def test_operations_are_drawn_evenly_and_signs_both_ways(monkeypatch):
    calls: list[tuple[str, float]] = []

    def recorder(name):
        return lambda image, strength: calls.append((name, strength)) or image

    monkeypatch.setattr(
        "xception.data.rand_augment._CHOICES", tuple(recorder(name) for name in OPERATIONS)
    )
    image, rng = noise(2), np.random.default_rng(0)
    for _ in range(700):
        rand_augment(image, 2, 5.0, rng)
    assert len(calls) == 1400
    counts = {name: sum(call[0] == name for call in calls) for name in OPERATIONS}
    assert min(counts.values()) > 60  # 100 ± 4 standard deviations
    assert max(counts.values()) < 140
    assert {strength for _, strength in calls} == {-0.5, 0.5}
    assert 620 < sum(strength > 0 for _, strength in calls) < 780


def test_no_layers_change_nothing():
    image = noise()
    assert rand_augment(image, 0, 9.0, np.random.default_rng(0)) is image
