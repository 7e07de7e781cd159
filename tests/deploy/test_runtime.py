import io
import math
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.folders import open_photos
from xception.data.images import ImageError
from xception.data.loader import evaluation_batches
from xception.data.preprocess import Preprocess
from xception.deploy.runtime import Prediction, Predictor, find_model
from xception.errors import UserError
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import save_model

CLASSES = ("cat", "dog", "fish")


def make_model(path: Path, task: str = "classification", **preprocess: Any) -> Path:
    torch.manual_seed(0)
    model = create_model("xception", num_classes=3, width=0.05, middle=0)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.005)  # neither all alike nor all sure
    card = Card.model_validate(
        {
            "architecture": Architecture(name="xception", options=model.options),
            "task": task,
            "classes": CLASSES,
            "preprocess": Preprocess.model_validate({"size": 80, **preprocess}),
        }
    )
    save_model(path, model, card)
    return path


def make_photo(path: Path, seed: int, size: tuple[int, int] = (120, 90)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a run é")
    make_model(folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    return [make_photo(folder / f"{i}.jpg", i) for i in range(5)]


def test_a_run_folder_and_its_file_are_the_same_model(run: Path, photos: list[Path]):
    a, b = Predictor(run), Predictor(str(run / "model.safetensors"))
    assert a.classes == b.card.classes == CLASSES
    assert a(photos[0]).top(3) == b(photos[0]).top(3)


def test_path_bytes_and_image_give_the_same_answer(run: Path, photos: list[Path]):
    predictor = Predictor(run)
    answers = [
        predictor(source).probabilities
        for source in (
            photos[1],
            str(photos[1]),
            photos[1].read_bytes(),
            Image.open(photos[1]),
        )
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_the_answer_is_the_softmax_of_the_logits(run: Path, photos: list[Path]):
    predictor = Predictor(run)
    with torch.no_grad():
        logits = predictor.model(predictor.tensor(photos[0]))[0].tolist()
    total = sum(math.exp(logit) for logit in logits)
    expected = [math.exp(logit) / total for logit in logits]
    np.testing.assert_allclose(predictor(photos[0]).probabilities, expected, rtol=1e-5)


def test_a_card_that_wants_the_mirror_image_gets_it(tmp_path: Path, photos: list[Path]):
    predictor = Predictor(make_model(tmp_path / "m.safetensors", mirror=True))
    x = predictor.tensor(photos[0])
    with torch.no_grad():
        logits = torch.stack([predictor.model(x)[0], predictor.model(x.flip(3))[0]])
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    expected = logits.mean(0).softmax(0)
    np.testing.assert_allclose(predictor(photos[0]).probabilities, expected, rtol=1e-5)


def test_several_labels_are_sigmoids(tmp_path: Path, photos: list[Path]):
    predictor = Predictor(make_model(tmp_path / "m.safetensors", task="multilabel"))
    with torch.no_grad():
        logits = predictor.model(predictor.tensor(photos[0]))[0].tolist()
    expected = [1 / (1 + math.exp(-logit)) for logit in logits]
    np.testing.assert_allclose(predictor(photos[0]).probabilities, expected, rtol=1e-5)


def test_top_is_sorted_and_keeps_the_order_of_equals():
    prediction = Prediction(("a", "b", "c", "d"), np.array([0.25, 0.3, 0.25, 0.2], np.float32))
    assert [label for label, _ in prediction.top(3)] == ["b", "a", "c"]
    assert len(prediction.top(9)) == 4
    assert isinstance(prediction.top(1)[0][1], float)


@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"resize": "pad", "interpolation": "bicubic"},
        {"resize": "squash", "crop": 0.8, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)},
    ],
)
def test_a_photo_gives_the_same_tensor_in_evaluation_and_in_prediction(
    tmp_path: Path, preprocess: dict[str, Any]
):
    names = [f"test/{name}/{name}.jpg" for name in CLASSES]
    for i, name in enumerate(names):
        # Large and small, wide and tall: the decoder reduces the first two.
        size = [(1000, 700), (400, 533), (60, 50)][i]
        make_photo(tmp_path / "p" / name, i, size)
        make_photo(tmp_path / "p" / name.replace("test", "train"), i + 3, size)
    predictor = Predictor(make_model(tmp_path / "m.safetensors", **preprocess))
    photo_set = open_photos(tmp_path / "p")
    (batch,) = evaluation_batches(
        photo_set, "test", preprocess=predictor.card.preprocess, batch_size=8, workers=0
    )
    evaluated = predictor.card.preprocess.normalize(batch.pixels)
    for photo, x in zip(photo_set.of("test"), evaluated, strict=True):
        seen = predictor.tensor(tmp_path / "p" / photo.name)
        assert torch.equal(seen[0], x)
        assert seen.is_contiguous(memory_format=torch.channels_last)


def test_a_stream_answers_in_order_and_goes_on_after_damage(run: Path, photos: list[Path]):
    predictor = Predictor(run)
    broken = photos[0].parent / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:200])
    missing = photos[0].parent / "missing.jpg"
    paths = [*photos[:2], broken, photos[2], missing, *photos[3:]]
    answers = list(predictor.stream(paths, batch_size=3))
    assert [path for path, _ in answers] == paths
    for path, answer in answers:
        if path in (broken, missing):
            assert isinstance(answer, ImageError)
            assert answer.name == str(path)
        else:
            assert isinstance(answer, Prediction)
            expected = predictor(path).probabilities
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)


def test_a_stream_of_damage_alone_and_of_nothing(run: Path, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"no image")
    ((_, answer),) = Predictor(run).stream([tmp_path / "x.png"])
    assert isinstance(answer, ImageError)
    assert list(Predictor(run).stream([])) == []


def test_a_stream_takes_one_batch_ahead_and_no_more(run: Path, photos: list[Path]):
    """While a batch is computed the next one is read: two are held at most."""
    predictor = Predictor(run)
    taken: list[Path] = []

    def paths():
        for path in photos:
            taken.append(path)
            yield path

    stream = predictor.stream(paths(), batch_size=1)
    next(stream)
    assert taken == photos[:2]
    next(stream)
    assert taken == photos[:3]
    assert len(list(stream)) == 3


def test_a_batch_is_read_while_another_is_computed(run: Path, photos: list[Path]):
    predictor = Predictor(run)
    reading, engine = Event(), predictor.engine
    overlapped: list[bool] = []

    def tell(path: str | Path) -> bytes:
        if path == photos[1]:
            reading.set()
        return Path(path).read_bytes()

    def wait(x: torch.Tensor) -> torch.Tensor:
        if not overlapped:  # the first batch is not done before the second is being read
            overlapped.append(reading.wait(timeout=10))
        return engine(x)

    predictor.engine = wait  # pyright: ignore[reportAttributeAccessIssue]
    assert len(list(predictor.stream(photos, batch_size=1, read=tell))) == 5
    assert overlapped == [True]


def test_an_image_of_any_mode_is_taken(run: Path):
    predictor = Predictor(run)
    image = Image.new("RGBA", (90, 90), (255, 0, 0, 0))  # transparent: what a person sees is white
    white = Image.new("RGB", (90, 90), "white")
    np.testing.assert_array_equal(predictor(image).probabilities, predictor(white).probabilities)


def test_damaged_bytes_are_named(run: Path):
    with pytest.raises(ImageError, match="the image"):
        Predictor(run)(io.BytesIO(b"GIF89a").getvalue())


def test_no_model_there(tmp_path: Path, run: Path):
    with pytest.raises(UserError, match=r"no model\.safetensors there; give a run folder"):
        Predictor(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="after its first epoch"):
        Predictor(tmp_path)
    shutil.copytree(run, tmp_path / "runs" / run.name)
    with pytest.raises(UserError, match=r"there is one in .*a run é"):
        find_model(tmp_path / "runs")
    with pytest.raises(UserError, match="nowhere"):
        Predictor(tmp_path / "nowhere")


def test_the_package_has_it_by_name(run: Path):
    import xception

    assert xception.Predictor is Predictor
    assert xception.create_model is create_model
    assert "xception" in xception.list_models()
    assert xception.load_model(run / "model.safetensors").card.classes == CLASSES
    assert {"Predictor", "create_model", "list_models", "load_model"} <= set(dir(xception))
    with pytest.raises(AttributeError, match="Predicto"):
        xception.Predicto  # noqa: B018 # pyright: ignore[reportAttributeAccessIssue]


def test_a_damaged_network_answers_nothing(run: Path, photos: list[Path]):
    predictor = Predictor(run)
    with torch.no_grad():
        next(predictor.model.parameters()).fill_(math.nan)
    with pytest.raises(UserError, match=r"1 of 1 photos .* NaN or infinity"):
        predictor(photos[0])
    with pytest.raises(UserError, match=r"2 of 2 photos"):
        list(predictor.stream(photos[:2]))
