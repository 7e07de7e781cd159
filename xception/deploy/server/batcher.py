"""Photos of several callers, computed together, in threads of their own.

A worker that becomes free takes what is waiting, at most a batch. If that is less than a batch it
waits a little for more, counted from the arrival of the oldest: nobody is kept longer than that for
the sake of others.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

Compute = Callable[[Sequence[Any]], Sequence[Any]]


class Job(NamedTuple):
    """One photo on its way."""

    item: Any
    future: Future[Any]
    arrived: float  # seconds of the clock


class Batcher:
    """Threads that compute what is submitted, several items at once.

    Args:
        compute: one outcome for each item. If it fails for several, each is tried alone.
        batch_size: items computed at once, at most.
        wait_seconds: how long an item may wait for others to join it.
        workers: threads, each with a batch of its own.
        observe: told the items and seconds of each batch, in the worker's thread.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        batch_size: int,
        wait_seconds: float,
        workers: int = 1,
        observe: Callable[[int, float], None] | None = None,
    ):
        self._compute = compute
        self._batch_size = batch_size
        self._wait_seconds = wait_seconds
        self._observe = observe
        self._jobs: OrderedDict[Future[Any], Job] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"compute-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, item: Any) -> Future[Any]:
        """The outcome to come; cancelling it before its batch begins saves work and memory.

        Raises:
            RuntimeError: the batcher is closed.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs[future] = Job(item, future, time.monotonic())
            self._changed.notify()
        future.add_done_callback(self._forget)
        return future

    @property
    def waiting(self) -> int:
        """Items that no worker has taken yet."""
        return len(self._jobs)

    def close(self) -> None:
        """Take nothing more, compute what is there, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def alive(self) -> bool:
        """Whether every worker is there."""
        return all(thread.is_alive() for thread in self._threads)

    def _forget(self, future: Future[Any]) -> None:
        """What was given up does not keep its item, which is large, until a worker comes by."""
        if future.cancelled():
            with self._changed:
                self._jobs.pop(future, None)

    def _work(self) -> None:
        while batch := self._next_batch():
            wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _next_batch(self) -> list[Job]:
        """What to compute next; nothing once all is done and the batcher is closed."""
        with self._changed:
            while True:
                if not self._jobs:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                oldest = next(iter(self._jobs.values()))
                left = oldest.arrived + self._wait_seconds - time.monotonic()
                if len(self._jobs) >= self._batch_size or left <= 0 or self._closed:
                    count = min(len(self._jobs), self._batch_size)
                    return [self._jobs.popitem(last=False)[1] for _ in range(count)]
                self._changed.wait(left)

    def _answer(self, batch: Sequence[Job]) -> None:
        began = time.monotonic()
        try:
            outcomes = self._compute([job.item for job in batch])
            if len(outcomes) != len(batch):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(batch)} items")
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:  # one may be to blame: the others are not to suffer for it
                for job in batch:
                    self._answer([job])
            return
        if self._observe is not None:
            self._observe(len(batch), time.monotonic() - began)
        for job, outcome in zip(batch, outcomes, strict=True):
            job.future.set_result(outcome)


class Pace(NamedTuple):
    """What `find_pace` measured."""

    batch_size: int
    batch_seconds: float


def find_pace(
    compute: Compute,
    example: Any,
    most: int,
    *,
    stretch: float = 1.75,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """The largest batch that takes at most `stretch` times as long as a single item.

    Where a batch is hardly faster than its items one by one, as with large networks on a CPU, it
    only makes the first wait for the last. Where most of the time is overhead, as with small
    networks or on a GPU, many items cost little more than one.

    Sizes are 1, 2, 4, … `most`; of two tries the quicker one counts.
    """
    found = Pace(0, 0.0)
    single = 0.0
    size = 1
    compute([example])  # the first one allocates
    while size <= most:
        seconds = min(_time(compute, [example] * size, clock) for _ in range(2))
        single = single or seconds
        if found.batch_size and seconds > stretch * single:
            break
        found = Pace(size, seconds)
        size *= 2
    return found


def _time(compute: Compute, items: Sequence[Any], clock: Callable[[], float]) -> float:
    began = clock()
    compute(items)
    return clock() - began
