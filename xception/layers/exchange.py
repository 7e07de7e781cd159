"""One convolution exchanged: the empty module that can stand in its place, and its weights."""

from collections.abc import Sequence
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.layers.conv import Conv2d
from xception.layers.padding import Padding
from xception.layers.separable import Order, SeparableConv2d
from xception.layers.separated import SeparatedConv2d, check_ranks


def inseparable(module: nn.Module) -> str | None:
    """Why this module is no convolution that can be taken apart; None where it is one."""
    kind = type(module).__name__
    if not isinstance(module, nn.Conv2d):
        return f"{kind} is no 2-D convolution"
    # As this very module has them: a class, or a single module, may have put its own there.
    runs = getattr(module.forward, "__func__", None)
    computes = getattr(module._conv_forward, "__func__", None)
    plain = runs in (nn.Conv2d.forward, Conv2d.forward) and computes is nn.Conv2d._conv_forward
    if not plain:
        return f"{kind} computes something of its own"
    return None


def padding_of(conv: nn.Conv2d) -> Padding:
    """The padding of a convolution, in the words of this package."""
    if isinstance(conv, Conv2d):
        return conv.edge_padding
    if isinstance(conv.padding, str):
        # Torch allows "same" at stride 1 only, and there means what TensorFlow means.
        return "same" if conv.padding == "same" else "valid"
    down, along = conv.padding
    return down if down == along else (along, along, down, down)


def separated_like(
    conv: nn.Conv2d, *, order: Order, ranks: int | Sequence[int], bias: bool
) -> SeparableConv2d | SeparatedConv2d:
    """The module that can stand in the place of a convolution, with all weights 0.

    It has the convolution's geometry, device (`meta` too), type and mode, and learns if that does.
    `fill` gives it weights, or a state dictionary. No random numbers are drawn.

    Args:
        conv: the regular convolution.
        order: which of the two comes first.
        ranks: one for all slices, or one each.
        bias: whether the module adds one.

    Raises:
        ValueError: `conv` cannot be taken apart, or not into these ranks.
    """
    reason = inseparable(conv)
    if reason is not None:
        raise ValueError(f"cannot be separated: {reason}")
    slices = conv.in_channels if order == "depthwise_first" else conv.out_channels
    each = (ranks,) * slices if isinstance(ranks, int) else tuple(ranks)
    kernel = (conv.kernel_size[0], conv.kernel_size[1])
    check_ranks(each, conv.in_channels, conv.out_channels, kernel, conv.groups, order)
    with torch.device("meta"):
        module = _module(conv, order, each, bias)
    # Not the weight, which a parametrization may make anew, and move on with, each time it is read.
    stored = next(chain(conv.parameters(), conv.buffers()))
    module = module.to_empty(device=stored.device).to(stored.dtype)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
        parameter.requires_grad_(stored.requires_grad)
    return module.train(conv.training)


def _module(
    conv: nn.Conv2d, order: Order, ranks: tuple[int, ...], bias: bool
) -> SeparableConv2d | SeparatedConv2d:
    """A `SeparableConv2d` wherever that can say it."""
    sizes = (conv.kernel_size, conv.stride, conv.dilation)
    equal = min(ranks) == max(ranks)
    plain = conv.groups == 1 and conv.padding_mode == "zeros"
    said = equal and (order == "depthwise_first" or ranks[0] == 1)
    if plain and said and all(down == along for down, along in sizes):
        return SeparableConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            stride=conv.stride[0],
            dilation=conv.dilation[0],
            padding=padding_of(conv),
            depth_multiplier=ranks[0],
            order=order,
            bias=bias,
        )
    return SeparatedConv2d(
        conv.in_channels,
        conv.out_channels,
        (conv.kernel_size[0], conv.kernel_size[1]),
        ranks=ranks,
        order=order,
        stride=(conv.stride[0], conv.stride[1]),
        dilation=(conv.dilation[0], conv.dilation[1]),
        padding=padding_of(conv),
        padding_mode=conv.padding_mode,
        groups=conv.groups,
        bias=bias,
    )


@torch.no_grad()
def fill(
    module: SeparableConv2d | SeparatedConv2d,
    kernels: Float[Tensor, "t h w"],
    mixing: Float[Tensor, "t c"],
    bias: Float[Tensor, " n"] | None,
) -> None:
    """Write weights into a module that `separated_like` made.

    Args:
        module: takes the values in its own type.
        kernels: the depthwise kernel of each term.
        mixing: of each term its weight in the outputs of its group (depthwise first), or the
            weights of the inputs of its group in it (pointwise first).
        bias: what is added to each output.
    """
    if isinstance(module, SeparatedConv2d):
        order = torch.tensor(module.terms, device=kernels.device)
        kernels, mixing = kernels[order], mixing[order]
    pointwise = module.pointwise
    if module.depthwise_first:
        mixing = mixing.unflatten(0, (pointwise.groups, -1)).transpose(1, 2).flatten(0, 1)
    module.depthwise.weight.copy_(kernels[:, None])
    pointwise.weight.copy_(mixing[:, :, None, None])
    if bias is not None:
        if module.depthwise_first:
            target = pointwise.bias
        elif isinstance(module, SeparatedConv2d):
            target = module.bias
        else:
            target = module.depthwise.bias
        if target is None:
            raise ValueError("the module has no bias")
        target.copy_(bias)
