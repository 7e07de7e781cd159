"""What a convolution sees: its windows, how often they see a pixel, and what a place costs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xception.layers.exchange import padding_of
from xception.layers.padding import Edges, edges, same_padding
from xception.layers.separable import Order


def window_edges(conv: nn.Conv2d, height: int, width: int) -> Edges:
    """Pixels that the convolution adds at (left, right, top, bottom) of an image."""
    padding = padding_of(conv)
    if padding == "same":
        down, along = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        return (*same_padding(width, *along), *same_padding(height, *down))
    return edges(height, width, padding, conv.kernel_size[0])


def padded(conv: nn.Conv2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
    """The image with its edges as the convolution sees them."""
    added = window_edges(conv, x.shape[2], x.shape[3])
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(x, added, mode=mode) if any(added) else x


def patches(conv: nn.Conv2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b g d p"]:
    """What each of the p places sees, by group: for each of its channels the taps, row by row."""
    seen = F.unfold(
        padded(conv, x), conv.kernel_size, dilation=conv.dilation, padding=0, stride=conv.stride
    )
    return seen.unflatten(1, (conv.groups, -1))


def overlap(conv: nn.Conv2d) -> int:
    """Windows that see the same pixel of the padded image, at most."""
    most = 1
    for taps, stride, dilation in zip(conv.kernel_size, conv.stride, conv.dilation, strict=True):
        # Taps that fall on one pixel are this many taps apart.
        apart = stride // math.gcd(stride, dilation)
        most *= -(-taps // apart)
    return most


def gain(conv: nn.Conv2d, kernel: Float[torch.Tensor, "n m h w"]) -> float:
    """A number that the norm of `kernel`'s output over that of the padded input never exceeds.

    With conv's stride and dilation. At a place the output is R p, with the patch p that it sees and
    the kernel as a matrix R of n rows; all patches together have at most `overlap` times the
    squared norm of the input. Backwards, what reaches a pixel is T q, with the kernel as a matrix T
    of m rows and q the outputs that saw it, and all q have k² times the squared norm of the
    output. So both √overlap·|R| and k·|T| are bounds (|.|: largest singular value); for stride 1
    these are two of the four of Singla and Feizi 2021, arXiv:1911.10258, Theorem 1.
    """
    by_group = kernel.double().unflatten(0, (conv.groups, -1))  # g, n/g, m/g, h, w
    rows = by_group.flatten(2)
    columns = by_group.transpose(1, 2).flatten(2)
    taps = kernel.shape[2] * kernel.shape[3]
    forward = math.sqrt(overlap(conv)) * _largest(rows)
    backward = math.sqrt(taps) * _largest(columns)
    return min(forward, backward)


def _largest(matrices: Tensor) -> float:
    """The largest singular value of a batch, by the smaller of the two Gram matrices."""
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    squares = torch.linalg.eigvalsh(matrices @ matrices.mT)
    return math.sqrt(max(float(squares.max()), 0.0))


def regular_macs(conv: nn.Conv2d) -> int:
    """Multiply-accumulates of the convolution for one place of its output."""
    return conv.out_channels * (conv.in_channels // conv.groups) * math.prod(conv.kernel_size)


def separated_macs(conv: nn.Conv2d, order: Order, terms: int) -> int:
    """The same of what replaces it, with this many depthwise kernels.

    Pointwise first, the 1x1 convolution works at the places of the input, of which there are
    stride² for one of the output.
    """
    taps = math.prod(conv.kernel_size)
    if order == "depthwise_first":
        return terms * (taps + conv.out_channels // conv.groups)
    return terms * (taps + math.prod(conv.stride) * conv.in_channels // conv.groups)
