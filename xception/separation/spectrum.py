"""The slices of a kernel and their singular values: what a separable convolution can keep of it.

The slice of an input channel (depthwise first) has a row per output and a column per tap; the slice
of an output (pointwise first) a row per input and a column per tap. r depthwise kernels with their
1x1 weights make a slice of rank r, and the best such slice is the truncated singular value
decomposition (Eckart and Young 1936). docs/separation.md has the proof.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.layers.separable import Order
from xception.separation.windows import overlap, regular_macs, separated_macs


def weight_of(conv: nn.Conv2d) -> Float[Tensor, "n c h w"]:
    """The weights. Some parametrizations move on when they are read in training: not here."""
    with evaluation(conv):
        return conv.weight.detach()


def slices_of(
    kernel: Float[Tensor, "n c h w"], groups: int, order: Order
) -> Float64[Tensor, "s a k"]:
    """The slices of a kernel in float64: `a` channels on the other side, `k` taps."""
    flat = kernel.detach().to("cpu", torch.float64).flatten(2)
    if order == "pointwise_first":
        return flat
    return flat.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def kernel_of(
    slices: Float64[Tensor, "s a k"], conv: nn.Conv2d, order: Order
) -> Float64[Tensor, "n c h w"]:
    """The kernel that has these slices; undoes `slices_of`."""
    if order == "depthwise_first":
        slices = slices.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)
    return slices.unflatten(2, (conv.kernel_size[0], conv.kernel_size[1]))


class Factors(NamedTuple):
    """Depthwise kernels and 1x1 weights, term by term, slice after slice."""

    kernels: Float64[Tensor, "t k"]
    mixing: Float64[Tensor, "t a"]


def truncate(slices: Float64[Tensor, "s a k"], ranks: Sequence[int]) -> Factors:
    """The best factors of these ranks, both of a term with the same norm.

    Sign: the largest tap of a kernel is positive.
    """
    left, values, right = torch.linalg.svd(slices, full_matrices=False)
    kept = torch.arange(values.shape[1]) < torch.tensor(tuple(ranks))[:, None]
    root = values[kept].sqrt()[:, None]
    kernels, mixing = right[kept], left.mT[kept]
    sign = kernels.gather(1, kernels.abs().argmax(dim=1, keepdim=True)).sign()
    return Factors(kernels * root * sign, mixing * root * sign)


def rebuild(factors: Factors, ranks: Sequence[int]) -> Float64[Tensor, "s a k"]:
    """The slices that the factors make."""
    owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(tuple(ranks)))
    kernels, mixing = factors
    made = torch.zeros(len(ranks), mixing.shape[1], kernels.shape[1], dtype=torch.float64)
    return made.index_add_(0, owner, mixing[:, :, None] * kernels[:, None, :])


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular values of a convolution's slices in one order.

    Ranks may be given as one number for all slices, or as one for each.
    """

    conv: nn.Conv2d
    order: Order
    values: Float64[Tensor, "s r"]
    """For each slice its singular values, descending."""
    whitened: bool
    """Whether the squares are energy of the output, by statistics, and not of the kernel."""

    @property
    def largest_rank(self) -> int:
        """The rank with which every slice is exact, whatever its values: min(channels, taps)."""
        return self.values.shape[1]

    @property
    def exact_ranks(self) -> tuple[int, ...]:
        """The rank of each slice, up to the rounding of the weights' type."""
        return tuple((self._squares > 0).sum(dim=1).tolist())

    @property
    def exact_rank(self) -> int:
        """The smallest depth multiplier that loses nothing; 1 is depthwise separable."""
        return max(1, *self.exact_ranks)

    def energy(self, ranks: int | Sequence[int]) -> float:
        """The share of the squared singular values that is kept, 0 … 1."""
        return 1 - self.error(ranks) ** 2

    def error(self, ranks: int | Sequence[int]) -> float:
        """The relative error, in the Frobenius norm: √ of the share that is lost."""
        whole = float(self._squares.sum())
        return math.sqrt(self._lost(ranks) / whole) if whole else 0.0

    def gain(self, ranks: int | Sequence[int]) -> float:
        """What |y - ŷ| / |x| never exceeds (2-norms of all values), of the best such kernel.

        The input is meant as padded, which changes nothing with zeros. The bound of what
        `separate` gives is sharper.

        Raises:
            ValueError: these are whitened values, which do not bound the kernel.
        """
        if self.whitened:
            raise ValueError("statistics say what an output is like, and bound nothing")
        return math.sqrt(overlap(self.conv) * self._lost(ranks))

    def mean_energy(self, rank: int) -> float:
        """The mean over the slices of the share that each keeps (Guo et al. 2018, §3)."""
        squares = self._squares
        whole = squares.sum(dim=1)
        kept = squares[:, :rank].sum(dim=1)
        return float(torch.where(whole > 0, kept / whole, 1.0).mean())

    def allocate(self, total: int) -> tuple[int, ...]:
        """The best ranks of this sum: those of the largest singular values.

        Each term costs the same, so no other ranks of this cost keep more. With groups, each group
        has the same sum. Pointwise first, every output keeps at least one.

        Raises:
            ValueError: the sum cannot be had.
        """
        groups, slices = self.conv.groups, len(self.values)
        least = groups if self.order == "depthwise_first" else slices
        if total % groups or not least <= total <= self.values.numel():
            raise ValueError(
                f"the ranks' sum must be {least} to {self.values.numel()} in steps of {groups}, "
                f"not {total}"
            )
        _, owners = self._by_size
        chosen = owners[:, : total // groups].flatten()
        return tuple(torch.bincount(chosen, minlength=slices).tolist())

    def rank_for(self, *, energy: float | None = None, error: float | None = None) -> int:
        """The smallest rank that, held by all slices, keeps this energy or has at most this error.

        Raises:
            ValueError: not exactly one of the two is given, or it is outside 0 … 1.
        """
        lost = lost_share(energy, error)
        rank = 1
        while self.error(rank) ** 2 > lost:
            rank += 1
        return rank

    def ranks_for(
        self, *, energy: float | None = None, error: float | None = None
    ) -> tuple[int, ...]:
        """The ranks of the smallest sum that keep this energy or have at most this error.

        Raises:
            ValueError: not exactly one of the two is given, or it is outside 0 … 1.
        """
        lost = lost_share(energy, error) * float(self._squares.sum())
        sizes, _ = self._by_size
        rest = sizes.flip(1).cumsum(1).flip(1).sum(0)  # what is lost by keeping 0, 1, 2 … a group
        each = int((rest > lost).sum())
        groups = self.conv.groups
        least = groups if self.order == "depthwise_first" else len(self.values)
        return self.allocate(max(each * groups, least))

    def macs(self, ranks: int | Sequence[int]) -> int:
        """Multiply-accumulates of these ranks for one place of the output."""
        return separated_macs(self.conv, self.order, sum(each_rank(self.conv, self.order, ranks)))

    @property
    def regular_macs(self) -> int:
        """Those of the convolution itself."""
        return regular_macs(self.conv)

    @cached_property
    def _squares(self) -> Tensor:
        """Squares of the singular values; 0 where they are the rounding of the weights."""
        eps = torch.finfo(weight_of(self.conv).dtype).eps
        taps = math.prod(self.conv.kernel_size)
        others = regular_macs(self.conv) // (taps * len(self.values))
        rounding = max(taps, others) * eps * self.values[:, :1]
        if eps > torch.finfo(torch.float32).eps:
            # Of a coarse type that would be everything. But only the weights are of it, each off by
            # eps/2 of itself: no singular value by more than all of that together (Weyl 1912).
            rounding = eps * self.values.norm(dim=1, keepdim=True)
        return torch.where(self.values > rounding, self.values.square(), 0.0)

    @cached_property
    def _by_size(self) -> tuple[Tensor, Tensor]:
        """For each group the squares, descending, and the slice that each is of."""
        groups = self.conv.groups
        slices, width = self.values.shape
        # First values before second ones, so that of equal ones the first is taken first.
        squares = self._squares.unflatten(0, (groups, -1)).transpose(1, 2).flatten(1)
        owner = torch.arange(slices).view(groups, 1, -1).expand(-1, width, -1).flatten(1)
        keys = squares.clone()
        if self.order == "pointwise_first":
            keys[:, : slices // groups] = torch.inf
        order = keys.argsort(dim=1, descending=True, stable=True)
        return squares.gather(1, order), owner.gather(1, order)

    def _lost(self, ranks: int | Sequence[int]) -> float:
        """The sum of the squares that are not kept."""
        each = torch.tensor(each_rank(self.conv, self.order, ranks))
        dropped = torch.arange(self.values.shape[1]) >= each[:, None]
        return float(self._squares[dropped].sum())


def each_rank(conv: nn.Conv2d, order: Order, ranks: int | Sequence[int]) -> tuple[int, ...]:
    """A rank for each slice; one number stands for all, up to what makes them exact.

    Raises:
        ValueError: their number is another than that of the slices.
    """
    first = order == "depthwise_first"
    slices, others = (
        (conv.in_channels, conv.out_channels) if first else (conv.out_channels, conv.in_channels)
    )
    if isinstance(ranks, int):
        return (min(ranks, others // conv.groups, math.prod(conv.kernel_size)),) * slices
    if len(ranks) != slices:
        raise ValueError(f"{slices} slices need as many ranks, not {len(ranks)}")
    return tuple(ranks)


def lost_share(energy: float | None, error: float | None) -> float:
    """The share of the squares that may be lost.

    Raises:
        ValueError: not exactly one of the two is given, or it is outside 0 … 1.
    """
    given = [one for one in (energy, error) if one is not None]
    if len(given) != 1:
        raise ValueError("give either an energy or an error")
    if not 0 <= given[0] <= 1:
        raise ValueError(f"an energy or an error must be 0 … 1, not {given[0]}")
    return given[0] ** 2 if energy is None else 1 - given[0]
