"""The learning rate as a function of progress: no state, so nothing to save or to resume."""

import math

from xception.errors import UserError
from xception.training.config import Schedule


def factor(schedule: Schedule, epoch: float, *, epochs: int, samples_per_epoch: int) -> float:
    """The share of the learning rate in force after `epoch` (fractional) of `epochs` epochs.

    A linear warm-up, over half of the epochs at most, rises from 0 to 1; the cosine falls from its
    end to `final` (Loshchilov & Hutter 2017); the exponential steps down by `rate` (a staircase, as
    in Chollet 2017 §4.2: ×0.94 every 2 epochs); "poly" is the share of the steps that are left to
    the power of `power` (Chen et al. 2017, arXiv:1706.05587, §4.1: 0.9).
    """
    warmup = min(schedule.warmup_epochs, epochs / 2)
    if epoch < warmup:
        return epoch / warmup
    progress = min((epoch - warmup) / max(epochs - warmup, 1e-9), 1.0)
    if schedule.name == "cosine":
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return schedule.final + (1 - schedule.final) * cosine
    if schedule.name == "poly":
        return (1 - progress) ** schedule.power
    if schedule.name == "exponential":
        return schedule.rate ** math.floor(epoch / _stair_epochs(schedule, samples_per_epoch))
    return 1.0


def _stair_epochs(schedule: Schedule, samples_per_epoch: int) -> float:
    if schedule.every_epochs is not None and schedule.every_samples is None:
        return schedule.every_epochs
    if schedule.every_samples is not None and schedule.every_epochs is None:
        return schedule.every_samples / samples_per_epoch
    raise UserError(
        "an exponential schedule needs either schedule.every_epochs or schedule.every_samples"
    )
