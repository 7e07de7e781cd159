"""When is a regular convolution a depthwise separable one, and how far is it from being one?

docs/separation.md has the theorem, its proof and an example.
"""

from dataclasses import dataclass

import torch
from torch import nn

from xception.errors import UserError
from xception.layers.exchange import inseparable
from xception.layers.separable import Order
from xception.separation.spectrum import Spectrum, slices_of, weight_of
from xception.separation.statistics import PatchStatistics


@dataclass(frozen=True, eq=False)
class Separability:
    """What separable convolutions can keep of a convolution."""

    depthwise_first: Spectrum
    """Slice by slice for each input channel."""
    pointwise_first: Spectrum
    """Slice by slice for each output channel."""

    def of(self, order: Order) -> Spectrum:
        """The spectrum of one order."""
        return self.depthwise_first if order == "depthwise_first" else self.pointwise_first

    @property
    def separable(self) -> bool:
        """Whether the convolution is exactly a separable one, in either order."""
        return 1 in (self.depthwise_first.exact_rank, self.pointwise_first.exact_rank)


def separability(conv: nn.Conv2d, statistics: PatchStatistics | None = None) -> Separability:
    """The singular values of a convolution's slices, in both orders.

    Args:
        conv: any stride, dilation, padding and groups; the bias plays no part.
        statistics: of the layer's inputs and outputs. With them the squares of the singular values
            are energy of the output (times the importance of its channels), as far as that can be
            told slice by slice: what slices have in common, a fit makes up for.

    Raises:
        UserError: no convolution that can be taken apart, or its weights are not finite.
        ValueError: the statistics are of another layer.
    """
    check(conv)
    if statistics is not None:
        statistics.check(conv)
    first = spectrum_of(conv, "depthwise_first", statistics)
    return Separability(first, spectrum_of(conv, "pointwise_first", statistics))


def spectrum_of(
    conv: nn.Conv2d, order: Order, statistics: PatchStatistics | None = None
) -> Spectrum:
    """The same in one order, of a convolution that is known to be one."""
    if statistics is not None:
        return Spectrum(conv, order, statistics.singular_values(order), whitened=True)
    values = torch.linalg.svdvals(slices_of(weight_of(conv), conv.groups, order))
    return Spectrum(conv, order, values, whitened=False)


def check(conv: nn.Conv2d) -> None:
    """Raise UserError unless the convolution can be taken apart."""
    reason = inseparable(conv)
    if reason is not None:
        raise UserError(f"cannot be separated: {reason}")
    if not torch.isfinite(weight_of(conv)).all():
        raise UserError("cannot be separated: the weights are not all finite numbers")
