"""`xception predict` and `xception evaluate` with a model that segments."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from segmenters import small_segmenter

from xception.data.scenes import SCENE_CLASSES, write_scenes
from xception.deploy.segment import PhotoSegmenter
from xception.evaluation.segmentation_report import SegmentationReport
from xception.weights.model_file import save_model

NAMES = tuple(name for name, _ in SCENE_CLASSES)


def save_run(folder: Path, **fields: Any) -> Path:
    """A run folder with a model that segments."""
    folder.mkdir()
    network = small_segmenter()
    card = network.card.model_copy(update={"classes": NAMES, **fields})
    save_model(folder / "model.safetensors", network, card)
    return folder


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "scenes 1")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "Szenen é"
    write_scenes(folder, 20, 40, seed=1)
    return folder


def test_predict_writes_masks(xception, segmenting: Path, scenes: Path, tmp_path: Path):
    photos, out = scenes / "test/images", tmp_path / "masks é"
    result = xception("predict", segmenting, photos, "--out", out, "--json", "--probabilities")
    assert (result.status, result.stderr) == (0, "")
    answers = json.loads(result.stdout)
    assert [Path(answer["path"]).name for answer in answers] == sorted(
        path.name for path in photos.iterdir()
    )
    for answer in answers:
        assert set(answer) == {"path", "mask", "overlay", "coverage", "probabilities"}
        with Image.open(answer["mask"]) as mask:
            classes = np.asarray(mask)
        assert classes.shape == (40, 40)
        assert list(answer["coverage"]) == list(NAMES)
        assert answer["coverage"] == {
            name: (classes == number).mean() for number, name in enumerate(NAMES)
        }
        with np.load(answer["probabilities"], allow_pickle=False) as stored:
            assert (stored["probabilities"].argmax(2) == classes).mean() > 0.99
    assert len(list(out.iterdir())) == 3 * len(answers)


def test_predict_prints_a_table_and_errors(
    xception, segmenting: Path, scenes: Path, tmp_path: Path
):
    photo = next((scenes / "test/images").iterdir())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing more")
    out = tmp_path / "out"
    missing = tmp_path / "no.jpg"
    result = xception("predict", segmenting, photo, broken, missing, photo, "--out", out)
    assert result.status == 1
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["photo", "covered", "by", "mask"]
    assert sum("%" in row for row in rows) == 2
    assert sum("unreadable" in row for row in rows) == 2
    assert "2 of 4 files could not be read" in result.stderr
    names = sorted(path.name for path in out.glob("*.mask.png"))
    assert names == [f"{photo.stem}-2.mask.png", f"{photo.stem}.mask.png"]


def test_predict_goes_on_after_a_photo_that_is_too_large(xception, scenes: Path, tmp_path: Path):
    run = save_run(tmp_path / "run", training={"joint": {"shorter_side": 384}})
    photo = next((scenes / "test/images").iterdir())
    sliver = tmp_path / "sliver.png"
    Image.new("RGB", (1, 20_000)).save(sliver)
    result = xception("predict", run, sliver, photo, "--out", tmp_path / "out", "--json")
    assert result.status == 1
    refused, answered = json.loads(result.stdout)
    assert refused["error"].startswith("an image of 7680001x385 pixels is too large")
    assert (refused["mask"], refused["coverage"]) == (None, {})
    assert Path(answered["mask"]).is_file()
    assert f"{sliver}: an image of" in result.stderr
    assert "1 of 2 files could not be read" in result.stderr


def test_predict_again_into_a_folder_below_the_photos(
    xception, segmenting: Path, scenes: Path, tmp_path: Path
):
    """The second run answers like the first: masks and overlays are no photos."""
    photos = tmp_path / "photos"
    shutil.copytree(scenes / "test/images", photos)
    Image.new("RGB", (65_501, 1)).save(photos / "long.png")  # whose overlay is a PNG
    out = photos / "masks"
    first = xception("predict", segmenting, photos, "--out", out, "--json")
    assert (first.status, first.stderr) == (0, "")
    assert len(list(out.glob("*.overlay.png"))) == 1
    written = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(written) == 2 * 5
    second = xception("predict", segmenting, photos, "--out", out, "--json")
    assert (second.status, second.stderr, second.stdout) == (0, "", first.stdout)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written
    # Elsewhere they are pictures like others, and a photo that lies there is still refused.
    elsewhere = xception("predict", segmenting, out, "--out", tmp_path / "other", "--json")
    assert len(json.loads(elsewhere.stdout)) == 2 * 5
    named = next(out.glob("*.mask.png"))
    for arguments, message in [
        ([named], f"the photo {named} lies there; name another folder"),
        ([out], "only what an earlier run wrote there was found; name photos"),
    ]:
        result = xception("predict", segmenting, *arguments, "--out", out)
        assert (result.status, result.stdout) == (2, "")
        assert message in result.stderr
    shutil.copy(photos / "long.png", out / "one more.png")
    result = xception("predict", segmenting, photos, "--out", out)
    assert result.status == 2
    assert "one more.png lies there; name another folder" in result.stderr


def test_predict_looks_as_it_is_told(xception, segmenting: Path, scenes: Path, tmp_path: Path):
    photo = next((scenes / "test/images").iterdir())

    def coverage(*options: str) -> dict[str, float]:
        result = xception("predict", segmenting, photo, "--out", tmp_path, "--json", *options)
        assert result.status == 0, result.stderr
        return json.loads(result.stdout)[0]["coverage"]

    plain = coverage()
    assert coverage() == plain
    looks = (["--mirror"], ["--scales", "0.5,1,1.5"], ["--output-stride", "8"])
    assert all(coverage(*look) != plain for look in looks)


def test_predict_refuses_what_is_asked_wrongly(
    xception, segmenting: Path, trained: Path, scenes: Path, tmp_path: Path
):
    photo = next((scenes / "test/images").iterdir())
    out = ["--out", tmp_path / "o"]
    for run, arguments, message in [
        (segmenting, [], "--out FOLDER says where the masks go"),
        (segmenting, [*out, "--scales", "1,x"], "no list of numbers"),
        (segmenting, [*out, "--scales", "9"], "between 0.1 and 4"),
        (segmenting, [*out, "--output-stride", "4"], "--output-stride"),
        (segmenting, [*out, "--csv", tmp_path / "a.csv"], "--csv"),
        (segmenting, [*out, "--explain", tmp_path / "e"], "--explain"),
        (segmenting, ["--out", photo.parent], "lies there; name another folder"),
        (trained, out, "--out"),
        (trained, ["--mirror"], "--mirror"),
    ]:
        result = xception("predict", run, photo, *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr
        assert result.stdout == ""


def test_evaluate(xception, segmenting: Path, scenes: Path, tmp_path: Path):
    judged = tmp_path / "judged"
    result = xception(
        "evaluate", segmenting, scenes, "--json", "--report", judged, "--workers", "0", "--mirror"
    )
    assert result.status == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["samples"], found["split"], found["skipped"]) == (4, "test", {})
    assert found["pixels"] + found["ignored"] == 4 * 40 * 40
    assert list(found["iou"]) == list(NAMES)
    assert list(found["trimap"]) == ["1", "2", "4", "8", "16", "32"]
    assert 0 <= found["miou"] <= 1
    told = SegmentationReport.model_validate_json((judged / "report.json").read_text("utf-8"))
    assert told.metrics["miou"] == found["miou"]
    assert told.asked == "The network saw each photo mirrored too."
    assert told.data is not None
    assert told.data.totals == {"test": 4}
    assert told.data.findings == ()  # nothing of what a training would want
    html = (judged / "report.html").read_text("utf-8")
    assert html.count("<img") == 4 * 3 + 4
    assert "Szenen é" in html


def test_evaluate_goes_on_after_a_photo_that_is_too_large(xception, tmp_path: Path):
    """4000 / 1 times 384 rows: it is named and left out, and the others are measured."""
    run = save_run(tmp_path / "run", training={"joint": {"shorter_side": 384}})
    folder = tmp_path / "scenes"
    write_scenes(folder, 20, 40, seed=1)
    plain = xception("evaluate", run, folder, "--json", "--workers", "0")
    assert plain.status == 0
    for kind in ("images", "masks"):
        path = next((folder / "test" / kind).iterdir())
        with Image.open(path) as image:
            image.resize((4000, 1)).save(path.with_name("sliver.png"))
    judged = tmp_path / "judged"
    result = xception("evaluate", run, folder, "--json", "--workers", "0", "--report", judged)
    assert result.status == 0, result.stderr
    found = json.loads(result.stdout)
    skipped = found.pop("skipped")
    assert list(skipped) == ["test/images/sliver.png"]
    assert skipped["test/images/sliver.png"].startswith("an image of 385x1536001 pixels is too")
    assert found == {
        name: value for name, value in json.loads(plain.stdout).items() if name != "skipped"
    }
    assert "test/images/sliver.png: an image of 385x1536001 pixels is too large" in result.stderr
    assert "skipping 1 unusable pair" in result.stderr
    told = SegmentationReport.model_validate_json((judged / "report.json").read_text("utf-8"))
    assert told.data is not None
    assert (told.data.totals, told.data.skipped) == ({"test": 4}, skipped)
    for name in ("images", "masks"):
        for path in (folder / "test" / name).iterdir():
            if path.stem != "sliver":
                path.unlink()
    result = xception("evaluate", run, folder, "--split", "test", "--workers", "0")
    assert result.status == 2
    assert "can be used; test/images/sliver.png: an image of 385x1536001" in result.stderr


def test_bands_are_said_aloud(
    xception, segmenting: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PhotoSegmenter, "in_bands", lambda self, height, width: True)
    photo = scenes / "test/images/0008.jpg"
    result = xception("predict", segmenting, photo, "--out", tmp_path)
    assert result.status == 0
    assert f"{photo}: 40x40 pixels, computed in overlapping bands of rows" in result.stderr
    result = xception("evaluate", segmenting, scenes, "--workers", "0")
    assert result.status == 0
    assert "4 large photos computed in overlapping bands of rows" in result.stderr


def test_evaluate_prints_figures(xception, segmenting: Path, scenes: Path):
    result = xception("evaluate", segmenting, scenes, "--split", "all", "--workers", "0", "--quiet")
    assert (result.status, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "iou", "precision", "recall", "pixels"]
    assert re.search(r"mean IoU [\d.]+ %, [\d.]+ % of the pixels right on 20 photos", result.stdout)
    assert "of a boundary: " in result.stdout


def test_evaluate_matches_classes_by_name(xception, scenes: Path, tmp_path: Path):
    """A model whose classes stand in another order is measured the same."""
    turned = save_run(tmp_path / "turned", classes=NAMES[::-1])
    result = xception("evaluate", turned, scenes, "--json", "--workers", "0", "--quiet")
    assert list(json.loads(result.stdout)["iou"]) == list(NAMES[::-1])
    other = save_run(tmp_path / "other", classes=("ground", "disc", "square", "hexagon"))
    result = xception("evaluate", other, scenes, "--workers", "0")
    assert result.status == 2
    assert "triangle" in result.stderr


def test_evaluate_refuses_what_does_not_fit(
    xception, segmenting: Path, trained: Path, photos: Path, scenes: Path, tmp_path: Path
):
    weights = tmp_path / "w.yaml"
    weights.write_text("disc: 2\n")
    for run, data, arguments, message in [
        (segmenting, photos, [], "has none with masks"),
        (segmenting, scenes, ["--class-weights", weights], "--class-weights"),
        (segmenting, scenes, ["--report", segmenting], "a run with a report of its own"),
        (segmenting, tmp_path / "no", [], "no"),
        (trained, photos, ["--scales", "1,2"], "--scales"),
        (trained, photos, ["--ignore", "0"], "--ignore"),
    ]:
        result = xception("evaluate", run, data, "--workers", "0", *arguments)
        assert result.status == 2, (arguments, result.stderr)
        assert message in result.stderr


def test_unknown_values_are_refused_and_damaged_pairs_are_counted(
    xception, segmenting: Path, tmp_path: Path
):
    folder = tmp_path / "scenes"
    write_scenes(folder, 20, 40, seed=2)
    mask = next((folder / "test/masks").iterdir())
    mask.write_bytes(mask.read_bytes()[:60])
    result = xception("evaluate", segmenting, folder, "--json", "--workers", "0")
    assert result.status == 0
    found = json.loads(result.stdout)
    assert found["samples"] == 3
    assert list(found["skipped"]) == [f"test/images/{mask.stem}.jpg"]
    assert "skipping 1 unusable pair" in result.stderr
    Image.fromarray(np.full((40, 40), 77, np.uint8)).save(mask)
    result = xception("evaluate", segmenting, folder, "--workers", "0")
    assert result.status == 2
    assert f"77 (1,600 pixels in 1 mask: test/masks/{mask.name})" in result.stderr
    assert "training masks" not in result.stderr
