"""Training with a second answer: the auxiliary tower of Inception V3.

Szegedy et al. 2015, arXiv:1512.00567, §4: a second classifier half-way, whose loss is added to that
of the last, makes the layers before it learn more. Its weight in the sum stands in no table of the
paper; TF-slim, by the same authors, takes 0.4. Predictions never ask the tower.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from xception.errors import UserError
from xception.models.inception_v3 import TOWER_SIZE, InceptionV3
from xception.training.objectives import Objective

WEIGHT = 0.4


class Both(nn.Module):
    """The network, answering twice; the weights are the network's own."""

    def __init__(self, network: InceptionV3):
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "2 b k"]:
        """The logits of the network, and those of its tower."""
        if min(x.shape[2:]) < TOWER_SIZE:
            raise UserError(
                f"the auxiliary tower wants photos of {TOWER_SIZE} pixels or more, not "
                f"{min(x.shape[2:])}: set preprocess.size, or model_options.auxiliary=false"
            )
        return torch.stack(self.network.forward_both(x))


@dataclass(frozen=True)
class WithTower:
    """An objective for two answers: the loss of the first, and a share of that of the second."""

    objective: Objective
    weight: float = WEIGHT

    def counts(self, targets: Tensor) -> Int64[Tensor, "n"]:
        """Those of the objective."""
        return self.objective.counts(targets)

    def loss(
        self, logits: Float[Tensor, "2 b k"], targets: Tensor, counts: Float[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """Both losses."""
        last, tower = (self.objective.loss(one, targets, counts) for one in logits)
        return last + self.weight * tower

    def right(self, logits: Float[Tensor, "2 b k"], targets: Tensor) -> Int64[Tensor, "2"]:
        """Of the network's own answer."""
        return self.objective.right(logits[0], targets)


def with_tower(module: nn.Module, objective: Objective) -> tuple[nn.Module, Objective]:
    """What is asked in training, and what its answers are held to; unchanged without a tower."""
    if isinstance(module, InceptionV3) and module.auxiliary is not None:
        return Both(module), WithTower(objective)
    return module, objective
