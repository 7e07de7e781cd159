"""Small networks with what real ones have: branches, residuals, layers that run twice."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branches(nn.Module):
    """A stem, two branches that are concatenated, a residual, and a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.later = nn.Conv2d(24, 24, 3, padding=1, bias=False)  # defined first, runs last
        self.left = nn.Conv2d(16, 12, 3, stride=2, padding=1, bias=False)
        self.right = nn.Conv2d(16, 12, (1, 5), stride=2, padding=(0, 2))
        self.norm = nn.BatchNorm2d(24)
        self.twice = nn.Conv2d(24, 24, 3, padding=1)
        self.mix = nn.Conv2d(24, 24, 1)
        self.unused = nn.Conv2d(24, 24, 3)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.stem(x))
        x = self.norm(torch.cat([self.left(x), self.right(x)], 1))
        x = F.relu_(self.twice(F.relu_(self.twice(x))) + x)
        x = F.relu_(self.later(self.mix(x)) + x)
        return self.head(x.mean((2, 3)))


def branches(seed: int = 0) -> Branches:
    """One with random weights and batch statistics that are not 0 and 1."""
    torch.manual_seed(seed)
    model = Branches()
    with torch.no_grad():
        model.train()(images(16, seed))
    return model.eval()


def inputs_by_hand(model: Branches, x: Tensor) -> dict[str, list[Tensor]]:
    """Inputs of the layers, as the network's own code says, without writing into anything."""
    x = F.relu(model.stem(x))
    left = x
    x = model.norm(torch.cat([model.left(x), model.right(x)], 1))
    once = F.relu(model.twice(x))
    y = F.relu(model.twice(once) + x)
    return {"left": [left], "twice": [x, once], "later": [model.mix(y)]}


class Row(nn.Module):
    """A stem, two convolutions and a head, one after the other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(F.relu(self.stem(x))))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class HalfDead(nn.Module):
    """One layer lives, and one is behind a ReLU that lets nothing through."""

    def __init__(self):
        super().__init__()
        self.alive = nn.Conv2d(8, 8, 3, padding=1)
        self.dead = nn.Conv2d(8, 8, 3, padding=1)
        self.stem = nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.alive(F.relu(self.stem(x)))
        return self.head((F.relu(x) + self.dead(F.relu(x - 1e6))).mean((2, 3)))


def images(count: int, seed: int = 0, size: int = 12) -> Tensor:
    """Smooth images, in which neighbours are alike, as in photos."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    noise = torch.randn(count, 3, size, size, generator=generator)
    return F.interpolate(coarse, (size, size), mode="bilinear") + 0.1 * noise
