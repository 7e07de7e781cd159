import zipfile
from pathlib import Path

import pytest
from mask_files import mask, pairs_of, photo, write_files

from xception.data.kind import task_of
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


def test_a_table_decides(tmp_path: Path) -> None:
    files = {"images/1.jpg": b"", "masks/1.png": b"", "a.csv": b"path,label\nimages/1.jpg,hat\n"}
    folder = write_files(tmp_path, files)
    assert task_of(folder) == task_of(folder / "a.csv") == "classification"
    (folder / "a.csv").write_text("name,r,g,b\n")  # a list of classes is no table of photos
    assert task_of(folder) == "segmentation"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        task_of(tmp_path / "gone")
