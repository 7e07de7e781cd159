import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any

import pytest

from xception.deploy.server.batcher import Batcher, find_pace


class Slow:
    """Doubles numbers once it is let go, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.inside = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.inside.release()
        assert self.go.wait(10)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


@pytest.fixture
def slow():
    compute = Slow()
    yield compute
    compute.go.set()


def test_what_came_while_it_was_busy_is_computed_together_in_order(slow: Slow):
    batcher = Batcher(slow, batch_size=4, wait_seconds=0.0)
    first = batcher.submit(0)
    slow.inside.acquire()
    others = [batcher.submit(n) for n in range(1, 7)]
    assert batcher.waiting == 6
    slow.go.set()
    assert [future.result(10) for future in (first, *others)] == [0, 2, 4, 6, 8, 10, 12]
    assert slow.batches == [[0], [1, 2, 3, 4], [5, 6]]
    batcher.close()
    assert not batcher.alive()


def test_an_item_waits_for_others_but_not_for_long(slow: Slow):
    slow.go.set()
    batcher = Batcher(slow, batch_size=3, wait_seconds=0.2)
    futures = [batcher.submit(1), batcher.submit(2)]
    time.sleep(0.02)
    futures.append(batcher.submit(3))
    wait(futures, 10)
    assert slow.batches == [[1, 2, 3]]  # complete: it did not wait any longer
    began = time.monotonic()
    assert batcher.submit(4).result(10) == 8
    assert 0.19 < time.monotonic() - began < 5
    batcher.close()


def test_workers_compute_at_the_same_time(slow: Slow):
    batcher = Batcher(slow, batch_size=1, wait_seconds=0.0, workers=2)
    futures = [batcher.submit(n) for n in range(2)]
    for _ in futures:
        assert slow.inside.acquire(timeout=10)  # both are inside, neither is done
    slow.go.set()
    assert sorted(future.result(10) for future in futures) == [0, 2]
    batcher.close()


def test_what_was_given_up_is_not_computed(slow: Slow):
    batcher = Batcher(slow, batch_size=2, wait_seconds=0.0)
    batcher.submit(0)
    slow.inside.acquire()
    given_up, wanted = batcher.submit(1), batcher.submit(2)
    assert given_up.cancel()
    slow.go.set()
    assert wanted.result(10) == 4
    assert slow.batches == [[0], [2]]
    batcher.close()


def test_what_was_given_up_is_not_kept_either():
    class Photo:
        pass

    go = threading.Event()
    inside = threading.Event()

    def compute(items: Sequence[Any]) -> list[None]:
        inside.set()
        assert go.wait(10)
        return [None for _ in items]

    batcher = Batcher(compute, batch_size=1, wait_seconds=0.0)
    batcher.submit(Photo())
    assert inside.wait(10)
    photos = [Photo() for _ in range(5)]
    seen = [weakref.ref(photo) for photo in photos]
    futures = [batcher.submit(photo) for photo in photos]
    del photos
    for future in futures[:4]:
        assert future.cancel()
    assert [one() is None for one in seen] == [True, True, True, True, False]
    assert batcher.waiting == 1
    go.set()
    assert futures[4].result(10) is None
    batcher.close()


def test_one_that_fails_takes_no_others_with_it(slow: Slow):
    batcher = Batcher(slow, batch_size=3, wait_seconds=0.0)
    batcher.submit(0)
    slow.inside.acquire()
    futures = [batcher.submit(n) for n in (12, 13, 14)]
    slow.go.set()
    assert futures[0].result(10) == 24
    with pytest.raises(ValueError, match="13"):
        futures[1].result(10)
    assert futures[2].result(10) == 28
    assert batcher.submit(5).result(10) == 10  # and the worker lives on
    batcher.close()


def test_closing_finishes_what_is_there_and_takes_nothing_more(slow: Slow):
    batcher = Batcher(slow, batch_size=1, wait_seconds=0.0)
    futures = [batcher.submit(n) for n in range(3)]
    slow.go.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [0, 2, 4]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1)


def test_batches_are_observed():
    seen: list[tuple[int, float]] = []
    batcher = Batcher(
        lambda items: list(items),
        batch_size=2,
        wait_seconds=0.0,
        observe=lambda photos, seconds: seen.append((photos, seconds)),
    )
    batcher.submit(1).result(10)
    batcher.close()
    assert seen[0][0] == 1
    assert 0 <= seen[0][1] < 5


@pytest.mark.parametrize(
    ("fixed", "each", "expected"),
    [
        (0.0, 0.02, 1),  # two take twice as long as one
        (0.02, 0.0002, 16),  # sixteen take little longer
        (0.01, 0.003, 4),  # 13, 16, 22 (1.7 times), 34 ms
    ],
)
def test_the_batch_is_as_large_as_it_costs_the_first_little(
    fixed: float, each: float, expected: int
):
    now = 0.0

    def compute(items: Sequence[Any]) -> list[Any]:
        nonlocal now
        now += fixed + each * len(items)
        return list(items)

    pace = find_pace(compute, 0, 16, clock=lambda: now)
    assert pace.batch_size == expected
    assert pace.batch_seconds == pytest.approx(fixed + each * expected)
