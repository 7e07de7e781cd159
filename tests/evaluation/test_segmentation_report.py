import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.pair_audit import audit_pairs
from xception.data.pair_loader import PairBatch, evaluation_pairs
from xception.data.pairs import PairSet, open_pairs
from xception.data.preprocess import Preprocess
from xception.data.scenes import SCENE_CLASSES, write_scenes
from xception.errors import UserError
from xception.evaluation.segmentation import PhotoScore, Piece, PixelCounts, evaluate_pairs
from xception.evaluation.segmentation_report import (
    FourViews,
    MaskPictures,
    Masks,
    PixelEpoch,
    SegmentationReport,
    Shown,
    chosen,
    collect,
    draw,
    pair_samples,
    render,
    write_segmentation_report,
)

HOSTILE = "<script>alert('x')</script>"
NAMES = tuple(name for name, _ in SCENE_CLASSES)
PREPROCESS = Preprocess(size=32)


def figures(k: int = 3, seed: int = 0, absent: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    counts = PixelCounts.empty(k)
    for position in range(5):
        truth = np.kron(rng.integers(0, k - absent, (3, 3)), np.ones((6, 6), int)).astype(np.uint8)
        answer = np.where(rng.random(truth.shape) < 0.7, truth, (truth + 1) % (k - absent))
        truth[rng.random(truth.shape) < 0.1] = 255
        counts.add(position, truth, answer.astype(np.uint8), 20.0)
    return counts.figures(tuple(f"class {i}" for i in range(k)))


def report(k: int = 3, **fields: Any) -> SegmentationReport:
    least: dict[str, Any] = {
        "title": "streets",
        "created_by": "xception 0.1.0",
        "command": "xception evaluate runs/streets photos",
        "classes": tuple(f"class {i}" for i in range(k)),
        "colours": tuple((i, 10, 200) for i in range(k)),
        "split": "test",
        "metrics": figures(k),
        "model": "deeplab_v3plus",
        "cost": {"parameters": 41055413, "macs": 54170000000},
        "image": (513, 513),
    }
    return SegmentationReport.model_validate(least | fields)


def page(told: SegmentationReport, pictures: MaskPictures | None = None) -> str:
    return render(told, pictures or MaskPictures(), draw(told))


def text_of(html: str) -> str:
    body = html[html.index("<main>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).replace("\u202f", " ").split())


HISTORY = (
    PixelEpoch(epoch=1, train_loss=2.5, lr=0.1, images_per_second=5, seconds=20, val_loss=2.2,
               val_miou=0.2, val_pixel_accuracy=0.5),
    PixelEpoch(epoch=2, train_loss=1.5, lr=0.01, images_per_second=6, seconds=15.5, val_loss=1.9,
               val_miou=0.4, val_pixel_accuracy=0.6),
)  # fmt: skip


def test_the_page_starts_with_the_answer():
    told = report()
    text = text_of(page(told))
    top = text[: text.index("Class by class")]
    miou, right = told.metrics["miou"], told.metrics["pixel_accuracy"]
    assert f"{100 * miou:.1f} % mean intersection over union on 5 test photos" in top
    assert f"Pixels that are right {100 * right:.1f} %" in top
    near = told.metrics["trimap"]["1"]
    assert f"IoU at boundaries {100 * near:.1f} % 1 pixel on either side" in top
    supports = [row["support"] for row in told.metrics["per_class"].values()]
    guess = max(supports) / sum(supports)
    assert f"the most common class, would reach {100 * guess / 3:.1f} %" in top
    assert "54.2 G" in top
    assert "513×513" in top


def test_one_file_that_needs_nothing_else(tmp_path: Path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    views = FourViews(*[file.getvalue()] * 4)
    shown = (Shown(path="a.jpg", standing="best", miou=0.5, accuracy=0.7, classes=("class 1",)),)
    told = report(history=HISTORY, shown=shown, best_epoch=2)
    path = write_segmentation_report(tmp_path, told, MaskPictures((file.getvalue(),), (views,)))
    html = path.read_text("utf-8")
    assert html.count("<img") == 5
    assert all(s.startswith("data:image/jpeg;base64,") for s in re.findall(r'src="([^"]*)', html))
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert not re.search(r"<(script|link|iframe)|@import|https?://(?!www.w3.org)", html)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert SegmentationReport.model_validate_json((tmp_path / "report.json").read_text()) == told
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["miou"] == pytest.approx(
        told.metrics["miou"]
    )
    drawn = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"loss", "score", "learning_rate", "confusion", "boundaries"}
    text = text_of(html)
    assert "2 epochs in 36 s; the weights of epoch 2 were kept." in text
    assert "50 % mean IoU, 70 % of the pixels right a.jpg" in text
    assert "validation mIoU" in text


def test_an_evaluation_without_a_training_has_no_curves():
    text = text_of(page(report(asked="The network saw each photo mirrored too.")))
    assert "How it learned" not in text
    assert "What it was shown" not in text
    assert "mirrored too." in text


def test_classes_that_do_not_occur_are_said():
    told = report(k=4, metrics=figures(4, absent=1))
    assert "no part of the mean: class 3 ." in text_of(page(told))


def test_many_classes_fold():
    html = page(report(k=40, metrics=figures(40)))
    assert "Only 25 classes" in html


def test_hostile_names_are_only_text(tmp_path: Path):
    classes = (HOSTILE, "}} {{ 7*7 }}", "$x^{$")
    metrics = {**figures()}
    for part in ("iou", "per_class"):
        metrics[part] = dict(zip(classes, metrics[part].values(), strict=True))
    told = report(
        title=HOSTILE,
        classes=classes,
        metrics=metrics,
        command=HOSTILE,
        shown=(Shown(path=HOSTILE, standing="worst", miou=0, accuracy=0, classes=classes),),
        data=Masks(
            layout=HOSTILE,
            totals={"test": 5},
            pixels={"test": dict.fromkeys(classes, 5)},
            ignored={"test": 5},
            skipped={HOSTILE: HOSTILE},
        ),
    )
    html = write_segmentation_report(tmp_path, told).read_text("utf-8")
    assert "<script" not in html
    assert html.count("&lt;script") >= 8
    assert "{{ 7*7 }}" in html


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, {}),
        (1, {"best": [0]}),
        (2, {"best": [0], "worst": [1]}),
        (3, {"best": [0], "median": [1], "worst": [2]}),
        (7, {"best": [0, 1], "median": [2, 3], "worst": [5, 6]}),
        (101, {"best": [0, 1, 2], "median": [49, 50, 51], "worst": [98, 99, 100]}),
    ],
)
def test_best_median_and_worst(number: int, expected: dict[str, list[int]]):
    photos = {place: PhotoScore(1 - place / 200, 0.5) for place in reversed(range(number))}
    photos[1000] = PhotoScore(None, None)  # all ignored
    found: dict[str, list[int]] = {}
    for standing, place in chosen(photos):
        found.setdefault(standing, []).append(place)
    assert found == expected


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 20, 32, seed=0)
    return open_pairs(folder)


def first_class(pixels: torch.Tensor) -> list[Piece]:
    """A network that always says ground."""
    found = torch.zeros(len(NAMES), *pixels.shape[:2])
    found[0] = 1
    return [Piece(0, 0, found)]


def test_photos_of_the_page(scenes: PairSet):
    batches = evaluation_pairs(scenes, "test", preprocess=PREPROCESS, workers=0)
    counts = evaluate_pairs(first_class, batches, num_classes=len(NAMES))
    shown, views = collect(first_class, scenes, counts.photos, PREPROCESS, split="test")
    assert len(shown) == len(views) == 3
    assert [one.standing for one in shown] == ["best", "median", "worst"]
    assert shown[0].miou >= shown[1].miou >= shown[2].miou
    assert {one.path for one in shown} <= {pair.photo for pair in scenes.of("test")}
    assert all(one.classes[0] == "ground" for one in shown)
    for picture in (views[0].photo, views[0].truth, views[0].answer, views[0].errors):
        with Image.open(io.BytesIO(picture)) as image:
            assert image.size == (32, 32)
    told = report(
        k=4,
        classes=NAMES,
        colours=scenes.colours,
        metrics=counts.figures(NAMES),
        shown=shown,
        data=Masks.of(audit_pairs(scenes, workers=0)),
    )
    html = page(told, MaskPictures(shown=views))
    text = text_of(html)
    assert text.index("The best") < text.index("In the middle") < text.index("The worst")
    assert "14 photos with masks for training, 2 for validation, 4 for test" in text
    assert "#c83c28" in html  # the colour of discs
    with pytest.raises(ValueError, match="1 pictures of 3"):
        page(told, MaskPictures(shown=views[:1]))


def test_samples_are_what_the_network_sees(scenes: PairSet):
    pixels = torch.full((3, 20, 30, 1), 100, dtype=torch.uint8)
    batch = PairBatch(pixels, torch.zeros(3, 20, 30, dtype=torch.uint8), torch.arange(3))
    samples = pair_samples(batch, scenes, limit=2)
    assert len(samples) == 2
    with Image.open(io.BytesIO(samples[0])) as image:
        assert image.size == (30, 20)
        assert abs(np.asarray(image).astype(int) - 55).max() < 8  # ground is black, at 45 %


def test_what_cannot_be_written_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="gone: the report cannot be written"):
        write_segmentation_report(tmp_path / "gone", report())
