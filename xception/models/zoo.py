"""The models by name."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from xception.errors import UserError
from xception.models.mobilenet_v1 import MobileNetV1
from xception.models.network import Network
from xception.models.options import short
from xception.models.xception import Xception


class Entry(NamedTuple):
    """What the zoo knows of one model."""

    name: str
    build: Callable[..., Network]
    size: int  # pixels of the side of the image, where nothing else is asked for
    summary: str  # one line
    citation: str


_ENTRIES = (
    Entry(
        "xception",
        Xception,
        299,
        "36 layers of depthwise separable convolutions with residual connections",
        'Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, '
        "arXiv:1610.02357",
    ),
    Entry(
        "mobilenet_v1",
        MobileNetV1,
        224,
        "one convolution and 13 separable ones, of any width; small and quick",
        'Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision '
        'Applications", 2017, arXiv:1704.04861',
    ),
)
ZOO: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(ZOO)


def create_model(name: str, **options: Any) -> Network:
    """A fresh model of the zoo, in training mode.

    Args:
        name: one of `list_models()`.
        options: the arguments of that model's class.

    Raises:
        UserError: the name, an option or its value is not right; says what would be.
    """
    if name not in ZOO:
        raise UserError(f"no model is called {short(name)}{_closest(name, ZOO)}")
    build = ZOO[name].build
    known = inspect.signature(build).parameters
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name} has no option {short(option)}{_closest(option, known)}")
        _check_kind(f"{name}: {option}", value, known[option].default)
    try:
        return build(**options)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _check_kind(what: str, value: object, default: object) -> None:
    """UserError unless `value` is of the kind of the option's default, as JSON tells kinds apart.

    Options come from command lines, recipes and model files; whether a value of the right kind is
    also in range is for the model to say.
    """
    for kind, allowed, word in (
        (bool, bool, "true or false"),  # before int, of which Python makes it one
        (int, int, "a whole number"),
        (float, int | float, "a number"),
        (str, str, "a word"),
        (tuple, list | tuple, "a list of whole numbers"),
    ):
        if isinstance(default, kind):
            fits = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
            if fits and isinstance(value, list | tuple):
                fits = all(type(one) is int for one in value)
            if not fits:
                raise UserError(f"{what} must be {word}, not {short(value)}")
            return
    raise TypeError(f"{what} has a default of an unknown kind, {default!r}")


def _closest(word: str, known: Mapping[str, object]) -> str:
    """The end of a message about a word that is not known."""
    matches = get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else f"; known are {', '.join(known)}"
