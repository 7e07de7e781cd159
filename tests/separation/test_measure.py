import math

import pytest
import torch
from torch import nn

from xception.layers.separable import Order
from xception.separation.candidates import Candidate, Choice
from xception.separation.fit import separate_quickly
from xception.separation.measure import enough_places, groups, measured, spread
from xception.separation.sites import ORDERS, Site, find_sites

from .networks import branches, images


def way(error: float, harm: float = 0.0, order: Order = "depthwise_first") -> Candidate:
    return Candidate(order, 1, 100, error, harm)


def test_harm_between_what_was_judged():
    judged = [way(0.1, 0.001), way(0.4, 0.064), way(0.2, 7.0, "pointwise_first")]
    assert spread(way(0.1), judged).harm == pytest.approx(0.001)
    assert spread(way(0.2), judged).harm == pytest.approx(0.008)  # a cube: 0.001 (0.2 / 0.1)³
    assert spread(way(0.8), judged).harm == pytest.approx(0.256)  # beyond: a square
    assert spread(way(0.05), judged).harm == pytest.approx(0.00025)
    assert math.isfinite(spread(way(0.0), judged).harm)


def test_groups_fit_into_memory():
    def site(channels: int) -> Site:
        return Site("a", nn.Conv2d(channels, 4, 3), 1, 1, 1, None)

    sites = [site(8) for _ in range(5)]  # 72² x 8 = 41,472 bytes each
    assert [len(group) for group in groups(sites, 100_000)] == [2, 2, 1]
    assert [len(group) for group in groups(sites, 10)] == [1] * 5
    assert groups([], 10) == []
    assert enough_places(sites[0], 100) == 24  # 32 x 72 / 100, rounded up


@pytest.mark.parametrize("equal", [False, True])
def test_the_menu_of_a_network(equal: bool):
    model = branches()
    sites = find_sites(model, images(1))
    found = measured(
        model, sites, lambda: images(16).split(2), Choice(equal=equal), images=16, draws=2
    )
    names = ["left", "right", "twice", "later"]
    assert list(found.menu) == list(found.importance) == names
    by_name = {site.name: site for site in sites}
    for name, own in found.menu.items():
        assert found.importance[name].shape == (by_name[name].conv.out_channels,)
        assert all(one.macs < by_name[name].macs for one in own)
        assert all(one.macs == by_name[name].macs_of(one.order, one.ranks) for one in own)
        for order in ORDERS:
            same = [one for one in own if one.order == order]
            assert same, (name, order)
            if equal:
                assert all(isinstance(one.ranks, int) for one in same)
            if len(same) > 2:  # from the fewest terms to the most, harm falls by far
                assert same[-1].harm < 0.5 * same[0].harm
            errors = [one.error for one in same]
            assert errors == sorted(errors, reverse=True)


def test_the_same_images_serve_both_ends_where_there_are_few():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 3))
    sites = find_sites(model, torch.randn(1, 8, 6, 6))
    x = torch.randn(6, 8, 6, 6)
    found = measured(model, sites, lambda: [x], Choice(("depthwise_first",)), images=6)
    assert found.menu["0"]
    assert all(math.isfinite(one.harm) for one in found.menu["0"])


def test_ranks_above_eight_are_offered_without_being_fitted(monkeypatch):
    """Harm there follows from that of rank 8, by the square of the error."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 48, 5, padding=2)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(48 * 36, 3))
    sites = find_sites(model, torch.randn(1, 16, 6, 6))
    fitted = []

    def counted(*given, **options):
        rank = options["rank"]
        fitted.append(16 * rank if isinstance(rank, int) else sum(rank))
        return separate_quickly(*given, **options)

    monkeypatch.setattr("xception.separation.measure.separate_quickly", counted)
    x = torch.randn(16, 16, 6, 6)
    found = measured(model, sites, lambda: x.split(4), Choice(("depthwise_first",)), images=16)
    assert max(fitted) == 8 * 16
    by_macs = {one.macs: one for one in found.menu["0"]}
    eight = by_macs[36 * 8 * 16 * (25 + 48)]
    more = by_macs[36 * 14 * 16 * (25 + 48)]
    assert more.harm == pytest.approx(eight.harm * (more.error / eight.error) ** 2)
