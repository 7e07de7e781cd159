import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from xception.data.images import ImageError
from xception.deploy.storage import is_url, photos_at_url, read_photo
from xception.deploy.walk import photos_at
from xception.errors import UserError

NAMES = [
    "10.jpg", "9.jpg", "B.PNG", "a.webp", "a/2.jpg", "a/10.jpg", "a1/x.jpg", "a b/x.jpg",
    "z/deep/er/1.tif", ".hidden.jpg", ".hidden/1.jpg", "notes.txt", "1.gradcam.jpg", "é/1.jpg",
]  # fmt: skip


@pytest.fixture
def bucket() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for name in NAMES:
        system.pipe_file(f"/bucket/photos/{name}", name.encode())
    yield "memory://bucket/photos"
    system.rm("/bucket", recursive=True)


def test_the_same_photos_in_the_same_order_as_on_disk(bucket: str, tmp_path: Path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [path.relative_to(tmp_path).as_posix() for path in photos_at(tmp_path)]
    assert len(expected) == 10
    for url in (bucket, f"{bucket}/", f"file://{tmp_path}"):
        found = list(photos_at_url(url))
        assert found == [f"{url.rstrip('/')}/{name}" for name in expected]


def test_what_is_found_can_be_read(bucket: str):
    assert [read_photo(url) for url in photos_at_url(f"{bucket}/a")] == [b"a/2.jpg", b"a/10.jpg"]


def test_one_file_and_patterns(bucket: str):
    assert list(photos_at_url(f"{bucket}/notes.txt")) == [f"{bucket}/notes.txt"]
    assert list(photos_at_url(f"{bucket}/*.jpg")) == [f"{bucket}/9.jpg", f"{bucket}/10.jpg"]
    deep = [f"{bucket}/a1/x.jpg", f"{bucket}/a b/x.jpg"]
    assert list(photos_at_url(f"{bucket}/a*/x.jpg")) == deep
    assert list(photos_at_url("memory://*/photos/9.jpg")) == [f"{bucket}/9.jpg"]


def test_a_name_that_means_another_file_is_not_read(bucket: str):
    """To fsspec the second name is the first file."""
    system = fsspec.filesystem("memory")
    names = ["9.jpg", "9.jpg::copy.jpg"]
    for name in names:
        system.pipe_file(f"/bucket/photos/twice/{name}", name.encode())
    found = list(photos_at_url(f"{bucket}/twice"))
    assert sorted(found) == [f"{bucket}/twice/{name}" for name in names]
    assert read_photo(f"{bucket}/twice/9.jpg") == b"9.jpg"
    with pytest.raises(ImageError, match="'::' cannot be read") as caught:
        read_photo(f"{bucket}/twice/9.jpg::copy.jpg")
    assert caught.value.name == f"{bucket}/twice/9.jpg::copy.jpg"


@pytest.mark.parametrize("store", ["memory", "file"])
def test_in_patterns_only_stars_are_special(store: str, tmp_path: Path):
    top = f"{tmp_path}/p" if store == "file" else "/patterns"
    system = fsspec.filesystem(store)
    for name in ("a[1]/1.jpg", "a[1]/2.jpg", "a1/3.jpg", "b?/4.jpg", "bx/5.jpg", "c/d[e]?.jpg"):
        system.makedirs(f"{top}/{name.partition('/')[0]}", exist_ok=True)
        system.pipe_file(f"{top}/{name}", name.encode())
    url = f"{store}://{top.lstrip('/') if store == 'memory' else top}"
    for pattern, names in {
        "a[1]/*.jpg": ["a[1]/1.jpg", "a[1]/2.jpg"],
        "b?/*": ["b?/4.jpg"],
        "*/d[e]?.jpg": ["c/d[e]?.jpg"],
    }.items():
        found = list(photos_at_url(f"{url}/{pattern}"))
        assert found == [f"{url}/{name}" for name in names]
        assert [read_photo(one) for one in found] == [name.encode() for name in names]
    system.rm(top, recursive=True)


def test_links_to_folders_are_not_followed(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"one")
    os.symlink(tmp_path, tmp_path / "a" / "circle")
    os.symlink(tmp_path / "a" / "1.jpg", tmp_path / "2.jpg")
    url = f"file://{tmp_path}"
    found = list(photos_at_url(url))
    assert found == [f"{url}/2.jpg", f"{url}/a/1.jpg"]
    assert read_photo(found[0]) == b"one"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nothing/here", "no such file or folder"),
        ("nowhere://a/b", "Protocol not known: nowhere"),
        ("zip://a::memory://b", "one storage at a time"),
        ("memory://nothing/*.jpg", "no image files there"),
    ],
)
def test_what_is_wrong_is_one_line(url: str, said: str):
    with pytest.raises(UserError, match=said) as caught:
        photos_at_url(url)
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)


def test_a_photo_that_cannot_be_read_is_an_image_error(bucket: str, tmp_path: Path):
    for path, reason in (
        (f"{bucket}/none.jpg", "no such file or directory"),
        ("nowhere://a.jpg", "Protocol not known: nowhere"),
        (tmp_path / "none.jpg", "no such file or directory"),
    ):
        with pytest.raises(ImageError) as caught:
            read_photo(path)
        assert (caught.value.name, caught.value.reason) == (str(path), reason)


def test_what_is_a_url():
    assert all(map(is_url, ("s3://bucket/a", "FILE:///a", "git+ssh://a")))
    assert not any(map(is_url, ("a/b.jpg", "C://a", "://a", "a:/b", Path("s3://a"))))


def test_a_folder_that_cannot_be_read_is_missed_among_the_photos(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    store = type(fsspec.filesystem("memory"))
    names = store.ls

    def refuse(self: object, path: str, **options: object):
        if path.endswith("/photos/a"):
            raise PermissionError("Access Denied")
        return names(self, path, **options)

    expected = [url for url in photos_at_url(bucket) if "/a/" not in url]
    monkeypatch.setattr(store, "ls", refuse)
    found = list(photos_at_url(bucket))
    assert [url for url in found if url != f"{bucket}/a/"] == expected
    assert len(found) == len(expected) + 1
    with pytest.raises(ImageError) as caught:
        read_photo(f"{bucket}/a/")
    assert caught.value.reason == "Access Denied"
    with pytest.raises(UserError, match="Access Denied"):
        photos_at_url(f"{bucket}/a")
    monkeypatch.undo()
    with pytest.raises(ImageError, match="now it can"):
        read_photo(f"{bucket}/a/")
