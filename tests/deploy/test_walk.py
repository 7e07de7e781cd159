import os
from pathlib import Path

import pytest

from xception.data.folders import list_images
from xception.data.images import ImageError
from xception.deploy import walk
from xception.deploy.storage import read_photo
from xception.deploy.walk import photos_at
from xception.errors import UserError

NAMES = [
    "10.jpg", "9.jpg", "B.PNG", "a.webp", "a/2.jpg", "a/10.jpg", "a1/x.jpg", "a b/x.jpg",
    "z/deep/er/1.tif", ".hidden.jpg", ".hidden/1.jpg", "notes.txt", "1.gradcam.jpg", "é/1.jpg",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).touch()
    (tmp_path / "p" / "empty").mkdir()
    return tmp_path / "p"


def test_the_same_photos_in_the_same_order_as_a_list(folder: Path):
    found = list(photos_at(folder))
    assert found == list_images(folder)
    assert len(found) == 10


def test_large_folders_are_sorted_by_letters(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(walk, "MANY", 3)
    found = list(photos_at(folder))
    assert sorted(found) == sorted(list_images(folder))
    assert found.index(folder / "10.jpg") < found.index(folder / "9.jpg")


def test_circles_of_links_end(folder: Path):
    os.symlink(folder, folder / "a" / "circle")
    os.symlink(folder / "z", folder / "link")
    assert list(photos_at(folder)) == list_images(folder)


def test_files_and_patterns(folder: Path):
    assert list(photos_at(folder / "notes.txt")) == [folder / "notes.txt"]
    assert list(photos_at(folder / "*.jpg")) == [folder / "9.jpg", folder / "10.jpg"]


def test_nothing_there(folder: Path):
    for path, message in [
        (folder / "empty", "no image files there"),
        (folder / "no", "does not exist"),
        (folder / "*.bmp", "no image files there"),
    ]:
        with pytest.raises(UserError, match=message):
            photos_at(path)


def test_found_as_they_are_needed(folder: Path):
    found = photos_at(folder)
    first = next(found)
    assert first == list_images(folder)[0]
    (folder / "z" / "new.jpg").touch()
    assert folder / "z" / "new.jpg" in list(found)


def test_a_folder_that_cannot_be_read_is_missed_among_the_photos(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    scandir, closed = os.scandir, folder / "a"

    def refuse(path: Path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    expected = [path for path in list_images(folder) if path.parent != closed]
    monkeypatch.setattr(os, "scandir", refuse)
    found = list(photos_at(folder))
    assert [path for path in found if path != closed] == expected
    assert found.count(closed) == 1
    with pytest.raises(ImageError) as caught:
        read_photo(closed)
    assert caught.value.reason == "the folder cannot be read (Permission denied)"
    with pytest.raises(UserError, match="a: cannot be read"):
        photos_at(closed)
    monkeypatch.undo()
    with pytest.raises(ImageError, match="now it can"):
        read_photo(closed)


def test_a_link_to_itself_hides_no_photo(folder: Path):
    before = list(photos_at(folder))
    os.symlink(folder / "self", folder / "self")
    assert list(photos_at(folder)) == before
