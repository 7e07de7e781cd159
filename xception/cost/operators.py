"""What single operators of torch do: which kind of layer they are, their MACs, the bytes they move.

An operator is what torch's dispatcher runs ("aten"), below modules and functions: whether a network
says `nn.Conv2d`, `F.conv2d` or a convolution of its own, one and the same `convolution` runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

Kind = Literal[
    "depthwise",  # a convolution with one group per input channel
    "pointwise",  # 1x1, one group
    "grouped",  # any other number of groups above one
    "regular",  # one group
    "linear",  # a product with a weight
    "matmul",  # a product of two things computed from the image, as in attention
    "norm",
    "other",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Convolution(NamedTuple):
    """The shape of one convolution, of any number of spatial axes."""

    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    places: int  # of its output; of its input where it is transposed: there each weight is used

    @property
    def kind(self) -> Kind:
        """The kind of layer that it is."""
        if self.groups > 1:
            return "depthwise" if self.groups == self.in_channels else "grouped"
        return "pointwise" if math.prod(self.kernel) == 1 else "regular"

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; a padded pixel counts like any other."""
        per_place = self.in_channels * self.out_channels * math.prod(self.kernel) // self.groups
        return per_place * self.places


def convolution(args: Sequence[Any], out: Tensor) -> Convolution:
    """The shape of a convolution from the arguments of `aten::convolution`."""
    x, weight, _, stride, padding, dilation, transposed, _, groups = args
    axes = x.ndim - 2
    inside, outside = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        inside, outside = weight.shape[0], weight.shape[1] * groups
    return Convolution(
        in_channels=inside,
        out_channels=outside,
        groups=groups,
        kernel=tuple(weight.shape[2:]),
        stride=_each(stride, axes),
        padding=_each(padding, axes),
        dilation=_each(dilation, axes),
        transposed=transposed,
        places=math.prod((x if transposed else out).shape[2:]),
    )


def _each(values: Sequence[int], axes: int) -> tuple[int, ...]:
    """One value per axis; torch lets a single one stand for all."""
    return tuple(values) * axes if len(values) == 1 else tuple(values)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> int:
    """MACs of queries times keys, and of the result times values, `batch heads places width`."""
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return pairs * (q.shape[-1] + v.shape[-1])


class Product(NamedTuple):
    """An operator that multiplies matrices."""

    operands: tuple[int, ...]  # places of the factors among its arguments
    macs: Callable[..., int]  # of the factors


def _rows_by_columns(a: Tensor, b: Tensor) -> int:
    """MACs of a matrix product, of a stack of them, or of a matrix and a vector."""
    return a.numel() * (b.shape[-1] if b.ndim >= 2 else 1)


def _linear(x: Tensor, weight: Tensor) -> int:
    return x.numel() * weight.shape[0]


PRODUCTS: Mapping[str, Product] = {
    **{name: Product((0, 1), _rows_by_columns) for name in ("mm", "bmm", "mv", "dot", "vdot")},
    **{
        name: Product((1, 2), _rows_by_columns)
        for name in ("addmm", "baddbmm", "addmv", "addbmm", "_addmm_activation")
    },
    "linear": Product((0, 1), _linear),
    **{
        name: Product((0, 1, 2), _attention)
        for name in (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        )
    },
}

NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "batch_norm_with_update",
    "native_layer_norm",
    "native_group_norm",
    "_fused_rms_norm",
)

# They only say where values lie, though torch does not call them views.
FREE = (
    "_unsafe_view",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unsafe_chunk",
    "alias",
    "as_strided_",
    "lift_fresh",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "sym_size",
    "sym_stride",
    "sym_numel",
    "is_same_size",
)

# They read no more of their first argument than they write.
PICKING = ("embedding", "index", "index_select", "gather", "take", "select_copy", "slice_copy")


def moved(
    name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], written: Sequence[Tensor]
) -> tuple[int, int]:
    """Bytes (read, written) by one operator, each of its tensors once.

    Args:
        name: of the operator.
        inputs: tensors among its arguments.
        outputs: tensors that it returns.
        written: the ones among `inputs` that it writes to.
    """
    read = [tensor_bytes(tensor) for tensor in inputs]
    if name in PICKING and inputs:
        read[0] = sum(map(tensor_bytes, outputs))
    if name in ("fill_", "zero_", "copy_"):  # what was there before is not looked at
        read = read[1:]
    if name in NORMS:
        outputs = outputs[:1]  # the rest are statistics, for a backward pass
    if name == "max_pool2d_with_indices":
        outputs = outputs[:1]
    fresh = [tensor for tensor in outputs if all(tensor is not old for old in written)]
    return sum(read), sum(map(tensor_bytes, [*fresh, *written]))


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of the values of a tensor; what `expand` repeats counts once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, step in sizes if step != 0 or n == 0) * tensor.element_size()
