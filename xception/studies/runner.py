"""Runs the cells of a study side by side, each in a process of its own."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from xception.errors import Diverged, UserError
from xception.studies.alone import Lock, passed, take
from xception.studies.cells import Cell
from xception.studies.diverged import write_down
from xception.studies.photos import Ready
from xception.training.lock import held

Tell = Callable[[str], None]
_LOOK_EVERY_S = 0.5
_PATIENCE_S = 60  # for a stopped training to save


class Running(NamedTuple):
    """A cell, its process, and the lock that both of us hold."""

    cell: Cell
    process: subprocess.Popen[bytes]
    lock: Lock


def run_cells(
    cells: Sequence[Cell],
    ready: Ready,
    *,
    processes: int,
    launcher: list[str] | None = None,
    tell: Tell,
    done: Callable[[Cell], None],
) -> None:
    """Train every cell that is not done yet.

    Args:
        cells: in the order in which they are begun.
        ready: what they are trained on.
        processes: how many at a time; they share the cores evenly.
        launcher: what starts python's modules, e.g. `["torchrun", "--nproc-per-node", "8"]`.
        tell: takes a line about how it fares.
        done: told of each cell as it is done.

    Raises:
        UserError: a training failed; the others are stopped, saved, and can be gone on with.
    """
    waiting = [cell for cell in cells if cell.row() is None]
    running: list[Running] = []
    pace = Pace(epochs_done(cells), time.monotonic())
    try:
        while waiting or running:
            while len(running) < processes and (free := _next(waiting)):
                cell, lock = free
                waiting.remove(cell)
                running.append(_start(cell, lock, ready.photos, processes, launcher))
            time.sleep(_LOOK_EVERY_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                with one.lock:
                    _collect(one, ready, processes)
                done(one.cell)
            tell(progress(cells, len(running), pace, time.monotonic()))
    finally:
        _stop(running)


class Pace:
    """How long epochs take, by those that were done since the start.

    Args:
        done: epochs at the start.
        now: the time then, in seconds.
    """

    def __init__(self, done: int, now: float):
        self._first = self._done = done
        self._start = self._last = now

    def left_s(self, done: int, left: int, now: float) -> float | None:
        """Seconds that the epochs that are left may take; None before one was done.

        From one epoch to the next the answer falls: that nothing was done yet does not mean that
        it will take longer.
        """
        if done != self._done:
            self._done, self._last = done, now
        if self._done == self._first:
            return None
        each = (self._last - self._start) / (self._done - self._first)
        return max(0.0, left * each - (now - self._last))


def progress(cells: Sequence[Cell], running: int, pace: Pace, now: float) -> str:
    """One line for all cells: how many are done, and how long the others may take.

    Args:
        cells: all of the study.
        running: how many are being trained.
        pace: of the epochs, since the start.
        now: the time, in seconds.
    """
    finished = sum(cell.result.exists() for cell in cells)
    line = f"{finished} of {len(cells)} cells done, {running} running"
    done = epochs_done(cells)
    left = sum(cell.config.epochs for cell in cells) - done
    seconds = pace.left_s(done, left, now)
    if seconds is None or not left:
        return line
    return f"{line}, about {max(1, round(seconds / 60))} min left"


def epochs_done(cells: Sequence[Cell]) -> int:
    """Epochs trained by all cells together."""
    return sum(cell.config.epochs if cell.result.exists() else cell.epochs_done for cell in cells)


def threads(processes: int) -> str:
    """What each training gets as `OMP_NUM_THREADS`: an even share, or what the person set."""
    return os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


def _next(waiting: Sequence[Cell]) -> tuple[Cell, Lock] | None:
    """The first cell in which nothing runs, and its lock.

    A study that was killed alone leaves its trainings behind: they end, and are then gone on with.
    """
    for cell in waiting:
        lock = take(cell.folder)
        if lock is not None and not held(cell.run):
            return cell, lock
        if lock is not None:
            lock.close()
    return None


def _start(
    cell: Cell, lock: Lock, photos: Path, processes: int, launcher: list[str] | None
) -> Running:
    try:
        cell.prepare()
        environment = os.environ | {"OMP_NUM_THREADS": threads(processes)}
        # Files, not pipes: nobody reads while the cell runs, and a full pipe would stop it.
        with cell.answer.open("wb") as answer, cell.log.open("wb") as log:
            process = subprocess.Popen(
                cell.command(photos, launcher),
                stdout=answer,
                stderr=log,
                env=environment,
                pass_fds=passed(lock),
            )
    except BaseException:
        lock.close()
        raise
    return Running(cell, process, lock)


def _collect(one: Running, ready: Ready, processes: int) -> None:
    """Take down what a training that has ended came to, or raise what went wrong."""
    cell, status = one.cell, one.process.returncode
    if status == Diverged.status and ready.weights is None:  # with them chance is not one number
        write_down(cell, ready.photos, threads(processes))
        return
    if status == 0 and ready.weights is not None:
        with cell.answer.open("wb") as answer, cell.log.open("wb") as log:
            judging = cell.judging(ready.photos, ready.weights)
            status = subprocess.run(
                judging, stdout=answer, stderr=log, check=False, pass_fds=passed(one.lock)
            ).returncode
    if status != 0:
        words = cell.log.read_text("utf-8", errors="replace").strip().splitlines()[-3:]
        raise UserError(
            f"{cell.arm}, seed {cell.seed}: failed with exit status {status}: "
            f"{' '.join(words) or 'it said nothing'} ({cell.log})"
        )
    cell.finish()


def _stop(running: Sequence[Running]) -> None:
    """Ask what still runs to save and end; what does not listen is killed."""
    for one in running:
        one.process.terminate()
    for one in running:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(_PATIENCE_S)
        one.process.kill()
        one.process.wait()
        one.lock.close()
