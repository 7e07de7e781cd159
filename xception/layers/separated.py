"""What a regular convolution is exchanged for: depthwise kernels in unequal numbers, and 1x1 ones.

A slice is the part of a kernel that belongs to one input channel (depthwise first) or to one output
channel (pointwise first), and its rank is the number of depthwise kernels that stand for it. Where
one rank holds for all slices this is a `SeparableConv2d`, with the rank for a depth multiplier.
`SeparatedConv2d` is the rest: unequal ranks, the sum of several separable convolutions with the
pointwise part first, kernels such as 1x7, groups, and edges padded by other than zeros.

A term is one depthwise kernel with its weights in the 1x1 convolution. Terms are numbered slice by
slice; in memory they stand as `SeparatedConv2d.terms` says. `layers.exchange` chooses the module
for a convolution and gives it weights.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xception.layers.conv import Conv2d
from xception.layers.padding import Padding, check_padding
from xception.layers.separable import Order

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class SeparatedConv2d(nn.Module):
    """Depthwise and pointwise convolutions with a rank per slice.

    Every depthwise kernel works on a channel of its own, and channels that have several are copied
    first: libraries compute that many times faster than a depth multiplier above 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the window, in pixels.
        ranks: depthwise kernels of each slice: per input channel (from 0) depthwise first, per
            output channel (from 1) pointwise first. All groups need the same sum.
        order: "depthwise_first" or "pointwise_first".
        stride: step of the window, downwards and along, in pixels.
        dilation: distance between two taps of the window, downwards and along, in pixels.
        padding: as in `layers.Conv2d`; on both sides alike where the kernel is not square or
            `padding_mode` is not "zeros".
        padding_mode: what stands beyond the edges, as in `torch.nn.Conv2d`.
        groups: groups of channels that know nothing of each other, as in `torch.nn.Conv2d`.
        bias: whether one is added to the result.

    Raises:
        ValueError: channels that the groups cannot share out, an unknown word, or ranks that are
            too many or too few, out of range, or of another sum in one group than in another.
    """

    terms: tuple[int, ...]
    """For each depthwise kernel in memory the number of its term."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        ranks: Sequence[int],
        order: Order = "depthwise_first",
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: Padding = 0,
        padding_mode: PaddingMode = "zeros",
        groups: int = 1,
        bias: bool = False,
    ):
        super().__init__()
        self.ranks = tuple(ranks)
        self.groups = groups
        self.depthwise_first = order == "depthwise_first"
        check_ranks(self.ranks, in_channels, out_channels, kernel_size, groups, order)
        total = sum(self.ranks)
        # Plain tensors, not buffers: they follow from the ranks, and must be there on `meta` too.
        self._copied: Tensor | None = None  # channels taken beside whole copies of the input
        self._sorted: Tensor | None = None  # terms of all groups, level by level
        self._back: Tensor | None = None  # outputs as they were before they were sorted
        if self.depthwise_first:
            self._place_copies(in_channels)
        else:
            self._place_sums(out_channels)
        self.depthwise = _depthwise(total, kernel_size, stride, dilation, padding, padding_mode)
        self.pointwise = nn.Conv2d(
            total if self.depthwise_first else in_channels,
            out_channels if self.depthwise_first else total,
            1,
            groups=groups,
            bias=bias and self.depthwise_first,
        )
        after = bias and not self.depthwise_first
        self.bias = nn.Parameter(torch.zeros(out_channels)) if after else None

    def _place_copies(self, channels: int) -> None:
        """Terms by group, then level (first kernel of every channel, second, …), then channel."""
        offsets = list(accumulate(self.ranks, initial=0))
        size = channels // self.groups
        places = sorted((i // size, t, i) for i, rank in enumerate(self.ranks) for t in range(rank))
        self.terms = tuple(offsets[i] + t for _, t, i in places)
        least = min(self.ranks)
        self._copies = least if self.groups == 1 or max(self.ranks) == 1 else 0
        rest = [i for _, _, i in places[self._copies * channels :]]
        self._copied = torch.tensor(rest, device="cpu") if rest else None

    def _place_sums(self, channels: int) -> None:
        """Terms by group, then level, then output, those of the highest rank first."""
        offsets = list(accumulate(self.ranks, initial=0))
        size = channels // self.groups
        order = sorted(range(channels), key=lambda o: -self.ranks[o])
        position = {o: p for p, o in enumerate(order)}
        all_terms = [(o, t) for o, rank in enumerate(self.ranks) for t in range(rank)]
        stored = sorted(all_terms, key=lambda one: (one[0] // size, one[1], position[one[0]]))
        summed = sorted(all_terms, key=lambda one: (one[1], position[one[0]]))
        self.terms = tuple(offsets[o] + t for o, t in stored)
        self._levels = [sum(rank > t for rank in self.ranks) for t in range(max(self.ranks))]
        if stored != summed:
            place = {one: i for i, one in enumerate(stored)}
            self._sorted = torch.tensor([place[one] for one in summed], device="cpu")
        if order != sorted(order):
            back = [position[o] for o in range(channels)]
            self._back = torch.tensor(back, device="cpu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """Filter copies of the channels and mix them, or mix, filter and add up."""
        if self.depthwise_first:
            return self.pointwise(self.depthwise(self._spread(x)))
        return self._sum(self.depthwise(self.pointwise(x)))

    def _spread(self, x: Tensor) -> Tensor:
        """One channel for each term."""
        parts = [x] * self._copies
        if self._copied is not None:
            parts.append(take(x, self._copied))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _sum(self, terms: Tensor) -> Tensor:
        """The terms of every output added up: each level covers the first outputs of the last."""
        if self._sorted is not None:
            terms = take(terms, self._sorted)
        whole, *others = self._levels
        total, *rest = terms.split(self._levels, dim=1)
        for covered, level in zip(others, rest, strict=True):
            if covered == whole:
                total = total + level
            else:
                total = torch.cat((total[:, :covered] + level, total[:, covered:]), dim=1)
        if self._back is not None:
            total = take(total, self._back)
        return total if self.bias is None else total + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """The text between the brackets when the module is printed."""
        order = "depthwise_first" if self.depthwise_first else "pointwise_first"
        return f"{len(self.ranks)} slices, {sum(self.ranks)} terms, order={order!r}"


def take(x: Float[Tensor, "b c h w"], channels: Int[Tensor, " n"]) -> Float[Tensor, "b n h w"]:
    """Some channels of a map, in its own order of memory."""
    channels = channels.to(x.device)
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x.index_select(1, channels)
    # `index_select` would forget channels_last, in which a depthwise convolution is many times
    # faster; and from rows of a matrix it takes columns five times as fast as from more dimensions.
    rows = x.permute(0, 2, 3, 1)
    taken = rows.flatten(0, 2).index_select(1, channels)
    return taken.unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)


def _depthwise(
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Padding,
    padding_mode: PaddingMode,
) -> nn.Conv2d:
    """One kernel per channel."""
    check_padding(padding)
    square = all(down == along for down, along in (kernel, stride, dilation))
    if square and padding_mode == "zeros":
        return Conv2d(
            channels,
            channels,
            kernel[0],
            stride=stride[0],
            dilation=dilation[0],
            groups=channels,
            padding=padding,
            bias=False,
        )
    if isinstance(padding, tuple):
        left, right, top, bottom = padding
        if left != right or top != bottom:
            raise ValueError("padding of one side needs a square kernel and zeros")
        both = (top, left)
    else:
        both = padding
    return nn.Conv2d(
        channels,
        channels,
        kernel,
        stride=stride,
        padding=both,
        dilation=dilation,
        groups=channels,
        bias=False,
        padding_mode=padding_mode,
    )


def check_ranks(
    ranks: tuple[int, ...],
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    groups: int,
    order: Order,
) -> None:
    """Raise ValueError unless these ranks can be had."""
    if order not in ("depthwise_first", "pointwise_first"):
        raise ValueError(f"order must be depthwise_first or pointwise_first, not {order!r}")
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"{groups} groups do not share out {in_channels} and {out_channels}")
    first = order == "depthwise_first"
    slices, others = (in_channels, out_channels) if first else (out_channels, in_channels)
    least, most = int(not first), min(others // groups, kernel[0] * kernel[1])
    if len(ranks) != slices:
        raise ValueError(f"{order} needs {slices} ranks, not {len(ranks)}")
    if min(ranks) < least or max(ranks) > most:
        raise ValueError(f"ranks must be {least} to {most}, not {min(ranks)} to {max(ranks)}")
    size = slices // groups
    sums = {sum(ranks[start : start + size]) for start in range(0, slices, size)}
    if len(sums) > 1 or 0 in sums:
        raise ValueError(f"all groups need the same sum of ranks above 0, not {sorted(sums)}")
