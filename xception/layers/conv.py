"""Convolution and maximum pooling with TensorFlow's padding, without needless copies."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xception.layers.atrous import atrous_depthwise, pays
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
        if self._atrous(both) and not any(rest) and pays(input, self.weight, self.dilation[0]):
            return atrous_depthwise(input, self.weight, self.bias, self.dilation[0])
        return F.conv2d(input, self.weight, self.bias, stride, both, self.dilation, self.groups)

    def _atrous(self, padding: tuple[int, int]) -> bool:
        """Whether it is depthwise, with dilation, and keeps the image's size."""
        reach = self.dilation[0] * (self.kernel_size[0] // 2)
        depthwise = self.groups == self.in_channels == self.out_channels
        return (
            depthwise
            and self.dilation[0] > 1
            and self.stride == (1, 1)
            and padding == (reach, reach)
        )

    def extra_repr(self) -> str:
        """The text between the brackets when the module is printed."""
        return f"{super().extra_repr()}, padding={self.edge_padding!r}"


class MaxPool2d(nn.Module):
    """Maximum over windows; what lies outside the image never wins.

    Args:
        kernel_size: side of the window, in pixels.
        stride: step of the window, in pixels.
        dilation: distance between two pixels of a window.
        padding: TensorFlow's "same", or pixels on all sides, at most half a window.
        dense: one window per pixel, as segmentation wants it ("atrous"), in the place of a plain
            pooling that sees every `dilation`-th pixel only. The results of that one are among
            the results, whatever the size: `plain(x[::dilation]) == dense(x)[::dilation * stride]`
            on both axes. This is why `padding` counts pixels of that coarser image here.

    Raises:
        ValueError: a size below 1, padding of more than half a window, or one window per pixel
            ("same", stride 1) with an even reach, which has no middle.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int,
        *,
        dilation: int = 1,
        padding: Literal["same"] | int = "same",
        dense: bool = False,
    ):
        super().__init__()
        if min(kernel_size, stride, dilation) < 1:
            sizes = f"kernel {kernel_size}, stride {stride} and dilation {dilation}"
            raise ValueError(f"{sizes} must be at least 1")
        if padding == "same" and stride == 1 and (kernel_size - 1) * dilation % 2:
            raise ValueError(f"an even kernel ({kernel_size}) at stride 1 is not supported")
        if padding != "same" and not 0 <= padding <= kernel_size // 2:
            raise ValueError(f"padding must be 'same' or 0 … {kernel_size // 2}, not {padding!r}")
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.padding: Literal["same"] | int = padding
        self.dense = dense

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """The largest value of each window."""
        (top, bottom), (left, right) = (self._edges(size) for size in x.shape[2:])
        stride = 1 if self.dense else self.stride
        # Torch itself pads both sides alike, by half a kernel at most, and `ceil_mode` lets the
        # last of strided windows run over the far edge by what "same" has there. Only what is
        # beyond that, at dense and at dilated windows, needs a copy.
        most = self.kernel_size // 2
        both = [min(top, bottom, most), min(left, right, most)]  # height, width
        ceil = self.padding == "same" and stride > 1 and self.dilation == 1
        rest = (left - both[1], right - both[1], top - both[0], bottom - both[0])
        if any(rest) and not ceil:
            x = F.pad(x, rest, value=-torch.inf)
        return torch.max_pool2d(x, self.kernel_size, stride, both, self.dilation, ceil)

    def _edges(self, size: int) -> tuple[int, int]:
        """Pixels that count as lying before and after an axis of `size` pixels."""
        if not self.dense:
            if self.padding == "same":
                return same_padding(size, self.kernel_size, self.stride, self.dilation)
            return self.padding, self.padding
        if self.padding == "same":
            coarse = -(-size // self.dilation)
            before = same_padding(coarse, self.kernel_size, self.stride)[0] * self.dilation
        else:
            before = self.padding * self.dilation
        return before, max((self.kernel_size - 1) * self.dilation - before, 0)

    def extra_repr(self) -> str:
        """The text between the brackets when the module is printed."""
        text = f"{self.kernel_size}, stride={self.stride}, padding={self.padding!r}"
        return f"{text}, dilation={self.dilation}, dense={self.dense}"
