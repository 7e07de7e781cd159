"""Checks of a model's options. They come from people and from model files, so none is trusted.

The upper limits are far above any use. They keep a card that asks for a billion blocks from being
built before anything else could refuse it.
"""

from collections.abc import Sequence


def whole(name: str, value: object, low: int, high: int) -> int:
    """`value` if it is a whole number within [low, high]; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {short(value)}")
    return value


def number(name: str, value: object, low: float, high: float) -> float:
    """`value` as a float if it is a number within [low, high]; ValueError otherwise."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    raise ValueError(f"{name} must be a number from {low} to {high}, not {short(value)}")


def switch(name: str, value: object) -> bool:
    """`value` if it is True or False; ValueError otherwise."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {short(value)}")
    return value


def choice(name: str, value: object, allowed: Sequence[int | str]) -> int | str:
    """`value` if it is one of `allowed`, of the same type; ValueError otherwise."""
    for one in allowed:
        if type(value) is type(one) and value == one:
            return one
    words = ", ".join(str(one) for one in allowed)
    raise ValueError(f"{name} must be one of {words}, not {short(value)}")


def wholes(name: str, value: object, low: int, high: int, longest: int) -> list[int]:
    """`value` as a list if it is a short list of whole numbers; ValueError otherwise."""
    if not isinstance(value, list | tuple) or len(value) > longest:
        raise ValueError(f"{name} must list at most {longest} numbers, not {short(value)}")
    return [whole(name, one, low, high) for one in value]


def short(value: object) -> str:
    """`value` in at most 40 characters, for a message of one line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
