"""The Inception module and its way into the separable convolution, as code to run.

Chollet 2017, arXiv:1610.02357, §1.1 and Figures 1 to 4. Four modules, and the conversions between
those that compute the same:

- Figure 1, `Inception`: towers of several kinds. Leaving out the pooling and all but one size of
  kernel, which changes what is computed, gives
- Figure 2, `SimplifiedInception`: equal towers, a 1x1 and a 3x3 convolution each. Its 1x1
  convolutions all see the same input and may be written as one (`joined`, and back: `parted`):
- Figure 3, `SegmentedInception`: one large 1x1 convolution whose output channels are split into
  segments, with a 3x3 convolution for each. With a segment per channel that is
- Figure 4, the extreme form: `SeparableConv2d` with the pointwise convolution first (`separable`,
  and back: `segmented`), which also has all equal segments between.

An activation, where there is one, stands between the two convolutions. What follows the second is
left to the caller: it acts on each channel by itself and is the same in all forms.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.layers.conv import Conv2d
from xception.layers.separable import SeparableConv2d, activation_module, segment_sizes

Tower = tuple[int, int]
"""Channels between the convolutions of a tower, and of its output."""


class Inception(nn.Module):
    """Figure 1, the module of Inception V3 (Szegedy et al. 2016, arXiv:1512.00567, Figure 5).

    Four towers side by side: a 1x1 convolution; a 1x1 and a 3x3; a 1x1 and two 3x3; an average
    pooling and a 1x1. The channels of their outputs follow one another.

    Args:
        in_channels: channels of the input.
        single: output channels of the first tower.
        tower: of the second.
        deep_tower: of the third; both its 3x3 convolutions have the output's channels.
        pooled: output channels of the fourth.
        activation: what stands between two convolutions: "none", "relu", "elu" or a module.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        single: int,
        tower: Tower,
        deep_tower: Tower,
        pooled: int,
        activation: str | nn.Module = "relu",
    ):
        super().__init__()
        between = activation_module(activation)
        self.single = _mix(in_channels, single)
        self.tower = nn.Sequential(
            _mix(in_channels, tower[0]), between, Conv2d(*tower, 3, bias=False)
        )
        self.deep_tower = nn.Sequential(
            _mix(in_channels, deep_tower[0]),
            between,
            Conv2d(*deep_tower, 3, bias=False),
            between,
            Conv2d(deep_tower[1], deep_tower[1], 3, bias=False),
        )
        # TensorFlow's pooling: pixels beyond the edges do not count.
        pooling = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.pooled = nn.Sequential(pooling, _mix(in_channels, pooled))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f h w"]:
        """The outputs of the towers, one behind the other."""
        towers = (self.single, self.tower, self.deep_tower, self.pooled)
        return torch.cat([tower(x) for tower in towers], dim=1)


class SimplifiedInception(nn.Module):
    """Figure 2: towers of a 1x1 and a k×k convolution, all with the same k.

    Args:
        in_channels: channels of the input.
        towers: channels between and behind, for each tower.
        kernel_size: k.
        activation: what stands between: "none", "relu", "elu" or a module.

    Raises:
        ValueError: there is no tower.
    """

    def __init__(
        self,
        in_channels: int,
        towers: Sequence[Tower],
        kernel_size: int = 3,
        *,
        activation: str | nn.Module = "relu",
    ):
        super().__init__()
        if not towers:
            raise ValueError("at least one tower is needed")
        self.in_channels, self.kernel_size = in_channels, kernel_size
        self.towers = tuple(towers)
        self.activation = activation_module(activation)
        self.mixing = nn.ModuleList(_mix(in_channels, between) for between, _ in towers)
        self.spatial = _spatial(towers, kernel_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f h w"]:
        """The outputs of the towers, one behind the other."""
        pairs = zip(self.mixing, self.spatial, strict=True)
        return torch.cat([spatial(self.activation(mix(x))) for mix, spatial in pairs], dim=1)


class SegmentedInception(nn.Module):
    """Figure 3: one large 1x1 convolution, and a k×k convolution for each segment of its channels.

    Args:
        in_channels: channels of the input.
        towers: channels and output channels of each segment.
        kernel_size: k.
        activation: what stands between: "none", "relu", "elu" or a module.

    Raises:
        ValueError: there is no segment.
    """

    def __init__(
        self,
        in_channels: int,
        towers: Sequence[Tower],
        kernel_size: int = 3,
        *,
        activation: str | nn.Module = "relu",
    ):
        super().__init__()
        if not towers:
            raise ValueError("at least one segment is needed")
        self.in_channels, self.kernel_size = in_channels, kernel_size
        self.towers = tuple(towers)
        self.activation = activation_module(activation)
        self.mixing = _mix(in_channels, sum(between for between, _ in towers))
        self.spatial = _spatial(towers, kernel_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f h w"]:
        """The outputs of the segments, one behind the other."""
        segments = self.activation(self.mixing(x)).split([size for size, _ in self.towers], dim=1)
        pairs = zip(self.spatial, segments, strict=True)
        return torch.cat([spatial(segment) for spatial, segment in pairs], dim=1)


@torch.no_grad()
def joined(module: SimplifiedInception) -> SegmentedInception:
    """Figure 2 as Figure 3: the 1x1 convolutions one below the other make the large one."""
    result = SegmentedInception(
        module.in_channels, module.towers, module.kernel_size, activation=module.activation
    )
    weights = torch.cat(tuple(mix.get_parameter("weight") for mix in module.mixing))
    result.to(weights).mixing.weight.copy_(weights)
    result.spatial.load_state_dict(module.spatial.state_dict())
    return result


@torch.no_grad()
def parted(module: SegmentedInception) -> SimplifiedInception:
    """Figure 3 as Figure 2: each segment's rows of the large 1x1 convolution make a small one."""
    result = SimplifiedInception(
        module.in_channels, module.towers, module.kernel_size, activation=module.activation
    )
    whole = module.mixing.weight
    result.to(whole)
    rows = whole.split([size for size, _ in module.towers])
    for mix, weight in zip(result.mixing, rows, strict=True):
        mix.get_parameter("weight").copy_(weight)
    result.spatial.load_state_dict(module.spatial.state_dict())
    return result


@torch.no_grad()
def separable(module: SegmentedInception) -> SeparableConv2d:
    """Figure 3 with equal segments as a separable convolution; of one channel each, as Figure 4.

    Raises:
        ValueError: the segments are not as `segment_sizes` shares the channels out, or do not all
            have the same number of output channels per channel.
    """
    channels = sum(size for size, _ in module.towers)
    outputs = sum(output for _, output in module.towers)
    multiplier = max(outputs // channels, 1)
    shared = segment_sizes(channels, len(module.towers))
    equal = [(size, size * multiplier) for size, number in shared for _ in range(number)]
    if list(module.towers) != equal:
        raise ValueError(f"a separable convolution would have the segments {equal!s:.200}")
    result = SeparableConv2d(
        module.in_channels,
        outputs,
        module.kernel_size,
        depth_multiplier=multiplier,
        segments=len(module.towers),
        order="pointwise_first",
        activation=module.activation,
    ).to(module.mixing.weight)
    result.pointwise.weight.copy_(module.mixing.weight)
    filters = tuple(spatial.get_parameter("weight") for spatial in module.spatial)
    first = shared[0][1]
    result.depthwise.weight.copy_(torch.cat(filters[:first]))
    if result.smaller is not None:
        result.smaller.weight.copy_(torch.cat(filters[first:]))
    return result


@torch.no_grad()
def segmented(module: SeparableConv2d) -> SegmentedInception:
    """A separable convolution, pointwise first, as Figure 3: its 1x1 convolution, and its segments.

    Raises:
        ValueError: the depthwise convolution comes first, or there is more to the module than
            Figure 4 shows: stride, dilation, other padding than "same", bias, normalisation.
    """
    parts = [module.depthwise, *([] if module.smaller is None else [module.smaller])]
    norms = (module.norm_between, module.norm_after)
    plain = (
        not module.depthwise_first
        and all(isinstance(norm, nn.Identity) for norm in norms)
        and all(
            (part.stride, part.dilation, part.edge_padding) == ((1, 1), (1, 1), "same")
            and part.bias is None
            for part in parts
        )
    )
    if not plain:
        raise ValueError(
            "Figure 4 is pointwise first, without stride, dilation, padding, bias or normalisation"
        )
    shares = [
        (part.in_channels // part.groups, part.out_channels // part.groups)
        for part in parts
        for _ in range(part.groups)
    ]
    result = SegmentedInception(
        module.pointwise.in_channels,
        shares,
        module.depthwise.kernel_size[0],
        activation=module.activation,
    ).to(module.pointwise.weight)
    result.mixing.weight.copy_(module.pointwise.weight)
    filters = [kernel for part in parts for kernel in part.weight.chunk(part.groups)]
    for spatial, weight in zip(result.spatial, filters, strict=True):
        spatial.get_parameter("weight").copy_(weight)
    return result


def _mix(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 1, bias=False)


def _spatial(towers: Sequence[Tower], kernel_size: int) -> nn.ModuleList:
    return nn.ModuleList(Conv2d(*tower, kernel_size, bias=False) for tower in towers)
