"""What the original network gave, for several layers at a time.

A layer is fitted to what it gave in the original network. To run that anew for every layer would
be half of all the work; so one pass keeps what the next few layers give, as far as memory allows.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from xception.separation.sites import Site
from xception.separation.watch import Batches, inputs_of, outputs_of, pairs

MOST_BYTES = 1 << 30


class Ahead:
    """Pairs of inputs and outputs of layers that are asked for one after another.

    Args:
        original: the network as it was.
        sites: the layers, in the order in which they will be asked for.
        batches: the images.
        count: how many images.
        most_bytes: of outputs that may be kept.
    """

    def __init__(
        self,
        original: nn.Module,
        sites: Sequence[Site],
        batches: Batches,
        count: int,
        most_bytes: int = MOST_BYTES,
    ):
        self._original, self._batches = original, batches
        self._sites, self._count, self._most = list(sites), count, most_bytes
        self._kept: dict[str, list[list[Tensor]]] = {}

    def pairs(self, changed: nn.Module, site: Site) -> Iterator[tuple[Tensor, Tensor]]:
        """The layer's inputs in the changed network beside its outputs in the original one.

        Can be asked for again until another layer is.
        """
        self._forget_all_before(site)
        if site.name not in self._kept:
            next_ones = self._fitting()
            if not next_ones:
                yield from pairs(changed, self._original, site.name, site.calls, self._batches)
                return
            self._kept = outputs_of(
                self._original, {one.name: one.calls for one in next_ones}, self._batches
            )
        inputs = inputs_of(changed, site.name, site.calls, self._batches)
        for given, wanted in zip(inputs, self._kept[site.name], strict=True):
            yield from zip(given, wanted, strict=True)

    def _forget_all_before(self, site: Site) -> None:
        while self._sites[0] != site:
            self._kept.pop(self._sites.pop(0).name, None)

    def _fitting(self) -> list[Site]:
        """As many of the layers to come as fit into memory."""
        found, held = [], 0
        for site in self._sites:
            held += 4 * self._count * site.outputs * site.conv.out_channels
            if held > self._most:
                break
            found.append(site)
        return found
