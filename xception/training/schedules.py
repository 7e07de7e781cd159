"""The learning rate as a function of progress: no state, so nothing to save or to resume."""

import math

from xception.errors import UserError
from xception.training.config import Schedule


def factor(schedule: Schedule, epoch: float, *, epochs: int, samples_per_epoch: int) -> float:
    """The share of the learning rate in force after `epoch` (fractional) of `epochs` epochs.

    A linear warm-up, over half of the epochs at most, rises from 0 to 1; the cosine falls from its
    end to `final` (Loshchilov & Hutter 2017); the exponential steps down by `rate` (a staircase, as
    in Chollet 2017 §4.2: ×0.94 every 2 epochs).
    """
    warmup = min(schedule.warmup_epochs, epochs / 2)
    if epoch < warmup:
        return epoch / warmup
    if schedule.name == "cosine":
        progress = (epoch - warmup) / max(epochs - warmup, 1e-9)
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return schedule.final + (1 - schedule.final) * cosine
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
