"""One JSON document a line for what happens, and never a word of what photos show or are called.

Lines are written by a thread of their own: where nobody reads the pipe that stderr leads to, lines
are dropped and counted, and the server goes on.
"""

import json
import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

#: Lines waiting to be written; more are dropped.
MOST_WAITING = 10_000

_logger = logging.getLogger("xception.server")


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write down that something happened."""
    _logger.log(level, event, extra={"fields": fields})


def log_fault(event: str, error: BaseException, **fields: Any) -> None:
    """Write down a fault of ours, with where it happened."""
    _logger.error(event, exc_info=error, extra={"fields": fields})


@runtime_checkable
class Lines(Protocol):
    """Where text goes, as far as it matters here."""

    def write(self, text: str, /) -> int:
        """Write it, or some of it."""
        ...

    def flush(self) -> None:
        """Hand it on."""
        ...


class JsonLines(logging.Formatter):
    """`{"time", "level", "event", …}`; of other loggers the message is the event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:1000],
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Writer(logging.Handler):
    """Hands lines to a thread that writes them."""

    def __init__(self, stream: Lines):
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1

    def finish(self, seconds: float = 2.0) -> None:
        """Write what is waiting, if that can be done in time."""
        try:
            self._lines.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # closed: there is nowhere left to say so
                self.dropped += 1


@contextmanager
def json_logs(*, quiet: bool = False, stream: Lines | None = None) -> Iterator[Writer]:
    """While the block runs every logger writes JSON lines to `stream` (stderr).

    `quiet`: warnings and errors only.
    """
    writer = Writer(stream or sys.stderr)
    writer.setFormatter(JsonLines())
    root = logging.getLogger()
    levels = {
        root: logging.WARNING,
        _logger: logging.WARNING if quiet else logging.INFO,
        # They warn of what callers do wrongly, which the metrics count.
        logging.getLogger("uvicorn.error"): logging.ERROR,
        logging.getLogger("python_multipart"): logging.ERROR,
    }
    before = {logger: logger.level for logger in levels}
    handlers = root.handlers[:]
    root.handlers[:] = [writer]
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        yield writer
    finally:
        root.handlers[:] = handlers
        for logger, level in before.items():
            logger.setLevel(level)
        writer.finish()
