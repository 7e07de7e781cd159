import time

import torch
from torch import Tensor, nn

from xception.separation.sites import find_sites
from xception.separation.timing import compare_layers, compare_networks, in_turn

from .networks import branches, images


class Slow(nn.Module):
    def __init__(self, conv: nn.Module, seconds: float):
        super().__init__()
        self.conv, self.seconds = conv, seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return self.conv(x)


def test_in_turn():
    ran: list[int] = []
    one, other = in_turn(
        lambda: (ran.append(1), time.sleep(0.001)),
        lambda: (ran.append(2), time.sleep(0.003)),
        torch.device("cpu"),
    )
    assert one >= 1
    assert other >= 3
    assert ran[0] == 1
    assert set(ran) == {1, 2}
    assert ran.count(1) == ran.count(2)
    assert ran.index(2) < len(ran) - ran[::-1].index(1)  # by turns, not one after the other


def test_a_layer_that_became_slower_is_seen():
    before, after = branches(), branches()
    after.twice = Slow(after.twice, 0.002)  # pyright: ignore[reportAttributeAccessIssue]
    sites = [s for s in find_sites(before, images(1)) if s.name in ("left", "twice")]
    found = compare_layers(before, after, sites, images(1))
    assert list(found) == ["left", "twice"]
    assert found["twice"][1] >= 4  # milliseconds: it runs twice
    assert found["twice"][1] > found["twice"][0]
    whole = compare_networks(before, after, images(1))
    assert whole[1] >= 4
    assert whole[1] > whole[0]
