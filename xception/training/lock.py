"""One training a run folder at a time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    import fcntl

    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is training in {folder}") from None
        yield
