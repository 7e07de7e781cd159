from pathlib import Path

import pytest

from xception.deploy.server.keys import Keys, read_keys
from xception.errors import UserError

FIRST, SECOND = "a" * 16, "correct-horse-battery-staple"


def test_only_a_bearer_of_a_known_key_comes_in():
    keys = Keys([FIRST, SECOND])
    assert keys.open_for(f"Bearer {FIRST}")
    assert keys.open_for(f"bearer  {SECOND}")
    for header in (
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {FIRST}x",
        f"Bearer {FIRST[:-1]}",
        f"Basic {FIRST}",
        FIRST,
        f"Bearer {FIRST} {SECOND}",
        "Bearer \udcff",
    ):
        assert not keys.open_for(header)


def test_keys_are_not_kept():
    assert FIRST not in repr(vars(Keys([FIRST])))


def test_a_file_of_keys(tmp_path: Path):
    file = tmp_path / "keys é.txt"
    file.write_text(f"# for the shop\n{FIRST}\r\n\n  {SECOND}  \n", "utf-8")
    keys = read_keys(file)
    assert keys.open_for(f"Bearer {FIRST}")
    assert keys.open_for(f"Bearer {SECOND}")
    assert not keys.open_for("Bearer # for the shop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no key"),
        (b"# nothing\n\n", "holds no key"),
        (b"# x\nshort\n", r"line 2: a key has 16 to 256 characters"),
        (b"two words in a single line\n", "line 1"),
        ("schlüsselschlüssel".encode(), "line 1"),
        (b"x" * 257, "line 1"),
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_files_that_hold_no_keys(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_keys(tmp_path / "keys")


def test_no_key_is_cut_off(tmp_path: Path):
    """With 20 characters of a key before the end of the largest file, and the rest behind it."""
    key = "".join(map(chr, range(65, 65 + 40)))
    (tmp_path / "keys").write_text("#" + "x" * (2**20 - 22) + f"\n{key}")
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_keys(tmp_path / "keys")
    (tmp_path / "keys").write_text("#" + "x" * (2**20 - 42) + f"\n{key}")
    assert (tmp_path / "keys").stat().st_size == 2**20
    assert read_keys(tmp_path / "keys").open_for(f"Bearer {key}")


def test_no_file_of_keys(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        read_keys(tmp_path / "keys")
