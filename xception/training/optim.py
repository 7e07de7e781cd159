"""torch's own optimisers and weight averaging, set up from the configuration."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from xception.training.config import Optimizer


def build_optimizer(module: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """The optimiser over the trainable parameters of `module`.

    Weight decay acts on weights (two or more dimensions) only: on norms and biases it would pull
    the scale of whole channels. Kernels of depthwise convolutions have few numbers and are left out
    where `decay_depthwise` says so, as in the released code of DeepLab.
    """
    spared = set() if config.decay_depthwise else depthwise_kernels(module)
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trainable if p.ndim >= 2 and p not in spared]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2 or p in spared], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = config.learning_rate
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=rate, momentum=config.momentum, nesterov=config.nesterov, fused=True
        )
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=rate, alpha=config.decay, eps=config.epsilon, momentum=config.momentum
        )
    return torch.optim.AdamW(groups, lr=rate, betas=config.betas, eps=config.epsilon, fused=True)


def depthwise_kernels(module: nn.Module) -> set[Tensor]:
    """The weights of the convolutions that keep all channels apart."""
    return {
        part.weight
        for part in module.modules()
        if isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def build_average(module: nn.Module, decay: float) -> AveragedModel:
    """A running average of the weights and the batch statistics (Polyak & Juditsky 1992).

    The decay warms up as (1 + n) / (10 + n) so that a short training is not averaged with its own
    random start.
    """
    return AveragedModel(module, multi_avg_fn=_averager(decay), use_buffers=True)


def _averager(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], seen: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(seen)) / (10 + int(seen)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, weight)  # pyright: ignore[reportPrivateImportUsage]
        else:  # counters of the batch norms
            torch._foreach_copy_(averaged, current)  # pyright: ignore[reportPrivateImportUsage]

    return average
