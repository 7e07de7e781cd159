"""The members of a zip file, judged by its directory; nothing is unpacked to a name of the file.

Section numbers are those of PKWARE's APPNOTE 6.3.10.
"""

import io
import tempfile
import zlib
from contextlib import ExitStack
from typing import NamedTuple

from xception.weights.readers.source import (
    MAX_NAME_CHARACTERS,
    MAX_READ_BYTES,
    Cursor,
    Source,
    Unsound,
    text,
)

MAX_MEMBERS = 20_000
MOST_EXPANSION = 20  # weights shrink to 0.9 of their size; a bomb, to a thousandth
FREE_BYTES = 8 << 20  # that need no such proof
BLOCK_BYTES = 1 << 18
STORED, DEFLATED = 0, 8
IN_EXTRA_FIELD = 0xFFFFFFFF  # a 32-bit size whose 64 bits stand elsewhere


class Entry(NamedTuple):
    """One line of the directory."""

    name: str
    method: int
    crc: int
    packed: int  # bytes
    size: int  # bytes, unpacked
    offset: int  # of its local header


def directory(source: Source) -> dict[str, Entry]:
    """What a zip file holds, by name.

    Raises:
        Unsound: damaged, encrypted, in several parts, or with names that lead out of a folder.
    """
    count, size, offset = _end_of_directory(source)
    if count > MAX_MEMBERS:
        raise Unsound(f"a zip file of {count:,} members; {MAX_MEMBERS:,} at most")
    cursor = Cursor(source.read(offset, size))
    entries: dict[str, Entry] = {}
    for _ in range(count):
        entry = _entry(cursor)
        if entry.name in entries:
            raise Unsound(f"member {entry.name!r:.80} stands there twice")
        if not entry.name.endswith("/"):  # folders hold nothing
            entries[entry.name] = entry
    if cursor.left:
        raise Unsound("damaged: its directory does not end where it should")
    return entries


def _end_of_directory(source: Source) -> tuple[int, int, int]:
    """Number of entries, and size and offset of the directory (4.3.14 to 4.3.16)."""
    tail_bytes = min(source.size, 22 + 0xFFFF)
    tail = source.read(source.size - tail_bytes, tail_bytes)
    found = tail.rfind(b"PK\5\6")
    if found < 0:
        raise Unsound("truncated: a zip file without its end")
    here = source.size - tail_bytes + found
    disk, first, _, count, size, offset, _ = Cursor(tail, found + 4).fields("HHHHIIH")
    if here >= 20 and source.read(here - 20, 4) == b"PK\6\7":
        _, here, _ = source.fields(here - 16, "IQI")
        signature, _, _, _, disk, first, _, count, size, offset = source.fields(here, "4sQHHIIQQQQ")
        if signature != b"PK\6\6":
            raise Unsound("damaged: a zip file without its end")
    if disk or first:
        raise Unsound("a zip file in several parts")
    if offset + size != here:
        raise Unsound("damaged: the directory of the zip file is not where it should be")
    return count, size, offset


def _entry(cursor: Cursor) -> Entry:
    """The next line of the directory (4.3.12)."""
    signature, _, _, flags, method, _, _, crc, packed, size = cursor.fields("4sHHHHHHIII")
    lengths = cursor.fields("HHH")
    _, _, _, offset = cursor.fields("HHII")
    if signature != b"PK\1\2":
        raise Unsound("damaged: no line of a zip directory where one should be")
    raw, extra, _ = (cursor.take(length) for length in lengths)
    name = text(raw, "a member's name")
    parts = name.removesuffix("/").split("/")
    odd = "\\" in name or ":" in name or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS
    if odd or any(part in ("", ".", "..") for part in parts):
        raise Unsound(f"a zip member called {name!r:.80}")
    if flags & 1:
        raise Unsound(f"member {name!r:.80} is encrypted")
    packed, size, offset = _long_sizes(Cursor(extra), [size, packed, offset])
    return Entry(name, method, crc, packed, size, offset)


def _long_sizes(extra: Cursor, sizes: list[int]) -> tuple[int, int, int]:
    """Packed size, size, offset: those that do not fit into 32 bits stand in 4.5.3's field."""
    while extra.left >= 4:
        kind, length = extra.fields("HH")
        field = Cursor(extra.take(length))
        if kind == 1:
            sizes = [field.fields("Q")[0] if one == IN_EXTRA_FIELD else one for one in sizes]
    size, packed, offset = sizes
    return packed, size, offset


def stored(source: Source, entry: Entry) -> Source:
    """The bytes of a member that is not compressed, where they lie in the file.

    Raises:
        Unsound: it is compressed, or not there.
    """
    if entry.method != STORED or entry.packed != entry.size:
        raise Unsound(f"member {entry.name!r:.80} is compressed")
    return _packed(source, entry)


def _packed(source: Source, entry: Entry) -> Source:
    signature, _, name_length, extra_length = source.fields(entry.offset, "4s22sHH")
    begin = entry.offset + 30
    name = source.read(begin, name_length)
    if signature != b"PK\3\4" or name != entry.name.encode():
        raise Unsound(f"damaged: member {entry.name!r:.80} is not where it should be")
    return source.window(begin + name_length + extra_length, entry.packed)


def content(source: Source, entry: Entry) -> bytes:
    """All of a small member, its checksum proven.

    Raises:
        Unsound: it is too large, or damaged.
    """
    if entry.size > MAX_READ_BYTES:
        raise Unsound(
            f"member {entry.name!r:.80} has {entry.size:,} bytes; {MAX_READ_BYTES:,} at most"
        )
    with ExitStack() as stack:
        data = unpacked(source, entry, stack).read(0, entry.size)
    if zlib.crc32(data) != entry.crc:
        raise Unsound(f"damaged: member {entry.name!r:.80} has another checksum")
    return data


def unpacked(source: Source, entry: Entry, stack: ExitStack) -> Source:
    """The bytes of a member; compressed ones lie in a nameless file until `stack` is closed.

    Raises:
        Unsound: it is damaged, compressed in a way that is not known, or a bomb.
    """
    if entry.method == STORED:
        return stored(source, entry)
    if entry.method != DEFLATED:
        raise Unsound(f"member {entry.name!r:.80} is compressed in an unknown way")
    check_expansion(entry.name, entry.packed, entry.size)
    packed = _packed(source, entry)
    file = stack.enter_context(nameless_file())
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    position = size = 0
    while not engine.eof:
        block = engine.unconsumed_tail
        if not block:
            count = min(BLOCK_BYTES, packed.size - position)
            packed.file.seek(packed.begin + position)
            block = packed.file.read(count)
            position += count
        try:
            out = engine.decompress(block, BLOCK_BYTES)
        except zlib.error as error:
            raise Unsound(f"damaged: member {entry.name!r:.80} cannot be unpacked") from error
        size += len(out)
        if size > entry.size or not (block or out):
            raise Unsound(f"damaged: member {entry.name!r:.80} has another size than announced")
        file.write(out)
    if size != entry.size:
        raise Unsound(f"damaged: member {entry.name!r:.80} has another size than announced")
    file.flush()
    part = Source(file, 0, size)
    part.budget = source.budget
    return part


def nameless_file() -> io.BufferedRandom:
    """An empty file on disk that goes away when it is closed."""
    return io.BufferedRandom(tempfile.TemporaryFile(buffering=0))


def check_expansion(name: str, packed: int, size: int) -> None:
    """Unsound if that much cannot come of so little, unless by one who wants to fill a disk."""
    if size > packed * MOST_EXPANSION + FREE_BYTES:
        raise Unsound(f"{name!r:.80} would grow from {packed:,} bytes to {size:,}: a bomb")
