"""Foreign files of which one long thing is used again and again: small, and endless to read."""

import struct
from pathlib import Path

from hostile_weights.pickles import storage, tensor, text, zipped

NOWHERE = (1 << 64) - 1
LONG = 3_900_000  # bytes; less than may be read in one piece


def attribute(name: str, count: int, size: int = 1, values: bytes = b"", kind: int = 3) -> bytes:
    """A header message: an attribute of `count` texts (kind 9: which stand elsewhere)."""
    raw = name.encode() + b"\0"
    bits = 1 if kind == 9 else 0
    described = struct.pack("<BBBBI", 0x10 | kind, bits, 0, 0, size)
    space = struct.pack("<BBBBQ", 2, 1, 0, 1, count)
    body = struct.pack("<BBHHHB", 3, 0, len(raw), len(described), len(space), 0)
    return message(0x0C, body + raw + described + space + values)


def link(name: str, address: int) -> bytes:
    """A header message: a member of a group."""
    return message(6, struct.pack("<BBB", 1, 0, len(name)) + name.encode() + number(address))


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("<BHB", kind, len(body), 0) + body


def header(messages: bytes) -> bytes:
    """An object, whose checksum nobody proves."""
    return b"OHDR" + bytes([2, 2]) + struct.pack("<I", len(messages)) + messages + bytes(4)


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def hdf5(root: bytes, before: bytes = b"") -> bytes:
    """A file (II, version 2) of a root group; `before` stands at its byte 48."""
    end = 48 + len(before) + len(root)
    numbers = (0, NOWHERE, end, 48 + len(before))
    start = b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0]) + struct.pack("<4Q", *numbers)
    return start + bytes(4) + before + root


def one_text_often() -> bytes:
    """4,000 references to one text of a global heap (III.E)."""
    text_of_heap = struct.pack("<HHIQ", 1, 1, 0, LONG) + b"b" * LONG
    heap = struct.pack("<4sB3sQ", b"GCOL", 1, b"", 16 + len(text_of_heap) + 16)
    references = struct.pack("<IQI", LONG, 48, 1) * 4000
    root = header(attribute("layer_names", 4000, 16, references, kind=9))
    return hdf5(root, heap + text_of_heap + bytes(16))


def one_text_in_many_groups() -> bytes:
    """Each group's own name is the same text of a heap, which has a NUL behind its first letter."""
    text_of_heap = struct.pack("<HHIQ", 1, 1, 0, LONG) + b"b\0".ljust(LONG, b"b")
    heap = struct.pack("<4sB3sQ", b"GCOL", 1, b"", 16 + len(text_of_heap) + 16)
    content = heap + text_of_heap + bytes(16)
    reference = struct.pack("<IQI", LONG, 48, 1)
    value = message(1, struct.pack("<BBBB", 2, 0, 0, 0))
    value += message(3, struct.pack("<BBBBIHH", 0x10, 0, 0, 0, 1, 0, 8))
    value += message(8, struct.pack("<BBHB", 3, 0, 1, 7))
    links = b""
    for i in range(1000):
        dataset, variables = 48 + len(content), header(value)
        content += variables
        group = header(attribute("name", 1, 16, reference, kind=9) + link("0", dataset))
        links += link(f"{i}", 48 + len(content) + len(group))
        content += group
        content += header(link("vars", dataset + len(variables)))
    return hdf5(header(links), content)


def one_name_often() -> bytes:
    """300 members of a symbol table (III.B) that share one name of a local heap (III.D)."""
    names = b"n" * LONG + bytes(8)
    heap_at = 48 + len(names)
    heap = struct.pack("<4sB3sQQQ", b"HEAP", 0, b"", len(names), NOWHERE, 48)
    entries = b"".join(struct.pack("<QQI4s16s", 0, 1000 + i, 0, b"", b"") for i in range(300))
    node = struct.pack("<4sBBH", b"SNOD", 1, 0, 300) + entries
    tree = struct.pack("<4sBBHQQ", b"TREE", 0, 0, 1, NOWHERE, NOWHERE)
    tree += struct.pack("<3Q", 0, heap_at + len(heap), 0)
    tree_at = heap_at + len(heap) + len(node)
    root = header(message(0x11, number(tree_at) + number(heap_at)))
    return hdf5(root, names + heap + node + tree)


def _hdf5() -> dict[str, bytes]:
    others = b"".join(attribute(f"x{i}", 0) for i in range(1000))
    layer = header(others + attribute("weight_names", 0))
    named = attribute("layer_names", 3000, 1, b"a" * 3000) + link("a", 48)
    parts = b"".join(attribute(f"layer_names{i}", 0) for i in range(1900))
    return {
        "one text often": one_text_often(),
        "one text in many groups": one_text_in_many_groups(),
        "one name often": one_name_often(),
        "one layer often": hdf5(header(named), layer),
        "a list in many parts": hdf5(header(parts)),
        "many attributes": hdf5(header(parts + others + attribute("y", 0) * 200)),
    }


def _pickles() -> dict[str, bytes]:
    numbers = b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(60_000))
    pairs = b"ccollections\nOrderedDict\nq\1](" + numbers + b"e\x85q\3"
    shape = b"(" + b"K\1" * 60_000 + b"tq\3"
    whole = b"ctorch._utils\n_rebuild_tensor_v2\nq\1(" + storage() + b"K\0" + shape + b"h\3tq\4"
    return {
        "one list of pairs often": b"\x80\2}" + pairs + b"h\1h\3R" * 30_000 + b".",
        "one endless shape often": b"\x80\2]" + whole + b"h\1h\4R" * 60_000 + b".",
        "an endless prefix": b"\x80\2}" + text("module." * 100_000) + tensor() + b"s.",
    }


def hostile_repeated(folder: Path) -> dict[str, Path]:
    """By what is used again and again."""
    files = {f"h5 {what}": content for what, content in _hdf5().items()}
    files |= {f"pth {what}": zipped(program) for what, program in _pickles().items()}
    paths = {}
    for i, (what, content) in enumerate(files.items()):
        paths[what] = folder / f"{i}.weights"
        paths[what].write_bytes(content)
    return paths
