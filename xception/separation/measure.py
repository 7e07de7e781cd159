"""The ways to write each layer, measured on photos.

Of each order a few ways are fitted to some photos, and their harm to the answers is measured on
others. In between harm follows the squared error of the layer's output, which the singular values
give for every rank at once.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.layers.separable import Order
from xception.separation.algebra import separability
from xception.separation.candidates import Candidate, Choice, Menu, operable, ways
from xception.separation.fit import separate_quickly
from xception.separation.harm import harms, importances
from xception.separation.sites import Site, naming
from xception.separation.statistics import PatchStatistics
from xception.separation.watch import Batches, seen_inputs, watch_all

GROUP_BYTES = 1 << 30  # of statistics that are kept at a time
JUDGE_EVERY = 4  # of so many batches one measures harm, and the others fit
DRAWS = 4  # random directions per image
SAMPLES = 32  # patches for each weight of a filter that a fit looks at, where there are so many
PROBES = 5  # ways of each order that are fitted and judged
PROBED = 8  # terms per slice, at most, of these: to fit more, as large windows allow, takes long
LEAST_ERROR = 1e-9  # what is below is taken for exact


@dataclass(frozen=True)
class Measured:
    """What was found on photos."""

    menu: Menu
    importance: dict[str, Tensor]
    """By the path of a layer: how much an error in each of its output channels matters."""


def measured(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Batches,
    choice: Choice,
    *,
    images: int,
    draws: int = DRAWS,
    seed: int = 0,
    sigmoid: bool = False,
) -> Measured:
    """The menu of a network, by what each way would do to its answers.

    Three of four batches fit and the fourth judges; with fewer, the same images do both.

    Args:
        model: the network as it is; it must answer with one tensor, batch first.
        sites: of `find_sites` for this network.
        batches: of images.
        choice: the ways that come into question.
        images: in all batches together.
        draws: random directions per image.
        seed: of these directions, and of the patches that are looked at.
        sigmoid: whether each answer counts for itself, and not beside the other classes only.
    """
    menu: Menu = {}
    importance: dict[str, Tensor] = {}
    fitting, judging = (partial(part, batches, end) for end in (False, True))
    for group in groups(operable(sites)):
        convolutions = [site.conv for site in group]
        weights = importances(model, convolutions, judging, draws, seed, sigmoid)
        statistics = [
            PatchStatistics(
                site.conv, places=enough_places(site, images), seed=seed, importance=weight
            )
            for site, weight in zip(group, weights, strict=True)
        ]
        watch_all(model, convolutions, fitting, _teller(group, statistics))
        probed, offered = [], []
        for site, known in zip(group, statistics, strict=True):
            with naming(site):
                offered.append(ways(site, separability(site.conv, known), choice))
                probed.append(_probe(model, site, known, fitting, offered[-1]))
        statistics.clear()
        modules = [[module for _, module in own] for own in probed]
        found = harms(model, convolutions, modules, judging, draws, seed + 1, sigmoid)
        for site, own, all_ways, hurt in zip(group, probed, offered, found, strict=True):
            judged = [one._replace(harm=harm) for (one, _), harm in zip(own, hurt, strict=True)]
            menu[site.name] = [spread(one, judged) for one in all_ways]
        importance |= {site.name: weight for site, weight in zip(group, weights, strict=True)}
    if menu:
        _settle(model, next(iter(judging())))
    return Measured(menu, importance)


@torch.no_grad()
def _settle(model: nn.Module, images: Tensor) -> None:
    """Run it once more without derivatives.

    What a network keeps of a run, a weight that is made anew among it, cannot be copied with them.
    """
    with evaluation(model):
        model(images[:1].clone())


def groups(sites: Sequence[Site], most_bytes: int = GROUP_BYTES) -> list[list[Site]]:
    """The sites in runs whose statistics fit into memory together."""
    found: list[list[Site]] = []
    held = most_bytes
    for site in sites:
        needed = 8 * site.unknowns**2  # second moments of all taps of all channels, in float64
        if held + needed > most_bytes:
            found.append([])
            held = 0
        found[-1].append(site)
        held += needed
    return found


def enough_places(site: Site, images: int) -> int:
    """How many places of each image a fit has to look at: more would tell it little."""
    return max(1, -(-SAMPLES * site.unknowns // max(images, 1)))


def spread(one: Candidate, judged: Sequence[Candidate]) -> Candidate:
    """A way with a harm that follows from those of its order that were judged.

    Between two of them harm is a power of the error; beyond them it goes with the error's square.
    """
    same = sorted((j for j in judged if j.order == one.order), key=lambda j: j.error)
    errors = [math.log(max(j.error, LEAST_ERROR)) for j in same]
    hurts = [math.log(max(j.harm, LEAST_ERROR**2)) for j in same]
    at = math.log(max(one.error, LEAST_ERROR))
    harm = float(np.interp(at, errors, hurts))
    harm += 2 * (min(at - errors[0], 0) + max(at - errors[-1], 0))
    return one._replace(harm=math.exp(harm))


def _probe(
    model: nn.Module,
    site: Site,
    known: PatchStatistics,
    fitting: Batches,
    offered: Sequence[Candidate],
) -> list[tuple[Candidate, nn.Module]]:
    """Some of the ways of each order, from the cheapest to the dearest one, fitted quickly."""
    known.replay = partial(_again, model, site, known, fitting)
    chosen = []
    orders: dict[Order, None] = dict.fromkeys(one.order for one in offered)
    for order in orders:
        most = site.macs_of(order, PROBED)
        own = [one for one in offered if one.order == order and one.macs <= most]
        own.sort(key=lambda one: one.macs)
        places = np.linspace(0, len(own) - 1, min(PROBES, len(own))).round().astype(int)
        chosen += [own[place] for place in places]
    return [
        (one, separate_quickly(site.conv, rank=one.ranks, order=one.order, inputs=known))
        for one in chosen
    ]


def _again(
    model: nn.Module, site: Site, known: PatchStatistics, fitting: Batches
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the layer is given and gives, once more."""
    for images in fitting():
        for x in seen_inputs(model, site.name, site.calls, images):
            yield x, known.answers(x)


def _teller(
    sites: Sequence[Site], statistics: Sequence[PatchStatistics]
) -> Callable[[int, Tensor, Tensor], None]:
    def tell(place: int, x: Tensor, y: Tensor) -> None:
        with naming(sites[place]):
            statistics[place].update(x, y)

    return tell


def part(batches: Batches, judging: bool) -> Iterable[Tensor]:
    """The batches that measure harm, or those that are fitted to; the same if there are few."""
    several = sum(1 for _ in islice(batches(), JUDGE_EVERY)) == JUDGE_EVERY
    for place, images in enumerate(batches()):
        if not several or (place % JUDGE_EVERY == JUDGE_EVERY - 1) == judging:
            yield images
