"""A network of the zoo after surgery: regular convolutions exchanged for separated ones.

A model file's card lists the exchanges, and here the structure is built from that list, before any
weight is read. The list is not believed: an exchange names a layer that the network has, of a kind
that can be exchanged, and says only how; all sizes are the layer's own. So no list can make a
network larger than its ranks allow, of which none is above the number of a kernel's taps.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from xception.layers.exchange import separated_like
from xception.layers.regular import refusal, replace
from xception.layers.separable import Order
from xception.models.network import Network
from xception.models.options import short

MOST_TAPS = 1 << 12  # of a kernel; 64x64
Rank = Annotated[int, Field(ge=0, le=MOST_TAPS, strict=True)]


class Exchange(BaseModel):
    """One regular convolution that was exchanged, as a model file's card says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str = Field(min_length=1, max_length=500)
    """Its path in the network, "layer1.0.conv1"."""
    order: Order
    """Which of the two convolutions comes first."""
    ranks: Rank | tuple[Rank, ...]
    """Kernels per input channel (depthwise first) or terms per output channel (pointwise first):
    one number for all channels, or one for each."""
    bias: bool
    """Whether the last of the two has one."""


def operate(model: Network, exchanges: Sequence[Exchange]) -> None:
    """Give a fresh network the structure that the exchanges left behind; weights come later.

    Also on torch's meta device, where nothing takes memory. `model.surgery` then lists them.

    Raises:
        ValueError: an exchange that this network does not allow; the network is not to be used.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    for exchange in exchanges:
        what = f"surgery at {short(exchange.layer)}"
        conv = modules.get(exchange.layer)
        if conv is None:
            raise ValueError(f"{what}: the network has no such layer")
        reason = refusal(conv)
        if reason is not None or not isinstance(conv, nn.Conv2d):
            raise ValueError(f"{what}: {reason}")
        try:
            new = separated_like(
                conv, order=exchange.order, ranks=exchange.ranks, bias=exchange.bias
            )
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        replace(model, conv, new)
        modules[exchange.layer] = new
    model.surgery = (*model.surgery, *exchanges)
