"""The separable convolution: a k×k filter per channel, and a 1×1 convolution across channels.

Chollet 2017, arXiv:1610.02357, §1 and §2. It is the only one in the code base; `SeparableConv2d` is
how it is computed, `separable_conv2d_reference` is what it means.
"""

from collections.abc import Callable
from itertools import product
from typing import Literal

import numpy as np
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
        order: "depthwise_first" as in TensorFlow, "pointwise_first" as in Inception. The latter
            mixes down to `out_channels / depth_multiplier` channels, which must be whole.
        activation: what stands between the two (§4.7): None or "none", "relu", "elu", any module.
        norm_between: builds the normalisation between the two from a number of channels.
        norm_after: builds the normalisation behind both from a number of channels.
        bias: whether the second convolution has one, as in Keras; the first never does.

    Raises:
        ValueError: a size below 1, an unknown word, or channels that cannot be divided.
    """

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
        self.depthwise = Conv2d(
            mixed,
            mixed * depth_multiplier,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=mixed,
            padding=padding,
            bias=bias and not self.depthwise_first,
        )
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
            first, second = self.depthwise, self.pointwise
        else:
            first, second = self.pointwise, self.depthwise
        return self.norm_after(second(self.activation(self.norm_between(first(x)))))


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
    depthwise: Float[np.ndarray, "d 1 k k"],
    pointwise: Float[np.ndarray, "f p 1 1"],
    *,
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
    if order == "depthwise_first":
        out = _mix(between(_filter(x, depthwise, stride, dilation, padding)), pointwise)
    else:
        out = _filter(between(_mix(x, pointwise)), depthwise, stride, dilation, padding)
    return out if bias is None else out + bias[:, None, None]


def _filter(
    x: np.ndarray, kernels: np.ndarray, stride: int, dilation: int, padding: Padding
) -> np.ndarray:
    """One window product per kernel and place; kernel d belongs to channel d // multiplier."""
    batch, channels, height, width = x.shape
    kernel = kernels.shape[-1]
    left, right, top, bottom = edges(height, width, padding, kernel, stride, dilation)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    multiplier = len(kernels) // channels
    reach = (kernel - 1) * dilation + 1
    rows = (x.shape[2] - reach) // stride + 1
    columns = (x.shape[3] - reach) // stride + 1
    out = np.zeros((batch, len(kernels), rows, columns), x.dtype)
    for d, i, j in product(range(len(kernels)), range(rows), range(columns)):
        down = slice(i * stride, i * stride + reach, dilation)
        along = slice(j * stride, j * stride + reach, dilation)
        window = x[:, d // multiplier, down, along]
        out[:, d, i, j] = (window * kernels[d, 0]).sum(axis=(1, 2))
    return out


def _mix(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One weighted sum over the channels per filter."""
    batch, channels, height, width = x.shape
    out = np.zeros((batch, len(weights), height, width), x.dtype)
    for f, c in product(range(len(weights)), range(channels)):
        out[:, f] += weights[f, c, 0, 0] * x[:, c]
    return out
