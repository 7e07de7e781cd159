from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest

from xception.errors import UserError
from xception.models.building import build, closest
from xception.models.network import Network


class Example(Network):
    def __init__(
        self,
        *,
        groups: int = 1,
        width: float = 1.0,
        rates: Sequence[int] = (),
        inner: Mapping[str, Any] = MappingProxyType({}),
        limit: int | None = None,
    ):
        super().__init__()
        if groups < 1:
            raise ValueError("groups must be at least 1")
        self.options = {"groups": groups, "width": width, "rates": list(rates)}
        self.options |= {"inner": dict(inner), "limit": limit}


def test_options_of_every_kind():
    options = {"groups": 2, "width": 1, "rates": [1], "inner": {"a": 1}, "limit": None}
    assert build("one", Example, options).options == options
    assert build("one", Example, {"limit": 4}).options["limit"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 2}, "one has no option 'group'; did you mean 'groups'?"),
        ({"groups": 2.0}, "one: groups must be a whole number, not 2.0"),
        ({"groups": True}, "one: groups must be a whole number, not True"),
        ({"groups": None}, "one: groups must be a whole number, not None"),
        ({"groups": 0}, "one: groups must be at least 1"),
        ({"width": "wide"}, "one: width must be a number, not 'wide'"),
        ({"rates": [1.5]}, "one: rates must be a list of whole numbers"),
        ({"inner": [1]}, "one: inner must be options with their values"),
        ({"limit": "four"}, "one: limit must be a whole number"),
    ],
)
def test_what_is_not_right_is_told_in_one_line(options, message):
    with pytest.raises(UserError) as caught:
        build("one", Example, options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_closest_name_or_all_of_them():
    known = {"width": 1, "middle": 2}
    assert closest("widht", known) == "; did you mean 'width'?"
    assert closest("zzz", known) == "; known are width, middle"
