"""What the server says is what the models say."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_server import live, photo
from model_files import card_of, small_model
from networks import lively
from PIL import Image

from xception.data.images import ImageError
from xception.data.preprocess import Preprocess
from xception.deploy.runtime import Predictor
from xception.deploy.server.answers import Answerer, header_size, open_answerer
from xception.deploy.server.limits import Limits
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import load_model, save_model

CLASSES = ("sky", "wall", "floor", "door")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a run é")
    model = small_model()
    save_model(folder / "model.safetensors", model, card_of(model))
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "num_classes": len(CLASSES),
        "backbone_options": {"width": 0.03, "middle": 1},
        "encoder_channels": 12,
        "low_level_channels": 3,
        "decoder_channels": 10,
    }
    model = lively(create_model("deeplab_v3plus", **options), 48)
    card = Card(
        architecture=Architecture(name="deeplab_v3plus", options=model.options),
        task="segmentation",
        classes=CLASSES,
        preprocess=Preprocess(size=65),
    )
    path = tmp_path_factory.mktemp("masks") / "model.safetensors"
    save_model(path, model, card)
    return path


def opened(path: Path, mask_pixels: int = 2**20) -> Answerer:
    limits = Limits(mask_pixels=mask_pixels)
    return open_answerer(
        path,
        device="cpu",
        threads=1,
        mask_pixels=limits.mask_pixels,
        image_pixels=limits.image_pixels,
    )


def noise(width: int, height: int, seed: int = 0, **saved: Any) -> bytes:
    """Broad patches of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(file, saved.pop("kind", "PNG"), **saved)
    return file.getvalue()


def test_classes_are_those_of_the_predictor(classifier: Path):
    predictor = Predictor(classifier)
    files = [noise(60, 40, seed) for seed in range(3)]
    with live(opened(classifier), batch_size=2) as server:
        replies = [server.ask("POST", "/predict?top=3", file) for file in files]
    for file, reply in zip(files, replies, strict=True):
        (answer,) = reply.json["answers"]
        found = [(one["label"], one["probability"]) for one in answer["top"]]
        expected = predictor(file).top(3)
        assert [label for label, _ in found] == [label for label, _ in expected]
        shares = [share for _, share in expected]
        assert [share for _, share in found] == pytest.approx(shares, abs=1e-5)


def test_a_batch_is_as_its_photos_alone(classifier: Path):
    model = opened(classifier)
    prepared = [model.prepare(noise(50, 50, seed), (50, 50)) for seed in range(4)]
    together = [model.present(one, 3) for one in model.compute(prepared)]
    for one, said in zip(prepared, together, strict=True):
        (alone,) = model.compute([one])
        found, expected = (
            {row["label"]: row["probability"] for row in answer["top"]}  # type: ignore[union-attr]
            for answer in (said, model.present(alone, 3))
        )
        assert found == pytest.approx(expected, abs=1e-5)
    assert model.compute([model.example()])


def read_mask(answer: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(answer["mask"])))


def test_a_mask_has_the_likeliest_class_of_each_pixel(segmenter: Path):
    """Against the network itself, for a photo that needs neither border nor scaling."""
    data = noise(65, 49)
    with live(opened(segmenter)) as server:
        reply = server.predict(data)
    assert reply.json["task"] == "segmentation"
    assert reply.json["classes"] == list(CLASSES)
    assert reply.json["colours"] == ["#000000", "#800000", "#008000", "#808000"]
    (answer,) = reply.json["answers"]
    image = read_mask(answer)
    assert (image.mode, list(image.size)) == ("P", answer["size"])
    assert answer["size"] == [65, 49]

    network = load_model(segmenter)
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(data))))[None]
    with torch.inference_mode():
        logits = network(network.card.preprocess.normalize(pixels))[0]
    best = logits.topk(2, dim=0).values
    sure = (best[0] - best[1] > 1e-3).numpy()
    found = np.asarray(image)
    np.testing.assert_array_equal(found[sure], logits.argmax(0).numpy()[sure])
    assert sure.mean() > 0.95
    assert len(np.unique(found)) > 1

    counts = {name: float((found == n).mean()) for n, name in enumerate(CLASSES)}
    expected = {name: share for name, share in counts.items() if share}
    assert answer["coverage"] == pytest.approx(expected)
    colours = np.asarray(image.convert("RGB"))
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert {tuple(colour) for colour in colours.reshape(-1, 3).tolist()} == {
        voc[n] for n in np.unique(found)
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_photo_has_a_smaller_mask_of_its_shape(segmenter: Path, kind: str):
    model = opened(segmenter, mask_pixels=4000)
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side: seen 300 wide and 400 high
    data = noise(400, 300, kind=kind, exif=exif)
    prepared = model.prepare(data, header_size(data, 10**6))
    (outcome,) = model.compute([prepared])
    width, height = json.loads(json.dumps(model.present(outcome, 5)))["size"]
    assert 3600 < width * height <= 4000
    assert width / height == pytest.approx(300 / 400, rel=0.04)
    small = noise(30, 20)
    assert model.prepare(small, (30, 20)).shape == (20, 30, 3)


def test_a_sliver_has_a_mask_too(segmenter: Path):
    model = opened(segmenter, mask_pixels=4000)
    prepared = model.prepare(noise(9000, 1), (9000, 1))
    assert 1 <= prepared.shape[0] * prepared.shape[1] <= 4000
    assert model.compute([prepared])[0].shape == tuple(prepared.shape[:2])


def test_colours_are_those_that_the_model_learnt_from(segmenter: Path, tmp_path: Path):
    network = load_model(segmenter)
    colours = ((1, 2, 3), (250, 0, 0), (0, 250, 0), (0, 0, 250))
    card = network.card.model_copy(update={"colours": colours})
    save_model(tmp_path / "model.safetensors", network, card)
    model = opened(tmp_path / "model.safetensors")
    assert model.about()["colours"] == ["#010203", "#fa0000", "#00fa00", "#0000fa"]
    mask = read_mask(model.present(np.array([[0, 1], [2, 3]], np.uint8), 5))
    assert [*mask.convert("RGB").get_flattened_data()] == [*colours]


def test_a_sliver_that_the_network_would_see_too_large_is_refused(segmenter: Path, tmp_path: Path):
    """Its training scaled photos to a shorter side of 65, and 1 × 20000 so to 65 × 1300000."""
    network = load_model(segmenter)
    card = network.card.model_copy(update={"training": {"joint": {"shorter_side": 65}}})
    save_model(tmp_path / "model.safetensors", network, card)
    model = opened(tmp_path / "model.safetensors")
    with live(model) as server:
        reply = server.predict(noise(20_000, 1))
        assert reply.status == 422
        (answer,) = reply.json["answers"]
        assert answer["error"].startswith("an image of 65x1300001 pixels is too large")
        assert server.predict(noise(100, 60)).status == 200
    with pytest.raises(ImageError, match="up to 8,388,608"):  # also where nobody looked before
        model.compute([torch.zeros(1, 20_000, 3, dtype=torch.uint8)])


def test_only_the_header_is_looked_at():
    large = photo(size=(100, 60))
    assert header_size(large[: len(large) // 2], 6000) == (100, 60)
    with pytest.raises(ImageError, match="100 × 60 pixels, more than the 5,999 allowed"):
        header_size(large, 5999)
    with pytest.raises(ImageError, match="the file is empty"):
        header_size(b"", 10)
