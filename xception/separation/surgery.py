"""The operation itself: layers of a network exchanged one after another, by a plan.

Each layer is fitted to what it is given in the network as it is by then, with the layers before it
already exchanged, and to what it gave in the original network: so later layers make up for errors
of earlier ones (asymmetric reconstruction, after Zhang et al. 2015, arXiv:1505.06798).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from xception.cost.count import count, float_type
from xception.errors import UserError
from xception.layers.regular import replace
from xception.layers.separable import Order
from xception.separation.candidates import Choice, Menu, Ranks, data_free, plain
from xception.separation.fit import separate
from xception.separation.measure import Measured, enough_places, measured, part
from xception.separation.plan import EVERY, Plan, least_macs, of_energy, of_rank, within_macs
from xception.separation.sites import ORDERS, Site, find_sites, leave_constant, naming
from xception.separation.spectrum import each_rank
from xception.separation.statistics import PatchStatistics, Replay
from xception.separation.walk import Walk, pairs
from xception.separation.watch import Batches

ROUNDING = 1e-3  # of one multiply-accumulate


@dataclass(frozen=True)
class Photos:
    """Images that layers are fitted to."""

    batches: Batches
    """In small batches, as the network takes them: the same each time."""
    count: int
    """In all batches together."""
    importance: dict[str, Tensor] = field(default_factory=dict)
    """By the path of a layer: how much an error in each of its output channels matters."""


@dataclass(frozen=True)
class Exchanged:
    """A layer after the operation."""

    name: str
    order: Order
    ranks: Ranks
    bias: bool
    error: float
    """Of the kernel: relative, in the Frobenius norm."""
    output_error: float | None
    """Of the layer's output on the images it was fitted to: relative to its standard deviation,
    both weighted by importance. None without images, and where a layer that is very wide has the
    pointwise convolution first."""
    output_bound: float
    """What the exchange of the kernel changes in the layer's output never has more than this times
    the norm of its padded input, whatever that is; the bias apart."""
    macs_before: int
    macs_after: int


def exchange(
    model: nn.Module,
    original: nn.Module,
    plan: Plan,
    sites: Sequence[Site],
    photos: Photos | None,
    told: Callable[[Exchanged], None] = lambda one: None,
) -> list[Exchanged]:
    """Exchange the layers of a plan, in place and in the order in which they run.

    Args:
        model: the network to be changed; its layers have the names of the sites.
        original: one with the same layers that stays as it is.
        plan: what to exchange, and how.
        sites: of the network.
        photos: what layers are fitted to; None takes the best approximation of the kernels.
        told: is given each layer when it is done; once more where it has to be done once more, as
            the network did not run as it was written down (see `walk`).

    Raises:
        UserError: a layer would cost as much as it does, or more, and so nothing is changed; or one
            cannot be fitted to these photos.
    """
    planned = [site for site in sites if site.name in plan.choices]
    _check_cheaper(planned, plan)
    walks: list[Walk] = []
    if photos is not None and planned:
        names = [site.name for site in planned]
        some = next(iter(photos.batches()))
        walks = [Walk(one, names, some, photos.count) for one in (model, original)]
    before = {site.name: model.get_submodule(site.name) for site in planned}
    try:
        return _one_after_another(model, plan, planned, photos, walks, told)
    except _Astray:
        for name, conv in before.items():
            replace(model, model.get_submodule(name), conv)
        for walk in walks:
            walk.give_up()
        return _one_after_another(model, plan, planned, photos, walks, told)


class _Astray(Exception):
    """A walk did not go where the network goes."""


def _one_after_another(
    model: nn.Module,
    plan: Plan,
    planned: Sequence[Site],
    photos: Photos | None,
    walks: Sequence[Walk],
    told: Callable[[Exchanged], None],
) -> list[Exchanged]:
    done = []
    for site in planned:
        choice = plan.choices[site.name]
        conv = model.get_submodule(site.name)
        assert isinstance(conv, nn.Conv2d)
        inputs = None
        with naming(site):
            if photos is not None:
                inputs = _seen(
                    site, photos, partial(pairs, *walks, photos.batches, site.name, site.calls)
                )
            fitted = separate(conv, rank=choice.ranks, order=choice.order, inputs=inputs)
        if photos is not None and site is planned[-1]:
            for walk in walks:
                if not walk.proven(photos.batches, site.name, site.calls):
                    raise _Astray
        replace(model, conv, fitted.module)
        done.append(
            Exchanged(
                name=site.name,
                order=choice.order,
                ranks=plain(fitted.ranks),
                bias=fitted.bias,
                error=fitted.error,
                output_error=fitted.output_error,
                output_bound=fitted.output_bound,
                macs_before=site.macs,
                macs_after=site.macs_of(choice.order, fitted.ranks),
            )
        )
        told(done[-1])
    return done


def _check_cheaper(planned: Sequence[Site], plan: Plan) -> None:
    """Refuse a plan that makes a layer no cheaper, whatever it says of itself."""
    for site in planned:
        choice = plan.choices[site.name]
        ranks = each_rank(site.conv, choice.order, choice.ranks)
        macs = site.macs_of(choice.order, ranks)
        if macs >= site.macs:
            raise UserError(
                f"{site.name} would become no cheaper: {macs:,} multiply-accumulates with these "
                f"ranks instead of {site.macs:,}; leave it out of the plan"
            )


def _seen(site: Site, photos: Photos, replay: Replay) -> PatchStatistics:
    """What a layer is given and should give, with a way to see it again if it is very wide."""
    statistics = PatchStatistics(
        site.conv,
        places=enough_places(site, photos.count),
        importance=photos.importance.get(site.name),
    )
    for x, y in replay():
        statistics.update(x, y)
    statistics.replay = replay
    return statistics


@dataclass(frozen=True)
class Prepared:
    """A network that has been looked at: what can be exchanged, and what that would do.

    Nothing of this changes the network.
    """

    model: nn.Module
    sites: list[Site]
    total_macs: int
    """Of the whole network for one image."""
    menu: Menu
    """The ways to write each layer; empty where no plan needs them."""
    photos: Photos | None
    """What layers are fitted to."""
    choice: Choice = EVERY
    """The ways that come into question."""

    @property
    def least(self) -> float:
        """The smallest fraction of the MACs that can be had."""
        return least_macs(self.sites, self.menu, self.total_macs) / self.total_macs

    def within(self, fraction: float) -> Plan:
        """The plan of least harm that keeps this fraction of the MACs.

        Raises:
            UserError: so few cannot be had.
            ValueError: it was prepared without a menu.
        """
        if not self.menu and any(site.refusal is None for site in self.sites):
            raise ValueError("a plan by MACs needs the menu: prepare with with_menu=True")
        # A whole number divided and multiplied again may fall short of itself by a little.
        budget = int(fraction * self.total_macs + ROUNDING)
        return within_macs(self.sites, self.menu, self.total_macs, budget)

    def of_rank(self, rank: SupportsIndex) -> Plan:
        """One rank everywhere, where it pays."""
        return of_rank(self.sites, self.total_macs, rank, self.choice.orders)

    def of_energy(self, energy: float) -> Plan:
        """At least this share of the squared norm of every kernel, where that pays."""
        return of_energy(self.sites, self.total_macs, energy, self.choice)

    def operate(
        self,
        plan: Plan,
        *,
        told: Callable[[Exchanged], None] = lambda one: None,
    ) -> tuple[nn.Module, list[Exchanged]]:
        """A copy of the network after the exchanges of a plan, fitted to the photos if there are.

        Args:
            plan: one of this network.
            told: is given each layer when it is done.

        Raises:
            UserError: a layer would cost as much as it does, or more; or one cannot be fitted to
                these photos.
        """
        changed = copy.deepcopy(self.model)
        return changed, exchange(changed, self.model, plan, self.sites, self.photos, told)


def prepare(
    model: nn.Module,
    size: int | tuple[int, int],
    channels: int,
    *,
    batches: Batches | None = None,
    images: int = 0,
    orders: Sequence[Order] = ORDERS,
    equal: bool = False,
    keep: Sequence[str] = (),
    with_menu: bool = True,
    seed: int = 0,
    sigmoid: bool = False,
) -> Prepared:
    """Look at a network: its convolutions, and what it would do to exchange each.

    Args:
        model: any network that takes one tensor `b channels height width` and gives one tensor,
            batch first. It comes back as it was.
        size: of the images, in pixels: the side, or height and width.
        channels: of the images.
        batches: of images to measure and fit on, the same each time, as the network takes them;
            None goes by the kernels.
        images: how many there are in all batches together.
        orders: those that come into question.
        equal: one rank for all slices of a layer.
        keep: paths of layers to leave as they are.
        with_menu: whether plans by MACs are wanted, for which all ways are tried.
        seed: of all that is drawn at random.
        sigmoid: whether each answer counts for itself (several labels an image), and not only
            beside the other classes, as with a softmax. A single answer always does.

    Raises:
        ValueError: a path of `keep` is no convolution; batches without a number of images.
        UserError: weights, what a layer is given, or the answers are not all finite numbers.
    """
    if (batches is None) != (images == 0):
        raise ValueError("batches of images, and how many images: give both or neither")
    height, width = (size, size) if isinstance(size, int) else size
    stored = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    device = stored.device
    image = torch.zeros(1, channels, height, width, device=device, dtype=float_type(model))
    sites = find_sites(model, image, keep=keep)
    if batches is not None:
        sites = leave_constant(model, sites, partial(part, batches, judging=False))
    total = count(model, (height, width), channels).total["macs"]
    choice = Choice(orders, equal)
    found = Measured({}, {})
    if with_menu and batches is None:
        found = Measured(data_free(sites, choice), {})
    elif with_menu and batches is not None:
        found = measured(model, sites, batches, choice, images=images, seed=seed, sigmoid=sigmoid)
    photos = None if batches is None else Photos(batches, images, found.importance)
    return Prepared(model, sites, total, found.menu, photos, choice)
