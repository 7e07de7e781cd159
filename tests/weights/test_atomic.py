import os
import signal
import subprocess
import sys
import time

import pytest

from xception.errors import UserError
from xception.weights.atomic import write_whole
from xception.weights.readers.stored import ForeignFileError


def test_the_new_name_stands_only_when_all_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_whole(path, write)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_the_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path, monkeypatch
):
    synced = []
    fsync = os.fsync

    def note(descriptor):
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), (tmp_path / "file").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "file", lambda file: file.write(b"new"))
    assert synced == [(str(tmp_path / ".file.part"), False), (str(tmp_path), True)]


def test_a_part_left_by_a_killed_process_is_replaced(tmp_path):
    (tmp_path / ".file.part").write_bytes(b"half of something longer")
    write_whole(tmp_path / "file", lambda file: file.write(b"whole"))
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*file: No space left on device"):
        write_whole(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ForeignFileError, RuntimeError])
def test_whatever_interrupts_leaves_the_old_file_and_no_part(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise error(path, "it became shorter")

    with pytest.raises(error):
        write_whole(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_that_lies_where_the_part_is_to_be_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / ".file.part").symlink_to(other)
    write_whole(tmp_path / "file", lambda file: file.write(b"new"))
    assert other.read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


WRITE_FOREVER = """
import sys
from pathlib import Path
from xception.weights.atomic import write_whole
path = Path(sys.argv[1])
while True:
    for letter in (b"a", b"b"):
        def write(file):
            for _ in range(100):  # by and by, so that most moments lie within
                file.write(letter * 50_000)
        write_whole(path, write)
        print(flush=True)
"""


@pytest.mark.usefixtures("unmeasured_children")
def test_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    parts = 0
    for delay_ms in range(0, 30, 2):
        command = [sys.executable, "-c", WRITE_FOREVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # one is written; the next is on its way
            time.sleep(delay_ms / 1000)
            process.send_signal(signal.SIGKILL)
        content = path.read_bytes()
        assert content in (b"a" * 5_000_000, b"b" * 5_000_000)
        parts += (tmp_path / ".file.part").exists()
    assert parts > 0  # or no kill came within a writing
    write_whole(path, lambda file: file.write(b"end"))
    assert os.listdir(tmp_path) == ["file"]
