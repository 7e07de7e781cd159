"""From the rows of an Inception network's tables to layers: branches side by side, and in a row."""

from collections import OrderedDict
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.models.network import scaled


class Conv(NamedTuple):
    """A convolution with its normalisation and its ReLU."""

    width: int  # output channels of the paper's network
    kernel: tuple[int, int] = (1, 1)  # height, width; both odd
    padded: bool = True  # by zeros, so that stride 1 keeps the size
    stride: int = 1


class Pool(NamedTuple):
    """A pooling over 3x3. At stride 1 it keeps the size; at stride 2 nothing is padded."""

    kind: Literal["average", "maximum"]
    stride: Literal[1, 2]


class Fork(NamedTuple):
    """Several convolutions of the same input, their channels side by side."""

    convs: tuple[Conv, ...]


Branch = tuple[Conv | Pool | Fork, ...]
"""Layers in a row."""
Module = tuple[Branch, ...]
"""Branches of the same input, their channels side by side."""


class Branches(nn.ModuleList):
    """What several branches make of the same input, their channels side by side."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """All channels, in the order of the branches."""
        return torch.cat([branch(x) for branch in self], 1)


class ShiftNorm(nn.BatchNorm2d):
    """Batch normalisation with an offset but no scale: the layer behind can scale as well."""

    def __init__(self, channels: int, eps: float, momentum: float):
        super().__init__(channels, eps=eps, momentum=momentum)
        self.register_parameter("weight", None)


class Parts(NamedTuple):
    """Builds layers, and counts their channels, as the options want them."""

    norm_scale: bool
    norm_epsilon: float
    pool_border: str  # "exclude" or "include"
    norm_last: bool  # convolution with bias, ReLU, normalisation
    width: float = 1.0  # all numbers of output channels times this,
    multiple: int = 8  # to the nearest multiple

    def channels(self, conv: Conv) -> int:
        """How many a convolution gives in this network."""
        return scaled(conv.width, self.width, self.multiple)

    def branch(self, channels: int, steps: Branch) -> tuple[nn.Sequential, int]:
        """Layers in a row, and their number of output channels."""
        layers: list[nn.Module] = []
        for step in steps:
            if isinstance(step, Conv):
                layers.append(self.conv(channels, step))
                channels = self.channels(step)
            elif isinstance(step, Fork):
                layers.append(Branches(self.conv(channels, conv) for conv in step.convs))
                channels = sum(map(self.channels, step.convs))
            else:
                layers.append(self.pool(step))
        return nn.Sequential(*layers), channels

    def module(self, channels: int, branches: Module) -> tuple[Branches, int]:
        """Branches side by side, and their number of output channels together."""
        built = [self.branch(channels, branch) for branch in branches]
        return Branches(layers for layers, _ in built), sum(width for _, width in built)

    def conv(self, channels: int, conv: Conv) -> nn.Sequential:
        """One convolution with what belongs to it."""
        height, width = conv.kernel
        after = self.channels(conv)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(
            channels,
            after,
            conv.kernel,
            stride=conv.stride,
            padding=(height // 2, width // 2) if conv.padded else 0,
            bias=self.norm_last,
        )
        norm = nn.BatchNorm2d if self.norm_scale else ShiftNorm
        layers["norm"] = norm(after, eps=self.norm_epsilon, momentum=0.1)
        layers["relu"] = nn.ReLU(inplace=True)
        if self.norm_last:
            layers.move_to_end("norm")
        return nn.Sequential(layers)

    def pool(self, pool: Pool) -> nn.Module:
        """One pooling."""
        padding = 1 if pool.stride == 1 else 0
        if pool.kind == "maximum":
            return nn.MaxPool2d(3, pool.stride, padding)
        include = self.pool_border == "include"
        return nn.AvgPool2d(3, pool.stride, padding, count_include_pad=include)
