"""How a study fares: one living line on a terminal; in a pipe a line when something changed."""

import sys


class Line:
    """Takes the state of a study again and again, and shows it where it is new."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self._shown = ""

    def __call__(self, text: str) -> None:
        """Show a line, unless it is the one that stands there."""
        if self.quiet or text == self._shown:
            return
        self._shown = text
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the line."""
        if self._shown and sys.stderr.isatty() and not self.quiet:
            print(file=sys.stderr)
