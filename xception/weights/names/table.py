"""Two-way tables: our names of tensors, the names of another library, and how the axes lie.

A source is written down as parts, pairs of modules; a dialect says what tensors such a module has
there. The rows that follow from the two serve both ways: from their file to our network and back.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """How the axes of their array become those of ours, and back; values are never touched."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def _permuted(*axes: int) -> Layout:
    back = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(lambda array: array.transpose(axes), lambda array: array.transpose(back))


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "same": Layout(lambda array: array, lambda array: array),
        "hwio": _permuted(3, 2, 0, 1),  # height, width, in, out -> out, in, height, width
        # Height, width, channels, 1 -> channels, 1, height, width. A depth multiplier above 1
        # would want a reshape; none of the networks here has one, and its shape would not fit.
        "hwc1": _permuted(2, 3, 0, 1),
        "io": _permuted(1, 0),  # a dense layer: in, out -> out, in
        # A 1x1 convolution there is a dense layer here, and a dense layer there a convolution here.
        "11io": Layout(lambda array: array[0, 0].T, lambda array: array.T[None, None]),
        "oi11": Layout(lambda array: array[:, :, 0, 0], lambda array: array[:, :, None, None]),
        "oi": Layout(lambda array: array[:, :, None, None], lambda array: array[:, :, 0, 0]),
        "io->oi11": Layout(
            lambda array: array.T[:, :, None, None], lambda array: array[:, :, 0, 0].T
        ),
    }
)


class Row(NamedTuple):
    """One tensor under both names."""

    ours: str  # in our state dict
    theirs: str
    layout: str  # a key of LAYOUTS

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape there of a tensor of this shape here."""
        return LAYOUTS[self.layout].to_theirs(np.broadcast_to(np.uint8(0), ours)).shape

    def our_shape(self, theirs: tuple[int, ...]) -> tuple[int, ...]:
        """The shape here of a tensor of this shape there.

        Raises:
            ValueError: it has another number of axes, or one that should be 1 is not.
        """
        try:
            shape = LAYOUTS[self.layout].to_ours(np.broadcast_to(np.uint8(0), theirs)).shape
            if self.their_shape(shape) == theirs:
                return shape
        except (ValueError, IndexError):
            pass
        raise ValueError(f"{self.theirs} has the shape {list(theirs)}, which no {self.layout} has")


class Part(NamedTuple):
    """One module under both names."""

    ours: str  # the module's path here
    theirs: str  # of the module, layer or scope there
    kind: str  # a key of a dialect


Dialect = Mapping[str, tuple[tuple[str, str, str], ...]]
"""By kind of module: (tensor here, ending there, layout)."""

_SAME_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

TORCH: Dialect = MappingProxyType(
    {
        "conv": (("weight", ".weight", "same"),),
        "flat": (("weight", ".weight", "oi"),),  # pointwise weights stored as a matrix
        "norm": tuple((name, f".{name}", "same") for name in _SAME_NORM),
        "dense": (("weight", ".weight", "same"), ("bias", ".bias", "same")),
    }
)
KERAS: Dialect = MappingProxyType(
    {
        "conv": (("weight", "/kernel", "hwio"),),
        "biased": (("weight", "/kernel", "hwio"), ("bias", "/bias", "same")),
        "depthwise": (("weight", "/depthwise_kernel", "hwc1"),),  # half of a SeparableConv2D
        "pointwise": (("weight", "/pointwise_kernel", "hwio"),),  # the other half
        "depthwise_alone": (("weight", "/depthwise_kernel", "hwc1"),),  # a DepthwiseConv2D
        "norm": (
            ("weight", "/gamma", "same"),
            ("bias", "/beta", "same"),
            ("running_mean", "/moving_mean", "same"),
            ("running_var", "/moving_variance", "same"),
        ),
        "dense": (("weight", "/kernel", "io"), ("bias", "/bias", "same")),
        "dense_conv": (("weight", "/kernel", "11io"), ("bias", "/bias", "same")),
    }
)
TENSORFLOW: Dialect = MappingProxyType(
    {
        "conv": (("weight", "/weights", "hwio"),),
        "biased": (("weight", "/weights", "hwio"), ("bias", "/biases", "same")),
        "depthwise": (("weight", "/depthwise_weights", "hwc1"),),
        "norm": tuple(
            (ours, f"/BatchNorm{theirs}", layout) for ours, theirs, layout in KERAS["norm"]
        ),
        "dense_conv": (("weight", "/weights", "11io"), ("bias", "/biases", "same")),
    }
)


def rows(parts: Iterable[Part], dialect: Dialect, ours: Collection[str]) -> list[Row]:
    """The tensors of the parts.

    Args:
        parts: the modules.
        dialect: what tensors they have there.
        ours: the names of our state dict. Normalisation without a scale has no weight here, and
            then none is expected there.
    """
    return [
        Row(f"{part.ours}.{tensor}", part.theirs + ending, layout)
        for part in parts
        for tensor, ending, layout in dialect[part.kind]
        if part.kind != "norm" or f"{part.ours}.{tensor}" in ours
    ]


KERAS_CLASSES = MappingProxyType(
    {
        "conv": "conv2d",
        "biased": "conv2d",
        "depthwise": "separable_conv2d",
        "depthwise_alone": "depthwise_conv2d",
        "norm": "batch_normalization",
        "dense": "dense",
        "dense_conv": "conv2d",
    }
)


def keras3_rows(parts: Iterable[Part], ours: Collection[str]) -> list[Row]:
    """The same for Keras 3, which names layers by class and order and their tensors by number.

    Args:
        parts: the modules in the order of `model.layers`, under their names in Keras.
        ours: the names of our state dict.
    """
    layers: dict[str, list[Part]] = {}
    for part in parts:
        layers.setdefault(part.theirs, []).append(part)
    seen: dict[str, int] = {}
    found = []
    for members in layers.values():
        kind = KERAS_CLASSES[members[0].kind]
        number = seen.get(kind, 0)
        seen[kind] = number + 1
        layer = f"layers/{kind}_{number}" if number else f"layers/{kind}"
        for i, row in enumerate(rows(members, KERAS, ours)):
            found.append(row._replace(theirs=f"{layer}/vars/{i}"))
    return found
