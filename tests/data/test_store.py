import io
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xception.data import images, store
from xception.data.images import ImageError
from xception.data.store import FolderStore, ZipStore
from xception.errors import UserError


def write(folder: Path, *names: str) -> Path:
    """Files that contain their own name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_folder_is_listed_at_every_depth(tmp_path: Path) -> None:
    write(tmp_path, "b/ä ü/2.jpg", "b/1.jpg", "a.txt", ".hidden/x")
    (tmp_path / "empty").mkdir()
    folder = FolderStore(tmp_path)
    assert folder.names() == (".hidden/x", "a.txt", "b/1.jpg", "b/ä ü/2.jpg")
    assert folder.folders() == (".hidden", "b", "b/ä ü", "empty")
    assert folder.read("b/ä ü/2.jpg") == "b/ä ü/2.jpg".encode()
    with pytest.raises(ImageError, match=r"^b/3.jpg: no such file"):
        folder.read("b/3.jpg")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "set/a/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "set/a/up").symlink_to(tmp_path / "set")
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/c").symlink_to(tmp_path / "elsewhere")  # twice is no circle
    (tmp_path / "set/broken").symlink_to(tmp_path / "nowhere")
    folder = FolderStore(tmp_path / "set")
    assert folder.names() == ("a/1.jpg", "b/2.jpg", "broken", "c/2.jpg")
    assert folder.folders() == ("a", "b", "c")


def test_a_zip_is_read_whatever_its_method(tmp_path: Path) -> None:
    members = {"a/1.jpg": b"x" * 5000, "a/ä 2.jpg": b"", "b/": b"", "c/d/e.jpg": bytes(range(256))}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        archive = ZipStore(zipped(tmp_path / f"{method}.zip", members, method))
        assert archive.names() == ("a/1.jpg", "a/ä 2.jpg", "c/d/e.jpg")
        assert archive.folders() == ("a", "b", "c", "c/d")
        for name in archive.names():
            assert archive.read(name) == members[name]
    with pytest.raises(ImageError, match="not in"):
        archive.read("a/3.jpg")


def test_a_zip_behind_other_data_and_with_long_headers(tmp_path: Path) -> None:
    # Self-extracting zips start with a program; some packers add fields to the local header only.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.extra = b"\x99\x99\x04\x00abcd"
        archive.writestr(info, b"content")
    (tmp_path / "x.zip").write_bytes(b"program" * 99 + buffer.getvalue())
    assert ZipStore(tmp_path / "x.zip").read("a.jpg") == b"content"


def test_stores_work_in_other_processes_and_threads(tmp_path: Path) -> None:
    members = {f"{i}.jpg": bytes([i]) * (1000 + i) for i in range(100)}
    archive = ZipStore(zipped(tmp_path / "x.zip", members))
    copy = pickle.loads(pickle.dumps(archive))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.read, list(members) * 5)) == list(members.values()) * 5
    folder = pickle.loads(pickle.dumps(FolderStore(write(tmp_path / "f", "a/1.jpg"))))
    assert folder.read("a/1.jpg") == b"a/1.jpg"


def test_windows_and_dotted_names_are_understood(tmp_path: Path) -> None:
    archive = ZipStore(
        zipped(tmp_path / "x.zip", {"./": b"", "./a/1.jpg": b"1", "b\\2.jpg": b"2", "c\\": b""})
    )
    assert archive.names() == ("a/1.jpg", "b/2.jpg")
    assert archive.folders() == ("a", "b", "c")
    assert archive.read("b/2.jpg") == b"2"


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "C:/a.jpg", "..\\a.jpg", "\\\\host\\a.jpg"]
)
def test_names_that_point_out_of_the_zip_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="points out of it"):
        ZipStore(zipped(tmp_path / "x.zip", {"ok.jpg": b"1", name: b"2"}))


def test_zips_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(UserError, match="not a sound zip file"):
        ZipStore(tmp_path / "no.zip")
    with pytest.raises(UserError, match="unusual method"):
        ZipStore(zipped(tmp_path / "lzma.zip", {"a.jpg": b"1"}, zipfile.ZIP_LZMA))
    twice = zipped(tmp_path / "two.zip", {"a.jpg": b"1", "b.jpg": b"2"}).read_bytes()
    (tmp_path / "two.zip").write_bytes(twice.replace(b"b.jpg", b"a.jpg"))
    with pytest.raises(UserError, match=r"holds a\.jpg twice"):
        ZipStore(tmp_path / "two.zip")
    locked = bytearray(zipped(tmp_path / "ok.zip", {"a.jpg": b"1"}).read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag of a password in the directory
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(UserError, match="encrypted"):
        ZipStore(tmp_path / "locked.zip")


def test_damaged_members_are_errors(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": b"abc" * 400})
    sound = path.read_bytes()
    archive = ZipStore(path)
    for position in range(30 + len("a.jpg"), sound.index(b"PK\x01\x02")):
        damaged = bytearray(sound)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"^a\.jpg: "):
            archive.read("a.jpg")
    path.write_bytes(sound[:20])
    with pytest.raises(ImageError, match="cannot be read"):
        archive.read("a.jpg")
    path.unlink()
    with pytest.raises(ImageError, match="cannot be read"):
        archive.read("a.jpg")


def test_no_member_takes_more_memory_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The directory announces 10 bytes; the stream would unpack to 50 MB.
    path = zipped(tmp_path / "x.zip", {"a.jpg": bytes(50_000_000)})
    lying = path.read_bytes().replace(
        (50_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    )
    (tmp_path / "y.zip").write_bytes(lying)
    with pytest.raises(ImageError, match="damaged"):
        ZipStore(tmp_path / "y.zip").read("a.jpg")
    monkeypatch.setattr(store, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ImageError, match="more than"):
        ZipStore(path).read("a.jpg")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1000)
    (tmp_path / "big.jpg").write_bytes(bytes(1001))
    with pytest.raises(ImageError, match="more than"):
        FolderStore(tmp_path).read("big.jpg")
