"""Zip files that Python's own library wrote."""

import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from xception.weights.readers.source import Source, Unsound
from xception.weights.readers.zip_files import content, directory, stored, unpacked

MEMBERS = {"a.txt": b"some text", "folder/b": bytes(range(256)) * 50, "empty": b"", "ü": b"\0"}


def write(path: Path, method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.mkdir("folder")
        for name, data in MEMBERS.items():
            file.writestr(name, data)
        file.comment = comment
    return path


def check(path: Path, method: int) -> None:
    with path.open("rb") as file, ExitStack() as stack:
        source = Source(file, 0, path.stat().st_size)
        entries = directory(source)
        assert list(entries) == list(MEMBERS)
        for name, data in MEMBERS.items():
            assert content(source, entries[name]) == data
            part = unpacked(source, entries[name], stack)
            assert part.read(0, part.size) == data
            if method == zipfile.ZIP_STORED:
                assert stored(source, entries[name]).file is file
            elif data:
                with pytest.raises(Unsound, match="compressed"):
                    stored(source, entries[name])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"a comment PK\5\7"])
def test_every_member(method, comment, tmp_path):
    check(write(tmp_path / "a.zip", method, comment), method)


@pytest.mark.parametrize("what", ["ZIP64_LIMIT", "ZIP_FILECOUNT_LIMIT"])
def test_sizes_of_64_bits(what, tmp_path, monkeypatch):
    """As above 4 GB or 65,535 members: the numbers stand in fields of their own."""
    monkeypatch.setattr(zipfile, what, 2)
    path = write(tmp_path / "a.zip")
    assert b"PK\6\6" in path.read_bytes()
    check(path, zipfile.ZIP_STORED)


def test_a_member_that_is_longer_or_shorter_than_it_says(tmp_path):
    path = write(tmp_path / "a.zip", zipfile.ZIP_DEFLATED)
    good = path.read_bytes()
    for size in (12_799, 12_801, 20_000):
        lie = good.replace((12_800).to_bytes(4, "little"), size.to_bytes(4, "little"))
        path.write_bytes(lie)
        with path.open("rb") as file:
            source = Source(file, 0, len(lie))
            entry = directory(source)["folder/b"]
            with pytest.raises(Unsound, match="another size"):
                content(source, entry)
