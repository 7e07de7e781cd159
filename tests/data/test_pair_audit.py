from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_files import halves, mask, pairs_of, photo, write_files

from xception.data.findings import Finding
from xception.data.pair_audit import PairAudit, audit_pairs
from xception.data.pairs import open_pairs

CLASSES = {"classes.txt": b"road\nsky\n"}
PIXELS = 12 * 16  # of a mask


def audited(folder: Path, files: dict[str, bytes], **options: Any) -> PairAudit:
    return audit_pairs(open_pairs(write_files(folder, files)), **options)


def kinds(found: PairAudit) -> dict[str, Finding]:
    assert len({finding.kind for finding in found.findings}) == len(found.findings)
    return {finding.kind: finding for finding in found.findings}


def test_nothing_is_wrong_with_sound_pairs(tmp_path: Path) -> None:
    found = audited(tmp_path, pairs_of(8) | CLASSES)
    assert found.findings == ()
    assert found.refusal is None
    assert (found.photos, found.counts) == (8, {"train": 4, "validation": 2, "test": 2})
    half = PIXELS // 2
    assert found.pixels == {
        "train": {"road": 4 * half, "sky": 4 * half},
        "validation": {"road": 2 * half, "sky": 2 * half},
        "test": {"road": 2 * half, "sky": 2 * half},
    }
    assert found.ignored_pixels == {"train": 0, "validation": 0, "test": 0}
    assert (found.unknown, found.unreadable) == ({}, {})
    assert found.notes == ("2 classes from classes.txt",)
    assert PairAudit.model_validate_json(found.model_dump_json()) == found


def test_unknown_values_refuse_with_count_and_files(tmp_path: Path) -> None:
    files = pairs_of(8) | CLASSES
    values = halves()
    values[:2, :3] = 7
    files["train/masks/0.png"] = mask(values)
    values[0, 0] = 9
    files["test/masks/3.png"] = mask(values)
    found = audited(tmp_path, files)
    error = kinds(found)["unknown_values"]
    assert error.severity == "error"
    assert error.message.startswith(
        "The masks hold values that are none of the 2 classes road, sky: "
        "7 (11 pixels in 2 masks: test/masks/3.png, train/masks/0.png), "
        "9 (1 pixels in 1 mask: test/masks/3.png)."
    )
    assert set(error.files) == {"train/masks/0.png", "test/masks/3.png"}
    assert found.refusal == error.message
    assert found.unknown["7"].pixels == 11
    assert found.unknown["9"].files == ("test/masks/3.png",)
    assert found.unreadable == {}  # nothing is skipped: the whole set is refused


def test_unknown_colours(tmp_path: Path) -> None:
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[:, 8:] = [255, 0, 0]
    files = pairs_of(8) | {"classes.txt": b"road 0 0 0\nsky 255 0 0\n"}
    files |= {name: mask(colours) for name in files if "masks" in name}
    assert audited(tmp_path / "sound", files).refusal is None
    colours[0, 0] = [1, 2, 3]
    files["train/masks/0.png"] = mask(colours)
    found = audited(tmp_path / "odd", files)
    assert "#010203 (1 pixels in 1 mask: train/masks/0.png)" in str(found.refusal)


def test_unknown_values_say_nothing_of_the_other_classes(tmp_path: Path) -> None:
    values = halves()
    values[0, 0] = 7
    files = {name: mask(values) if "masks" in name else data for name, data in pairs_of(8).items()}
    found = audited(tmp_path, files | CLASSES)
    assert set(kinds(found)) == {"unknown_values"}  # not: "Only 0 of the classes road, sky occurs"
    assert found.unknown["7"].pixels == 8


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    files = pairs_of(40) | CLASSES
    files["train/masks/0.png"] = mask(halves(16, 12))
    found = audited(tmp_path / "one", files)
    warning = kinds(found)["size_differs"]
    assert (warning.severity, warning.files) == ("warning", ("train/masks/0.png",))
    assert warning.message.startswith("1 file of another size than the photo, first train/masks/0")
    assert "12 × 16 pixels, but its photo has 16 × 12; it may have been drawn" in warning.message
    assert found.unreadable["train/images/0.jpg"].startswith("its mask train/masks/0.png: 12 × 16")
    assert found.counts["train"] == 19
    assert found.pixels["train"]["road"] == 19 * PIXELS // 2
    for i in (1, 4):
        files[f"train/masks/{i}.png"] = mask(halves(5, 5))
    found = audited(tmp_path / "three", files)
    assert kinds(found)["size_differs"].severity == "error"
    assert "More than 5% of the pairs is too many to skip" in str(found.refusal)


@pytest.mark.parametrize("name", ["images/0.jpg", "masks/0.png"])
def test_a_torn_file(tmp_path: Path, name: str) -> None:
    files = pairs_of(40) | CLASSES
    files[f"train/{name}"] = files[f"train/{name}"][:45]
    found = audited(tmp_path, files)
    warning = kinds(found)["unreadable"]
    assert (warning.severity, warning.files) == ("warning", (f"train/{name}",))
    assert list(found.unreadable) == ["train/images/0.jpg"]
    assert found.counts["train"] == 19
    assert found.refusal is None


def test_partners_that_are_missing(tmp_path: Path) -> None:
    files = pairs_of(8) | CLASSES | {"train/images/x.jpg": photo(), "readme.md": b""}
    found = audited(tmp_path, files)
    assert kinds(found)["unpaired"].files == ("train/images/x.jpg",)
    assert kinds(found)["unpaired"].severity == "warning"
    assert kinds(found)["ignored"].files == ("readme.md",)
    assert found.refusal is None


def test_classes_that_are_absent_or_rare(tmp_path: Path) -> None:
    values = np.zeros((60, 60), np.uint8)
    values[:, 30:] = 1
    values[0, 0] = 2
    files = {"classes.txt": b"road\nsky\nbird\nship\n"}
    for i in range(4):
        split = ("train", "train", "val", "test")[i]
        files[f"{split}/images/{i}.jpg"] = photo(60, 60, seed=i)
        files[f"{split}/masks/{i}.png"] = mask(values if split == "train" else values % 2)
    found = kinds(audited(tmp_path, files))
    assert found["absent_class"].message.startswith("No training mask shows ship:")
    assert "bird (0.03%)" in found["rare_class"].message
    assert found["missing_from_split"].message == (
        "No validation mask shows bird and no test mask shows bird: "
        "there, nothing will be known about that."
    )


def test_one_class_is_refused(tmp_path: Path) -> None:
    found = audited(tmp_path, pairs_of(8, left=1, right=1) | CLASSES)
    assert str(found.refusal).startswith("Only 1 of the classes road, sky occurs in training masks")


def test_ignored_pixels(tmp_path: Path) -> None:
    files = pairs_of(8) | CLASSES
    values = halves()
    values[:6] = 255
    files["train/masks/0.png"] = mask(values)
    found = audited(tmp_path / "some", files)
    assert kinds(found)["ignored_pixels"].severity == "note"
    assert found.ignored_pixels["train"] == PIXELS // 2
    assert kinds(found)["ignored_pixels"].message == "6.2% of all pixels do not count."
    files["train/masks/0.png"] = mask(halves(left=255, right=255))
    blank = kinds(audited(tmp_path / "blank", files))["ignored_pixels"]
    assert blank.severity == "warning"
    assert blank.files == ("train/masks/0.png",)
    much = kinds(audited(tmp_path / "much", pairs_of(8, left=255) | CLASSES
                         | {"train/masks/0.png": mask(halves())}))  # fmt: skip
    assert much["ignored_pixels"].severity == "note"  # 44 %


def test_splits(tmp_path: Path) -> None:
    none = {name: data for name, data in pairs_of(8).items() if not name.startswith("test")}
    assert "no_test" in kinds(audited(tmp_path / "no test", none | CLASSES))
    made = {}
    for i in range(4):
        made[f"images/{i}.jpg"] = photo(seed=i)
        made[f"masks/{i}.png"] = mask(halves())
    found = audited(tmp_path / "made", made | CLASSES)
    assert "Split by the content of each photo" in kinds(found)["split_made"].message
    assert sum(found.counts.values()) == 4


def test_the_same_photo_in_two_splits(tmp_path: Path) -> None:
    files = pairs_of(8) | CLASSES
    files["test/images/3.jpg"] = files["train/images/0.jpg"]
    found = kinds(audited(tmp_path, files))
    assert found["leak"].groups == (("test/images/3.jpg", "train/images/0.jpg"),)


def test_masks_of_two_kinds(tmp_path: Path) -> None:
    files = pairs_of(8) | {"classes.txt": b"road 0 0 0\nsky 255 0 0\n"}
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[:, 8:] = [255, 0, 0]
    files["train/masks/0.png"] = mask(colours)
    found = kinds(audited(tmp_path, files))
    assert found["mixed_masks"].files == ("train/masks/0.png",)
    assert "7 masks are read by number, 1 by colour" in found["mixed_masks"].message


def test_the_digest_is_that_of_photos_and_masks(tmp_path: Path) -> None:
    files = pairs_of(4) | CLASSES
    one = audited(tmp_path / "one", files)
    assert audited(tmp_path / "same", files).digest == one.digest
    for changed in ({"train/masks/0.png": mask(halves(left=1, right=0))},
                    {"train/images/0.jpg": photo(seed=99)}):  # fmt: skip
        assert audited(tmp_path / str(len(changed)), files | changed).digest != one.digest


def test_other_processes_see_the_same(tmp_path: Path) -> None:
    files = pairs_of(104) | CLASSES | {"train/masks/0.png": mask(halves(left=5))}
    pairs = open_pairs(write_files(tmp_path, files))
    done: list[int] = []
    assert audit_pairs(pairs, workers=2, progress=done.append) == audit_pairs(pairs, workers=1)
    assert done == [100, 104]
