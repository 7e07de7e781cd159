"""Names for the files that belong to photos."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

MAX_STEM = 200  # bytes of a photo's name in that of its file; file systems take 255 in all


class PictureNames:
    """A name of its own for each photo, whose files stand in one folder though it does not.

    Args:
        taken: whether an earlier run has given a name away.
    """

    def __init__(self, taken: Callable[[str], bool] = lambda name: False):
        self._given: set[str] = set()
        self._next: dict[str, int] = {}  # of a stem, the first number that may be free
        self._taken = taken

    def of(self, path: Path) -> str:
        """The name of the files of a photo, without an ending."""
        stem = os.fsencode(path.stem)[:MAX_STEM].decode(errors="ignore")
        name = stem
        if stem in self._next or self._used(stem):
            # Many photos may have one name: none tries again what those before it have tried.
            for number in count(self._next.get(stem, 2)):
                name = f"{stem}-{number}"
                if not self._used(name):
                    self._next[stem] = number + 1
                    break
        self._given.add(name)
        return name

    def _used(self, name: str) -> bool:
        return name in self._given or self._taken(name)
