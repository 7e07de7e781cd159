"""One training a run folder at a time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from xception.errors import UserError

LOCK_FILE = ".lock"  # stays behind, empty


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder` while the block runs.

    The lock is the process' own (not its loader's) and goes with it, however it ends. On Windows
    there is none.

    Raises:
        UserError: another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    with (folder / LOCK_FILE).open("w") as file:
        if not _take(file):
            raise UserError(f"another process is training in {folder}")
        yield


def held(folder: Path) -> bool:
    """Whether another process is training in `folder`."""
    path = folder / LOCK_FILE
    if sys.platform == "win32" or not path.exists():
        return False
    with path.open("w") as file:
        return not _take(file)


def _take(file: TextIO) -> bool:
    """Take the lock until the file is closed, if it is to be had."""
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
