import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xception.data.folders import open_photos
from xception.errors import UserError
from xception.studies import photos as making
from xception.studies.photos import commonness, prepare
from xception.studies.study import Scale

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for split, count in {"train": 6, "validation": 3, "test": 2}.items():
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shade = tuple(max(0, value - number) for value in colour)
                Image.new("RGB", (8, 8), shade).save(root / split / name / f"{number}.png")
    return root


def test_full_scale_takes_the_photos_as_they_are(source: Path, tmp_path: Path):
    assert prepare(source, tmp_path, "photos", "full") == (source, None)


def test_some_photos_keep_split_and_class(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making, "TINY_PHOTOS", {"train": 9, "validation": 100, "test": 100})
    made = open_photos(prepare(source, tmp_path, "photos", "tiny").photos)
    assert [len(made.of(split)) for split in ("train", "validation", "test")] == [9, 9, 6]
    there = {
        (photo.split, hashlib.sha256(photos.read(photo)).digest(), photos.classes[photo.labels[0]])
        for photos in [open_photos(source)]
        for photo in photos.photos
    }
    for photo in made.photos:
        digest = hashlib.sha256(made.read(photo)).digest()
        assert (photo.split, digest, made.classes[photo.labels[0]]) in there


def test_the_same_bytes_everywhere(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(making, "MOSAICS", {"train": 5, "validation": 2, "test": 2})
    for kind in ("photos", "mosaics"):
        digests = set()
        for folder in (tmp_path / f"{kind}1", tmp_path / f"{kind}2"):
            folder.mkdir()
            made = prepare(source, folder, kind, "tiny").photos
            digests.add(hashlib.sha256(made.read_bytes()).digest())
            stamp = made.stat().st_mtime_ns
            assert prepare(source, folder, kind, "tiny").photos.stat().st_mtime_ns == stamp
        assert len(digests) == 1


def test_mosaics_hold_four_photos_and_all_their_labels(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making, "MOSAICS", {"train": 40, "validation": 3, "test": 3})
    ready = prepare(source, tmp_path, "mosaics", "tiny")
    made = open_photos(ready.photos)
    assert made.multilabel
    assert made.classes == ("blue", "green", "red")
    for photo in made.photos:
        pixels = np.asarray(Image.open(io.BytesIO(made.read(photo))).convert("RGB"))
        assert pixels.shape == (64, 64, 3)
        corners = (pixels[r : r + 16, c : c + 16].mean((0, 1)) for r in (8, 40) for c in (8, 40))
        seen = {("red", "green", "blue")[int(mean.argmax())] for mean in corners}
        assert {made.classes[label] for label in photo.labels} == seen
    assert ready.weights is not None
    shares = json.loads(ready.weights.read_text())
    assert list(shares) == ["blue", "green", "red"]
    assert list(shares.values()) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert commonness(3) == pytest.approx([6 / 11, 3 / 11, 2 / 11])


def test_photos_that_will_not_do(source: Path, tmp_path: Path):
    for path in (source / "test/red").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="test photos of every class"):
        prepare(source, tmp_path, "mosaics", "tiny")
    assert not (tmp_path / "photos.zip").exists()


@pytest.mark.parametrize("scale", ["tiny", "full"])
def test_several_labels_a_photo_are_refused(tmp_path: Path, scale: Scale):
    table = tmp_path / "photos.csv"
    table.write_text("path,label,split\n1.png,cat|dog,train\n2.png,cat,train\n")
    for name in "12":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="one label each"):
        prepare(table, tmp_path, "photos", scale)


@pytest.mark.parametrize("scale", ["tiny", "full"])
def test_photos_with_masks_are_refused(tmp_path: Path, scale: Scale):
    root = tmp_path / "scenes"
    for folder, mode in (("images", "RGB"), ("masks", "L")):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            Image.new(mode, (8, 8)).save(root / folder / f"{number}.png")
    with pytest.raises(UserError, match="has masks beside its photos"):
        prepare(root, tmp_path, "photos", scale)


@pytest.mark.skipif(os.name == "nt", reason="such a name cannot be there")
def test_a_class_that_the_table_would_take_for_two_is_refused(source: Path, tmp_path: Path):
    for split in ("train", "validation", "test"):
        (source / split / "red").rename(source / split / "red|rose")
    with pytest.raises(UserError, match=r"'red\|rose' has a \| in its name: rename it"):
        prepare(source, tmp_path, "photos", "tiny")
    assert prepare(source, tmp_path, "photos", "full").photos == source
