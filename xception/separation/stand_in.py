"""Whether a network runs whatever module stands in the place of a convolution.

A network is free to hold a convolution a second time, where no module takes its place (in a list),
to ask of what type its modules are, or to read the weights of one. Tried out beforehand, such a
convolution is left as it is; found out afterwards, all work on the network would be lost.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.layers.regular import replace

if TYPE_CHECKING:
    from xception.separation.sites import Site


class _StandIn(nn.Module):
    """Answers as a convolution does, and has nothing else of it."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self._conv = [conv]  # in a list, so that it is no module of the network
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self._conv[0](x)


def irreplaceable(model: nn.Module, image: Tensor, sites: Sequence["Site"]) -> dict[str, str]:
    """Of some convolutions, those whose place no other module can take, by path: and why.

    The network runs once if it takes all, and else once for each.

    Args:
        model: the network; it comes back as it was.
        image: one that it takes.
        sites: of the convolutions.
    """
    if _reason(model, image, sites) is None:
        return {}
    reasons = ((site.name, _reason(model, image, [site])) for site in sites)
    return {name: reason for name, reason in reasons if reason is not None}


def _reason(model: nn.Module, image: Tensor, sites: Sequence["Site"]) -> str | None:
    stand_ins = [_StandIn(site.conv) for site in sites]
    with torch.no_grad(), evaluation(model):  # the convolutions, too, while they are there
        for site, one in zip(sites, stand_ins, strict=True):
            replace(model, site.conv, one)
        try:
            model(image.clone())
        except Exception as error:  # whatever this network does with its convolution
            said = str(error).partition("\n")[0]
            return f"the network needs the convolution itself ({type(error).__name__}: {said:.120})"
        finally:
            for site, one in zip(sites, stand_ins, strict=True):
                replace(model, one, site.conv)
    if any(one.calls != site.calls for site, one in zip(sites, stand_ins, strict=True)):
        return "the network does not run what stands in its place"
    return None
