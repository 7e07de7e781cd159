"""Sentences for wrong settings: the key, what was given, what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or nothing."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def describe(error: ValidationError, record: type[BaseModel]) -> str:
    """The first complaint of a validation in one sentence."""
    complaint = error.errors()[0]
    place = [str(part) for part in complaint["loc"]]
    key = ".".join(place)
    if complaint["type"] == "extra_forbidden":
        known = _fields(record, place[:-1])
        return f"no setting is called {key!r}{closest(place[-1], known)}"
    if complaint["type"] == "missing":
        return f"the setting {key!r} is missing"
    return f"{key}: {complaint['msg'][0].lower()}{complaint['msg'][1:]}, not {complaint['input']!r}"


def _fields(record: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        inner = record.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        record = inner
    return list(record.model_fields)
