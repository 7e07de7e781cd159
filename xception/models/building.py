"""From options, as command lines, recipes and model files give them, to a network."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TypeVar, get_args

from xception.errors import UserError
from xception.models.network import JSON, Network
from xception.models.options import short

MOST_NAMES = 12  # in a message

Built = TypeVar("Built", bound=Network)


def build(name: str, make: Callable[..., Built], options: Mapping[str, JSON]) -> Built:
    """`make(**options)`, once names and kinds of the options are known to be right.

    Args:
        name: how to call the network in messages.
        make: its class, all of whose arguments are keywords with defaults.
        options: values by name; whether one of the right kind is in range, the class says.

    Raises:
        UserError: an option or its value is not right; says what would be.
    """
    known = inspect.signature(make).parameters
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name} has no option {short(option)}{closest(option, known)}")
        _check_kind(f"{name}: {option}", value, known[option])
    try:
        return make(**options)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _check_kind(what: str, value: object, parameter: inspect.Parameter) -> None:
    """UserError unless `value` is of the kind of the option's default, as JSON tells kinds apart.

    Where the default is None, the type tells what else there may be: `int | None`.
    """
    default = parameter.default
    if default is None:
        if value is None:
            return
        (kind,) = set(get_args(parameter.annotation)) - {type(None)}
        default = kind()
    for kind, allowed, word in (
        (bool, bool, "true or false"),  # before int, of which Python makes it one
        (int, int, "a whole number"),
        (float, int | float, "a number"),
        (str, str, "a word"),
        (tuple, list | tuple, "a list of whole numbers"),
        (Mapping, dict, "options with their values"),
    ):
        if isinstance(default, kind):
            fits = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
            if fits and isinstance(value, list | tuple):
                fits = all(type(one) is int for one in value)
            if not fits:
                raise UserError(f"{what} must be {word}, not {short(value)}")
            return
    raise TypeError(f"{what} has a default of an unknown kind, {default!r}")


def closest(word: str, known: Mapping[str, object]) -> str:
    """The end of a message about a word that is not known."""
    matches = get_close_matches(word, known, n=1)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    names = list(known)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"; known are {', '.join(names[:MOST_NAMES])}{more}"
