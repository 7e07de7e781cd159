"""What the name of a file says. Names are relative paths with forward slashes."""

import posixpath
import re
from collections.abc import Sequence

from xception.data.images import SUFFIXES

#: How the pictures of Grad-CAM end that are written beside photos.
OVERLAY = ".gradcam.jpg"

_SHOWN = 5


def natural(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A key that sorts by the value of numbers, numbers before letters: shot 2, Shot 10, sky.

    Upper and lower case are one, but for ties.
    """
    parts = re.split(r"([0-9]+)", text.casefold())
    # A longer number is a larger one. Not as an `int`, which takes some thousands of digits only.
    digits = {p: p.lstrip("0") for p in parts if p.isdecimal()}
    return tuple(
        (0, len(digits[p]), digits[p]) if p in digits else (1, 0, p) for p in parts if p
    ), text


def is_hidden(name: str) -> bool:
    """Whether the file, or a folder above it, is one that people do not see."""
    return name.startswith(".") or "/." in name or "__MACOSX" in name.split("/")


def is_photo(name: str) -> bool:
    """Whether the ending is that of an image, and the file not hidden."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def is_table(name: str) -> bool:
    """Whether the ending is that of a table, and the file not hidden."""
    return name.lower().endswith((".csv", ".tsv")) and not is_hidden(name)


def some(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
