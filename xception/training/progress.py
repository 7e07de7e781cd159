"""What a person sees of a training: one living line on a terminal, plain lines in a pipe."""

import io
import sys
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable


class Step(NamedTuple):
    """How the epoch fares so far."""

    epoch: float  # fractional
    loss: float
    accuracy: float | None  # None where a photo has several labels
    images_per_second: float
    seconds_left: float  # to the end of the training


@runtime_checkable
class Progress(Protocol):
    """Where a training tells how it fares."""

    def note(self, text: str) -> None:
        """A sentence worth reading once."""

    def step(self, step: int, row: Step) -> None:
        """A step is done."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done and validated; `row` is its line of `metrics.csv`."""


class Silent:
    """Says nothing: `--quiet`, and every process but the first."""

    def note(self, text: str) -> None:
        """Nothing."""

    def step(self, step: int, row: Step) -> None:
        """Nothing."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Nothing."""


def _stderr() -> io.TextIOBase:
    return cast(io.TextIOBase, sys.stderr)


@dataclass
class Lines:
    """Lines on a stream; on a terminal the current step rewrites its own line."""

    stream: io.TextIOBase = field(default_factory=_stderr)
    every_s: float = 30.0  # between lines within an epoch, in a pipe
    _last: float = field(default_factory=time.monotonic)
    _open: bool = False  # an unfinished line stands on the terminal

    def note(self, text: str) -> None:
        """A sentence of its own line."""
        self._print(text)

    def step(self, step: int, row: Step) -> None:
        """Loss, accuracy, images a second and the time left."""
        terminal = self.stream.isatty()
        now = time.monotonic()
        if now - self._last < (0.1 if terminal else self.every_s):
            return
        self._last = now
        left = duration(row.seconds_left)
        accuracy = "" if row.accuracy is None else f"  accuracy {row.accuracy:.3f}"
        line = (
            f"epoch {row.epoch:.2f}  loss {row.loss:.3f}{accuracy}"
            f"  {row.images_per_second:.0f} images/s  {left} left"
        )
        if terminal:
            self.stream.write(f"\r\x1b[2K{line}")
            self.stream.flush()
            self._open = True
        else:
            self._print(line)

    def epoch(self, row: dict[str, Any]) -> None:
        """The epoch's training loss and validation figures."""
        figures = "  ".join(
            f"{key.removeprefix('val_')} {row[key]:.3f}"
            for key in row
            if key.startswith("val_") and isinstance(row[key], float)
        )
        judged = f"  validation: {figures}" if figures else ""
        mark = "  *" if row["best"] else ""
        left = f"  {duration(row['seconds_left'])} left" if row["seconds_left"] >= 1 else ""
        self._print(
            f"epoch {row['epoch']}/{row['epochs']}  train loss {row['train_loss']:.3f}"
            f"{judged}  {row['images_per_second']:.0f} images/s{left}{mark}"
        )
        self._last = time.monotonic()

    def _print(self, text: str) -> None:
        if self._open:
            self.stream.write("\r\x1b[2K")
            self._open = False
        print(text, file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
