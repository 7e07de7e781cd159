"""What one operator does to the notes on its tensors: a step of a trace."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xception.cost import field as fields
from xception.cost.field import Field, Flat, Seen
from xception.cost.operators import NORMS, PRODUCTS, Convolution, Kind, convolution


class Note(NamedTuple):
    """What is known of a tensor.

    `weights` are the parameters that it was computed from, or None where the image is in it too.
    `source` is the index of the multiplying operator whose result it is, or is but for a function
    of each value.
    """

    weights: frozenset[str] | None = frozenset()
    field: Field | None = None
    flat: Flat | None = None
    source: int | None = None


RESHAPES = ("view", "_unsafe_view", "_reshape_alias", "reshape", "unsqueeze", "squeeze", "flatten")
PADS = ("constant_pad_nd", "reflection_pad2d", "replication_pad2d")


class Step:
    """One operator with its tensors; what it does to what is known of them.

    Args:
        func: the operator.
        name: of it, without namespace and overload.
        args: what it was called with, but for keywords.
        inputs: all tensors among its arguments, with their notes.
        outputs: all tensors that it gave.
    """

    def __init__(
        self,
        func: Any,
        name: str,
        args: Sequence[Any],
        inputs: Sequence[tuple[Tensor, Note]],
        outputs: Sequence[Tensor],
    ):
        self.func = func
        self.name = name
        self.args = args
        self.inputs = inputs
        self.outputs = outputs

    @cached_property
    def data(self) -> list[tuple[Tensor, Note]]:
        """The inputs in which the image is."""
        return [(tensor, note) for tensor, note in self.inputs if note.weights is None]

    @cached_property
    def convolution(self) -> Convolution | None:
        """Its shape, if it is a convolution."""
        return convolution(self.args, self.outputs[0]) if self.name == "convolution" else None

    @cached_property
    def factors(self) -> list[Tensor]:
        """What it multiplies with each other, if it is a product."""
        if self.name == "convolution":
            return [self.args[0], self.args[1]]
        product = PRODUCTS.get(self.name)
        return [self.args[i] for i in product.operands] if product else []

    @cached_property
    def factor_weights(self) -> frozenset[str]:
        """The parameters among its factors."""
        found: frozenset[str] = frozenset()
        for tensor, note in self.inputs:
            if note.weights and any(tensor is factor for factor in self.factors):
                found |= note.weights
        return found

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates; None where they are not counted."""
        if self.convolution:
            return self.convolution.macs * self.args[0].shape[0]
        product = PRODUCTS.get(self.name)
        return product.macs(*self.factors) if product else None

    @property
    def kind(self) -> Kind:
        """The kind of layer that it makes of a module."""
        if self.convolution:
            return self.convolution.kind
        if self.factors:
            data = [tensor for tensor, _ in self.data]
            computed = [any(factor is one for one in data) for factor in self.factors]
            return "matmul" if all(computed) else "linear"
        return "norm" if self.name in NORMS and self.data else "other"

    @cached_property
    def source(self) -> int | None:
        """The multiplying operator whose result it works on, if that is one."""
        whole = [n for tensor, n in self.data if tensor.numel() == self._full]
        found = {note.source for note in whole or [note for _, note in self.data]}
        return found.pop() if len(found) == 1 else None

    @property
    def _full(self) -> int:
        """Values of the largest input; smaller ones are repeated over its places."""
        return max((tensor.numel() for tensor, _ in self.data), default=0)

    def result(self, index: int) -> Note:
        """The note for what it gives; `index` is its own, should it be a product."""
        if not self.data:
            return Note(frozenset[str]().union(*(note.weights or () for _, note in self.inputs)))
        field, flat = self._field()
        source = index if self.factors else self.source if self._passes(flat) else None
        return Note(None, field, flat, source)

    def _passes(self, flat: Flat | None) -> bool:
        """Whether every channel still is what it was, but for a function of each value."""
        if self.name in NORMS or self.name in PADS or self._by_place:
            return True
        if self.name in RESHAPES:  # to rows of channels, or back to a map
            return flat is not None or self.data[0][1].flat is not None
        return self.name in ("permute", "transpose") and self.outputs[0].ndim >= 4

    @property
    def _by_place(self) -> bool:
        """Whether each value depends on those in the same place only."""
        named = self.name.rstrip("_") in ("hardswish", "hardsigmoid", "detach", "_to_copy")
        return named or torch.Tag.pointwise in self.func.tags

    def _field(self) -> tuple[Field | None, Flat | None]:
        """The receptive field of the result, and what it was before it was flattened."""
        seen = [Seen(tensor, note.field) for tensor, note in self.data if note.field is not None]
        if len(seen) < len(self.data):
            return None, None  # of something unknown
        (x, note), out = self.data[0], self.outputs[0]
        if self.name in RESHAPES:
            return self._reshaped(seen[0], note.flat)
        if self.factors:
            return self._multiplied(seen, note.flat)
        if self._by_place or self.name in NORMS:
            flat = note.flat if len(seen) == 1 and out.shape == x.shape else None
            return fields.meet(seen, out.shape), flat
        if self.name in ("cat", "expand"):
            if any(one.tensor.ndim > out.ndim for one in seen):
                return None, None
            joined = fields.meet(seen, out.shape)
            return (joined if self._keeps_axes(joined) else None), None
        rule = fields.RULES.get(self.name)
        if rule is None or len(seen) > 1:
            return None, None
        return rule(self.args, seen[0], out), None

    def _keeps_axes(self, field: Field | None) -> bool:
        """False where something was joined along an axis of the image, not along channels."""
        if self.name != "cat" or field is None:
            return True
        dim = (self.args[1] if len(self.args) > 1 else 0) % self.outputs[0].ndim
        return all(axis.dim != dim for axis in field)

    def _reshaped(self, x: Seen, flat: Flat | None) -> tuple[Field | None, Flat | None]:
        shape, new = tuple(x.tensor.shape), tuple(self.outputs[0].shape)
        if flat is not None and flat.shape == new:
            return flat.field, None
        kept = fields.reshape(shape, x.field, new)
        if kept is not None:
            return kept, None
        return fields.whole_field(x.tensor, x.field), Flat(shape, x.field)

    def _multiplied(
        self, seen: Sequence[Seen], flat: Flat | None
    ) -> tuple[Field | None, Flat | None]:
        (x, field), first = seen[0], self.factors[0]
        if len(seen) > 1 or x is not first:
            mixed = all(axis.dim is None for one in seen for axis in one.field)
            return (fields.meet(seen, self.outputs[0].shape) if mixed else None), None
        conv = self.convolution
        if conv:
            slide = fields.slide_back if conv.transposed else fields.slide
            window = (conv.kernel, conv.stride, conv.padding, conv.dilation)
            return slide(x, field, *window), None
        last = x.ndim - 1
        summed = tuple(a.whole(x.shape[last]) if a.dim == last else a for a in field)
        if flat is not None and flat.shape[-1] == x.shape[-1]:
            rows = math.prod(flat.shape[:-1]) == math.prod(x.shape[:-1])
            if rows and all(axis.dim != len(flat.shape) - 1 for axis in flat.field):
                return summed, Flat((*flat.shape[:-1], self.outputs[0].shape[-1]), flat.field)
        return summed, None
