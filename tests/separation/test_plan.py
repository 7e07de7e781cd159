import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from xception.errors import UserError
from xception.separation.candidates import Candidate, Choice, data_free
from xception.separation.plan import (
    knapsack,
    least_macs,
    make_plan,
    of_energy,
    of_rank,
    within_macs,
)
from xception.separation.sites import ORDERS, Site, find_sites
from xception.separation.surgery import Prepared, prepare

from .networks import branches, images


@pytest.mark.parametrize("seed", range(20))
def test_the_knapsack_is_the_best_of_all_ways(seed: int):
    rng = random.Random(seed)
    costs = [[rng.randint(1, 30) for _ in range(rng.randint(1, 5))] for _ in range(5)]
    harms = [[rng.random() for _ in row] for row in costs]
    least = sum(map(min, costs))
    budget = rng.randint(least, sum(map(max, costs)))

    def total(table, picked):
        return sum(row[place] for row, place in zip(table, picked, strict=True))

    every = itertools.product(*(range(len(row)) for row in costs))
    best = min(total(harms, p) for p in every if total(costs, p) <= budget)
    picked = knapsack(costs, harms, budget)
    assert total(costs, picked) <= budget
    assert total(harms, picked) == pytest.approx(best)


def test_a_budget_in_millions_is_kept_and_all_but_used_up():
    rng = random.Random(0)
    costs = [[rng.randint(10**6, 10**9) for _ in range(9)] for _ in range(40)]
    harms = [[1e9 / cost for cost in row] for row in costs]  # the dearer the better
    budget = 2 * sum(map(min, costs))
    spent = sum(
        row[place] for row, place in zip(costs, knapsack(costs, harms, budget), strict=True)
    )
    assert 0.98 * budget < spent <= budget
    with pytest.raises(ValueError, match="the cheapest cost"):
        knapsack(costs, harms, sum(map(min, costs)) - 1)


@pytest.fixture(scope="module")
def known():
    sites = find_sites(branches(), images(1))
    total = sum(site.macs for site in sites)
    return sites, data_free(sites, Choice()), total


@pytest.mark.parametrize("fraction", [0.9, 0.7, 0.5])
def test_a_plan_within_macs(known, fraction: float):
    sites, menu, total = known
    plan = within_macs(sites, menu, total, int(fraction * total))
    assert plan.macs <= fraction * total
    by_name = {site.name: site for site in sites}
    saved = sum(by_name[name].macs - one.macs for name, one in plan.choices.items())
    assert plan.macs == total - saved
    assert all(one.macs < by_name[name].macs for name, one in plan.choices.items())
    assert list(plan.choices) == [site.name for site in sites if site.name in plan.choices]
    assert "stem" not in plan.choices


def test_more_macs_never_harm_more(known):
    sites, menu, total = known
    sums = []
    for fraction in (0.5, 0.6, 0.7, 0.8, 0.9, 1):
        choices = within_macs(sites, menu, total, int(fraction * total)).choices
        sums.append(sum(one.harm for one in choices.values()))
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] == 0  # the whole budget: nothing is changed


def test_too_few_macs_are_refused_with_what_can_be_had(known):
    sites, menu, total = known
    least = least_macs(sites, menu, total)
    assert within_macs(sites, menu, total, least).macs == least
    with pytest.raises(UserError, match=f"{100 * least / total:.1f} % is the least"):
        within_macs(sites, menu, total, least - 1)


def test_a_plan_that_costs_more_is_never_made(known):
    sites, _, total = known
    site = next(site for site in sites if site.name == "twice")
    dearer = Candidate("depthwise_first", 9, site.macs_of("depthwise_first", 9), 0.0, 0.0)
    assert dearer.macs > site.macs
    with pytest.raises(ValueError, match="twice would become no cheaper"):
        make_plan(sites, total, {"twice": dearer})


@pytest.mark.parametrize("rank", [1, 2, 8])
def test_one_rank_where_it_pays(known, rank: int):
    sites, _, total = known
    plan = of_rank(sites, total, rank)
    for site in sites:
        if site.name in plan.choices:
            one = plan.choices[site.name]
            assert one.ranks == min(rank, site.most(one.order))
            assert one.macs < site.macs
    # 8 terms of 9 + 24 MACs a slice are more than the 216 of a filter of 3 x 3 over 24 channels.
    assert ("twice" in plan.choices) == (rank < 8)


def test_ranks_of_other_kinds(known):
    sites, _, total = known
    assert of_rank(sites, total, np.int64(2)) == of_rank(sites, total, 2)
    for rank in (0, -1):
        with pytest.raises(ValueError, match="the least is 1"):
            of_rank(sites, total, rank)


def test_energy_that_is_kept():
    """A kernel of rank one keeps all of its energy in one term."""
    conv = nn.Conv2d(8, 8, 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(8, 8, 1, 1) * torch.randn(1, 8, 3, 3))
    sites = find_sites(nn.Sequential(conv), torch.randn(1, 8, 6, 6))
    plan = of_energy(sites, sites[0].macs, 0.999)
    assert plan.choices["0"].order == "depthwise_first"
    assert plan.choices["0"].ranks == 1
    assert plan.macs == 36 * 8 * (9 + 8)


def test_energy_that_cannot_be_kept_cheaply_leaves_the_layer():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    sites = find_sites(nn.Sequential(conv), torch.randn(1, 8, 6, 6))
    assert of_energy(sites, sites[0].macs, 0.9999).choices == {}


def test_the_order_and_equal_ranks_hold_for_every_target():
    model = branches()
    for order in ORDERS:
        prepared = prepare(model, 12, 3, orders=[order], equal=True)
        for plan in (prepared.of_rank(1), prepared.of_energy(0.5), prepared.within(0.7)):
            assert plan.choices
            assert {one.order for one in plan.choices.values()} == {order}
            assert all(isinstance(one.ranks, int) for one in plan.choices.values())
            sites = {site.name: site for site in prepared.sites}
            assert all(one.macs < sites[name].macs for name, one in plan.choices.items())
    energetic = prepare(model, 12, 3, equal=True).of_energy(0.5)
    for name, one in energetic.choices.items():
        assert one.error**2 <= 0.5, name


@pytest.mark.parametrize("total", [1001, 1018, 1126, 1200])
def test_the_least_that_can_be_had_can_be_had(total: int):
    """503 / 1001 * 1001 is less than 503."""
    site = Site("a", nn.Conv2d(1, 1, (1, total)), 1, 1, 1, None)
    for least in (total // 2 + 3, total // 3):
        menu = {"a": [Candidate("depthwise_first", 1, least, 0.1, 0.1)]}
        prepared = Prepared(nn.Identity(), [site], total, menu, None)
        assert prepared.within(prepared.least).macs == least
