"""Dropout that does not depend on how many processes share a batch."""

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with one mask for a batch, whoever computes its rows.

    In a group of processes each draws the mask of all rows and takes its own: where their
    generators are in the same state, two processes drop what one would drop.
    """

    def forward(self, input: Float[Tensor, "b *rest"]) -> Float[Tensor, "b *rest"]:
        """In training, zeros with probability `p` and all else divided by 1 - p."""
        if not self.training or self.p == 0:
            return input
        grouped = dist.is_available() and dist.is_initialized()
        size, rank = (dist.get_world_size(), dist.get_rank()) if grouped else (1, 0)
        rows, *rest = input.shape
        kept = input.new_empty((size * rows, *rest)).bernoulli_(1 - self.p)
        return input * kept[rank * rows : (rank + 1) * rows].div_(max(1 - self.p, 1e-12))
