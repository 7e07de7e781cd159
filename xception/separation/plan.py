"""Which layers to exchange, and how: the plan for a whole network.

The harms of single exchanges are taken to add up. To keep within a number of MACs then is a
knapsack in which one way is picked for each layer, and leaving a layer as it is is one of the ways.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from xception.errors import UserError
from xception.layers.separable import Order
from xception.separation.candidates import Candidate, Choice, Menu, keeping_energy, of_one_rank
from xception.separation.sites import ORDERS, Site

STEPS = 20_000  # in which the MACs that may be spent are counted
EVERY = Choice()


@dataclass(frozen=True)
class Plan:
    """The exchanges that were chosen; a layer that is not named stays as it is."""

    choices: dict[str, Candidate]
    """By the path of the layer, in the order in which the layers run."""
    macs: int
    """Of the whole network with these exchanges, for one image."""


def make_plan(sites: Sequence[Site], total_macs: int, choices: Mapping[str, Candidate]) -> Plan:
    """The plan of these choices, in the order of the sites.

    Args:
        sites: of the network.
        total_macs: of the network as it is.
        choices: by the path of the layer.

    Raises:
        ValueError: a choice is not cheaper than the layer itself; such a plan is never made.
    """
    ordered = {site.name: choices[site.name] for site in sites if site.name in choices}
    saved = 0
    for site in sites:
        if site.name in ordered:
            if ordered[site.name].macs >= site.macs:
                raise ValueError(f"{site.name} would become no cheaper: {ordered[site.name]}")
            saved += site.macs - ordered[site.name].macs
    return Plan(ordered, total_macs - saved)


def least_macs(sites: Sequence[Site], menu: Menu, total_macs: int) -> int:
    """The fewest MACs that the network can have with the ways of the menu."""
    return total_macs - sum(
        site.macs - min(one.macs for one in menu[site.name])
        for site in sites
        if menu.get(site.name)
    )


def within_macs(sites: Sequence[Site], menu: Menu, total_macs: int, budget: int) -> Plan:
    """The plan of the least harm whose network has at most `budget` MACs.

    Args:
        sites: of the network.
        menu: the ways to write each layer.
        total_macs: of the network as it is.
        budget: the most that it may have.

    Raises:
        UserError: no plan has so few; says how few can be had.
    """
    least = least_macs(sites, menu, total_macs)
    if budget < least:
        raise UserError(
            f"the network cannot do with {100 * budget / total_macs:.1f} % of its MACs: "
            f"{100 * least / total_macs:.1f} % is the least, a speedup of "
            f"{total_macs / least:.2f}; the rest is in layers that are left as they are"
        )
    offered = [site for site in sites if menu.get(site.name)]
    ways = [[None, *menu[site.name]] for site in offered]
    macs = [
        [site.macs if way is None else way.macs for way in own]
        for site, own in zip(offered, ways, strict=True)
    ]
    harms = [[0.0 if way is None else way.harm for way in own] for own in ways]
    fixed = total_macs - sum(site.macs for site in offered)
    picked = knapsack(macs, harms, budget - fixed)
    choices = {
        site.name: way
        for site, own, place in zip(offered, ways, picked, strict=True)
        if (way := own[place]) is not None
    }
    return make_plan(sites, total_macs, choices)


def of_rank(
    sites: Sequence[Site], total_macs: int, rank: SupportsIndex, orders: Sequence[Order] = ORDERS
) -> Plan:
    """One rank for all slices of all layers, where it is cheaper, in the order of less error.

    Raises:
        ValueError: a rank below 1.
    """
    terms = operator.index(rank)  # numbers of other libraries are no `int`
    if terms < 1:
        raise ValueError(f"a rank of {terms}; the least is 1")
    choices = {}
    for site in sites:
        own = of_one_rank(site, terms, orders)
        if own:
            choices[site.name] = min(own, key=lambda one: (one.error, one.macs))
    return make_plan(sites, total_macs, choices)


def of_energy(
    sites: Sequence[Site], total_macs: int, energy: float, choice: Choice = EVERY
) -> Plan:
    """For each layer the fewest MACs that keep this share of its kernel's squared norm."""
    choices = {}
    for site in sites:
        own = keeping_energy(site, energy, choice)
        if own:
            choices[site.name] = min(own, key=lambda one: one.macs)
    return make_plan(sites, total_macs, choices)


def knapsack(
    costs: Sequence[Sequence[int]], harms: Sequence[Sequence[float]], budget: int
) -> list[int]:
    """One place of each row, such that the costs fit the budget and the harms sum to the least.

    What a place costs beyond the cheapest of its row is counted in steps, rounded up: the budget
    holds in any case, and the answer is exact where it has at most `STEPS` units to share out. What
    the rounding left over is spent on single places.

    Raises:
        ValueError: the cheapest of all rows do not fit the budget.
    """
    least = sum(min(row) for row in costs)
    if least > budget:
        raise ValueError(f"the cheapest cost {least}, above {budget}")
    step = max(1, -(-(budget - least) // STEPS))
    steps = (budget - least) // step
    spent = [[-(-(cost - min(row)) // step) for cost in row] for row in costs]
    best = np.zeros(steps + 1)  # the least harm of the rows so far, by steps that may be spent
    picked = []
    for row, hurt in zip(spent, harms, strict=True):
        options = np.full((len(row), steps + 1), np.inf)
        for place, (beyond, harm) in enumerate(zip(row, hurt, strict=True)):
            if beyond <= steps:
                options[place, beyond:] = best[: steps + 1 - beyond] + harm
        picked.append(options.argmin(0))
        best = options.min(0)
    places, left = [], steps
    for row, choice in zip(reversed(spent), reversed(picked), strict=True):
        places.append(int(choice[left]))
        left -= row[places[-1]]
    return _spend_rest(costs, harms, budget, places[::-1])


def _spend_rest(
    costs: Sequence[Sequence[int]],
    harms: Sequence[Sequence[float]],
    budget: int,
    places: list[int],
) -> list[int]:
    """Better places, one row at a time, as long as the budget allows one."""
    while True:
        left = budget - sum(row[place] for row, place in zip(costs, places, strict=True))
        gains = [
            (harms[row][places[row]] - harm, row, place)
            for row, (cost, hurt) in enumerate(zip(costs, harms, strict=True))
            for place, harm in enumerate(hurt)
            if cost[place] - cost[places[row]] <= left and harm < harms[row][places[row]]
        ]
        if not gains:
            return places
        _, row, place = max(gains)
        places[row] = place
