"""Types, shapes and attributes in an HDF5 file: what is said about values.

Section numbers are those of the HDF5 File Format Specification 3.0. Of the attributes only those
that are asked for are understood, and only where they are text: the others are never looked into.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from xception.weights.readers.hdf5 import (
    ATTRIBUTE,
    ATTRIBUTE_INFO,
    UNDEFINED,
    Member,
)
from xception.weights.readers.source import (
    MAX_DESCRIPTION_BYTES,
    MAX_DIMENSIONS,
    MAX_READ_BYTES,
    Cursor,
    Source,
    Unsound,
    text,
)

MAX_ATTRIBUTES = 2000  # of a member
TEXT_COST_BYTES = 16  # what an empty text costs, so that many of them end too
MAX_STRINGS = 20_000  # in one attribute, or in one heap of them

# IEEE 754 and bfloat16: size in bytes; where exponent and fraction begin and how wide they are;
# the bias of the exponent (IV.A.2.d)
FLOATS = {
    (2, 10, 5, 0, 10, 15): "f2",
    (4, 23, 8, 0, 23, 127): "f4",
    (8, 52, 11, 0, 52, 1023): "f8",
    (2, 7, 8, 0, 7, 127): "bfloat16",
}


class Element(NamedTuple):
    """What one element is."""

    kind: Literal["number", "bfloat16", "bool", "opaque", "string", "string elsewhere"]
    size: int  # bytes
    dtype: np.dtype  # as it lies in the file, where it is a number


def shape_of(cursor: Cursor, what: str) -> tuple[int, ...]:
    """The sizes in a dataspace message (IV.A.2.b).

    Raises:
        Unsound: there are none, or too many.
    """
    version, dimensions, _ = cursor.fields("BBB")
    if version not in (1, 2) or dimensions > MAX_DIMENSIONS:
        raise Unsound(f"{what!r:.80} has {dimensions} dimensions (version {version})")
    if version == 1:
        cursor.take(5)
    elif cursor.take(1) == b"\2":
        raise Unsound(f"{what!r:.80} has no values at all, not even a shape")
    return cursor.fields(f"{dimensions}Q")


def element_of(cursor: Cursor, what: str) -> Element:
    """The type in a datatype message (IV.A.2.d).

    Raises:
        Unsound: it is none that Keras writes.
    """
    kind, bits, _, _, size = cursor.fields("BBBBI")
    kind &= 15  # the upper half is a version
    order = ">" if bits & 1 else "<"
    nothing = np.dtype("V1")
    if kind == 0 and size in (1, 2, 4, 8) and cursor.fields("HH") == (0, 8 * size):
        return Element("number", size, np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}"))
    if kind == 1 and not bits & 0x40:  # the bit is VAX's order of bytes
        _, _, exponent_at, exponent, fraction_at, fraction, bias = cursor.fields("HHBBBBI")
        name = FLOATS.get((size, exponent_at, exponent, fraction_at, fraction, bias))
        if name == "bfloat16":
            return Element("bfloat16", size, np.dtype(f"{order}u2"))
        if name is not None:
            return Element("number", size, np.dtype(f"{order}{name}"))
    if kind == 5 and size == 2:  # Keras says in an attribute what it is
        return Element("opaque", size, np.dtype("<u2"))
    if kind == 3:
        return Element("string", size, nothing)
    if kind == 9 and bits & 15 == 1:
        return Element("string elsewhere", 16, nothing)
    if kind == 8 and size == 1:  # h5py's bool: an enumeration of FALSE and TRUE
        return Element("bool", size, np.dtype(np.bool_))
    raise Unsound(
        f"{what!r:.80} has a type that Keras does not write (HDF5 class {kind}, {size:,} bytes)"
    )


class Attributes:
    """The attributes of a file's members that are text."""

    def __init__(self, source: Source):
        self._source = source
        self._heaps: dict[int, dict[int, bytes]] = {}  # as large as the source's budget at most
        self._left = MAX_DESCRIPTION_BYTES  # of texts: many references may lead to a long one
        self._asked: Member | None = None
        self._named: dict[bytes, bytes] = {}  # its attributes: the file says how often one is asked

    def text(self, member: Member, name: str) -> str | None:
        """The text of an attribute; None if the member has none of that name.

        Raises:
            Unsound: it is not one text.
        """
        found = self.texts(member, name)
        if found is not None and len(found) != 1:
            raise Unsound(f"attribute {name!r} of {member.path!r:.80} is not one text")
        return None if found is None else found[0]

    def texts(self, member: Member, name: str) -> list[str] | None:
        """The texts of an attribute that is a list of them; None if there is none of that name.

        Raises:
            Unsound: it is not text, or too much of it.
        """
        if self._asked is not member:
            self._asked, self._named = member, _by_name(member)
        found = self._named.get(name.encode())
        if found is None:
            return None
        return self._texts(_attribute(found, name), f"{member.path}:{name}")

    def _texts(self, parts: "_Attribute", what: str) -> list[str]:
        count = math.prod(shape_of(parts.shape, what))
        if count == 0:  # h5py knows no type for an empty list and calls it one of numbers
            return []
        element = element_of(parts.kind, what)
        if count > MAX_STRINGS:
            raise Unsound(f"{what!r:.80} has {count:,} texts; {MAX_STRINGS:,} at most")
        if element.kind not in ("string", "string elsewhere"):
            raise Unsound(f"{what!r:.80} is not text")
        found = []
        left = MAX_READ_BYTES
        for _ in range(count):
            size, begin = element.size, parts.values
            if element.kind == "string elsewhere":
                size, begin = self._elsewhere(parts.values)
            self._left -= size + TEXT_COST_BYTES
            left -= size + TEXT_COST_BYTES
            if left < 0:
                raise Unsound(f"{what!r:.80} is longer than {MAX_READ_BYTES:,} bytes")
            if self._left < 0:
                raise Unsound(f"more than {MAX_DESCRIPTION_BYTES:,} bytes of texts ({what!r:.80})")
            found.append(text(begin.take(size).split(b"\0")[0], what))
        return found

    def _elsewhere(self, values: Cursor) -> tuple[int, Cursor]:
        """The length and the beginning of a text that stands in a global heap (III.E)."""
        length, address, index = values.fields("IQI")
        if length == 0:
            return 0, values
        if address not in self._heaps:
            self._heaps[address] = dict(_global_heap(self._source, address))
        found = self._heaps[address].get(index, b"")
        if len(found) < length:
            raise Unsound("damaged: a text is not where it should be")
        return length, Cursor(found)


class _Attribute(NamedTuple):
    kind: Cursor
    shape: Cursor
    values: Cursor


def _by_name(member: Member) -> dict[bytes, bytes]:
    """The attribute messages of a member; of two with one name the first."""
    found: dict[bytes, bytes] = {}
    for message in member.messages:
        if message.kind == ATTRIBUTE_INFO:
            cursor = Cursor(message.data)
            _, flags = cursor.fields("BB")
            cursor.take(2 if flags & 1 else 0)
            if cursor.fields("Q") != (UNDEFINED,):
                raise Unsound(f"{member.path!r:.80} has attributes in HDF5's dense form")
        if message.kind == ATTRIBUTE:
            _, parts, _ = _parts(message.data)
            found.setdefault(parts[0].rstrip(b"\0"), message.data)
            if len(found) > MAX_ATTRIBUTES:
                raise Unsound(f"{member.path!r:.80} has more than {MAX_ATTRIBUTES:,} attributes")
    return found


def _parts(data: bytes) -> tuple[bool, list[bytes], Cursor]:
    """An attribute message (IV.A.2.m): whether it is shared; name, type, and shape; the values."""
    cursor = Cursor(data)
    version, flags, *sizes = cursor.fields("BBHHH")
    if version not in (1, 2, 3):
        raise Unsound(f"HDF5 attribute version {version}; 1 to 3 are known")
    if version == 3:
        cursor.take(1)
    parts = []
    for size in sizes:
        parts.append(cursor.take(size))
        cursor.take(-size % 8 if version == 1 else 0)
    return bool(version > 1 and flags), parts, cursor


def _attribute(data: bytes, name: str) -> _Attribute:
    """The parts of an attribute message that are looked into."""
    shared, parts, values = _parts(data)
    if shared:
        raise Unsound(f"attribute {name!r} has a description shared with others")
    return _Attribute(Cursor(parts[1]), Cursor(parts[2]), values)


def _global_heap(source: Source, address: int) -> Iterator[tuple[int, bytes]]:
    signature, version, _, size = source.fields(address, "4sB3sQ")
    if signature != b"GCOL" or version != 1:
        raise Unsound("damaged: a text is not where it should be")
    cursor = Cursor(source.read(address, size), 16)
    for _ in range(MAX_STRINGS):
        if cursor.left < 16:
            return
        index, _, _, length = cursor.fields("HHIQ")
        if index == 0:  # the rest is free
            return
        yield index, cursor.take(length)
        cursor.take(min(-length % 8, cursor.left))
    raise Unsound(f"more than {MAX_STRINGS:,} texts in one place")
