"""Convolution and maximum pooling with TensorFlow's padding, without needless copies."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xception.layers.padding import Padding, check_padding, edges, same_padding


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that also knows TensorFlow's "same" with a stride.

    Square kernels only. Padding that is the same on both sides is left to the convolution itself;
    only the pixels by which the sides differ are added by a copy.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: Padding = "same",
        bias: bool = True,
    ):
        check_padding(padding)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.edge_padding: Padding = padding

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f i j"]:
        """Slide `out_channels` filters over the image."""
        left, right, top, bottom = edges(
            input.shape[2],
            input.shape[3],
            self.edge_padding,
            self.kernel_size[0],
            self.stride[0],
            self.dilation[0],
        )
        # A strided 1x1 convolution sees every stride-th pixel only. Taking those first gives the
        # same, and torch 2.13 corrupts memory in the backward pass of the strided form (on a CPU,
        # channels last, few channels). The mean over one pixel is that pixel, and quicker to
        # take than a slice, backwards too.
        thin = self.kernel_size == (1, 1) and self.stride != (1, 1)
        both = (0, 0) if thin else (min(top, bottom), min(left, right))  # height, width
        rest = (left - both[1], right - both[1], top - both[0], bottom - both[0])
        if any(rest):
            input = F.pad(input, rest)
        if thin:
            input = F.avg_pool2d(input, 1, self.stride)
        stride = (1, 1) if thin else self.stride
        return F.conv2d(input, self.weight, self.bias, stride, both, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """The text between the brackets when the module is printed."""
        return f"{super().extra_repr()}, padding={self.edge_padding!r}"


class MaxPool2d(nn.Module):
    """Maximum over windows with TensorFlow's "same": what lies outside never wins.

    Nothing is copied: torch pads by `before` on both sides, and `ceil_mode` lets the last window
    run over the far edge by what "same" has there. That covers every case but an even kernel at
    stride 1, which torch cannot round up and which is refused.
    """

    def __init__(self, kernel_size: int, stride: int):
        super().__init__()
        if kernel_size < 1 or stride < 1:
            raise ValueError(f"kernel {kernel_size} and stride {stride} must be at least 1")
        if stride == 1 and kernel_size % 2 == 0:
            raise ValueError(f"an even kernel ({kernel_size}) at stride 1 is not supported")
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """The largest value of each window."""
        before = [same_padding(size, self.kernel_size, self.stride)[0] for size in x.shape[2:]]
        return torch.max_pool2d(x, self.kernel_size, self.stride, before, ceil_mode=True)

    def extra_repr(self) -> str:
        """The text between the brackets when the module is printed."""
        return f"{self.kernel_size}, stride={self.stride}, padding='same'"
