"""The receptive field: how many pixels of the image a value depends on.

Every tensor has one `Axis` per spatial axis of the image. It says how many pixels wide the part of
the image is that one value sees (`size`, which may reach over the edge), by how many pixels the
parts of neighbours lie apart (`stride`), and where the middle of the first value's part lies
(`offset`, in pixels from the middle of the first pixel). Where branches meet, the largest wins.

What an operator does to the field is written here for the operators that convolutional networks
consist of. For any other the field is unknown (None), and so for all that depends on it: nothing is
guessed. Normalisation counts as a fixed scaling, as in papers, though layer and group normalisation
look at the whole map.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Axis(NamedTuple):
    """What is known along one axis of the image."""

    dim: int | None  # of the tensor; None once the axis is gone, by pooling or flattening
    size: float = 1
    stride: float | None = 1  # None once the axis is gone
    offset: float = 0

    def windows(self, size: float, step: float, first: float) -> "Axis":
        """After windows of `size` values, `step` apart, the first one's middle at `first`."""
        if self.stride is None:
            return self
        return Axis(
            self.dim,
            self.size + (size - 1) * self.stride,
            self.stride * step,
            self.offset + first * self.stride,
        )

    def whole(self, length: int) -> "Axis":
        """After all `length` values of the axis have been mixed into one."""
        seen = self.windows(length, 1, (length - 1) / 2)
        return Axis(None, seen.size, None, seen.offset)


Field = tuple[Axis, ...]


class Flat(NamedTuple):
    """What a flattened tensor was, so that a later reshape can bring its axes back."""

    shape: tuple[int, ...]
    field: Field


class Seen(NamedTuple):
    """A tensor among an operator's arguments, with its field."""

    tensor: Tensor
    field: Field


def image_field(x: Tensor) -> Field:
    """The field of the image itself: its axes behind batch and channels."""
    return tuple(Axis(dim) for dim in range(2, x.ndim))


def whole_field(x: Tensor, field: Field) -> Field:
    """The field of anything that mixes all places of a tensor."""
    return tuple(axis if axis.dim is None else axis.whole(x.shape[axis.dim]) for axis in field)


def meet(inputs: Sequence[Seen], shape: Sequence[int]) -> Field | None:
    """The field of values computed place by place from tensors that broadcast to `shape`."""
    if len({len(one.field) for one in inputs}) > 1:
        return None  # a network of several inputs, of which not all are images
    merged = []
    for axes in zip(*(one.field for one in inputs), strict=True):
        full = []
        for axis, one in zip(axes, inputs, strict=True):
            if axis.dim is None:
                continue
            dim = axis.dim + len(shape) - one.tensor.ndim
            if one.tensor.shape[axis.dim] == shape[dim]:
                full.append(axis._replace(dim=dim))
        largest = max(full or axes, key=lambda axis: axis.size)
        merged.append(largest._replace(size=max(axis.size for axis in axes)))
    return tuple(merged)


def slide(
    x: Tensor,
    field: Field,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Field:
    """The field behind windows over the last axes: a convolution, or pooling."""
    first = x.ndim - len(kernel)
    after = []
    for axis in field:
        i = -1 if axis.dim is None else axis.dim - first
        if i >= 0:
            reach = (kernel[i] - 1) * dilation[i]
            axis = axis.windows(reach + 1, stride[i], reach / 2 - padding[i])
        after.append(axis)
    return tuple(after)


def slide_back(
    x: Tensor,
    field: Field,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Field:
    """The field behind a transposed convolution, which sees the fewer the larger its stride."""
    first = x.ndim - len(kernel)
    after = []
    for axis in field:
        i = -1 if axis.dim is None else axis.dim - first
        if i >= 0:
            reach = (kernel[i] - 1) * dilation[i]
            seen = math.ceil((reach + 1) / stride[i])
            axis = axis.windows(seen, 1 / stride[i], (padding[i] - reach / 2) / stride[i])
        after.append(axis)
    return tuple(after)


def reshape(shape: Sequence[int], field: Field, new: Sequence[int]) -> Field | None:
    """The field after a reshape that leaves every axis one of its own; None after any other."""
    after = []
    for axis in field:
        if axis.dim is None:
            after.append(axis)
            continue
        before, length = math.prod(shape[: axis.dim]), shape[axis.dim]
        homes = [dim for dim, n in enumerate(new) if n == length and math.prod(new[:dim]) == before]
        if not homes:
            return None
        after.append(axis._replace(dim=homes[-1]))
    return tuple(after)


Rule = Callable[[Sequence[Any], Seen, Tensor], Field | None]


def _pool(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    axes = out.ndim - 2
    kernel, stride, padding, dilation = (
        _each(args[i] if len(args) > i else (), axes, default)
        for i, default in ((1, 1), (2, 0), (3, 0), (4, 1))
    )
    stride = [step or k for step, k in zip(stride, kernel, strict=True)]
    return slide(x.tensor, x.field, kernel, stride, padding, dilation)


def _average(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    return _pool(args[:4], x, out)  # its fifth argument is no dilation


def _each(values: Sequence[int], axes: int, default: int) -> list[int]:
    values = list(values) or [default]
    return values * axes if len(values) == 1 else values


def _filled(args: Sequence[Any], *defaults: Any) -> list[Any]:
    """The arguments, and the defaults of those that were left out."""
    return [*args, *defaults[len(args) :]]


def _adaptive(args: Sequence[Any], x: Seen, out: Tensor) -> Field | None:
    after = []
    for axis in x.field:
        if axis.dim is not None:
            before, places = x.tensor.shape[axis.dim], out.shape[axis.dim]
            if before % places:
                return None  # windows of several sizes
            k = before // places
            axis = axis.windows(k, k, (k - 1) / 2)
        after.append(axis)
    return tuple(after)


def _norm(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    return _reduce((x.tensor, _filled(args, None, 2, None)[2]), x, out)  # behind the order


def _reduce(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    dims = _filled(args, None, None)[1]
    dims = range(x.tensor.ndim) if dims is None else dims
    gone = {dim % x.tensor.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
    gone = gone or set(range(x.tensor.ndim))
    kept = out.ndim == x.tensor.ndim
    after = []
    for axis in x.field:
        if axis.dim is not None and axis.dim in gone:
            axis = axis.whole(x.tensor.shape[axis.dim])
        elif axis.dim is not None and not kept:
            axis = axis._replace(dim=axis.dim - sum(dim < axis.dim for dim in gone))
        after.append(axis)
    return tuple(after)


def _pad(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    after = []
    for axis in x.field:
        place = -1 if axis.dim is None else 2 * (x.tensor.ndim - 1 - axis.dim)
        if 0 <= place < len(args[1]):
            axis = axis.windows(1, 1, -args[1][place])
        after.append(axis)
    return tuple(after)


def _resize(taps: int) -> Callable[[Sequence[Any], Seen, Tensor], Field]:
    """Interpolation between `taps` neighbours along each axis."""

    def rule(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
        corners = taps > 1 and args[2] is True
        after = []
        for axis in x.field:
            if axis.dim is not None:
                before, places = x.tensor.shape[axis.dim], out.shape[axis.dim]
                if before != places:
                    step = (before - 1) / max(places - 1, 1) if corners else before / places
                    axis = axis.windows(taps, step, 0 if corners else (step - 1) / 2)
            after.append(axis)
        return tuple(after)

    return rule


def _slice(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    dim, start, _, step = _filled(args[1:], 0, None, None, 1)
    dim %= x.tensor.ndim
    start = min(start or 0, x.tensor.shape[dim])
    start += x.tensor.shape[dim] if start < 0 else 0
    return tuple(axis.windows(1, step, start) if axis.dim == dim else axis for axis in x.field)


def _permute(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    order = [dim % x.tensor.ndim for dim in args[1]]
    return tuple(
        axis if axis.dim is None else axis._replace(dim=order.index(axis.dim)) for axis in x.field
    )


def _transpose(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    order = list(range(x.tensor.ndim))
    a, b = args[1:3] if len(args) > 2 else (0, -1)
    order[a], order[b] = order[b], order[a]
    return _permute((x.tensor, order), x, out)


def _select(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    dim = (args[1] if len(args) > 1 else 0) % x.tensor.ndim
    after = []
    for axis in x.field:
        if axis.dim == dim:
            axis = Axis(None, axis.size, None, axis.offset)
        elif axis.dim is not None and axis.dim > dim:
            axis = axis._replace(dim=axis.dim - 1)
        after.append(axis)
    return tuple(after)


def _split(args: Sequence[Any], x: Seen, out: Tensor) -> Field | None:
    dim = (args[2] if len(args) > 2 else 0) % x.tensor.ndim
    return None if any(axis.dim == dim for axis in x.field) else x.field


def _softmax(args: Sequence[Any], x: Seen, out: Tensor) -> Field | None:
    mixed = args[1] % x.tensor.ndim
    return None if any(axis.dim == mixed for axis in x.field) else x.field


def _restrided(args: Sequence[Any], x: Seen, out: Tensor) -> Field | None:
    return x.field if x.tensor.shape == out.shape else None


def _same(args: Sequence[Any], x: Seen, out: Tensor) -> Field:
    return x.field


# Operators of one tensor of the image, by name.
RULES: Mapping[str, Rule] = {
    "max_pool2d_with_indices": _pool,
    "max_pool3d_with_indices": _pool,
    "avg_pool1d": _average,
    "avg_pool2d": _average,
    "avg_pool3d": _average,
    "_adaptive_avg_pool2d": _adaptive,
    "_adaptive_avg_pool3d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "var"), _reduce),
    "linalg_vector_norm": _norm,
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _pad),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _resize(1)),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d"), _resize(2)),
    "upsample_trilinear3d": _resize(2),
    "upsample_bicubic2d": _resize(4),
    "as_strided_": _restrided,
    "slice": _slice,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    **dict.fromkeys(("select", "unbind"), _select),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split"), _split),
    **dict.fromkeys(("_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("hardswish", "hardswish_", "hardsigmoid"), _same),
    **dict.fromkeys(("detach", "alias", "_to_copy", "lift_fresh", "contiguous"), _same),
}
