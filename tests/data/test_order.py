import numpy as np
import pytest

from xception.data.folders import Photo
from xception.data.order import Draws, balanced_weights, epoch_order, steps_per_epoch


@pytest.mark.parametrize(
    ("count", "batch_size", "steps"), [(17, 4, 4), (16, 4, 4), (3, 4, 1), (4, 4, 1), (1, 1, 1)]
)
def test_steps_per_epoch(count, batch_size, steps):
    assert steps_per_epoch(count, batch_size) == steps


def test_balanced_weights_by_hand():
    def weights(*labels: tuple[int, ...]) -> list[float]:
        return balanced_weights([Photo("a", own, "train") for own in labels]).tolist()

    assert weights((0,), (0,), (0,), (1,)) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    # Class 0 three times, class 1 twice, class 2 once, one without: 1/3, 1/2, 1, 1/3… of the sum.
    raw = np.array([1 / 3, 1 / 2, 1 / 1, 1 / 1])
    assert weights((0,), (0, 1), (0, 1, 2), ()) == pytest.approx((raw / raw.sum()).tolist())


def test_epoch_orders_are_permutations_of_their_own():
    orders = [epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(50))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_draws_belong_to_their_place():
    draws = Draws(0, 0)
    at = {place: draws.at(place).random(4).tolist() for place in (0, 1, 2, 10**6)}
    # Whatever was drawn before, half a word that was left over too.
    draws.at(5).integers(0, 10, dtype=np.uint32)
    for place in (2, 0, 10**6, 1):
        assert draws.at(place).random(4).tolist() == at[place]
        assert Draws(0, 0).at(place).random(4).tolist() == at[place]
    others = [Draws(0, 1).at(0).random(4).tolist(), Draws(1, 0).at(0).random(4).tolist()]
    numbers = [number for four in [*at.values(), *others] for number in four]
    assert len(set(numbers)) == 24
