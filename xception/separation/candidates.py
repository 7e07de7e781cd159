"""The ways to write each layer, told by the kernel alone: what each would cost and lose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xception.layers.separable import Order
from xception.separation.algebra import Separability, separability
from xception.separation.sites import ORDERS, Site, naming
from xception.separation.spectrum import Spectrum

Ranks = int | tuple[int, ...]
"""One rank for all slices, or one for each."""


class Candidate(NamedTuple):
    """One way to write a layer."""

    order: Order
    ranks: Ranks
    macs: int
    """For one image."""
    error: float
    """By the singular values, relative: of the kernel, or of the output where it was measured."""
    harm: float
    """Squared change of the network's answers as a share of the squared answers; an estimate."""


Menu = dict[str, list[Candidate]]
"""The ways to write each layer that are cheaper than the layer itself, by its path."""


@dataclass(frozen=True)
class Choice:
    """Which ways come into question."""

    orders: Sequence[Order] = ORDERS
    """The orders."""
    equal: bool = False
    """One rank for all slices of a layer: plain depth multipliers."""


def ways(site: Site, known: Separability, choice: Choice) -> list[Candidate]:
    """The ways to write a layer that are cheaper; their harm is taken to be the squared error.

    A number of terms is shared out among the slices by the singular values: those of the kernel,
    or of what it does to the output.
    """
    found = []
    for order in choice.orders:
        spectrum = known.of(order)
        options: list[Ranks] = []
        if choice.equal:
            slices = site.slices(order)
            averages = range(1, site.most(order) + 1)
            options += [total // slices for total in site.terms(order, averages)]
        else:
            options += [plain(spectrum.allocate(total)) for total in site.terms(order)]
        for ranks in options:
            error = spectrum.error(ranks)
            macs = site.macs_of(order, ranks)
            found.append(Candidate(order, ranks, macs, error, error**2))
    return found


def data_free(sites: Sequence[Site], choice: Choice) -> Menu:
    """The menu without any photo."""
    menu: Menu = {}
    for site in operable(sites):
        with naming(site):
            menu[site.name] = ways(site, separability(site.conv), choice)
    return menu


def of_one_rank(site: Site, rank: int, orders: Sequence[Order] = ORDERS) -> list[Candidate]:
    """This rank in each order, where it is cheaper than the layer; all terms if there are fewer."""
    return _cheaper(site, orders, lambda spectrum: min(rank, site.most(spectrum.order)))


def keeping_energy(site: Site, energy: float, choice: Choice) -> list[Candidate]:
    """For each order the fewest terms that keep this share of the kernel's squared norm.

    Slices have ranks of their own, unless the choice is of equal ones. An order that is no cheaper
    than the layer is not among them.
    """

    def fewest(spectrum: Spectrum) -> Ranks:
        if choice.equal:
            return spectrum.rank_for(energy=energy)
        return plain(spectrum.ranks_for(energy=energy))

    return _cheaper(site, choice.orders, fewest)


def _cheaper(
    site: Site, orders: Sequence[Order], ranks_of: Callable[[Spectrum], Ranks]
) -> list[Candidate]:
    """The way of each order with the ranks that its spectrum asks for, if it is cheaper."""
    if site.refusal is not None:
        return []
    with naming(site):
        known = separability(site.conv)
    found = []
    for order in orders:
        spectrum = known.of(order)
        ranks = ranks_of(spectrum)
        macs, error = site.macs_of(order, ranks), spectrum.error(ranks)
        if macs < site.macs:
            found.append(Candidate(order, ranks, macs, error, error**2))
    return found


def operable(sites: Sequence[Site]) -> list[Site]:
    """Those that may be exchanged."""
    return [site for site in sites if site.refusal is None]


def plain(ranks: Sequence[int]) -> Ranks:
    """One number where all are the same."""
    return ranks[0] if min(ranks) == max(ranks) else tuple(ranks)
