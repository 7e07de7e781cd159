"""What a handful of repeats can say: means with their intervals, paired differences, verdicts.

Every arm of a study is trained with the same seeds, and a seed decides the order of the photos and
their random changes in all arms alike. So seeds are pairs, and the test is the paired one of
Student (1908, "The probable error of a mean").
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

CONFIDENCE = 0.95
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)

Verdict = Literal["supported", "not supported", "undecided"]


class Mean(NamedTuple):
    """A mean over repeats, and the interval that holds the true one in 95 of 100 studies."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Of paired repeats: how much larger the first of two arms is."""

    value: float
    low: float
    high: float
    p: float
    """How often a difference at least this large comes from two arms that are the same."""


def mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Mean:
    """The mean of repeats with its interval; of a single one the interval is without bounds."""
    value, error = _mean_and_error(values)
    reach = _reach(len(values), error, confidence)
    return Mean(value, value - reach, value + reach)


def difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> Difference:
    """The mean of `first - second`, seed by seed, its interval and its two-sided p.

    Raises:
        ValueError: the two have not the same number of repeats.
    """
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    value, error = _mean_and_error(gaps)
    reach = _reach(len(gaps), error, confidence)
    if len(gaps) < 2 or value == 0:
        p = 1.0
    else:
        # Rounding may bring a share that is all but 1 a little beyond it.
        p = max(0.0, 1 - within(abs(value) / error, len(gaps) - 1)) if error > 0 else 0.0
    return Difference(value, value - reach, value + reach, p)


def within(t: float, freedom: int) -> float:
    """The probability that Student's t of `freedom` degrees lies between -t and t.

    With t = √ν tan θ its density becomes cos^(ν-1) θ, which a quadrature integrates to the last
    digits.
    """
    limit = math.atan(t / math.sqrt(freedom))
    return _integral(limit, freedom - 1) / _integral(math.pi / 2, freedom - 1)


def quantile(confidence: float, freedom: int) -> float:
    """The t that lies within ±t with probability `confidence`: the inverse of `within`."""
    low, high = 0.0, 1.0
    while within(high, freedom) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _integral(limit: float, power: int) -> float:
    angles = limit * (_NODES + 1) / 2
    return float(limit / 2 * (_WEIGHTS @ np.cos(angles) ** power))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error, which one value alone does not have (0)."""
    if not values:
        raise ValueError("there is nothing to take the mean of")
    value = math.fsum(values) / len(values)
    if len(values) < 2:
        return value, 0.0
    squares = math.fsum((x - value) ** 2 for x in values)
    return value, math.sqrt(squares / (len(values) - 1) / len(values))


def _reach(repeats: int, error: float, confidence: float) -> float:
    """Half the length of an interval."""
    return quantile(confidence, repeats - 1) * error if repeats > 1 else math.inf
