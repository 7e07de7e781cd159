"""From a regular convolution to a separable one: without data, or so that the answers stay."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Float64
from torch import Tensor, nn

from xception.errors import UserError
from xception.layers.exchange import fill, separated_like
from xception.layers.separable import Order, SeparableConv2d
from xception.layers.separated import SeparatedConv2d
from xception.separation.algebra import check, spectrum_of
from xception.separation.fit_depthwise import fit_depthwise_first
from xception.separation.fit_pointwise import fit_pointwise_first
from xception.separation.fit_wide import fit_wide
from xception.separation.spectrum import (
    Factors,
    each_rank,
    kernel_of,
    lost_share,
    rebuild,
    slices_of,
    truncate,
    weight_of,
)
from xception.separation.statistics import PatchStatistics, Replay
from xception.separation.windows import gain, regular_macs, separated_macs

Replacement = SeparableConv2d | SeparatedConv2d

SWEEPS = 3
NOUGHT = 1e-6  # sums of squares in float64 cannot tell a smaller error from none


@dataclass(frozen=True, eq=False)
class Separated:
    """A convolution exchanged, and what that changed."""

    module: Replacement
    """What takes its place: with its geometry, type, device and mode."""
    order: Order
    ranks: tuple[int, ...]
    """Depthwise kernels of each slice: per input channel, or pointwise first per output."""
    bias: bool
    """Whether the module has one: as the original, and always where it was fitted to data."""
    error: float
    """|W - Ŵ| / |W| of the kernels, in the Frobenius norm."""
    output_bound: float
    """(W - Ŵ) x never has more than this times the norm of the input x, padded, whatever x is."""
    output_error: float | None
    """With data: √(E|y - ŷ|² / E|y - E y|²) on that data, weighted by importance; None without,
    and pointwise first where the layer is too wide for it to be known."""
    floor: float | None
    """The same of the best regular convolution, which no rank can beat: above 0 where the inputs
    no longer tell what the original saw. None without data and for wide layers."""
    macs: int
    """Multiply-accumulates for one place of the output."""
    regular_macs: int
    """Those of the original."""


def separate(
    conv: nn.Conv2d,
    *,
    rank: int | Sequence[int] | None = None,
    energy: float | None = None,
    error: float | None = None,
    order: Order = "depthwise_first",
    inputs: Float[Tensor, "b c h w"] | PatchStatistics | Replay | None = None,
    equal: bool = False,
    sweeps: int = SWEEPS,
) -> Separated:
    """The separable convolution that comes nearest to a regular one.

    Without data it is the nearest kernel in the Frobenius norm, by truncated singular value
    decompositions. With data, the error of the output is what is made small, and a bias with it:
    see `fit_depthwise` and `fit_pointwise`. All is computed in float64, whatever the type.

    Args:
        conv: the original convolution; it is left untouched.
        rank: one for all slices (where it exceeds min(channels, taps), that is taken), or each.
        energy: the share of the squares to keep, 0 … 1, with as few depthwise kernels as will do:
            of the kernel without data, and of the output with it.
        error: the same said the other way: the largest relative error, √(1 - energy).
        order: which of the two comes first.
        inputs: what the layer sees, and what it should answer: its inputs (the answers are then the
            layer's own), statistics of a pass over data, or a function that runs through both from
            the start each time it is called. Layers with more than `statistics.WIDEST` taps need
            the last, or statistics that have it as their `replay`, for `order` depthwise_first:
            they take two passes.
        equal: the same rank for all slices, where `energy` or `error` asks for ranks.
        sweeps: rounds of refinement with data; 0 is quick.

    Raises:
        ValueError: not exactly one of `rank`, `energy` and `error` is given, or it is out of range.
        UserError: the module cannot be taken apart; its weights or the data are not finite numbers;
            the data do not suffice; or they do not allow this energy or error at any rank.
    """
    check(conv)
    if sum(one is not None for one in (rank, energy, error)) != 1:
        raise ValueError("give one of rank, energy and error")
    statistics, replay = _read(conv, inputs)
    job = _Job(conv, order, statistics, replay)
    if rank is not None:
        ranks = each_rank(conv, order, rank)
    elif statistics is None:
        ranks = _few(conv, order, equal, energy, error)
    else:
        ranks = job.search(statistics, equal, lost_share(energy, error) ** 0.5)
    return job.run(ranks, sweeps)


def separate_quickly(
    conv: nn.Conv2d, *, rank: int | Sequence[int], order: Order, inputs: PatchStatistics
) -> Replacement:
    """The module alone, without sweeps; what it changes is not worked out. See `separate`."""
    check(conv)
    statistics, replay = _read(conv, inputs)
    job = _Job(conv, order, statistics, replay)
    ranks = each_rank(conv, order, rank)
    return job.build(ranks, job.fit(ranks, 0))[0]


def _read(
    conv: nn.Conv2d, inputs: Tensor | PatchStatistics | Replay | None
) -> tuple[PatchStatistics | None, Replay | None]:
    """The statistics of the data, and the data where there may be a second pass."""
    if inputs is None:
        return None, None
    if isinstance(inputs, PatchStatistics):
        inputs.check(conv)
        return inputs, inputs.replay
    statistics = PatchStatistics(conv)
    if isinstance(inputs, Tensor):
        given = inputs
        statistics.update(given)
        return statistics, lambda: [(given, statistics.answers(given))]
    for x, y in inputs():
        statistics.update(x, y)
    return statistics, inputs


def _few(
    conv: nn.Conv2d, order: Order, equal: bool, energy: float | None, error: float | None
) -> tuple[int, ...]:
    """The fewest terms that keep so much of the kernel."""
    spectrum = spectrum_of(conv, order)
    if equal:
        return each_rank(conv, order, spectrum.rank_for(energy=energy, error=error))
    return spectrum.ranks_for(energy=energy, error=error)


class _Fit(NamedTuple):
    """Slices that have the ranks asked for, and the bias that goes with them."""

    slices: Float64[Tensor, "s a k"]
    bias: Tensor | None
    kernel: Float64[Tensor, "g n d"] | None = None  # as the statistics take it
    lost: float | None = None  # of the output, where the fit itself has found it


class _Job(NamedTuple):
    """One convolution to be exchanged in one order."""

    conv: nn.Conv2d
    order: Order
    statistics: PatchStatistics | None
    replay: Replay | None

    def run(self, ranks: tuple[int, ...], sweeps: int) -> Separated:
        """Exchange it with these ranks."""
        conv, order = self.conv, self.order
        fit = self.fit(ranks, sweeps)
        module, factors = self.build(ranks, fit)
        original = slices_of(weight_of(conv), conv.groups, order)
        missing = original - rebuild(factors, ranks)
        norm = float(original.norm())
        joint = self.statistics is not None and self.statistics.joint
        return Separated(
            module=module,
            order=order,
            ranks=ranks,
            bias=fit.bias is not None,
            error=float(missing.norm()) / norm if norm else 0.0,
            output_bound=gain(conv, kernel_of(missing, conv, order)),
            output_error=self.lost(fit),
            floor=self.statistics.moments.floor if self.statistics and joint else None,
            macs=separated_macs(conv, order, sum(ranks)),
            regular_macs=regular_macs(conv),
        )

    def build(self, ranks: tuple[int, ...], fit: _Fit) -> tuple[Replacement, Factors]:
        """The module with what was fitted, and that by factors."""
        conv, order = self.conv, self.order
        module = separated_like(conv, order=order, ranks=ranks, bias=fit.bias is not None)
        factors = truncate(fit.slices, ranks)
        kernels = factors.kernels.unflatten(1, (conv.kernel_size[0], conv.kernel_size[1]))
        fill(module, kernels, factors.mixing, fit.bias)
        return module, factors

    def fit(self, ranks: tuple[int, ...], sweeps: int) -> _Fit:
        """The nearest slices of these ranks."""
        conv, statistics = self.conv, self.statistics
        if statistics is None:
            bias = None if conv.bias is None else conv.bias.detach()
            return _Fit(slices_of(weight_of(conv), conv.groups, self.order), bias)
        first = self.order == "depthwise_first"
        if first and not statistics.joint:
            if self.replay is None:
                raise UserError(
                    f"a layer with {statistics.width} taps is fitted in two passes over the data: "
                    "give a function that runs through them, not statistics of one pass"
                )
            slices, bias, lost = fit_wide(statistics, ranks, self.replay)
            return _Fit(slices, bias.flatten(), lost=lost)
        solve = fit_depthwise_first if first else fit_pointwise_first
        kernel = solve(statistics, ranks, sweeps)
        moments = statistics.moments
        bias = moments.y - (kernel * moments.x[:, None]).sum(2)
        shaped = kernel.flatten(0, 1).unflatten(1, (-1, *conv.kernel_size))
        return _Fit(slices_of(shaped, conv.groups, self.order), bias.flatten(), kernel)

    def lost(self, fit: _Fit) -> float | None:
        """The error of the output; None where it is not known."""
        if fit.kernel is None or self.statistics is None or not self.statistics.joint:
            return fit.lost
        return self.statistics.moments.lost(fit.kernel)

    def search(self, statistics: PatchStatistics, equal: bool, most: float) -> tuple[int, ...]:
        """The fewest terms whose quick fit leaves at most this error of the output."""
        if not statistics.joint:
            raise UserError(
                f"a layer with {statistics.width} taps has too many for a search: give a rank"
            )
        conv, order = self.conv, self.order
        spectrum = spectrum_of(conv, order, statistics)
        options: Sequence[int]
        if equal:
            options = range(1, spectrum.largest_rank + 1)
        else:
            least = conv.groups if order == "depthwise_first" else len(spectrum.values)
            options = range(least, spectrum.values.numel() + 1, conv.groups)

        def ranks(option: int) -> tuple[int, ...]:
            return each_rank(conv, order, option) if equal else spectrum.allocate(option)

        def suffices(option: int) -> bool:
            lost = self.lost(self.fit(ranks(option), 0))
            return lost is not None and lost <= max(most, NOUGHT)

        found = bisect_left(options, True, key=suffices)
        if found == len(options):
            raise UserError(
                f"an error of {most:.3g} cannot be had on these inputs: the best regular "
                f"convolution leaves {statistics.moments.floor:.3g}"
            )
        return ranks(options[found])
