"""Checks of the values of a model's options, each with a message that says what would be right.

The upper limits are far above any use. They keep a model file that asks for a billion blocks from
being built before anything else could refuse it.
"""

from collections.abc import Sequence


def whole(name: str, value: int, low: int, high: int) -> int:
    """`value` if it lies within [low, high]; ValueError otherwise."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {short(value)}")
    return value


def number(name: str, value: float, low: float, high: float) -> float:
    """`value` if it lies within [low, high], which NaN does not; ValueError otherwise."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low} to {high}, not {short(value)}")
    return float(value)


def choice(name: str, value: int | str, allowed: Sequence[int | str]) -> int | str:
    """`value` if it is one of `allowed`; ValueError otherwise."""
    if value not in allowed:
        words = ", ".join(str(one) for one in allowed)
        raise ValueError(f"{name} must be one of {words}, not {short(value)}")
    return value


def wholes(name: str, values: Sequence[int], low: int, high: int, longest: int) -> list[int]:
    """`values` as a list if they are few and lie within [low, high]; ValueError otherwise."""
    if len(values) > longest:
        raise ValueError(f"{name} must list at most {longest} numbers, not {len(values)}")
    return [whole(f"each of {name}", one, low, high) for one in values]


def short(value: object) -> str:
    """`value` in at most 40 characters, for a message of one line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
