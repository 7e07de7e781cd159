"""Where a network can be operated on: its regular convolutions, in the order in which they run.

They are found by the type of the module and seen running, so that residual and branching networks,
and modules that run more than once, need nothing of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.errors import UserError
from xception.layers.regular import refusal
from xception.layers.separable import Order
from xception.separation.stand_in import irreplaceable
from xception.separation.watch import Batches, watch_all
from xception.separation.windows import regular_macs

ORDERS: tuple[Order, ...] = ("depthwise_first", "pointwise_first")
AVERAGES = (
    *(0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8),
    *(round(8 * 1.2**step) for step in range(1, 16)),  # up to 123, for windows above 3x3
)
"""Terms per slice of the ways to write a layer that are tried."""
FEW_CHANNELS = 4
"""A convolution of no more input channels, as that which sees the image, is left as it is: there is
little in it to save, and a depthwise convolution of three channels is slow everywhere."""


@dataclass(frozen=True)
class Site:
    """A convolution of a network, and whether it may be exchanged."""

    name: str
    """Its path in the network."""
    conv: nn.Conv2d
    calls: int
    """How often it runs for one image."""
    inputs: int
    """Pixels of all its inputs for one image, crops of which the network may make a batch."""
    outputs: int
    """Places of all its outputs for one image, the same."""
    refusal: str | None
    """Why it is left as it is."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.outputs * regular_macs(self.conv)

    @property
    def taps(self) -> int:
        """Weights of one slice of the kernel in one filter."""
        height, width = self.conv.kernel_size
        return height * width

    @property
    def unknowns(self) -> int:
        """Weights of one filter."""
        return self.conv.in_channels * self.taps

    def slices(self, order: Order) -> int:
        """How many slices the kernel has, each of which gets a rank."""
        first = order == "depthwise_first"
        return self.conv.in_channels if first else self.conv.out_channels

    def most(self, order: Order) -> int:
        """The rank at which nothing is lost, whatever the kernel."""
        others = self.conv.out_channels if order == "depthwise_first" else self.conv.in_channels
        return min(self.taps, others)

    def macs_of(self, order: Order, ranks: int | Sequence[int]) -> int:
        """Multiply-accumulates for one image of what stands for the convolution at these ranks."""
        return self.macs_of_terms(
            order, ranks * self.slices(order) if isinstance(ranks, int) else sum(ranks)
        )

    def macs_of_terms(self, order: Order, terms: int) -> int:
        """The same from the sum of the ranks.

        With rank r everywhere: r (1/N + 1/k²) of the regular one with the depthwise convolution
        first, r (s²/M + 1/k²) with the pointwise one first, which works at the places of the input
        (Howard et al. 2017, arXiv:1704.04861, §3.1, and its mirror image).
        """
        if order == "depthwise_first":
            return self.outputs * terms * (self.taps + self.conv.out_channels)
        return terms * (self.inputs * self.conv.in_channels + self.outputs * self.taps)

    def terms(self, order: Order, averages: Sequence[float] = AVERAGES) -> list[int]:
        """The sums of ranks that are cheaper than the convolution itself, rising.

        Depthwise first, a channel may have no term at all; pointwise first, every output has one.
        """
        slices = self.slices(order)
        least = 1 if order == "depthwise_first" else slices
        totals = {round(average * slices) for average in averages}
        return sorted(
            total
            for total in totals
            if least <= total <= slices * self.most(order)
            and self.macs_of_terms(order, total) < self.macs
        )

    @property
    def pays(self) -> bool:
        """Whether any rank makes it cheaper."""
        return any(self.macs_of(order, 1) < self.macs for order in ORDERS)


@contextmanager
def naming(site: Site) -> Iterator[None]:
    """Meanwhile, what cannot be done with a layer is said with its name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{site.name}: {error}") from error


def find_sites(
    model: nn.Module, image: Float[Tensor, "b c h w"], *, keep: Sequence[str] = ()
) -> list[Site]:
    """The convolutions of a network: first those that ran, in their order, then the others.

    Args:
        model: any network whose convolutions are modules.
        image: what it takes; one image is enough.
        keep: paths of layers to leave as they are.

    Raises:
        ValueError: a path of `keep` is no convolution.
    """
    convolutions: dict[nn.Module, str] = {
        module: name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    }
    kept = {_called(model, name) for name in keep}
    reasons = {conv: refusal(conv) for conv in convolutions}  # before hooks of ours stand there
    calls: dict[nn.Module, list[tuple[int, int]]] = {}

    def note(
        module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], out: Tensor
    ) -> None:
        if named:
            by_name = "its input is given by name, which another module need not know"
            reasons[module] = reasons[module] or by_name
        (x,) = (*args, *named.values())
        if x.ndim != 4:
            reasons[module] = reasons[module] or "it is given an image without a batch"
        calls.setdefault(module, []).append((_places(x), _places(out)))

    handles = [conv.register_forward_hook(note, with_kwargs=True) for conv in convolutions]
    try:
        with torch.no_grad(), evaluation(model):
            model(image[:1].clone())  # it may write into what it is given
    finally:
        for handle in handles:
            handle.remove()
    ran = [conv for conv in calls if isinstance(conv, nn.Conv2d)]
    sites = []
    for conv in [*ran, *(conv for conv in convolutions if conv not in calls)]:
        seen = calls.get(conv, [])
        site = Site(
            name=convolutions[conv],
            conv=conv,
            calls=len(seen),
            inputs=sum(before for before, _ in seen),
            outputs=sum(after for _, after in seen),
            refusal=reasons[conv],
        )
        sites.append(replace(site, refusal=_left(site, site.conv in kept)))
    operable = [site for site in sites if site.refusal is None]
    refused = irreplaceable(model, image[:1], operable)
    return [replace(s, refusal=refused[s.name]) if s.name in refused else s for s in sites]


def _called(model: nn.Module, name: str) -> nn.Conv2d:
    """The convolution of a path; of several paths to the same one, any will do."""
    found = dict(model.named_modules(remove_duplicate=False)).get(name)
    if not isinstance(found, nn.Conv2d):
        raise ValueError(f"no convolution of the network is called {name!r}")
    return found


def _left(site: Site, kept: bool) -> str | None:
    """Why a convolution is left as it is, as far as it alone can tell."""
    if site.refusal is not None:
        return site.refusal
    if not site.name:
        return "it is the whole network"
    if not site.calls:
        return "it does not run"
    if site.conv.in_channels <= FEW_CHANNELS:
        return f"it sees only {site.conv.in_channels} channels, in which there is little to save"
    if kept:
        return "it was to be left"
    return None if site.pays else "no rank makes it cheaper"


def _places(maps: Tensor) -> int:
    """Of one image, also where the network makes a batch of parts of it."""
    return maps.numel() // maps.shape[-3]


def leave_constant(model: nn.Module, sites: Sequence[Site], batches: Batches) -> list[Site]:
    """The sites, of which those are left that are given one and the same value everywhere.

    Behind a ReLU that lets nothing through a layer cannot be fitted, and photos say nothing of what
    it would do. A channel is compared with its first value; what is told apart is not looked at
    again, so that as a rule one batch is enough.

    Args:
        model: the network.
        sites: of it.
        batches: of the images that layers are to be fitted to.
    """
    operable = [site for site in sites if site.refusal is None]
    unsettled = {site.name for site in operable}
    first: dict[str, Tensor] = {}

    def needed() -> Iterator[Tensor]:
        for images in batches():
            if not unsettled:
                return
            yield images

    def tell(place: int, x: Tensor, y: Tensor) -> None:
        name = operable[place].name
        if (x != first.setdefault(name, x[:1, :, :1, :1].clone())).any():
            unsettled.discard(name)

    watch_all(model, [site.conv for site in operable], needed, tell)
    return [
        replace(site, refusal="its inputs are the same everywhere in the photos")
        if site.name in unsettled
        else site
        for site in sites
    ]
