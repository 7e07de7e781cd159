"""The same look at many files, in several processes where it pays."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from xception.errors import UserError

Item = TypeVar("Item")
Seen = TypeVar("Seen")

_CHUNK = 100  # items that one process takes at a time
_WORTH_A_PROCESS = 1000  # photos; starting one takes as long as looking at this many

_look: Callable[[Any], Any] | None = None  # of a worker process


def spread(
    look: Callable[[Item], Seen],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    worth_a_process: int = _WORTH_A_PROCESS,
) -> list[Seen]:
    """`look` of every item, in order. `progress` is told from time to time how many are done.

    `look` and what it gives must survive pickling. `workers` is the number of processes; 1 means
    none but this one, None as many as pay: one for each core and each `worth_a_process` items.

    Raises `UserError` if a worker process dies.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = workers or max(1, min(cores or 1, len(items) // worth_a_process))
    seen: list[Seen] = []
    for chunk in _chunks(look, items, workers):
        seen.extend(chunk)
        if progress is not None:
            progress(len(seen))
    return seen


def _chunks(
    look: Callable[[Item], Seen], items: Sequence[Item], workers: int
) -> Iterator[list[Seen]]:
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    if workers == 1:
        yield from ([look(item) for item in chunk] for chunk in chunks)
        return
    # Spawned, not forked: this process may have threads, which a fork would leave hanging.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (look,)) as pool:
        try:
            yield from pool.map(_look_at, chunks)
        except BrokenProcessPool as error:
            raise UserError(
                "a process died while looking at the photos, perhaps for lack of memory; "
                "try again with one worker"
            ) from error


def _start_worker(look: Callable[[Any], Any]) -> None:
    global _look
    _look = look


def _look_at(items: Sequence[Any]) -> list[Any]:
    assert _look is not None
    return [_look(item) for item in items]
