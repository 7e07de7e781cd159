"""What the values and colours of masks mean.

A legend comes from a file that names the classes (`class_file`), from a known set (`known_sets`),
or, where there is neither, from what stands in the masks: every number or colour found is a class
of its own, called after it, and 255 does not count.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, UInt8, UInt32

from xception.data.class_file import ClassSpec
from xception.data.masks import (
    IGNORED,
    RGB,
    Kind,
    RawMask,
    UnknownValues,
    hexadecimal,
    pack,
    tally,
    unpack,
)
from xception.data.names import some
from xception.errors import UserError

#: Numbers, and colours, that masks without a list of classes may hold. More are not classes but
#: the shades of a mask that was smoothed, scaled or saved with loss.
MAX_FOUND_VALUES = 200
MAX_FOUND_COLOURS = 64

_UNKNOWN = -1
_BLOCK = 2**20  # pixels of colours that are looked up at a time


@dataclasses.dataclass(frozen=True)
class Legend:
    """Names and colours of the classes, and which mask value or colour is which.

    Class numbers are positions in `classes`; `IGNORED` is the number of what does not count.
    """

    classes: tuple[str, ...]
    colours: tuple[RGB, ...]
    """One for each class, no two the same."""
    by_value: Mapping[int, int]
    """Mask value: class number."""
    by_colour: Mapping[int, int]
    """Packed colour: class number; empty where colours mean nothing."""
    coloured: frozenset[Kind]
    """The kinds of masks that are read by colour; the others are read by value."""
    uncounted: frozenset[int] = frozenset({IGNORED})
    """Numbers that do not count in a palette either, where their colour there says no class."""

    def read(self, raw: RawMask, name: str) -> UInt8[np.ndarray, "h w"]:
        """The class number of each pixel. `name` is that of the mask, for the error.

        Raises `UnknownValues` if it holds a value or colour that means nothing.
        """
        values = raw.values
        if values is None and "colour" not in self.coloured:
            values = raw.as_values()  # numbers, written three times over
        if values is None:
            return self._of_colours(raw.as_colours(), name)
        table = self._table(raw)
        if (table < 0)[values].any():
            unknown: Counter[str] = Counter()
            for value, count in tally(values).items():
                if table[value] < 0:
                    unknown[self._shown(raw, value)] += count
            raise UnknownValues(name, unknown)
        return table.astype(np.uint8)[values]

    def like(self, classes: Sequence[str]) -> "Legend":
        """The same meaning with the class numbers of `classes`, matched by name.

        Raises `UserError` for a class that is not among them.
        """
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise UserError(
                f"the masks have the classes {some(unknown)}, of which the model knows nothing; "
                f"it knows {some(list(classes))}. Put the classes.txt of its training beside the "
                "masks"
            )
        number = {i: list(classes).index(name) for i, name in enumerate(self.classes)}
        number[IGNORED] = IGNORED
        known = dict(zip(self.classes, self.colours, strict=True))
        return dataclasses.replace(
            self,
            classes=tuple(classes),
            colours=completed([known.get(name) for name in classes]),
            by_value={value: number[of] for value, of in self.by_value.items()},
            by_colour={colour: number[of] for colour, of in self.by_colour.items()},
        )

    def ignoring(self, values: Iterable[int]) -> "Legend":
        """The same, but pixels of these values do not count; classes left without any are gone.

        The colour of a class goes with its value. Raises `UserError` for a value that no mask can
        hold, or where values mean nothing.
        """
        values = tuple(values)
        if not values:
            return self
        if not self.by_value or not all(0 <= value <= 255 for value in values):
            raise UserError(
                f"{some([str(value) for value in values])}: only masks of numbers, 0 to 255, have "
                "values to ignore; name what does not count `ignored` in classes.txt"
            )
        by_value = {**self.by_value, **dict.fromkeys(values, IGNORED)}
        gone = {self.by_value.get(value) for value in values} - {*by_value.values()}
        by_colour = {key: IGNORED if of in gone else of for key, of in self.by_colour.items()}
        left = {*by_value.values(), *by_colour.values()} - {IGNORED}
        kept = [number for number in range(len(self.classes)) if number in left]
        renumbered = {old: new for new, old in enumerate(kept)} | {IGNORED: IGNORED}
        return dataclasses.replace(
            self,
            classes=tuple(self.classes[number] for number in kept),
            colours=tuple(self.colours[number] for number in kept),
            by_value={value: renumbered[of] for value, of in by_value.items()},
            by_colour={colour: renumbered[of] for colour, of in by_colour.items()},
            uncounted=self.uncounted.union(values),
        )

    def _table(self, raw: RawMask) -> Int16[np.ndarray, "256"]:
        """The class number of each value of a mask of numbers, `_UNKNOWN` where there is none."""
        if raw.kind not in self.coloured:
            numbers = [self.by_value.get(value, _UNKNOWN) for value in range(256)]
        elif raw.palette is None:
            numbers = [self.by_colour.get(value * 0x010101, _UNKNOWN) for value in range(256)]
        else:
            numbers = [self.by_colour.get(int(colour), _UNKNOWN) for colour in raw.palette]
            # What fills a palette up to its end repeats a colour, mostly black: that is no class.
            for value, first in enumerate(_firsts(raw.palette)):
                if first < value and self.by_value.get(value) != numbers[value]:
                    numbers[value] = _UNKNOWN
            for value in self.uncounted:  # 255: the border of objects, as in Pascal VOC
                if numbers[value] == _UNKNOWN:
                    numbers[value] = IGNORED
        return np.array(numbers, np.int16)

    def _shown(self, raw: RawMask, value: int) -> str:
        """What people are told of a number that means nothing."""
        if raw.kind not in self.coloured:
            return str(value)
        colour = value * 0x010101 if raw.palette is None else int(raw.palette[value])
        if raw.palette is not None and colour in self.by_colour:
            return f"{value} with the colour of {_firsts(raw.palette)[value]}"
        return hexadecimal(colour)

    def _of_colours(
        self, colours: UInt32[np.ndarray, "h w"], name: str
    ) -> UInt8[np.ndarray, "h w"]:
        keys = np.array(sorted(self.by_colour), np.uint32)
        numbers = np.array([self.by_colour[int(key)] for key in keys], np.uint8)
        flat, found = colours.reshape(-1), np.full(colours.size, IGNORED, np.uint8)
        unknown: dict[int, int] = {}
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            place = np.searchsorted(keys, block).clip(max=max(len(keys) - 1, 0))
            known = keys[place] == block if len(keys) else np.zeros(block.shape, bool)
            found[start : start + _BLOCK][known] = numbers[place[known]]
            for colour, count in tally(block[~known]).items():
                unknown[colour] = unknown.get(colour, 0) + count
        if unknown:
            raise UnknownValues(name, {hexadecimal(c): count for c, count in unknown.items()})
        return found.reshape(colours.shape)


def _firsts(palette: UInt32[np.ndarray, "256"]) -> list[int]:
    """For each number of a palette the lowest number of the same colour."""
    place: dict[int, int] = {}
    return [place.setdefault(int(colour), value) for value, colour in enumerate(palette)]


def default_colours(count: int) -> tuple[RGB, ...]:
    """The colour map of Pascal VOC: black, dark red, dark green, …; all 256 differ.

    The bits of the number are dealt to red, green and blue, the lowest into the highest bits.
    """

    def colour(number: int) -> RGB:
        red, green, blue = (
            sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
            for channel in range(3)
        )
        return red, green, blue

    return tuple(colour(number) for number in range(count))


def completed(colours: Sequence[RGB | None]) -> tuple[RGB, ...]:
    """The colours, each missing or repeated one replaced by one of `default_colours` still free."""
    taken = {colour for colour in colours if colour is not None}
    free = (colour for colour in default_colours(256) if colour not in taken)
    seen: set[RGB] = set()
    chosen: list[RGB] = []
    for colour in colours:
        chosen.append(next(free) if colour is None or colour in seen else colour)
        seen.add(chosen[-1])
    return tuple(chosen)


def legend_of(specs: Sequence[ClassSpec], *, by_palette: bool = True) -> Legend:
    """The legend of a list of classes as `class_file` checks it.

    Where it has colours, colour masks are read by them, and with `by_palette` palette masks too.
    """
    classes = [spec for spec in specs if not spec.ignored]
    number = {id(spec): position for position, spec in enumerate(classes)}
    colours = [spec.colour for spec in classes]
    by_colour = {
        pack(spec.colour): number.get(id(spec), IGNORED)
        for spec in specs
        if spec.colour is not None and None not in colours
    }
    by_value = {s.value: number.get(id(s), IGNORED) for s in specs if s.value is not None}
    by_number = {value for value, of in by_value.items() if of == IGNORED} - {
        s.value for s in specs if s.colour is not None
    }
    kinds: frozenset[Kind] = frozenset(("palette", "colour") if by_palette else ("colour",))
    return Legend(
        classes=tuple(spec.name for spec in classes),
        colours=completed(colours),
        by_value={IGNORED: IGNORED, **by_value},
        by_colour=by_colour,
        coloured=kinds if by_colour else frozenset(),
        uncounted=frozenset({IGNORED, *by_number}),
    )


class Sight(NamedTuple):
    """What stands in one mask, whatever it may mean."""

    kind: Kind
    values: frozenset[int] | None
    """The numbers; None for a mask of colours that are not all grey."""
    colours: frozenset[int]
    """The packed colours, at most `masks.KEPT`; without that of the palette's entry 255."""
    palette: Mapping[int, int]
    """Number: packed colour, of the entries of a palette that occur."""


def sight_of(raw: RawMask) -> Sight:
    """What stands in a mask."""
    numbers = raw.as_values()
    if numbers is None:
        return Sight(raw.kind, None, frozenset(tally(raw.as_colours())), {})
    values = frozenset(tally(numbers))
    if raw.palette is None:
        return Sight(raw.kind, values, frozenset(value * 0x010101 for value in values), {})
    palette = {value: int(raw.palette[value]) for value in values}
    colours = frozenset(colour for value, colour in palette.items() if value != IGNORED)
    return Sight(raw.kind, values, colours, palette)


def legend_found(sights: Sequence[Sight]) -> Legend:
    """The legend of masks about which nothing is known but what stands in them.

    Read by number, unless there are colours, or palettes that give one number several colours.
    Raises `UserError` if there are too many different values for them to be classes.
    """
    palette: dict[int, int] = {}
    agree = all(sight.values is not None for sight in sights)
    for sight in sights:
        for value, colour in sight.palette.items():
            agree = agree and palette.setdefault(value, colour) == colour
    if not agree:
        return _found_colours(frozenset[int]().union(*(sight.colours for sight in sights)))
    values = frozenset[int]().union(*(sight.values or () for sight in sights))
    if len(values) > MAX_FOUND_VALUES:
        raise UserError(
            f"the masks hold {len(values)} different numbers, as photos and smoothed masks do. If "
            "all are classes, name them in classes.txt"
        )
    if values != {0, IGNORED}:  # black and white: white is a class
        values -= {IGNORED}
    numbers = {value: number for number, value in enumerate(sorted(values))}
    defaults = default_colours(256)
    shades = [palette.get(value, pack(defaults[value])) for value in sorted(values)]
    return Legend(
        classes=tuple(f"class {value}" for value in sorted(values)),
        colours=completed([unpack(shade) for shade in shades]),
        by_value={IGNORED: IGNORED, **numbers},
        by_colour={},
        coloured=frozenset(),
    )


def _found_colours(colours: frozenset[int]) -> Legend:
    if len(colours) > MAX_FOUND_COLOURS:
        raise UserError(
            f"the masks hold more than {MAX_FOUND_COLOURS} different colours, as photos and "
            "smoothed masks do. Name the colours of the classes in classes.txt"
        )
    ordered = sorted(colours)
    kinds: frozenset[Kind] = frozenset(("grey", "palette", "colour"))
    return Legend(
        classes=tuple(hexadecimal(colour) for colour in ordered),
        colours=tuple(unpack(colour) for colour in ordered),
        by_value={},
        by_colour={colour: number for number, colour in enumerate(ordered)},
        coloured=kinds,
    )
