"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from xception.errors import UserError


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Put what `write` writes at `path`; if anything interrupts it, the old file stays there.

    The bytes go to `.NAME.part` beside it and reach the disk before the name changes; a killed
    process leaves at most that one part behind, which the next writing replaces.

    Raises:
        UserError: the folder cannot be written to, the disk is full, …
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        # A new file: what lies there meanwhile, a link perhaps, is not followed.
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:  # also Ctrl-C, and a source that cannot be read to its end
        with contextlib.suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut too; Windows cannot open a folder."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
