"""Layers and what they see, for tests of fits."""

import torch
from torch import nn
from torch.nn import functional as F


def images(count, channels, size=10, seed=0):
    """Smooth maps of correlated channels, as after a ReLU, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    noise = random(count, channels, size + 4, size + 4)
    mixing = random(channels, channels, 1, 1)
    blurred = F.avg_pool2d(F.conv2d(noise, mixing), 3, 1)
    return F.relu(F.avg_pool2d(blurred, 3, 1) + 0.2 * random(count, channels, size, size))


def layer(inputs, outputs, kernel=3, seed=0, **options):
    """A convolution of random weights, in float64."""
    torch.manual_seed(seed)
    return nn.Conv2d(inputs, outputs, kernel, dtype=torch.float64, **options)


@torch.no_grad()
def measured_error(module, x, y):
    """√(Σ (y - ŷ)² / Σ (y - mean)²), by running the module."""
    mean = y.mean(dim=(0, 2, 3), keepdim=True)
    return float((module(x) - y).norm() / (y - mean).norm())
