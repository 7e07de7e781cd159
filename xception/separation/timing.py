"""What an operation gained in time, measured: layer by layer, and for the whole network.

Before and after run in turn, so that both see the same machine; of each the median counts.
"""

import statistics
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.cost.count import evaluation
from xception.cost.machine import median_ms
from xception.separation.sites import Site
from xception.separation.watch import seen_inputs

ROUNDS = 5
REPEATS = 5  # of each round


def compare_layers(
    before: nn.Module,
    after: nn.Module,
    sites: Sequence[Site],
    image: Float[Tensor, "1 c h w"],
) -> dict[str, tuple[float, float]]:
    """Milliseconds of each layer before and after, on what it is given for one image.

    Args:
        before: the network as it was.
        after: the network in which these layers have been exchanged.
        sites: the layers.
        image: what the network takes, on its device.
    """
    found = {}
    for site in sites:
        given = seen_inputs(before, site.name, site.calls, image)
        old, new = before.get_submodule(site.name), after.get_submodule(site.name)
        found[site.name] = in_turn(
            lambda: [old(x) for x in given],  # noqa: B023 (called within this round)
            lambda: [new(x) for x in given],  # noqa: B023
            image.device,
        )
    return found


def compare_networks(
    before: nn.Module, after: nn.Module, image: Float[Tensor, "b c h w"]
) -> tuple[float, float]:
    """Milliseconds of the whole network for one batch of images, before and after."""
    with evaluation(before), evaluation(after):
        return in_turn(lambda: before(image), lambda: after(image), image.device)


@torch.no_grad()
def in_turn(
    one: Callable[[], object], other: Callable[[], object], device: torch.device
) -> tuple[float, float]:
    """Milliseconds of two things that are done by turns."""
    rounds = [
        [median_ms(run, device, repeats=REPEATS) for run in (one, other)] for _ in range(ROUNDS)
    ]
    first, second = (statistics.median(times) for times in zip(*rounds, strict=True))
    return first, second
