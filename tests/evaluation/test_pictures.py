import io

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.folders import PhotoSet, open_photos
from xception.data.images import ImageError
from xception.data.loader import Batch
from xception.data.preprocess import Preprocess
from xception.evaluation.evaluate import Outcomes
from xception.evaluation.pictures import collect, samples, surest_mistakes
from xception.models.xception import Xception

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


@pytest.fixture
def photos(tmp_path) -> PhotoSet:
    for split in ("train", "validation", "test"):
        for name, colour in COLOURS.items():
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                image = Image.new("RGB", (120 + 10 * number, 90), colour)
                image.save(folder / f"{number}.png")
    return open_photos(tmp_path)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def outcomes_of(photos: PhotoSet, rows: list[list[float]]) -> Outcomes:
    targets = np.array([photo.labels[0] for photo in photos.of("test")])
    return Outcomes(np.array(rows, np.float32), targets, np.arange(len(rows)))


def test_surest_mistakes_come_first_and_right_answers_never(photos):
    # Photos of the test split: blue, blue, green, green, red, red (classes in their order).
    rows = [
        [0.9, 0.1, 0.0], [0.3, 0.6, 0.1], [0.05, 0.9, 0.05],
        [0.8, 0.1, 0.1], [0.0, 0.1, 0.9], [0.1, 0.7, 0.2],
    ]  # fmt: skip
    found = surest_mistakes(outcomes_of(photos, rows), photos, "test")
    assert [(m.truth, m.predicted) for m in found] == [
        (("green",), "blue"), (("red",), "green"), (("blue",), "green"),
    ]  # fmt: skip
    assert [m.probability for m in found] == pytest.approx([0.8, 0.7, 0.6])
    assert [m.truth_probability for m in found] == pytest.approx([0.1, 0.2, 0.3])
    assert found[0].path == "test/green/1.png"
    assert surest_mistakes(outcomes_of(photos, rows), photos, "test", limit=1) == found[:1]


def test_positions_say_which_photo_a_row_is(photos):
    one = Outcomes(np.array([[1.0, 0.0, 0.0]], np.float32), np.array([2]), np.array([5]))
    (found,) = surest_mistakes(one, photos, "test")
    assert found.path == "test/red/1.png"


def test_with_several_labels_a_mistake_is_a_label_wrongly_given(tmp_path):
    lines = ["path,label,split"]
    for number, (labels, split) in enumerate(
        [("a|b", "train"), ("c", "train"), ("a", "validation"), ("a", "test"), ("b|c", "test")]
    ):
        Image.new("RGB", (20, 20), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{labels},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    photos = open_photos(tmp_path / "labels.csv")
    rows = np.array([[0.9, 0.6, 0.8], [0.4, 0.1, 0.2]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
    (found,) = surest_mistakes(Outcomes(rows, targets, np.arange(2)), photos, "test")
    assert (found.path, found.truth, found.predicted) == ("3.png", ("a",), "c")
    assert found.probability == pytest.approx(0.8)
    assert found.truth_probability is None


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_shown_as_the_network_saw_them(photos, channels):
    torch.manual_seed(0)
    model = Xception(num_classes=3, in_channels=channels, width=0.125, middle=1).eval()
    preprocess = Preprocess(size=72, channels=channels)
    rows = [[0.0, 0.0, 1.0]] * 2 + [[0.0, 1.0, 0.0]] * 2 + [[0.0, 0.0, 1.0]] * 2
    mistakes, explained = collect(
        model, photos, outcomes_of(photos, rows), preprocess, split="test", device="cpu"
    )
    assert [m.truth for m in mistakes] == [("blue",), ("blue",)]
    assert len(explained) == 2
    photo, painted = opened(explained[0].photo), opened(explained[0].overlay)
    assert photo.size == painted.size == (240, 240)
    assert photo.mode == ("L" if channels == 1 else "RGB")
    assert painted.mode == "RGB"
    if channels == 3:
        np.testing.assert_allclose(np.asarray(photo).mean((0, 1)), COLOURS["blue"], atol=4)


def test_a_network_without_maps_leaves_its_mistakes_unpainted(photos):
    class Tokens(Xception):
        @property
        def has_maps(self) -> bool:
            return False

        def forward_features(self, x):
            raise AssertionError("there are no maps to look for")

    model = Tokens(num_classes=3, width=0.05, middle=0).eval()
    outcomes = outcomes_of(photos, [[0.0, 0.0, 1.0]] * 6)
    mistakes, explained = collect(
        model, photos, outcomes, Preprocess(size=72), split="test", device="cpu"
    )
    assert len(mistakes) == len(explained)
    for pictures in explained:
        photo, painted = opened(pictures.photo), opened(pictures.overlay)
        np.testing.assert_array_equal(np.asarray(photo), np.asarray(painted))


def test_a_photo_that_is_gone_is_named(photos, tmp_path):
    model = Xception(num_classes=3, width=0.125, middle=1).eval()
    outcomes = outcomes_of(photos, [[0.0, 0.0, 1.0]] * 6)
    (tmp_path / "test/blue/0.png").unlink()
    with pytest.raises(ImageError, match=r"test/blue/0\.png"):
        collect(model, photos, outcomes, Preprocess(size=72), split="test", device="cpu")


def test_samples_are_the_pixels_of_the_batch():
    pixels = torch.zeros(3, 16, 16, 3, dtype=torch.uint8)
    pixels[1] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    found = samples(Batch(pixels, torch.tensor([0, 1, 0]), torch.arange(3)), ("a", "b"), limit=2)
    assert [sample.label for sample in found] == ["a", "b"]
    np.testing.assert_allclose(
        np.asarray(opened(found[1].image)).mean((0, 1)), [200, 100, 50], atol=3
    )
    grey = Batch(
        pixels[..., :1], torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]), torch.arange(3)
    )
    assert [sample.label for sample in samples(grey, ("a", "b"))] == ["a, b", "", "b"]
