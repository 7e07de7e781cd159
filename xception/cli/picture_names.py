"""Names for the files that belong to photos."""

import os
from itertools import count
from pathlib import Path

MAX_STEM = 200  # bytes of a photo's name in that of its file; file systems take 255 in all


class PictureNames:
    """A name of its own for each photo, whose files stand in one folder though it does not."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, path: Path) -> str:
        """The name of the files of a photo, without an ending."""
        stem = os.fsencode(path.stem)[:MAX_STEM].decode(errors="ignore")
        name = stem
        numbered = (f"{stem}-{n}" for n in count(2))
        while name in self._given:
            name = next(numbered)
        self._given.add(name)
        return name
