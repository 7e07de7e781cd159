import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_files import halves, mask, pairs_of, photo, write_files

from xception.data.images import ImageError
from xception.data.masks import MaskError, UnknownValues
from xception.data.pairs import Pair, PairSet, open_pairs
from xception.data.splits import split_of
from xception.errors import UserError


def opened(folder: Path, files: dict[str, bytes], **options: Any) -> PairSet:
    return open_pairs(write_files(folder, files), **options)


def test_pairs_of_a_folder(tmp_path: Path) -> None:
    files = pairs_of(4, left=2, right=0)
    pairs = opened(tmp_path, files | {"notes.txt": b"hello"})
    assert pairs.of("train") == (
        Pair("train/images/0.jpg", "train/masks/0.png", "train"),
        Pair("train/images/1.jpg", "train/masks/1.png", "train"),
    )
    assert [len(pairs.of(split)) for split in ("validation", "test")] == [1, 1]
    assert pairs.classes == ("class 0", "class 2")
    assert len(pairs.colours) == 2
    assert (pairs.split_made, pairs.unpaired, pairs.ignored) == ((), (), ("notes.txt",))
    assert pairs.layout == "photos in train/images, masks in train/masks and so on"
    assert pairs.notes == (
        "2 classes called after what is in the masks: class 0, class 2; a classes.txt would name "
        "them. 255 does not count",
    )
    first = pairs.pairs[0]
    assert pairs.photo(first) == files[first.photo]
    assert np.array_equal(pairs.mask(first), halves(left=1, right=0))


def test_a_zip_means_the_same_and_survives_pickling(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", pairs_of(4))
    packed = tmp_path / "set.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"wrapped up/{file.relative_to(folder)}")
    plain, zipped = open_pairs(folder), pickle.loads(pickle.dumps(open_pairs(packed)))
    assert zipped.classes == plain.classes
    assert [pair.mask for pair in zipped.pairs] == [f"wrapped up/{p.mask}" for p in plain.pairs]
    for one, other in zip(plain.pairs, zipped.pairs, strict=True):
        assert one.split == other.split
        assert plain.photo(one) == zipped.photo(other)
        assert np.array_equal(plain.mask(one), zipped.mask(other))


def test_a_split_is_made_by_the_content_of_the_photos(tmp_path: Path) -> None:
    files = {f"images/{i}.jpg": photo(seed=i) for i in range(20)}
    files |= {f"masks/{i}.png": mask(halves()) for i in range(20)}
    pairs = opened(tmp_path, files)
    assert pairs.split_made == ("train", "validation", "test")
    for pair in pairs.pairs:
        assert pair.split == split_of(files[pair.photo], test=True)
    assert len({pair.split for pair in pairs.pairs}) > 1


def test_validation_is_cut_off_where_only_a_test_split_is_given(tmp_path: Path) -> None:
    files = {}
    for i in range(20):
        split = "test" if i < 2 else "train"
        files[f"{split}/images/{i}.jpg"] = photo(seed=i)
        files[f"{split}/masks/{i}.png"] = mask(halves())
    pairs = opened(tmp_path, files)
    assert pairs.split_made == ("train", "validation")
    assert len(pairs.of("test")) == 2


def test_classes_of_a_file(tmp_path: Path) -> None:
    files = pairs_of(4) | {"classes.txt": b"road\nsky\nvoid\n", "train/classes.txt": b"a\nb\nc\n"}
    pairs = opened(tmp_path, files)
    assert pairs.classes == ("road", "sky")  # the uppermost file
    assert pairs.notes == ("2 classes from classes.txt; void (2) does not count",)
    assert "classes.txt" not in pairs.ignored


def test_classes_of_a_file_in_a_folder_around(tmp_path: Path) -> None:
    files = {f"around/{name}": data for name, data in pairs_of(4).items()}
    files["elsewhere/classes.txt"] = b"wrong\n"
    files["around/labels.txt"] = b"c\nd\n"
    files["around/classes.json"] = b'["road", "sky"]'
    assert opened(tmp_path, files).classes == ("road", "sky")


def test_classes_that_are_asked_for(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", pairs_of(4) | {"classes.txt": b"road\nsky\n"})
    mine = tmp_path / "mine.json"
    mine.write_text('{"0": "land", "1": "sea"}')
    assert open_pairs(folder, classes=mine).classes == ("land", "sea")
    assert open_pairs(folder, classes=("x", "y", "z")).classes == ("x", "y", "z")
    with pytest.raises(UserError, match="no such file"):
        open_pairs(folder, classes=tmp_path / "gone.txt")
    with pytest.raises(TypeError):
        open_pairs(folder, classes="x")


def test_values_to_ignore(tmp_path: Path) -> None:
    files = pairs_of(4, left=0, right=1)
    files["train/masks/0.png"] = mask(halves(left=4, right=1))
    pairs = opened(tmp_path, files, ignore=[4])
    assert pairs.classes == ("class 0", "class 1")
    assert np.array_equal(pairs.mask(pairs.of("train")[0]), halves(left=255, right=1))


def test_colours(tmp_path: Path) -> None:
    red_and_blue = np.zeros((12, 16, 3), np.uint8)
    red_and_blue[:, :8, 0] = red_and_blue[:, 8:, 2] = 255
    files = {name: data for name, data in pairs_of(4).items() if "images" in name}
    files |= {name.replace("images", "masks").replace("jpg", "png"): mask(red_and_blue)
              for name in list(files)}  # fmt: skip
    pairs = opened(tmp_path / "plain", files)
    assert pairs.classes == ("#0000ff", "#ff0000")
    assert np.array_equal(pairs.mask(pairs.pairs[0]), halves(left=1, right=0))
    pairs = opened(tmp_path / "named", files | {"classes.txt": b"fire 255 0 0\nsea 0 0 255\n"})
    assert pairs.classes == ("fire", "sea")
    assert pairs.colours == ((255, 0, 0), (0, 0, 255))
    assert np.array_equal(pairs.mask(pairs.pairs[0]), halves(left=0, right=1))


def test_a_known_set_needs_no_look_at_the_masks(tmp_path: Path) -> None:
    files = {}
    for split, frame in (("train", 30), ("val", 60), ("test", 90)):
        files[f"c/{split}/images/0001TP_{frame}.jpg"] = photo()
        files[f"c/{split}/masks/0001TP_{frame}.png"] = mask(halves(left=3, right=11))
    pairs = opened(tmp_path, files)
    assert pairs.layout == "CamVid"
    assert pairs.classes[3] == "road"
    assert len(pairs.classes) == 11
    assert pairs.notes == ("11 classes of CamVid; 11 (unlabelled) does not count",)
    assert np.array_equal(pairs.mask(pairs.pairs[0]), halves(left=3, right=255))


def test_lists_of_pascal_voc_are_used(tmp_path: Path) -> None:
    files = {"readme.md": b"", "ImageSets/Segmentation/train.txt": b"0\n1\n",
             "ImageSets/Segmentation/val.txt": b"2\n",
             "ImageSets/Segmentation/default.txt": b"0\n1\n2\n"}  # fmt: skip
    for i in range(3):
        files |= {
            f"JPEGImages/{i}.jpg": photo(seed=i),
            f"SegmentationClass/{i}.png": mask(halves()),
        }
    pairs = opened(tmp_path, files)
    assert set(pairs.ignored) == {"readme.md", "ImageSets/Segmentation/default.txt"}
    assert pairs.notes[0] == "splits by train.txt, val.txt"


def test_an_unknown_value_is_an_error_of_the_mask(tmp_path: Path) -> None:
    pairs = opened(tmp_path, pairs_of(4, right=9) | {"classes.txt": b"a\nb\n"})
    with pytest.raises(UnknownValues, match=r"^train/masks/0\.png: unknown mask values: 9 \(96"):
        pairs.mask(pairs.of("train")[0])


def test_less_photos_and_other_numbers(tmp_path: Path) -> None:
    pairs = opened(tmp_path, pairs_of(8) | {"classes.txt": b"road\nsky\n"})
    fewer = pairs.without(["train/images/0.jpg"])
    assert len(fewer.pairs) == 7
    other = pairs.like(["tree", "sky", "road"])
    assert other.classes == ("tree", "sky", "road")
    assert np.array_equal(other.mask(other.pairs[0]), halves(left=2, right=1))


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    write_files(tmp_path / "classes", {"dress/1.jpg": b"", "hat/1.jpg": b""})
    write_files(tmp_path / "one", pairs_of(4, left=1, right=1))
    write_files(tmp_path / "torn", {name: b"" for name in pairs_of(4)})
    write_files(tmp_path / "test", {n: d for n, d in pairs_of(8).items() if n.startswith("test")})
    for name, message in (
        ("gone", "does not exist"),
        ("x.txt", "is neither a folder nor a zip"),
        ("classes", "no photo with a mask there; put photos into images/"),
        ("one", "the masks show only 'class 1'; at least two"),
        ("torn", "none of the 4 masks can be read; test/masks/3.png: the file is empty"),
        ("test", "has test photos but none to train"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            open_pairs(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(UserError, match=r"no photo with a mask there \(voc\)"):
        open_pairs(tmp_path / "one", layout="voc")
    assert open_pairs(tmp_path / "one", for_training=False).classes == ("class 1",)
    assert len(open_pairs(tmp_path / "test", for_training=False).of("test")) == 2


def test_smoothed_masks_are_refused(tmp_path: Path) -> None:
    files = pairs_of(4) | {"train/masks/0.png": mask(np.arange(192).reshape(12, 16))}
    files["train/masks/1.png"] = mask(np.arange(64, 256).reshape(12, 16))
    with pytest.raises(UserError, match=f"{tmp_path}: the masks hold 256 different numbers"):
        opened(tmp_path, files)


def test_masks_that_cannot_be_read_do_not_keep_the_others_from_being_opened(tmp_path: Path) -> None:
    pairs = opened(tmp_path, pairs_of(4) | {"train/masks/1.png": b"\x89PNG\r\n\x1a\n no more"})
    assert pairs.classes == ("class 0", "class 1")
    with pytest.raises(ImageError, match=r"train/masks/1\.png: "):
        pairs.mask(pairs.of("train")[1])


def test_a_photo_as_a_mask(tmp_path: Path) -> None:
    files = pairs_of(4) | {"classes.txt": b"a\nb\n"}
    files["train/masks/0.png"] = files["train/images/0.jpg"]
    pairs = opened(tmp_path, files)
    with pytest.raises(MaskError, match="a JPEG blurs"):
        pairs.mask(pairs.of("train")[0])
