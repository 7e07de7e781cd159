import zipfile
from pathlib import Path

import pytest
from mask_files import mask, pairs_of, photo, write_files

from xception.data.kind import task_of
from xception.data.pairs import open_pairs
from xception.errors import UserError


def test_photos_with_masks_are_for_segmentation(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "set", pairs_of(2))
    assert task_of(folder) == task_of(str(folder)) == "segmentation"
    packed = tmp_path / "set.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"around/{file.relative_to(folder)}")
    assert task_of(packed) == "segmentation"


def test_pairs_that_are_wrong_are_for_segmentation_all_the_same(tmp_path: Path) -> None:
    files = {"images/a.jpg": photo(), "images/a.png": photo(), "masks/a.png": mask([[0]])}
    assert task_of(write_files(tmp_path, files)) == "segmentation"


def test_class_folders_are_for_classification(tmp_path: Path) -> None:
    files = {"dress/1.jpg": b"", "hat/1.jpg": b"", "images/1.jpg": b""}
    assert task_of(write_files(tmp_path, files)) == "classification"


@pytest.mark.parametrize(
    ("photo_name", "mask_name", "right"),
    [
        ("images/1.jpg", "masks/1_gt_mask.png", "images/1.jpg wants masks/1.png"),
        ("images/1.jpg", "masks/mask_1.png", "images/1.jpg wants masks/1.png"),
        ("a/photos/1.jpg", "a/Labels/x/1.png", "a/photos/1.jpg wants a/Labels/1.png"),
        ("images/day 1/1.jpg", "masks/1.png", "images/day 1/1.jpg wants masks/day 1/1.png"),
        ("train/1.jpg", "trainannot/m1.png", "train/1.jpg wants trainannot/1.png"),
        ("V/JPEGImages/1.jpg", "V/SegmentationClass/m.png", "wants V/SegmentationClass/1.png"),
        ("JPEGImages/1.jpg", "SegmentationClassAug/1.png", "wants SegmentationClass/1.png"),
        ("JPEGImages/1.jpg", "masks/1.png", "put photos into images/ and masks of the same names"),
        (
            "leftImg8bit/train/a_1_leftImg8bit.png",
            "gtFine/train/a_1_gtFine_labelIds.png",
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
        ),
    ],
)
def test_masks_that_are_not_called_as_their_photos_are_no_class(
    tmp_path: Path, photo_name: str, mask_name: str, right: str
) -> None:
    folder = write_files(tmp_path, {photo_name: photo(), mask_name: mask([[0]])})
    assert task_of(folder) == "segmentation"
    with pytest.raises(UserError) as caught:
        open_pairs(folder)
    assert right in str(caught.value)
    assert photo_name in str(caught.value)
    assert mask_name in str(caught.value)


def test_folders_of_photos_and_of_boxes_are_not_for_segmentation(tmp_path: Path) -> None:
    files = {
        "images/1.jpg": b"",
        "labels/1.txt": b"0 1 1 1 1",
        "hat/2.jpg": b"",
        "a/masks/3.jpg": b"",
    }
    assert task_of(write_files(tmp_path, files)) == "classification"


def test_a_table_decides(tmp_path: Path) -> None:
    files = {"images/1.jpg": b"", "masks/1.png": b"", "a.csv": b"path,label\nimages/1.jpg,hat\n"}
    folder = write_files(tmp_path, files)
    assert task_of(folder) == task_of(folder / "a.csv") == "classification"
    (folder / "a.csv").write_text("name,r,g,b\n")  # a list of classes is no table of photos
    assert task_of(folder) == "segmentation"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        task_of(tmp_path / "gone")
