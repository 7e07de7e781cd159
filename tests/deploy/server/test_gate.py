import pytest

from xception.deploy.server.gate import Gate
from xception.deploy.server.refusal import Refusal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_more_photos_come_in_than_there_are_places():
    gate = Gate(5, 10.0)
    with gate.visit() as first, gate.visit() as second:
        first.bring(3)
        second.bring(2)
        with pytest.raises(Refusal) as refusal:
            gate.check()
        assert refusal.value.status == 503
        with gate.visit() as third, pytest.raises(Refusal):
            third.bring(1)
        assert gate.inside == 5
    assert gate.inside == 0


def test_who_brings_more_than_one_waits_for_places_for_all():
    gate = Gate(5, 10.0)
    with gate.visit() as first, gate.visit() as second:
        first.bring(4)
        with pytest.raises(Refusal):
            second.bring(2)
        second.bring(1)
        assert gate.inside == 5


def test_an_empty_house_takes_anybody():
    gate = Gate(5, 1.0, photo_seconds=60.0)  # a minute a photo, a second of patience
    with gate.visit() as visit:
        visit.bring(1)
        with pytest.raises(Refusal):
            gate.check()


def test_who_is_alone_may_bring_more_than_can_be_waited_for():
    gate = Gate(64, 15.0, photo_seconds=1.5)
    with gate.visit() as visit:
        visit.bring(1)  # before it is known that the body holds 16: 24 s
        visit.bring(15)
        assert gate.inside == 16
        with gate.visit() as other, pytest.raises(Refusal):
            other.bring(1)


def test_the_wait_bounds_the_queue_and_is_what_retry_after_says():
    gate = Gate(1000, 10.0, photo_seconds=0.5)
    with gate.visit() as visit:
        visit.bring(1)
        visit.bring(19)  # the last of 20 waits for 10 seconds
        with pytest.raises(Refusal) as refusal:
            gate.check()
    response = refusal.value.response()
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")


def test_the_gate_learns_how_long_photos_take():
    clock = Clock()
    gate = Gate(100, 1e9, clock=clock)
    for _ in range(200):
        with gate.visit() as visit:
            visit.bring(2)
            clock.now += 0.5
            visit.answered()
    assert gate.photo_seconds == pytest.approx(0.25)
    clock.now += 1000  # nobody there: that is no slowness
    with gate.visit() as visit:
        visit.bring(1)
        clock.now += 0.25
        visit.answered()
    assert gate.photo_seconds == pytest.approx(0.25)


def test_who_leaves_without_an_answer_teaches_nothing():
    clock = Clock()
    gate = Gate(100, 1e9, photo_seconds=0.1, clock=clock)
    with gate.visit() as visit:
        visit.bring(3)
        clock.now += 50
    assert gate.photo_seconds == 0.1
    assert gate.inside == 0
