"""How an image grows at its edges before a window slides over it.

TensorFlow's "same" gives ceil(size / stride) outputs and puts the odd pixel of padding *after* the
image. With stride 2 and an even size that is (0, 1), where a symmetric padding would be (1, 1): the
same number of outputs, but every window one pixel further left.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Padding = Literal["same", "valid"] | int | tuple[int, int, int, int]
"""TensorFlow's two words, pixels on all sides, or pixels at (left, right, top, bottom)."""

Edges = tuple[int, int, int, int]
"""Pixels at (left, right, top, bottom), the order of `torch.nn.functional.pad`."""


def check_padding(padding: Padding) -> None:
    """Raise ValueError unless `padding` is one of the forms that `Padding` names."""
    pixels = (padding,) if isinstance(padding, int) else padding
    if isinstance(pixels, str):
        if pixels not in ("same", "valid"):
            raise ValueError(f"padding must be 'same', 'valid' or pixels, not {padding!r}")
    elif len(pixels) not in (1, 4) or min(pixels) < 0:
        raise ValueError(f"padding needs one or four numbers of pixels ≥ 0, not {padding!r}")


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Pixels (before, after) one axis of `size` pixels, as TensorFlow pads it for "same"."""
    outputs = -(-size // stride)
    reach = (kernel - 1) * dilation + 1
    total = max((outputs - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def edges(
    height: int, width: int, padding: Padding, kernel: int, stride: int = 1, dilation: int = 1
) -> Edges:
    """Pixels to add at (left, right, top, bottom) of an image of `height` x `width`."""
    if padding == "same":
        return (
            *same_padding(width, kernel, stride, dilation),
            *same_padding(height, kernel, stride, dilation),
        )
    if padding == "valid":
        return (0, 0, 0, 0)
    if isinstance(padding, int):
        return (padding, padding, padding, padding)
    return padding


def pad(
    x: Tensor,  # batch, channels, height, width, of any dtype
    padding: Padding,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    value: float = 0.0,
) -> Tensor:
    """`x` with its edges grown by `value`; `x` itself where nothing is to be added."""
    added = edges(x.shape[-2], x.shape[-1], padding, kernel, stride, dilation)
    return F.pad(x, added, value=value) if any(added) else x
