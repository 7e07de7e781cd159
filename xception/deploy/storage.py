"""Photos in object storage and on other file systems, by URLs that fsspec understands.

`s3://bucket/photos`, `gs://…`, `hf://datasets/…`, `file:///…`: fsspec comes with torch, and names
the library that a storage wants besides. A URL is only ever one that the person at the command
gave.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from xception.data.images import MAX_FILE_BYTES, SUFFIXES, ImageError, read_file
from xception.deploy.walk import in_order, is_meant, unreadable
from xception.errors import UserError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # one letter would be a drive of Windows


def is_url(path: object) -> bool:
    """Whether this is a URL and no path of a disk."""
    return isinstance(path, str) and _URL.match(path) is not None


def read_photo(path: str | Path) -> bytes:
    """The bytes of a photo on disk or at a URL. Raises `ImageError` if it cannot be read."""
    if not is_url(path):
        try:
            return read_file(Path(path), str(path))
        except ImageError as error:
            if os.path.isdir(path):  # `photos_at` could not read it
                raise unreadable(path) from error
            raise
    url = str(path)
    if "::" in url:  # another storage to fsspec, so another file than the name says
        raise ImageError(url, "a name with '::' cannot be read at a URL")
    try:
        system, name = url_to_fs(url)
        if url.endswith("/"):  # so `photos_at_url` calls a folder that it could not read
            system.ls(name)
            raise ImageError(url, "the folder could not be read; now it can, so try again")
        with system.open(name, "rb") as file:
            return file.read(MAX_FILE_BYTES + 1)  # the decoder refuses what is larger
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(url, "no such file or directory") from error
    except Exception as error:  # each storage has its own
        raise ImageError(url, _line(error)) from error


def photos_at_url(url: str) -> Iterator[str]:
    """The URLs of the photos meant by one: of a file, all below a folder, or a pattern with `*`.

    The same and in the same order as `walk.photos_at` would find on disk, but that links to folders
    are not followed; a folder below that cannot be read is given itself, with a slash behind it.
    What storage says of one folder is in memory at a time.

    Raises:
        UserError: there is nothing, no photo, no such storage, a library for it is missing, or the
            folder cannot be read; at once.
    """
    if "::" in url:
        raise UserError(f"{url}: one storage at a time; '::' is not understood")
    with _told(url):
        system, root = url_to_fs(url)
        if "*" in root:
            found = _matching(system, root, url)
        elif system.info(root)["type"] == "directory":
            found = _below(system, root, url.rstrip("/"), "")
        else:
            return iter([url])
        first = next(found, None)
    if first is None:
        raise UserError(f"{url}: no image files there; they end in {' '.join(SUFFIXES)}")
    return chain([first], found)


def _below(system: Any, folder: str, url: str, name: str) -> Iterator[str]:
    """The photos below a folder that is called `name` from the top."""
    try:
        with _told(url):
            entries = system.ls(folder, detail=True)
            system.invalidate_cache(folder)  # millions of entries would be remembered
    except UserError:
        if not name:
            raise
        yield f"{url}/"
        return
    names = []
    for entry in entries:
        last = entry["name"].rstrip("/").rpartition("/")[2]
        if entry["name"].strip("/") == folder.strip("/"):  # S3 may hold an object for the folder
            continue
        if entry["type"] != "directory":
            names.append(last)
        elif not entry.get("islink"):
            names.append(f"{last}/")
    for entry in in_order(names):
        if entry.endswith("/"):
            below = entry[:-1]
            yield from _below(
                system, f"{folder.rstrip('/')}/{below}", f"{url}/{below}", name + entry
            )
        elif is_meant(name + entry):
            yield f"{url}/{entry}"


def _matching(system: Any, pattern: str, url: str) -> Iterator[str]:
    """The photos that a pattern means; the folder before its first `*` is the top."""
    top, shown = (text[: text.index("*")].rpartition("/")[0] for text in (pattern, url))
    only_stars = re.sub(r"[\[?]", r"[\g<0>]", pattern)  # `[` and `?` are letters of names
    matches = system.glob(only_stars, detail=True)
    names = [name[len(top) :].lstrip("/") for name in matches if matches[name]["type"] == "file"]
    yield from (f"{shown}/{name}" for name in in_order(names) if is_meant(name))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Says in one line what a storage says in its own ways."""
    try:
        yield
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{url}: no such file or folder") from error
    except Exception as error:
        raise UserError(f"{url}: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
