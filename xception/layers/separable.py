"""The separable convolution: a k×k filter per channel, and a 1×1 convolution across channels.

Chollet 2017, arXiv:1610.02357, §1 and §2. It is the only one in the code base; `SeparableConv2d` is
how it is computed, `separable_conv2d_reference` is what it means.

Between it and a regular convolution lies a discrete spectrum (§1.2): the channels are split into
segments, and a k×k filter sees all channels of its segment. One segment is a regular convolution, a
segment per channel the separable one.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.layers.conv import Conv2d
from xception.layers.padding import Padding, edges

Order = Literal["depthwise_first", "pointwise_first"]


class SeparableConv2d(nn.Module):
    """Depthwise and pointwise convolution in a row; nothing between them unless asked for.

    The full chain is: first convolution, `norm_between`, `activation`, second convolution,
    `norm_after`. Stride, dilation and padding belong to the depthwise convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the depthwise window, in pixels.
        stride: step of the depthwise window, in pixels.
        dilation: distance between two taps of the depthwise window, in pixels.
        padding: TensorFlow's "same" or "valid", or explicit pixels (see `layers.padding`).
        depth_multiplier: depthwise kernels per channel that the depthwise convolution sees.
        segments: groups of channels that the depthwise convolution keeps apart, from 1 to all of
            them. None is one per channel: depthwise. Where the channels cannot be shared out
            evenly, the first segments have one more than the last (`segment_sizes`).
        order: "depthwise_first" as in TensorFlow, "pointwise_first" as in Inception. The latter
            mixes down to `out_channels / depth_multiplier` channels, which must be whole.
        activation: what stands between the two (§4.7): None or "none", "relu", "elu", any module.
        norm_between: builds the normalisation between the two from a number of channels.
        norm_after: builds the normalisation behind both from a number of channels.
        bias: whether the second convolution has one, as in Keras; the first never does.

    Raises:
        ValueError: a size below 1, an unknown word, channels that cannot be divided by the depth
            multiplier, or more segments than channels.
    """

    depthwise: Conv2d
    """The filters within the segments; of one channel each, unless `segments` says otherwise."""
    smaller: Conv2d | None
    """The filters of the last segments, where those have one channel less than the first."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "same",
        depth_multiplier: int = 1,
        segments: int | None = None,
        order: Order = "depthwise_first",
        activation: str | nn.Module | None = None,
        norm_between: Callable[[int], nn.Module] | None = None,
        norm_after: Callable[[int], nn.Module] | None = None,
        bias: bool = False,
    ):
        super().__init__()
        sizes = (in_channels, out_channels, kernel_size, stride, dilation, depth_multiplier)
        if min(sizes) < 1:
            raise ValueError(f"channels, sizes and steps must be at least 1, not {sizes}")
        if order not in ("depthwise_first", "pointwise_first"):
            raise ValueError(f"order must be depthwise_first or pointwise_first, not {order!r}")
        self.depthwise_first = order == "depthwise_first"
        if self.depthwise_first:
            mixed = in_channels  # channels that the depthwise convolution sees
            between = in_channels * depth_multiplier
        else:
            mixed = between = out_channels // depth_multiplier
            if mixed * depth_multiplier != out_channels:
                raise ValueError(
                    f"pointwise first needs out_channels ({out_channels}) to be a multiple of "
                    f"depth_multiplier ({depth_multiplier})"
                )
        filters = partial(
            _filters,
            multiplier=depth_multiplier,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            padding=padding,
            bias=bias and not self.depthwise_first,
        )
        self.segments = mixed if segments is None else segments
        first, *rest = segment_sizes(mixed, self.segments)
        self.depthwise = filters(*first)
        self.smaller = filters(*rest[0]) if rest else None
        self.pointwise = nn.Conv2d(
            between if self.depthwise_first else in_channels,
            out_channels if self.depthwise_first else between,
            1,
            bias=bias and self.depthwise_first,
        )
        self.norm_between = norm_between(between) if norm_between else nn.Identity()
        self.activation = activation_module(activation)
        self.norm_after = norm_after(out_channels) if norm_after else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """Filter each channel, mix the channels, or the other way round."""
        if self.depthwise_first:
            first, second = self._filter, self.pointwise
        else:
            first, second = self.pointwise, self._filter
        return self.norm_after(second(self.activation(self.norm_between(first(x)))))

    def _filter(self, x: Tensor) -> Tensor:
        """The depthwise convolution, in two parts where the segments differ in size."""
        if self.smaller is None:
            return self.depthwise(x)
        split = [self.depthwise.in_channels, self.smaller.in_channels]
        first, last = x.split(split, dim=1)
        return torch.cat((self.depthwise(first), self.smaller(last)), dim=1)


def segment_sizes(channels: int, segments: int) -> tuple[tuple[int, int], ...]:
    """How the channels are shared out: the channels of a segment, and how many such there are.

    That is one pair, or two whose sizes differ by one channel, the larger ones first.

    Raises:
        ValueError: there are fewer channels than segments, or no segments.
    """
    if not 1 <= segments <= channels:
        raise ValueError(f"segments of {channels} channels must be 1 to {channels}, not {segments}")
    least, larger = divmod(channels, segments)
    if larger == 0:
        return ((least, segments),)
    return ((least + 1, larger), (least, segments - larger))


def _filters(
    size: int,
    segments: int,
    *,
    multiplier: int,
    kernel_size: int,
    stride: int,
    dilation: int,
    padding: Padding,
    bias: bool,
) -> Conv2d:
    """The filters of `segments` segments of `size` channels each."""
    return Conv2d(
        size * segments,
        size * segments * multiplier,
        kernel_size,
        stride=stride,
        dilation=dilation,
        groups=segments,
        padding=padding,
        bias=bias,
    )


def activation_module(activation: str | nn.Module | None) -> nn.Module:
    """The module that an activation's name stands for; a module stands for itself.

    Raises:
        ValueError: the name is not known.
    """
    if isinstance(activation, nn.Module):
        return activation
    if activation in (None, "none"):
        return nn.Identity()
    if activation == "relu":
        return nn.ReLU()
    if activation == "elu":
        return nn.ELU()
    raise ValueError(f"activation must be none, relu, elu or a module, not {activation!r}")


def separable_conv2d_reference(
    x: Float[np.ndarray, "b c h w"],
    depthwise: Float[np.ndarray, "d n k k"],
    pointwise: Float[np.ndarray, "f p 1 1"],
    *,
    smaller: Float[np.ndarray, "e m k k"] | None = None,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "same",
    order: Order = "depthwise_first",
    between: Callable[[np.ndarray], np.ndarray] = lambda values: values,
    bias: Float[np.ndarray, " o"] | None = None,
) -> Float[np.ndarray, "b o i j"]:
    """What `SeparableConv2d` means, as loops over filters, channels and windows.

    The kernels have the shapes of the module's; `between` is the activation; `bias` is added last.
    """
    kernels = [*depthwise, *([] if smaller is None else smaller)]
    if order == "depthwise_first":
        out = _mix(between(_filter(x, kernels, stride, dilation, padding)), pointwise)
    else:
        out = _filter(between(_mix(x, pointwise)), kernels, stride, dilation, padding)
    return out if bias is None else out + bias[:, None, None]


def _filter(
    x: np.ndarray, kernels: list[np.ndarray], stride: int, dilation: int, padding: Padding
) -> np.ndarray:
    """One window product per kernel and place.

    A kernel has as many slices as its segment has channels, and the kernels of a segment follow one
    another: as many as it has channels, times the depth multiplier.
    """
    batch, channels, height, width = x.shape
    kernel = kernels[0].shape[-1]
    left, right, top, bottom = edges(height, width, padding, kernel, stride, dilation)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    multiplier = len(kernels) // channels
    reach = (kernel - 1) * dilation + 1
    rows = (x.shape[2] - reach) // stride + 1
    columns = (x.shape[3] - reach) // stride + 1
    out = np.zeros((batch, len(kernels), rows, columns), x.dtype)
    first = done = 0  # the first channel of the segment; filters of this segment so far
    for d, weights in enumerate(kernels):
        size = len(weights)
        for i, j in product(range(rows), range(columns)):
            down = slice(i * stride, i * stride + reach, dilation)
            along = slice(j * stride, j * stride + reach, dilation)
            window = x[:, first : first + size, down, along]
            out[:, d, i, j] = (window * weights).sum(axis=(1, 2, 3))
        done += 1
        if done == size * multiplier:
            first, done = first + size, 0
    return out


def _mix(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One weighted sum over the channels per filter."""
    batch, channels, height, width = x.shape
    out = np.zeros((batch, len(weights), height, width), x.dtype)
    for f, c in product(range(len(weights)), range(channels)):
        out[:, f] += weights[f, c, 0, 0] * x[:, c]
    return out
