"""The shapes that a few operators give, without torch's own rules for them.

Those rules are written in Python beside torch's compiler, and the first use of one loads it: two
seconds, for operators that every network here has. For all others torch is asked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def convolution(args: Sequence[Any]) -> Tensor:
    """An empty tensor of the shape that `aten::convolution` gives (any number of axes)."""
    x, weight, _, stride, padding, dilation, transposed, extra, groups = args
    axes = x.ndim - 2
    stride, padding, dilation, extra = (
        list(values) * axes if len(values) == 1 else values
        for values in (stride, padding, dilation, extra)
    )
    kernel = weight.shape[2:]
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    sizes = x.shape[2:]
    if transposed:
        channels = weight.shape[1] * groups
        places = [
            (n - 1) * s - 2 * p + r + e + 1
            for n, s, p, r, e in zip(sizes, stride, padding, reach, extra, strict=True)
        ]
    else:
        channels = weight.shape[0]
        places = [
            (n + 2 * p - r - 1) // s + 1
            for n, s, p, r in zip(sizes, stride, padding, reach, strict=True)
        ]
    taken = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != taken:
        raise RuntimeError(f"a convolution of {taken} channels was given {x.shape[1]}")
    if min(places, default=1) < 1:
        raise RuntimeError(f"a kernel of {list(kernel)} is larger than its input {list(sizes)}")
    return x.new_empty((x.shape[0], channels, *places))


def batch_norm(args: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """What `aten::native_batch_norm` gives: the shape of its input, and statistics."""
    x = args[0]
    return _like(x), x.new_empty(0), x.new_empty(0)


def _like(x: Tensor) -> Tensor:
    """An empty tensor that lies in memory as `x` does."""
    return x.new_empty(x.shape) if x.is_contiguous() else torch.empty_like(x)


def max_pool(args: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """What `aten::max_pool2d_with_indices` gives: the largest values, and where they stood."""
    x, kernel, stride, padding, dilation, ceil = _filled(args, None, None, (), 0, 1, False)
    shape = _pooled(x, kernel, stride, padding, dilation, ceil)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def average_pool(args: Sequence[Any]) -> Tensor:
    """What `aten::avg_pool2d` gives."""
    x, kernel, stride, padding, ceil = _filled(args[:5], None, None, (), 0, False)
    return x.new_empty(_pooled(x, kernel, stride, padding, 1, ceil))


def _pooled(x: Tensor, *window: Any) -> tuple[int, ...]:
    """The shape behind pooling with (kernel, stride, padding, dilation, ceil)."""
    *each, ceil = window
    kernel, stride, padding, dilation = map(_both, each)
    places = []
    for n, k, s, p, d in zip(
        x.shape[-2:], kernel, stride or kernel, padding, dilation, strict=True
    ):
        beyond = n + 2 * p - d * (k - 1) - 1  # how far the first window can be moved
        steps = -(-beyond // s) if ceil else beyond // s
        if ceil and steps * s >= n + p:
            steps -= 1  # no window begins outside the image
        places.append(steps + 1)
    if min(places) < 1:
        raise RuntimeError(f"windows of {kernel} are larger than {list(x.shape[-2:])}")
    return (*x.shape[:-2], *places)


def _filled(args: Sequence[Any], *defaults: Any) -> list[Any]:
    """The arguments, and the defaults of those that were left out."""
    return [*args, *defaults[len(args) :]]


def _both(values: int | Sequence[int]) -> list[int]:
    """Height and width from one number or two."""
    values = [values] if isinstance(values, int) else list(values)
    return values * 2 if len(values) == 1 else values


def by_place(args: Sequence[Any]) -> Tensor | None:
    """What functions of one value, and sums and products of two, give: the shape of the larger."""
    x, y = (args[0], args[1]) if len(args) > 1 and isinstance(args[1], Tensor) else (args[0],) * 2
    if x.dtype != y.dtype or not x.is_floating_point():
        return None
    longest = max(x.ndim, y.ndim)
    shape = []
    for i in range(-longest, 0):
        sizes = {one.shape[i] for one in (x, y) if -i <= one.ndim} - {1}
        if len(sizes) > 1:
            raise RuntimeError(f"{list(x.shape)} and {list(y.shape)} do not broadcast")
        shape.append(sizes.pop() if sizes else 1)
    # The like of x lies in memory as x does, which decides what a later reshape must copy.
    return _like(x) if x.shape == tuple(shape) else x.new_empty(shape)


def in_place(args: Sequence[Any]) -> Tensor | None:
    """The same where the first argument is written over, which no other may outgrow."""
    out = by_place(args)
    return args[0] if out is not None and out.shape == args[0].shape else None


def mean(args: Sequence[Any]) -> Tensor | None:
    """What the mean over some axes gives."""
    x, dims, keep = _filled(args, None, None, False)
    if not x.is_floating_point() or not dims:
        return None
    gone = {dim % x.ndim for dim in dims}
    sizes = enumerate(x.shape)
    return x.new_empty([1 if i in gone else n for i, n in sizes if keep or i not in gone])


def bias_and_product(args: Sequence[Any]) -> Tensor:
    """What `aten::addmm` gives: a matrix product, and a bias on it."""
    _, a, b = args[:3]
    if a.shape[1] != b.shape[0]:
        raise RuntimeError(f"matrices of {list(a.shape)} and {list(b.shape)} do not multiply")
    return a.new_empty((a.shape[0], b.shape[1]))


def joined(args: Sequence[Any]) -> Tensor | None:
    """What `aten::cat` gives."""
    tensors, dim = _filled(args, None, 0)
    first = tensors[0]
    same = all(one.ndim == first.ndim and one.dtype == first.dtype for one in tensors)
    if not same or not any(one.is_contiguous() for one in tensors):
        return None
    dim %= first.ndim
    around = {(*one.shape[:dim], *one.shape[dim + 1 :]) for one in tensors}
    if len(around) > 1:
        raise RuntimeError(f"{[list(one.shape) for one in tensors]} do not join along axis {dim}")
    total = sum(one.shape[dim] for one in tensors)
    return first.new_empty((*first.shape[:dim], total, *first.shape[dim + 1 :]))


def resized(args: Sequence[Any]) -> Tensor | None:
    """What bilinear interpolation to a size gives."""
    x, size = args[:2]
    return x.new_empty((*x.shape[:2], *size)) if size is not None else None


BY_PLACE = ("add", "sub", "mul", "div", "relu", "hardtanh", "sigmoid", "silu", "gelu", "elu")
BY_PLACE += ("tanh", "hardswish", "hardsigmoid", "leaky_relu", "mish", "clamp", "clamp_min")

# By the name of the operator; None leaves it to torch after all.
SHAPES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "convolution": convolution,
    "native_batch_norm": batch_norm,
    "max_pool2d_with_indices": max_pool,
    "avg_pool2d": average_pool,
    "mean": mean,
    "addmm": bias_and_product,
    "cat": joined,
    "upsample_bilinear2d": resized,
    **dict.fromkeys(BY_PLACE, by_place),
    **{f"{name}_": in_place for name in BY_PLACE},
}
