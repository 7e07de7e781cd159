"""Batch normalisation taken into the convolutions before it, for networks that only answer.

In evaluation a normalisation is a scale and an offset per channel, and so is what a convolution can
do by itself. Both are multiplied in float64 and rounded once, so that the folded network is as near
to the one it comes from as float32 lets it be.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from xception.layers.separable import SeparableConv2d
from xception.layers.separated import SeparatedConv2d

Folded = TypeVar("Folded", bound=nn.Module)


def folded(network: Folded) -> Folded:
    """A copy in evaluation mode, with every normalisation folded that stands behind a convolution.

    One that stands elsewhere (behind a ReLU, as in the Inception V3 of August 2016) stays. The
    network must be on a CPU: other devices may have no float64.
    """
    copied = deepcopy(network).eval()
    fold(copied)
    return copied


@torch.no_grad()
def fold(network: nn.Module) -> None:
    """Fold the network itself; also on torch's meta device, where only the structure changes."""
    places = _places(network)
    for module in list(network.modules()):
        if isinstance(module, SeparableConv2d):
            _fold_separable(module)
        elif isinstance(module, nn.Sequential):
            _fold_row(module, places)


def _fold_separable(module: SeparableConv2d) -> None:
    """The normalisation between the two convolutions, and the one behind both."""
    filters = [conv for conv in (module.depthwise, module.smaller) if conv is not None]
    first, second = filters, [module.pointwise]
    if not module.depthwise_first:
        first, second = second, first
    if _foldable(module.norm_between):
        _absorb(first, module.norm_between)
        module.norm_between = nn.Identity()
    if _foldable(module.norm_after):
        _absorb(second, module.norm_after)
        module.norm_after = nn.Identity()


def _fold_row(row: nn.Sequential, places: dict[int, int]) -> None:
    """Each normalisation that follows a convolution in a row of layers."""
    names = list(row._modules)
    for before, name in pairwise(names):
        norm = row._modules[name]
        convs = last_convolutions(row._modules[before])
        alone = all(places[id(one)] == 1 for one in (norm, *convs))
        if convs and alone and _foldable(norm):
            _absorb(convs, norm)
            row._modules[name] = nn.Identity()


def last_convolutions(module: nn.Module | None) -> list[nn.Conv2d]:
    """The convolutions whose output channels, one behind the other, are those of the module.

    Empty where it does not end in convolutions.
    """
    if isinstance(module, nn.Conv2d):
        return [module]
    if isinstance(module, SeparableConv2d) and isinstance(module.norm_after, nn.Identity):
        if module.depthwise_first:
            return [module.pointwise]
        return [conv for conv in (module.depthwise, module.smaller) if conv is not None]
    if isinstance(module, SeparatedConv2d) and module.depthwise_first:
        return [module.pointwise]
    if isinstance(module, nn.Sequential) and len(module):
        return last_convolutions(module[-1])
    return []


def _foldable(module: nn.Module | None) -> bool:
    """Whether it is a normalisation by statistics that it has."""
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


def _absorb(convs: Sequence[nn.Conv2d], norm: nn.Module) -> None:
    """Give the convolutions the scale and the offset of the normalisation behind them."""
    assert isinstance(norm, nn.BatchNorm2d)
    if convs[0].weight.is_meta:  # arithmetic there makes torch import its compiler (3 s)
        for conv in convs:
            conv.bias = _fixed(torch.empty(conv.out_channels, device="meta"), conv.weight)
        return
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:  # Keras' Inception V3 has offsets only
        scale = scale * norm.weight.double()
    offset = -mean.double() * scale
    if norm.bias is not None:
        offset = offset + norm.bias.double()
    sizes = [conv.out_channels for conv in convs]
    for conv, factor, shift in zip(convs, scale.split(sizes), offset.split(sizes), strict=True):
        weight = conv.weight.double() * factor[:, None, None, None]
        bias = shift if conv.bias is None else conv.bias.double() * factor + shift
        conv.weight = _fixed(weight, conv.weight)
        conv.bias = _fixed(bias, conv.weight)


def _fixed(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=False)


def _places(network: nn.Module) -> dict[int, int]:
    """In how many places each module stands: one that stands in two serves both."""
    found: dict[int, int] = {}
    for parent in network.modules():
        for child in parent._modules.values():
            if child is not None:
                found[id(child)] = found.get(id(child), 0) + 1
    return found
