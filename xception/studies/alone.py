"""One process at a time in a cell, from the moment that the study starts it.

A training locks its run folder once torch is loaded, seconds after it was started. So the study
takes a lock of its own before, and the training inherits it: it is free when both are gone, however
they end. It is that of flock(2), which belongs to the open file and not to a process.
"""

import sys
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

LOCK_FILE = ".lock"  # stays behind, empty
Lock = IO[bytes]


def take(folder: Path) -> Lock | None:
    """The lock of a cell until all copies of the file are closed; None if another has it.

    On Windows it is always to be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("wb")
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
    return file


def taken(folder: Path) -> bool:
    """Whether the lock of a cell is another's, or a study's that goes on."""
    if not (folder / LOCK_FILE).exists():
        return False
    lock = take(folder)
    if lock is not None:
        lock.close()
    return lock is None


def passed(lock: Lock) -> tuple[int, ...]:
    """What a process inherits to hold the lock too: `pass_fds` of subprocess."""
    return () if sys.platform == "win32" else (lock.fileno(),)
