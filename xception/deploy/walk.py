"""The photos that a person means by a path, one after the other, without a list of all of them."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from xception.data.folders import list_images
from xception.data.images import SUFFIXES, ImageError
from xception.data.names import OVERLAY, is_photo, natural
from xception.errors import UserError

MANY = (
    10_000  # names of one folder; beyond it, sorting by the numbers in them costs too much memory
)


def photos_at(path: Path) -> Iterator[Path]:
    """The image files meant by a path: a file itself, all below a folder, or a pattern with `*`.

    Those that `list_images` finds, and in its order but for folders of more than `MANY` entries,
    which are sorted by their letters. Only the names of one folder, and of those above it, are in
    memory at a time. A folder below that cannot be read is given itself, in the place of its
    photos, so that it is missed among them: `storage.read_photo` says what is wrong with it.

    Raises:
        UserError: there is no such file, no image below the folder, or it cannot be read; at once.
    """
    if not path.is_dir():
        return iter(list_images(path))
    found = _below(path, "", frozenset())
    first = next(found, None)
    if first is None:
        raise UserError(f"{path}: no image files there; they end in {' '.join(SUFFIXES)}")
    return chain([first], found)


def _below(folder: Path, name: str, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The photos below a folder called `name` from the top; never in a circle of links."""
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as entries:
            names = [f"{e.name}/" if _is_folder(e) else e.name for e in entries]
    except OSError as error:
        if not name:
            raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
        yield folder
        return
    for entry in in_order(names):
        if entry.endswith("/"):
            yield from _below(folder / entry[:-1], name + entry, above | {identity})
        elif is_meant(name + entry):
            yield folder / entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look: whoever reads it is told
        return False


def unreadable(folder: str | Path) -> ImageError:
    """What is wrong with a folder that `photos_at` gave in the place of its photos."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return ImageError(str(folder), f"the folder cannot be read ({error.strerror})")
    return ImageError(str(folder), "the folder could not be read; now it can, so try again")


def in_order(names: list[str]) -> list[str]:
    """The names of one folder as they are gone through; those of folders end with a slash."""
    return sorted(names, key=natural if len(names) <= MANY else None)


def is_meant(name: str) -> bool:
    """Whether a file of this name, from the top folder, is a photo and none that we drew."""
    return is_photo(name) and not name.endswith(OVERLAY)
