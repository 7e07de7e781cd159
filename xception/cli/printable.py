"""Text of others, made harmless for a terminal."""

import re

# Control characters but for the end of a line, and the marks that turn the direction of writing: a
# name may hold them, and a terminal obeys them.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""The text with control characters shown (`\x1b`), not obeyed. Lines stay lines."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
