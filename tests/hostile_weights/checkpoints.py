"""TensorFlow checkpoints and archives of them as an enemy would write them."""

import gzip
import io
import os
import tarfile
from pathlib import Path

from xception.weights.readers.crc32c import masked_crc32c
from xception.weights.readers.tensorflow_files import slice_key

NAME = "model.ckpt"
DATA = f"{NAME}.data-00000-of-00001"
HEADER = b"\x08\x01"  # one shard
FAR = (1 << 64) - 1


def varint(value: int) -> bytes:
    value %= 1 << 64
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def shape(*sizes: int) -> bytes:
    return message(2, *(message(2, number(1, size)) for size in sizes))


def entry(
    *sizes: int, dtype: int = 1, shard: int = 0, offset: int = 0, size: int = 8, crc: int | None = 0
) -> bytes:
    """A BundleEntryProto, of two float32 if not told otherwise."""
    check = b"" if crc is None else varint(6 << 3 | 5) + crc.to_bytes(4, "little")
    place = number(3, shard) + number(4, offset) + number(5, size)
    return number(1, dtype) + shape(*sizes) + place + check


def block(entries: list[tuple[bytes, bytes]], kind: int = 0, restarts: int = 1) -> bytes:
    """A block of a table and its trailer; nothing is shared between keys."""
    content = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries
    )
    return sealed(content + bytes(4) + restarts.to_bytes(4, "little"), kind)


def sealed(content: bytes, kind: int = 0) -> bytes:
    """With its kind and its checksum."""
    content += bytes([kind])
    return content + masked_crc32c(content).to_bytes(4, "little")


def table(entries: list[tuple[bytes, bytes]], data: bytes | None = None) -> bytes:
    """The index file of the entries, or of another block in their place."""
    data = block(entries) if data is None else data
    meta = block([])
    handles = varint(len(data)) + varint(len(meta) - 5)
    index = block([(b"\xff", varint(0) + varint(len(data) - 5))])
    handles += varint(len(data) + len(meta)) + varint(len(index) - 5)
    footer = handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    return data + meta + index + footer


def part(*extents: tuple[int, int]) -> bytes:
    return message(7, *(message(1, number(1, a) + number(2, b)) for a, b in extents))


def _of_one(value: bytes) -> bytes:
    return table([(b"", HEADER), (b"weights", value)])


def _sliced(size: int, *parts: tuple[int, int], have: int | None = None) -> bytes:
    """A variable of one dimension in parts, of which the first few are there."""
    pieces = {
        slice_key("weights", (one,)): entry(max(one[1], 0), size=4 * max(one[1], 0))
        for one in parts[:have]
    }
    whole = entry(size, size=0) + b"".join(part(one) for one in parts)
    return table([(b"", HEADER), *sorted(pieces.items()), (b"weights", whole)])


def _tables() -> dict[str, bytes]:
    good = table([(b"", HEADER), (b"weights", entry(2, crc=masked_crc32c(bytes(8))))])
    files = {f"cut at {n}": good[:n] for n in range(0, len(good), len(good) // 25)}
    for place in range(0, good.index(b"weights") + 40, 3):  # of the first block
        changed = bytearray(good)
        changed[place] ^= 0x10
        files[f"another byte at {place}"] = bytes(changed)
    values = {
        "wrong checksum": entry(2, crc=1),
        "no checksum": entry(2, crc=None),
        "beyond the end": entry(2, offset=1),
        "far beyond the end": entry(2, offset=1 << 62),
        "before the beginning": entry(2, offset=-4),
        "negative size": entry(2, size=-8),
        "size too small": entry(2, size=4),
        "size too large": entry(2, size=12),
        "larger than its bytes": entry(3),
        "huge": entry(1 << 33, size=1 << 35),
        "huge in two dimensions": entry(1 << 39, 1 << 39, size=8),
        "negative dimension": entry(-2),
        "two negative dimensions": entry(-1, -2),
        "nine dimensions": entry(*(1,) * 9),
        "a thousand dimensions": entry(*(1,) * 1001),
        "unknown rank": number(1, 1) + message(2, number(3, 1)) + number(5, 8),
        "type 0": entry(2, dtype=0),
        "type 11": entry(2, dtype=11),
        "type 99": entry(2, dtype=99),
        "type 101": entry(2, dtype=101),
        "shard 1": entry(2, shard=1),
        "shard 2^63": entry(2, shard=1 << 63),
        "shape is a number": number(1, 1) + number(2, 7),
        "type is a message": message(1, b"") + shape(2),
        "half a field": b"\x08",
        "field 0": b"\0\1",
        "a group": b"\x0b\x0c",
        "endless number": b"\x08" + b"\xff" * 20,
        "longer than it is": b"\x12\x7f\0",
        "no bytes": b"",
        "many fields": number(9, 1) * 2000,
    }
    files |= {what: _of_one(value) for what, value in values.items()}
    for what, parts, have in (
        ("slice not there", ((0, 1), (1, 1)), 1),
        ("slices overlap", ((0, 2), (1, 1)), None),
        ("slices with a gap", ((0, 1),), None),
        ("slice beyond", ((0, 1), (1, 2)), None),
        ("slice before", ((-1, 2), (1, 1)), None),
        ("slice of nothing", ((0, 2), (2, 0)), None),
        ("slice of less than nothing", ((0, 2), (2, -5)), None),
        ("too many slices", tuple((i, 1) for i in range(65)), None),
    ):
        files[what] = _sliced(2, *parts, have=have)
    files["slice of other dimensions"] = table(
        [(b"", HEADER), (b"weights", entry(2) + part((0, 1), (0, 1)))]
    )
    headers = {
        "no header": None,
        "no shards": number(1, 0),
        "257 shards": number(1, 257),
        "2^63 shards": number(1, 1 << 63),
        "two shards": number(1, 2),
        "big-endian": HEADER + number(2, 1),
        "header is no message": b"\xff",
    }
    for what, header in headers.items():
        first = [] if header is None else [(b"", header)]
        files[what] = table([*first, (b"weights", entry(2, crc=masked_crc32c(bytes(8))))])
    many = [(f"{i:05d}".encode(), entry(2)) for i in range(5)]
    files |= {
        "empty": table([]),
        "out of order": table([(b"", HEADER), (b"b", entry(2)), (b"a", entry(2))]),
        "twice": table([(b"", HEADER), (b"a", entry(2)), (b"a", entry(2))]),
        "name of bytes": table([(b"", HEADER), (b"\xff\xfe", entry(2))]),
        "name of control characters": table([(b"", HEADER), (b"a\nb", entry(2))]),
        "name is long": table([(b"", HEADER), (b"a" * 1500, entry(2))]),
        "key is too long": table([(b"", HEADER), (b"a" * 3000, entry(2))]),
        "five over the same bytes": table([(b"", HEADER), *many]),
        "compressed": table([], block([(b"", HEADER)], kind=1)),
        "unknown kind": table([], block([(b"", HEADER)], kind=7)),
        "too many restarts": table([], block([(b"", HEADER)], restarts=1 << 30)),
        "no room for restarts": table([], sealed(b"ab")),
        "shared with nothing": table(
            [], sealed(varint(9) + varint(1) + varint(0) + b"a" + bytes(8))
        ),
        "entry longer than its block": table([], sealed(varint(0) + varint(99) * 2 + bytes(8))),
        "handle far away": good[:-48]
        + (varint(1 << 50) + varint(9) + varint(1 << 50) + varint(99)).ljust(40, b"\0")
        + good[-8:],
        "handle of everything": good[:-48]
        + (varint(0) * 2 + varint(0) + varint(len(good) - 5)).ljust(40, b"\0")
        + good[-8:],
        "index of itself": good[:-48] + (varint(0) * 4).ljust(40, b"\0") + good[-8:],
        "60,001 entries": table(
            [(b"", HEADER), *((f"{i:06d}".encode(), b"") for i in range(60_001))]
        ),
        "keys that grow": table([], sealed(_growing_keys() + bytes(4) + b"\1\0\0\0")),
        "a block of 5 MB": table([(b"", HEADER), (b"a", bytes(5 << 20))]),
    }
    return files


def _growing_keys() -> bytes:
    """60,000 keys of 2,000 bytes that take seven bytes each."""
    first = varint(0) + varint(2000) + varint(0) + b"a" * 1990 + bytes(10)
    return first + b"".join(
        varint(1996) + varint(4) + varint(0) + i.to_bytes(4, "big") for i in range(1, 59_000)
    )


def hostile_checkpoints(folder: Path) -> dict[str, Path]:
    """Folders, prefixes and indexes, by what is wrong with them."""
    paths = {}
    for i, (what, content) in enumerate(_tables().items()):
        path = paths[f"tf {what}"] = folder / str(i) / f"{NAME}.index"
        path.parent.mkdir()
        path.write_bytes(content)
        (path.parent / DATA).write_bytes(bytes(8))
    good = table([(b"", HEADER), (b"weights", entry(2, crc=masked_crc32c(bytes(8))))])
    for what in ("missing", "short", "empty", "folder", "pipe", "loop", "outside"):
        path = paths[f"tf data {what}"] = folder / f"data {what}"
        path.mkdir()
        (path / f"{NAME}.index").write_bytes(good)
        data = path / DATA
        if what == "folder":
            data.mkdir()
        elif what == "pipe":
            os.mkfifo(data)
        elif what == "loop":
            data.symlink_to(data)
        elif what == "outside":
            data.symlink_to("/dev/zero")
        elif what != "missing":
            data.write_bytes(bytes(7 if what == "short" else 0))
    for what, text in {
        "of bytes": b"\xff\xfe",
        "without a name": b'all_model_checkpoint_paths: "model.ckpt"',
        "long": b"x" * (2 << 20),
    }.items():
        path = paths[f"tf 'checkpoint' {what}"] = folder / f"checkpoint {what}"
        path.mkdir()
        (path / f"{NAME}.index").write_bytes(good)
        (path / DATA).write_bytes(bytes(8))
        (path / "checkpoint").write_bytes(text)
    empty = paths["tf folder of nothing"] = folder / "nothing"
    empty.mkdir()
    return paths


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=form) as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return memory.getvalue()


def hostile_archives(folder: Path) -> dict[str, Path]:
    """Archives, by what is wrong with them."""
    index = table([(b"", HEADER), (b"weights", entry(2, crc=masked_crc32c(bytes(8))))])
    both = (member(f"a/{NAME}.index", index), member(f"a/{DATA}", bytes(8)))
    good = archive(*both)
    zipped = gzip.compress(good, mtime=0)
    plain = {
        "nothing": bytes(1024),
        "no checkpoint": archive(member("a/photo.jpg", b"...")),
        "no data": archive(both[0]),
        "no index": archive(both[1]),
        "two": archive(*both, member(f"b/{NAME}.index", index), member(f"b/{DATA}", bytes(8))),
        "one twice": archive(*both, both[0]),
        "short data": archive(both[0], member(f"a/{DATA}", bytes(7))),
        "a bomb": archive(member(f"a/{DATA}", bytes(100 << 20)), both[0]),
        "a bomb beside": archive(*both, member("a/zeros", bytes(100 << 20))),
        "no end": good[: len(good.rstrip(b"\0")) // 512 * 512 + 512],
        "a checksum": good[:148] + b"0000000\0" + good[156:],
        "a size of letters": good[:124] + b"abcdefghijk\0" + good[136:],
        "many": archive(*(member(f"{i}") for i in range(10_001))),
        "many shards": archive(
            *(member(f"a/{NAME}.data-{i:05d}-of-02000") for i in range(1001)), both[0]
        ),
        "endless name": archive(member("a/" + "b" * 5000 + ".index", index)),
        "name of bytes": good.replace(b"a/model", b"\xff/model"),
        "long extended header": archive(
            member("x", b"y", pax_headers={"comment": "z" * (90 << 20)}),
            form=tarfile.PAX_FORMAT,
        ),
    }
    for name in ("../a", "/a", "b/../../a", "b\\a"):
        plain[f"a name {name}"] = archive(member(f"{name}/{NAME}.index", index), both[1])
    for what, kind in {
        "a link": tarfile.SYMTYPE,
        "a hard link": tarfile.LNKTYPE,
        "a device": tarfile.CHRTYPE,
        "a pipe": tarfile.FIFOTYPE,
        "a disk": tarfile.BLKTYPE,
        "a sparse file": tarfile.GNUTYPE_SPARSE,
    }.items():
        plain[what] = archive(member(f"a/{DATA}", type=kind, linkname="/etc/passwd"), both[0])
        plain[f"{what} beside"] = archive(*both, member("b", type=kind, linkname="/etc/passwd"))
    huge = bytearray(good)
    huge[124:136] = b"\x80" + b"\xff" * 11
    huge[148:156] = b" " * 8
    huge[148:156] = b"%06o\0 " % sum(huge[:512])
    plain["a size of 2^88"] = bytes(huge)
    files = {f"tar {what}": gzip.compress(content, 6, mtime=0) for what, content in plain.items()}
    files |= {f"tar cut at {n}": zipped[:n] for n in range(3, len(zipped), len(zipped) // 20)}
    files |= {
        "tar of text": gzip.compress(b"Dear reader. " * 500),
        "tar damaged": zipped[:40] + b"\xff" * 20 + zipped[60:],
        "tar gzip bomb": gzip.compress(gzip.compress(bytes(1 << 20))),
        "tar of many empty archives": gzip.compress(b"", mtime=0) * 10_001,
        "tar of zeros": gzip.compress(bytes(9 << 20)),
    }
    paths = {}
    for i, (what, content) in enumerate(files.items()):
        paths[what] = folder / f"{i}.tar.gz"
        paths[what].write_bytes(content)
    return paths
