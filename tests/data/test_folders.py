import os
import pickle
import random
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from xception.data.demo import DEMO_PHOTOS
from xception.data.folders import Photo, PhotoSet, list_images, open_photos
from xception.data.splits import split_of
from xception.errors import UserError


def write(folder: Path, *names: str) -> Path:
    """Files that contain their own name; whether they are images does not matter here."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def zipped(folder: Path, *, under: str = "") -> Path:
    """A zip of a folder, perhaps with one folder around everything."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, under + str(file.relative_to(folder)))
    return path


def table_of(photos: PhotoSet) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name: split and labels."""
    return {
        photo.name: (photo.split, tuple(photos.classes[label] for label in photo.labels))
        for photo in photos.photos
    }


def test_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "hat/1.jpg", "dress/2.PNG", "dress/deep/er/3.webp", "Bag/4.tiff")
    photos = open_photos(tmp_path)
    assert photos.classes == ("Bag", "dress", "hat")
    assert not photos.multilabel
    assert photos.split_made == ("train", "validation", "test")
    assert {name: labels for name, (_, labels) in table_of(photos).items()} == {
        "Bag/4.tiff": ("Bag",),
        "dress/2.PNG": ("dress",),
        "dress/deep/er/3.webp": ("dress",),
        "hat/1.jpg": ("hat",),
    }
    for photo in photos.photos:
        assert photos.read(photo) == photo.name.encode()
        assert photo.split == split_of(photo.name.encode(), test=True)


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("Training", "VAL", "testing"),
                                   ("train", "valid", "Test")])  # fmt: skip
def test_split_folders_by_any_usual_name(tmp_path: Path, names: tuple[str, str, str]) -> None:
    train, validation, test = names
    write(tmp_path, f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{validation}/a/3.jpg",
          f"{test}/c/4.jpg", f"{test}/a/x/5.jpg")  # fmt: skip
    photos = open_photos(tmp_path)
    assert photos.classes == ("a", "b", "c")  # c only in test: of the union all the same
    assert photos.split_made == ()
    assert table_of(photos) == {
        f"{train}/a/1.jpg": ("train", ("a",)),
        f"{train}/b/2.jpg": ("train", ("b",)),
        f"{validation}/a/3.jpg": ("validation", ("a",)),
        f"{test}/c/4.jpg": ("test", ("c",)),
        f"{test}/a/x/5.jpg": ("test", ("a",)),
    }
    assert [photo.name for photo in photos.of("train")] == [f"{train}/a/1.jpg", f"{train}/b/2.jpg"]


def test_zips_and_wrapped_folders_mean_the_same(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "notes.txt"]
    plain = open_photos(write(tmp_path / "plain", *names))
    wrapped = open_photos(write(tmp_path / "w", *(f"inner/set/{name}" for name in names)))
    packed = open_photos(zipped(tmp_path / "plain"))
    both = open_photos(zipped(tmp_path / "w", under="my photos/"))
    expected = table_of(plain)
    assert table_of(packed) == expected
    assert table_of(wrapped) == {f"inner/set/{name}": row for name, row in expected.items()}
    assert table_of(both) == {f"my photos/inner/set/{n}": row for n, row in expected.items()}
    assert plain.classes == wrapped.classes == packed.classes == both.classes
    assert both.ignored == ("my photos/inner/set/notes.txt",)
    again = pickle.loads(pickle.dumps(both))
    assert again.read(again.photos[0]) == b"inner/set/train/a/1.jpg"


def test_what_is_no_photo_is_ignored_and_listed(tmp_path: Path) -> None:
    junk = (".DS_Store", "Thumbs.db", "__MACOSX/a/._1.jpg", "a/.hidden.jpg", "a/notes.txt",
            ".cache/x/1.jpg", "stray.jpg", "b/5.heic")  # fmt: skip
    write(tmp_path, "a/1.jpg", "b/2.jpg", *junk)
    for photos in (open_photos(tmp_path), open_photos(zipped(tmp_path))):
        assert [photo.name for photo in photos.photos] == ["a/1.jpg", "b/2.jpg"]
        assert photos.ignored == tuple(sorted(junk))
        assert photos.classes == ("a", "b")


def test_circular_links_end(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/again").symlink_to(tmp_path)
    assert [photo.name for photo in open_photos(tmp_path).photos] == ["a/1.jpg", "b/2.jpg"]


def test_classes_stand_in_natural_order(tmp_path: Path) -> None:
    names = ["10", "9", "2b", "2a", "Zebra", "apple", "ärmel", "class 10", "class 9", "001"]
    write(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert open_photos(tmp_path).classes == (
        "001", "2a", "2b", "9", "10", "apple", "class 9", "class 10", "Zebra", "ärmel",
    )  # fmt: skip


def test_numbers_of_any_length_have_their_order(tmp_path: Path) -> None:
    long = "1" + 4999 * "0"  # more digits than Python makes a number of
    rows = "path,label\n1.jpg,9\n2.jpg," + long + "\n3.jpg,007\n"
    write(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "t.csv").write_text(rows, "utf-8")
    assert open_photos(tmp_path).classes == ("007", "9", long)


def test_accents_are_one_letter_however_they_are_stored(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert one != two
    rows = "path,label\n1.jpg," + one + "\n2.jpg," + two + "\n3.jpg,hat\n"
    write(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "t.csv").write_text(rows, "utf-8")
    assert open_photos(tmp_path).classes == ("hat", one)


def test_an_empty_class_folder_is_a_class(tmp_path: Path) -> None:
    write(tmp_path / "plain", "a/1.jpg", "b/2.jpg", "d/readme.txt")
    (tmp_path / "plain/c").mkdir()
    (tmp_path / "plain/.git").mkdir()
    assert open_photos(tmp_path / "plain").classes == ("a", "b", "c", "d")
    assert open_photos(zipped(tmp_path / "plain")).classes == ("a", "b", "c", "d")
    write(tmp_path / "split", "train/a/1.jpg", "train/b/2.jpg", "val/b/3.jpg", "docs/x/a.txt")
    (tmp_path / "split/train/c").mkdir()
    (tmp_path / "split/val/a").mkdir()
    assert open_photos(tmp_path / "split").classes == ("a", "b", "c")


def test_missing_splits_are_made(tmp_path: Path) -> None:
    train = [f"train/{'ab'[i % 2]}/{i}.jpg" for i in range(200)]
    photos = open_photos(write(tmp_path / "only train", *train))
    assert photos.split_made == ("train", "validation", "test")
    for name, (split, _) in table_of(photos).items():
        assert split == split_of(name.encode(), test=True)

    photos = open_photos(write(tmp_path / "and test", *train, "test/a/x.jpg", "test/b/y.jpg"))
    assert photos.split_made == ("train", "validation")
    assert [photo.name for photo in photos.of("test")] == ["test/a/x.jpg", "test/b/y.jpg"]
    for name in train:
        assert table_of(photos)[name][0] == split_of(name.encode(), test=False)

    photos = open_photos(write(tmp_path / "and val", *train, "val/a/x.jpg", "val/b/y.jpg"))
    assert photos.split_made == ()
    assert photos.of("test") == ()
    assert len(photos.of("train")) == 200


def test_splits_move_with_nothing_but_the_content(tmp_path: Path) -> None:
    chance = random.Random(0)
    contents = {f"{'ab'[i % 2]}/{i}.jpg": chance.randbytes(20) for i in range(300)}
    contents["b/copy of 0.jpg"] = contents["a/0.jpg"]

    def build(folder: Path, names: list[str], rename: str) -> dict[bytes, set[str]]:
        for name in names:
            path = folder / rename.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[name])
        photos = open_photos(folder)
        found: dict[bytes, set[str]] = {}
        for photo in photos.photos:
            found.setdefault(photos.read(photo), set()).add(photo.split)
        return found

    some = build(tmp_path / "some", list(contents)[:150], "{}")
    more = build(tmp_path / "more", list(contents), "other/{}")
    assert all(more[data] == splits for data, splits in some.items())
    assert all(len(splits) == 1 for splits in more.values())
    assert Counter(split for (split,) in more.values()).keys() == {"train", "validation", "test"}


def test_a_table_beside_its_photos(tmp_path: Path) -> None:
    write(tmp_path, "img/1.jpg", "img/2", "img/3.jpg", "unused.jpg")
    text = "path,label,split\nimg/1.jpg,hat|red,train\nimg/2,,val\nimg/3.jpg,red,test\n"
    (tmp_path / "my table.csv").write_text(text)
    expected = {
        "img/1.jpg": ("train", ("hat", "red")),
        "img/2": ("validation", ()),  # no ending: the table names it, so it counts
        "img/3.jpg": ("test", ("red",)),
    }
    for path in (tmp_path / "my table.csv", tmp_path, zipped(tmp_path)):
        photos = open_photos(path)
        assert table_of(photos) == expected
        assert photos.classes == ("hat", "red")
        assert photos.multilabel
        assert photos.ignored == ("unused.jpg",)
    wrapped = open_photos(zipped(tmp_path, under="top/"))
    assert table_of(wrapped) == {f"top/{name}": row for name, row in expected.items()}


def test_a_table_with_one_label_each_is_not_multilabel(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "t.csv").write_text(f"path,label\n1.jpg,hat\n{tmp_path.resolve()}/2.jpg,cap\n")
    photos = open_photos(tmp_path / "t.csv")
    assert not photos.multilabel
    assert photos.classes == ("cap", "hat")
    assert photos.photos[0] == Photo("1.jpg", (1,), split_of(b"1.jpg", test=True))


def test_other_csv_files_are_no_tables(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "prices.csv").write_text("what,price\nhat,5\n")
    assert open_photos(tmp_path).classes == ("a", "b")


def test_without(tmp_path: Path) -> None:
    photos = open_photos(write(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg"))
    fewer = photos.without(["a/1.jpg", "b/3.jpg", "unknown"])
    assert [photo.name for photo in fewer.photos] == ["a/2.jpg"]
    assert fewer.classes == photos.classes
    assert len(photos.photos) == 3


WRONG = {
    "empty": ((), "no photos there, nothing"),
    "documents": (("a.txt", "b/c.pdf"), "no photos there, only files that end in .pdf, .txt"),
    "flat": (("1.jpg", "2.jpg"), "the photos stand in no folder"),
    "one class": (("dress/1.jpg",), "only the class 'dress'"),
    "flat splits": (("train/1.jpg", "test/2.jpg"), "photos stand directly in test/"),
    "no train": (("val/a/1.jpg", "test/b/2.jpg"), "there is no train/"),
    "mixture": (("train/a/1.jpg", "hat/2.jpg"), "train/ holds class folders, but beside train/"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("packed", [False, True])
def test_folders_that_cannot_be_used(tmp_path: Path, case: str, packed: bool) -> None:
    names, message = WRONG[case]
    (tmp_path / "set").mkdir()
    path = write(tmp_path / "set", *names)
    with pytest.raises(UserError) as caught:
        open_photos(zipped(path) if packed else path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write(tmp_path, "train/1.jpg", "bus/2.jpg", "car/3.jpg")
    assert open_photos(tmp_path).classes == ("bus", "car", "train")


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path, "photos/a/1.jpg", "file.bin")
    with pytest.raises(UserError, match=r"does not exist; did you mean .*photos\?"):
        open_photos(tmp_path / "fotos")
    with pytest.raises(UserError, match=r"does not exist; did you mean .*photos\?"):
        open_photos(tmp_path / "photo" / "a")
    with pytest.raises(UserError, match=r"does not exist$"):
        open_photos(tmp_path / "zzz")
    with pytest.raises(UserError, match=r"neither a folder nor a zip nor a \.csv"):
        open_photos(tmp_path / "file.bin")
    (tmp_path / "half.zip").write_bytes(zipped(tmp_path / "photos").read_bytes()[:-30])
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        open_photos(tmp_path / "half.zip")


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/2.jpg")
    table = tmp_path / "t.csv"
    table.write_text("path,label\na/1.jpg,x\na/2.jgp,y\na/9.jpg,y\n")
    with pytest.raises(
        UserError, match=r"t.csv: 2 of 3 files are not there: a/2.jgp, a/9.jpg; the"
    ):
        open_photos(table)
    table.write_text("path,label\na/1.jpg,|\na/2.jpg,\n")
    with pytest.raises(UserError, match="has no labels at all"):
        open_photos(table)
    table.write_text("path,label,split\na/1.jpg,x,test\na/2.jpg,y,val\n")
    with pytest.raises(UserError, match="has test and validation photos but none to train"):
        open_photos(table)
    table.write_text("path,label\na/1.jpg,x\na/2.jpg,y\n")
    (tmp_path / "u.csv").write_text("path,label\na/1.jpg,x\n")
    with pytest.raises(UserError, match="several tables"):
        open_photos(tmp_path)


def test_a_locked_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: str) -> None:  # true locks do not keep the superuser out
        raise PermissionError(13, "Permission denied", path)

    write(tmp_path, "a/1.jpg", "b/2.jpg")
    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        open_photos(tmp_path)


def test_list_images(tmp_path: Path) -> None:
    write(tmp_path, "2.jpg", "10.jpg", "deep/er/1.PNG", ".x.jpg", "notes.txt", "[odd].jpg")
    (tmp_path / "none").mkdir()

    def names(path: Path) -> list[str]:
        return [str(found.relative_to(tmp_path)) for found in list_images(path)]

    assert names(tmp_path) == ["2.jpg", "10.jpg", "[odd].jpg", "deep/er/1.PNG"]
    assert names(tmp_path / "notes.txt") == ["notes.txt"]  # named, so meant; the decoder will say
    assert names(tmp_path / "[odd].jpg") == ["[odd].jpg"]
    assert names(tmp_path / "1*.jpg") == ["10.jpg"]
    assert names(tmp_path / "**/*.PNG") == ["deep/er/1.PNG"]
    for nothing in ("none", "*.gif"):
        with pytest.raises(UserError, match="no image files there"):
            list_images(tmp_path / nothing)
    with pytest.raises(UserError, match=r"did you mean .*10\.jpg"):
        list_images(tmp_path / "10.jpeg")


def test_the_embedded_photos() -> None:
    photos = open_photos(DEMO_PHOTOS)
    counts = Counter(photo.split for photo in photos.photos)
    assert counts == {"train": 800, "validation": 186, "test": 214}
    assert len(photos.classes) == 10
    assert photos.split_made == ()
    for beside in ("README.md", "LICENSE-photos"):
        assert "CC0" in (DEMO_PHOTOS.parent / beside).read_text()


def test_a_table_of_one_label_each_may_say_that_it_is_one_of_several(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "t.csv").write_text("path,label\n1.jpg,hat|\n2.jpg,cap\n")
    assert open_photos(tmp_path).multilabel
    (tmp_path / "t.csv").write_text("path,label\n1.jpg,hat\n2.jpg,\n")
    with pytest.raises(UserError, match=r"t\.csv, line 3: no label"):
        open_photos(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9/1.jpg", b"a/caf\xe9.jpg", b"a/\xe9.txt", b"\xe9/x.txt"])
def test_names_that_are_not_utf_8_are_refused(tmp_path: Path, name: bytes) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    path = os.fsencode(tmp_path) + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb"):
        pass
    with pytest.raises(UserError, match=r"the name b'.*\\xe9.*' is not UTF-8; rename it"):
        open_photos(tmp_path)
    (tmp_path / "t.csv").write_text("path,label\na/1.jpg,hat\nb/2.jpg,cap\n")
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        open_photos(tmp_path / "t.csv")


def test_to_measure_less_is_needed_than_to_train(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    with pytest.raises(UserError, match="only the class 'a'"):
        open_photos(tmp_path)
    assert open_photos(tmp_path, for_training=False).classes == ("a",)
    (tmp_path / "t.csv").write_text("path,label,split\na/1.jpg,hat,test\n")
    with pytest.raises(UserError, match=r"only the class|none to train"):
        open_photos(tmp_path)
    photos = open_photos(tmp_path, for_training=False)
    assert (photos.photos[0].split, photos.split_made) == ("test", ())


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_lone_split_can_be_measured(tmp_path: Path, split: str) -> None:
    write(tmp_path, f"{split}/a/1.jpg", f"{split}/b/2.jpg")
    with pytest.raises(UserError, match="there is no train/"):
        open_photos(tmp_path)
    photos = open_photos(tmp_path, for_training=False)
    assert photos.classes == ("a", "b")
    assert {photo.split for photo in photos.photos} == {"test" if split == "test" else "validation"}
    assert photos.split_made == ()


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    write(tmp_path, "test/1.jpg", "val/2.jpg")
    assert open_photos(tmp_path, for_training=False).classes == ("test", "val")


def test_pictures_of_ours_are_no_photos_to_predict(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "1.gradcam.jpg", "deep/2.gradcam.jpg")
    assert list_images(tmp_path) == list_images(f"{tmp_path}/*.jpg") == [tmp_path / "1.jpg"]
    named = tmp_path / "1.gradcam.jpg"
    assert list_images(named) == [named]
