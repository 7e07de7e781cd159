"""The tree of an HDF5 file: groups, and what stands in the headers of their members.

Written from the HDF5 File Format Specification 3.0 (The HDF Group); section numbers below are its.
Read is what h5py writes unless told otherwise, and what Keras therefore writes: superblocks 0 to 3,
object headers 1 and 2, groups as symbol tables or compact links. Everything that could lead out of
the file or in a circle is refused: soft and external links, external storage, virtual data sets,
other drivers, an object reached twice. Why not a library: docs/weights.md.
"""

from collections.abc import Iterator
from typing import NamedTuple

from xception.weights.readers.source import MAX_NAME_CHARACTERS, Cursor, Source, Unsound, text

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1  # an address that is none
MAX_DEPTH = 32  # of groups in groups
MAX_OBJECTS = 40_000
MAX_NAME_BYTES = 4 * MAX_NAME_CHARACTERS  # of a member, in UTF-8
MAX_MESSAGES = 200_000  # in the headers of all; those that are kept take 150 bytes each

# Types of header messages (IV.A.2)
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL_FILES = 0x01, 0x02, 0x03, 0x06, 0x07
LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 0x08, 0x0B, 0x0C, 0x10, 0x11
ATTRIBUTE_INFO = 0x15
UNDERSTOOD = (DATASPACE, LINK_INFO, DATATYPE, LINK, LAYOUT, FILTERS, SYMBOL_TABLE)
KEPT = (*UNDERSTOOD, EXTERNAL_FILES, ATTRIBUTE, ATTRIBUTE_INFO)
SHARED = 0x02  # flag of a message that stands elsewhere


class Message(NamedTuple):
    """One statement of an object's header."""

    kind: int
    flags: int
    data: bytes


class Member(NamedTuple):
    """A group or a data set."""

    path: str  # without a slash at its beginning; the root's is empty
    messages: list[Message]

    def first(self, kind: int) -> Message | None:
        """The first message of that kind."""
        return next((message for message in self.messages if message.kind == kind), None)

    @property
    def is_dataset(self) -> bool:
        """Whether it has values."""
        return self.first(LAYOUT) is not None


def walk(source: Source) -> Iterator[Member]:
    """Every group and data set of the file, a group before its members, these by name.

    Raises:
        Unsound: the file is damaged, or holds what leads out of it or in a circle.
    """
    seen: set[int] = set()
    left = MAX_MESSAGES
    waiting = [("", 0, _root_address(source))]
    while waiting:
        path, depth, address = waiting.pop()
        if address in seen:
            raise Unsound(f"{path!r:.80} leads back to an object that was there already")
        if depth > MAX_DEPTH or len(seen) >= MAX_OBJECTS:
            raise Unsound(f"more than {MAX_OBJECTS:,} objects, or {MAX_DEPTH} groups in groups")
        seen.add(address)
        messages = []
        for message in _messages(source, address):
            left -= 1
            if left < 0:
                raise Unsound(f"more than {MAX_MESSAGES:,} statements about its members")
            if message.kind in KEPT:
                messages.append(message)
        member = Member(path, messages)
        _refuse_what_leads_out(member)
        yield member
        if not member.is_dataset:
            prefix = f"{path}/" if path else ""
            links = []
            for link in _links(source, member):
                links.append(link)
                if len(waiting) + len(links) > MAX_OBJECTS:
                    raise Unsound(f"more than {MAX_OBJECTS:,} objects")
            links.sort(reverse=True)  # a stack: the last comes first
            waiting += [(prefix + name, depth + 1, child) for name, child in links]


def _root_address(source: Source) -> int:
    """Where the header of the root group stands, from the superblock (II)."""
    if source.read(0, min(source.size, 8)) != SIGNATURE:
        raise Unsound("no HDF5 file where one should be")
    version = source.read(8, 1)[0]
    if version in (0, 1):
        offset_size, length_size = source.fields(13, "BB")
        base, _, end, driver, _, root = source.fields(24 if version == 0 else 28, "QQQQQQ")
        if driver != UNDEFINED:
            raise Unsound("its contents are spread over several files (a driver block)")
    elif version in (2, 3):
        offset_size, length_size, _, base, _, end, root = source.fields(9, "BBBQQQQ")
    else:
        raise Unsound(f"HDF5 superblock version {version}; 0 to 3 are known")
    if (offset_size, length_size) != (8, 8) or base != 0:
        raise Unsound("an HDF5 file with addresses that Keras does not write")
    if end > source.size:
        raise Unsound(f"truncated: {source.size:,} bytes, it had {end:,}")
    return root


def _messages(source: Source, address: int) -> Iterator[Message]:
    """The header of the object at `address`, both versions (IV.A.1)."""
    if source.read(address, 4) != b"OHDR":
        version, _, count, _, size = source.fields(address, "BBHII")
        if version != 1:
            raise Unsound("damaged: no object where one should be")
        yield from _messages_1(source, address + 16, size, count)
        return
    version, flags = source.fields(address + 4, "BB")
    if version != 2:
        raise Unsound(f"HDF5 object header version {version}; 1 and 2 are known")
    position = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(source.read(position, width), "little")
    yield from _messages_2(source, position + width, size, bool(flags & 4))


def _messages_1(source: Source, address: int, size: int, count: int) -> Iterator[Message]:
    blocks = [(address, size)]
    while blocks and count:
        address, size = blocks.pop(0)
        cursor = Cursor(source.read(address, size))
        while cursor.left >= 8 and count:
            count -= 1
            kind, length, flags, _ = cursor.fields("HHB3s")
            message = Message(kind, flags, cursor.take(length))
            if kind == CONTINUATION:
                blocks.append(Cursor(message.data).fields("QQ"))
            else:
                yield message


def _messages_2(source: Source, address: int, size: int, ordered: bool) -> Iterator[Message]:
    blocks = [(address, size)]
    head = 6 if ordered else 4
    while blocks:
        address, size = blocks.pop(0)
        cursor = Cursor(source.read(address, size))
        while cursor.left >= head:
            kind, length, flags = cursor.fields("BHB")
            cursor.take(head - 4)
            message = Message(kind, flags, cursor.take(length))
            if kind != CONTINUATION:
                yield message
                continue
            address, size = Cursor(message.data).fields("QQ")
            if source.read(address, 4) != b"OCHK":
                raise Unsound("damaged: the header of an object does not go on where it says")
            blocks.append((address + 4, size - 8))  # without signature and checksum


def _refuse_what_leads_out(member: Member) -> None:
    for message in member.messages:
        if message.kind == EXTERNAL_FILES:
            raise Unsound(f"the values of {member.path!r:.80} are in other files")
        if message.flags & SHARED and message.kind in UNDERSTOOD:
            raise Unsound(f"{member.path!r:.80} has a description shared with others")


def _links(source: Source, group: Member) -> Iterator[tuple[str, int]]:
    """Names and addresses of the members of a group."""
    for kind, _, data in group.messages:
        if kind == SYMBOL_TABLE:
            tree, heap = Cursor(data).fields("QQ")
            yield from _symbols(source, tree, _local_heap(source, heap))
        elif kind == LINK:
            yield _link(data, group.path)
        elif kind == LINK_INFO:
            cursor = Cursor(data)
            _, flags = cursor.fields("BB")
            cursor.take(8 if flags & 1 else 0)
            if cursor.fields("Q") != (UNDEFINED,):
                raise Unsound(
                    f"group {group.path!r:.80} is stored in HDF5's dense form, which Keras does "
                    "not write; copy the file with h5py and its default settings"
                )


def _link(data: bytes, group: str) -> tuple[str, int]:
    """A link message (IV.A.2.g)."""
    cursor = Cursor(data)
    version, flags = cursor.fields("BB")
    kind = cursor.take(1)[0] if flags & 8 else 0
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    length = int.from_bytes(cursor.take(1 << (flags & 3)), "little")
    name = _member_name(cursor.take(length), group)
    if version != 1 or kind != 0:
        raise Unsound(_leads_elsewhere(group, name))
    return name, cursor.fields("Q")[0]


def _symbols(source: Source, address: int, heap: bytes) -> Iterator[tuple[str, int]]:
    """The members of a group that is a symbol table: a B-tree of nodes (III.A.1, III.B)."""
    waiting: list[tuple[int, int | None]] = [(address, None)]
    while waiting:
        address, expected = waiting.pop()
        signature, kind, level, count = source.fields(address, "4sBBH")
        # Each step down lowers the level, so that there is an end.
        if signature != b"TREE" or kind != 0 or expected not in (None, level):
            raise Unsound("damaged: no list of members where one should be")
        numbers = source.fields(address + 24, f"{2 * count + 1}Q")
        children = numbers[1::2]
        if level:
            waiting += [(child, level - 1) for child in children]
            continue
        for child in children:
            yield from _symbol_node(source, child, heap)


def _symbol_node(source: Source, address: int, heap: bytes) -> Iterator[tuple[str, int]]:
    signature, version, _, count = source.fields(address, "4sBBH")
    if signature != b"SNOD" or version != 1:
        raise Unsound("damaged: no list of members where one should be")
    entries = Cursor(source.read(address + 8, 40 * count))
    for _ in range(count):
        offset, child, cache, _, _ = entries.fields("QQI4s16s")
        # No further than a name may reach: all members may share one endless name.
        end = heap.find(b"\0", offset, offset + MAX_NAME_BYTES + 1) if offset < len(heap) else -1
        if end < 0:
            raise Unsound("damaged: a name is not where it should be, or endless")
        name = _member_name(heap[offset:end], "")
        if cache not in (0, 1):
            raise Unsound(_leads_elsewhere("", name))
        yield name, child


def _local_heap(source: Source, address: int) -> bytes:
    signature, version, _, size, _, data = source.fields(address, "4sB3sQQQ")
    if signature != b"HEAP" or version != 0:
        raise Unsound("damaged: no names where they should be")
    return source.read(data, size)


def _member_name(data: bytes, group: str) -> str:
    if len(data) > MAX_NAME_BYTES:
        raise Unsound(f"a member of {group!r:.80} has an endless name")
    name = text(data, "a name")
    if not name or "/" in name or name in (".", ".."):
        raise Unsound(f"a member of {group!r:.80} is called {name!r:.80}")
    return name


def _leads_elsewhere(group: str, name: str) -> str:
    path = f"{group}/{name}" if group else name
    return f"{path!r:.80} is a soft or external link; links are not followed"
