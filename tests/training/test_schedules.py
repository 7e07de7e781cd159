import math

import pytest

from xception.errors import UserError
from xception.training.config import Schedule
from xception.training.schedules import factor


def at(schedule, epoch, epochs=10, samples=1000):
    return factor(schedule, epoch, epochs=epochs, samples_per_epoch=samples)


def test_cosine_falls_from_one_to_its_end():
    schedule = Schedule(name="cosine", final=0.1)
    expected = {0: 1.0, 5: 0.55, 10: 0.1}
    assert {e: pytest.approx(at(schedule, e)) for e in expected} == expected
    assert at(schedule, 2.5) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)


def test_warm_up_is_linear_and_then_the_curve_begins_at_its_top():
    schedule = Schedule(name="cosine", warmup_epochs=2)
    assert [at(schedule, e) for e in (0, 0.5, 1, 2)] == [0, 0.25, 0.5, 1.0]
    assert at(schedule, 6) == pytest.approx(0.5)


def test_a_short_training_is_not_all_warm_up():
    schedule = Schedule(name="constant", warmup_epochs=2)
    assert [at(schedule, e, epochs=1) for e in (0, 0.25, 0.5, 1)] == [0, 0.5, 1, 1]


def test_the_staircase_of_the_paper():  # x0.94 every 2 epochs
    schedule = Schedule(name="exponential", rate=0.94, every_epochs=2)
    values = [at(schedule, e, epochs=100) for e in (0, 1.99, 2, 3.5, 4, 99)]
    assert values == pytest.approx([1, 1, 0.94, 0.94, 0.94**2, 0.94**49])


def test_stairs_by_samples():  # x0.9 every 3 million samples, 1 million samples an epoch
    schedule = Schedule(name="exponential", rate=0.9, every_samples=3_000_000)
    values = [at(schedule, e, samples=1_000_000) for e in (0, 2.9, 3, 6)]
    assert values == pytest.approx([1, 1, 0.9, 0.81])


def test_the_power_of_what_is_left():  # Chen et al. 2017: (1 - iteration / iterations)^0.9
    schedule = Schedule(name="poly")
    values = [at(schedule, e) for e in (0, 2.5, 5, 9, 10)]
    assert values == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.1**0.9, 0])
    assert at(Schedule(name="poly", power=2, warmup_epochs=2), 6) == pytest.approx(0.25)


def test_constant():
    assert at(Schedule(name="constant"), 7.3) == 1


@pytest.mark.parametrize("both", [{}, {"every_epochs": 1, "every_samples": 2}])
def test_a_staircase_needs_exactly_one_length(both):
    with pytest.raises(UserError, match="either"):
        at(Schedule(name="exponential", **both), 1)
