"""The file that names the classes of masks: `classes.txt` or `classes.json`.

`classes.txt` has a class a line, in one of these forms; a line that starts with # is a comment:

    road                    the value is the number of the line among the classes, from 0
    7: road                 the value is 7
    road 128 64 128         the colour is given, here or as #804080; commas do as well as spaces
    128 64 128 road         the same, as CamVid's label_colors.txt has it
    7: road 128 64 128      value and colour
    7, road                 the value is 7, where every line has one number in front, or every
    road 7                  one at its end, and all the numbers and names differ
    road:128,64,128::       the same as the third, as CVAT's labelmap.txt has it

A heading, as `name,r,g,b` or `id;name`, is left out, and so are the quotes of a table's cells.

`classes.json` is one of

    ["sky", "road"]
    {"0": "sky", "7": "road"}
    [{"name": "road", "value": 7, "colour": [128, 64, 128], "ignored": false}, …]

of which only the name is needed. What is called void, ignore, ignored, unlabelled or unlabeled is
no class: its pixels do not count. `__ignore__` in front stands for no value at all, as in the files
of labelme. 255 does not count unless the file gives it a name.
"""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from xception.data.masks import IGNORED, RGB
from xception.errors import UserError

#: Names of such files; where several stand side by side, the first of these counts.
CLASS_FILES = (
    "classes.txt",
    "classes.json",
    "labelmap.txt",
    "label_colors.txt",
    "class_dict.csv",
    "class_names.txt",
    "labels.txt",
)
MAX_BYTES = 2**20
MAX_NAME = 200  # letters
MAX_LINE = 1000

_NO_CLASS = frozenset({"void", "ignore", "ignored", "unlabelled", "unlabeled", "__ignore__"})
#: Of these, and of nothing else, the heading of a table may be made where blanks part its words.
_HEADING = frozenset(
    {
        *("id", "ids", "index", "idx", "no", "number", "value", "pixel", "name", "class", "label"),
        *("colour", "color", "r", "red", "g", "green", "b", "blue", "rgb", "hex"),
    }
)
_QUOTED = re.compile(r'(?:(?<=[,;\t])|\A)\s*"([^"]*)"\s*(?=[,;\t]|\Z)')
_CVAT = re.compile(r"(?P<name>[^:]+):(?P<rgb>\d{1,9},\d{1,9},\d{1,9}):[^:]*:[^:]*")
_VALUE = re.compile(r"(?P<value>\d{1,9})\s*[:=]\s*(?P<rest>.+)")
_RGB = r"(?P<rgb>\d{1,9}[\s,;]+\d{1,9}[\s,;]+\d{1,9})"
_FORMS = (
    re.compile(r"(?P<name>.*[^\s,;])[\s,;]+#(?P<hex>[0-9a-fA-F]{6})"),
    re.compile(rf"(?P<name>.*[^\s,;])[\s,;]+{_RGB}"),
    re.compile(rf"{_RGB}[\s,;]+(?P<name>.*\S)"),
)
_IN_FRONT = re.compile(r"(?P<value>\d{1,3})[\s,;]+(?P<rest>[^\s:=,;].*)")
_AT_THE_END = re.compile(r"(?P<rest>.*[^\s:=,;])[\s,;]+(?P<value>\d{1,3})")


class ClassSpec(NamedTuple):
    """What is said of one class, or of pixels that do not count."""

    name: str
    value: int | None
    """The number in the masks; None where only the colour tells it."""
    colour: RGB | None = None
    ignored: bool = False


def read_classes(data: bytes, name: str) -> tuple[ClassSpec, ...]:
    """The classes that a file names, in its order. `name` stands in the messages.

    Raises `UserError` with the place for: another encoding than UTF-8, a line or an entry in none
    of the forms, a number or colour out of range, some entries with a value or colour and some
    without, a name, value or colour that stands twice, no class at all, or more than 255.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: more than the {MAX_BYTES:,} bytes allowed for a list of classes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: is not UTF-8") from error
    json_file = posixpath.splitext(name)[1].lower() == ".json"
    found = _from_json(text, name) if json_file else _from_lines(text, name)
    return checked(_numbered(found, name), name)


def named(names: Sequence[str]) -> tuple[ClassSpec, ...]:
    """Classes for the values 0, 1, 2, … . Raises `UserError` as `read_classes` does."""
    specs = [ClassSpec(n, None, ignored=_is_no_class(n)) for n in names]
    return checked(_numbered(specs, "classes"), "classes")


def checked(specs: Sequence[ClassSpec], name: str) -> tuple[ClassSpec, ...]:
    """The same, if nothing stands twice and nothing is missing. Raises `UserError`."""
    classes = [spec for spec in specs if not spec.ignored]
    if not classes:
        raise UserError(f"{name}: names no class")
    if len(classes) > IGNORED:
        raise UserError(f"{name}: {len(classes)} classes, at most {IGNORED} are possible")
    for spec in classes:
        if spec.name.strip() != spec.name or not 0 < len(spec.name) <= MAX_NAME:
            raise UserError(f"{name}: {spec.name[:40]!r} is no name; 1 to {MAX_NAME} letters")
    if len({spec.colour is None for spec in classes}) > 1:
        without = next(spec.name for spec in classes if spec.colour is None)
        raise UserError(f"{name}: {without} has no colour; give every class one, or none")
    # What does not count may have one colour under several names.
    shades = {spec.colour for spec in specs if spec.ignored} - {None}
    things = [
        *(spec.name for spec in classes),
        *(f"the value {spec.value}" for spec in specs if spec.value is not None),
        *(f"the colour {shade}" for shade in [spec.colour for spec in classes] if shade),
        *(f"the colour {shade}" for shade in shades),
    ]
    twice = [thing for thing, times in Counter(things).items() if times > 1]
    if twice:
        raise UserError(f"{name}: {twice[0]} stands twice; each may stand once")
    return tuple(specs)


def _is_no_class(name: str) -> bool:
    return name.lower() in _NO_CLASS


def _numbered(specs: Sequence[ClassSpec], name: str) -> list[ClassSpec]:
    """Values by place where none are given."""
    counted = [spec for spec in specs if spec.name.lower() != "__ignore__"]
    given = [spec for spec in counted if spec.value is not None]
    if given:
        if len(given) < len(counted):
            without = next(spec.name for spec in counted if spec.value is None)
            raise UserError(f"{name}: {without} has no value; give every class one, or none")
        return list(specs)
    if len(counted) > 256:
        raise UserError(f"{name}: {len(counted)} names, but masks hold the values 0 to 255")
    return [spec._replace(value=place) for place, spec in enumerate(counted)]


def _from_lines(text: str, name: str) -> list[ClassSpec]:
    lines: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if len(line.strip()) > MAX_LINE:
            raise UserError(f"{name}, line {number}: longer than {MAX_LINE} letters")
        line = _QUOTED.sub(r"\1", line.strip()).strip()
        if line and not line.startswith("#"):
            lines[number] = line
    if _has_heading(list(lines.values())):
        del lines[min(lines)]
    parts = _numbers_of(lines.values())
    if parts is not None:
        lines = {
            number: f"{value}: {rest}" for number, (value, rest) in zip(lines, parts, strict=True)
        }
    return [_from_line(line, f"{name}, line {number}") for number, line in lines.items()]


def _has_heading(lines: Sequence[str]) -> bool:
    """Whether the first line is no class but the names of a table's columns."""
    if not lines or re.search(r"\d", lines[0]):
        return False
    first, *others = lines
    words = re.findall(r"[^\s,;]+", first.lower())
    if len(words) > 1 and _HEADING.issuperset(words):
        return all(re.search(r"\d", other) for other in others)
    if not any(mark in first and all(mark in other for other in others) for mark in ",;\t"):
        return False
    return _numbers_of(others) is not None or all(_form_of(other) for other in others)


def _numbers_of(lines: Collection[str]) -> list[tuple[str, str]] | None:
    """Value and rest of every line, by the number in front of all or at the end of all; or None."""
    in_front = _all_numbered(lines, _IN_FRONT)
    return _all_numbered(lines, _AT_THE_END) if in_front is None else in_front


def _all_numbered(lines: Collection[str], form: re.Pattern[str]) -> list[tuple[str, str]] | None:
    """Value and rest of every line, or None where the numbers are no values but parts of names.

    They are parts of names where a line has none, one stands twice, or the names, without them, do:
    `lane 1` and `lane 2`. What has a colour has a value only in front of that and of the name.
    """
    parts = []
    for line in lines:
        found = form.fullmatch(line)
        if found is None or _CVAT.fullmatch(line) or _VALUE.fullmatch(line):
            return None
        value, rest = found["value"], found["rest"].strip()
        coloured = _form_of(rest)
        if form is _IN_FRONT:
            if coloured is None and rest[0].isdigit():  # 128 64 128 road
                return None
        elif coloured is not None or _form_of(line) is not None:
            return None
        parts.append((value, rest, rest if coloured is None else coloured["name"]))
    names = [name.lower() for _, _, name in parts if not _is_no_class(name)]
    distinct = len({int(value) for value, *_ in parts}) == len(parts) == len(lines)
    if not parts or not distinct or len(set(names)) < len(names):
        return None
    return [(value, rest) for value, rest, _ in parts]


def _form_of(line: str) -> re.Match[str] | None:
    """Name and colour, where the line has both."""
    return next((found for each in _FORMS if (found := each.fullmatch(line))), None)


def _from_line(line: str, where: str) -> ClassSpec:
    value = None
    form = _CVAT.fullmatch(line)
    if form is None and (numbered := _VALUE.fullmatch(line)):
        value, line = _number(int(numbered["value"]), where), numbered["rest"].strip()
    form = form or _form_of(line)
    if form is None:
        return _spec(line, value, None, where)
    parts = form.groupdict()
    if parts.get("hex"):
        colour = list(bytes.fromhex(parts["hex"]))
    else:
        colour = [int(part) for part in re.findall(r"\d+", parts["rgb"])]
    return _spec(parts["name"], value, colour, where)


def _from_json(text: str, name: str) -> list[ClassSpec]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: is not JSON ({error})") from error
    if isinstance(content, dict):
        content = [{"value": value, "name": label} for value, label in content.items()]
    if not isinstance(content, list):
        raise UserError(f'{name}: holds no list; right would be ["sky", "road"]')
    return [_from_entry(entry, f"{name}, entry {n}") for n, entry in enumerate(content, 1)]


def _from_entry(entry: Any, where: str) -> ClassSpec:
    if isinstance(entry, str):
        return _spec(entry, None, None, where)
    known = {"name", "value", "colour", "color", "ignored"}
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("name"), str)
        or entry.keys() - known
    ):
        raise UserError(
            f'{where}: is neither a name nor {{"name": …, "value": …, "colour": …, "ignored": …}}'
        )
    value, colour = entry.get("value"), entry.get("colour", entry.get("color"))
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}", value):
        value = int(value)
    if isinstance(colour, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        colour = list(bytes.fromhex(colour[1:]))
    spec = _spec(entry["name"], None if value is None else _number(value, where), colour, where)
    ignored = entry.get("ignored", spec.ignored)
    if not isinstance(ignored, bool):
        raise UserError(f"{where}: ignored is {ignored!r}; true or false")
    return spec._replace(ignored=ignored)


def _spec(name: str, value: int | None, colour: Any, where: str) -> ClassSpec:
    name = name.strip().strip("\"'").strip()
    if not name:
        raise UserError(f"{where}: has no name")
    if colour is not None:
        sound = isinstance(colour, list) and len(colour) == 3
        if not sound or not all(type(part) is int and 0 <= part <= 255 for part in colour):
            raise UserError(f"{where}: {colour} is no colour; three numbers from 0 to 255")
        colour = tuple(colour)
    return ClassSpec(name, value, colour, _is_no_class(name))


def _number(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise UserError(f"{where}: {value!r} is no mask value; those are 0 to 255")
    return value
