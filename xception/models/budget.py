"""The width at which a network has as many parameters as it may."""

from collections.abc import Callable
from math import ceil, floor

from xception.models.options import short

TOLERANCE = 0.01  # of the budget
NARROWEST, WIDEST = 0.01, 16.0
DIGITS = 4  # of a width, behind the point
MULTIPLES = (8, 4, 2, 1)  # of which the numbers of channels are: the first are the quickest

Count = Callable[[float, int], int]
"""The number of parameters at a width and a multiple; it never falls where the width grows."""


def width_for(count: Count, parameters: int) -> tuple[float, int]:
    """The width and the multiple whose number of parameters is near to `parameters`.

    The largest multiple that comes within 1 %, and with it the nearest width; of the widths that
    give that same network it is one with few digits.

    Raises:
        ValueError: even the nearest is further away; says what it is.
    """
    found = []
    for multiple in MULTIPLES:
        width = _nearest(count, multiple, parameters)
        reached = count(width, multiple)
        if abs(reached - parameters) <= TOLERANCE * parameters:
            return _plainest(count, width, multiple), multiple
        found.append((abs(reached - parameters), reached, width, multiple))
    _, reached, width, multiple = min(found)
    raise ValueError(
        f"no width gives {short(parameters)} parameters within 1 % with these options; the "
        f"nearest is {reached}, at width={width}, multiple={multiple}"
    )


def _plainest(count: Count, width: float, multiple: int) -> float:
    """The width of fewest digits that gives as many parameters as `width`."""
    target = count(width, multiple)
    for digits in range(DIGITS):
        for whole in (floor(width * 10**digits), ceil(width * 10**digits)):
            plain = whole / 10**digits
            if plain >= NARROWEST and count(plain, multiple) == target:
                return plain
    return width


def _nearest(count: Count, multiple: int, parameters: int) -> float:
    """The width of at most DIGITS digits that comes nearest, by halving."""
    scale = 10**DIGITS
    low, high = round(NARROWEST * scale), round(WIDEST * scale)
    while high - low > 1:  # count(low) < parameters <= count(high), unless at an end
        middle = (low + high) // 2
        if count(middle / scale, multiple) < parameters:
            low = middle
        else:
            high = middle
    ends = (high / scale, low / scale)
    return min(ends, key=lambda width: abs(count(width, multiple) - parameters))
