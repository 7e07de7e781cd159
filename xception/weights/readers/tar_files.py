"""Checkpoints inside a `.tar.gz`, as TensorFlow's model zoo ships them.

The archive is read once, from its beginning to its end. Members of a checkpoint are written into a
temporary folder under names of our own making; all others are passed over. Links, devices and names
that lead out of a folder are refused, whether they are wanted or not. Fields are those of POSIX
`pax` (ustar) and GNU tar.
"""

import re
import zlib
from pathlib import Path
from typing import NamedTuple

from xception.weights.readers.source import (
    MAX_DESCRIPTION_BYTES,
    MAX_NAME_CHARACTERS,
    Source,
    Unsound,
    text,
)
from xception.weights.readers.zip_files import FREE_BYTES, MOST_EXPANSION

BLOCK = 512
CHUNK_BYTES = 1 << 18
MAX_MEMBERS = 10_000
MAX_WANTED = 1000
GZIP = 16 + zlib.MAX_WBITS  # zlib's way of saying so
WANTED = re.compile(r"[\w.=+@, -]{1,200}\.(index|data-\d{5}-of-\d{5})|checkpoint")
FILE, FOLDER, LONG_NAME, EXTENDED = b"\0" + b"07", b"5", b"L", b"xgK"
RECORD = re.compile(rb"(\d{1,6}) ")
EXTENDED_ONE = b"x"  # about the next member alone
MAX_EXTENDED_BYTES = 1 << 16  # of what is looked into


class _Header(NamedTuple):
    name: str
    kind: bytes
    size: int


def extract_checkpoints(source: Source, folder: Path) -> list[Path]:
    """Write the checkpoints of the archive below `folder`, each folder of it into one of its own.

    Returns:
        The folders, which hold an index at least.

    Raises:
        Unsound: damaged, a bomb, or with members that are neither files nor folders.
    """
    stream = _Stream(source)
    folders: dict[str, Path] = {}
    long_name = None
    wanted = 0
    for _ in range(MAX_MEMBERS):
        header = _header(stream.take(BLOCK))
        if header is None:
            stream.finish()
            found = [path for path in folders.values() if any(path.glob("*.index"))]
            if not found:
                raise Unsound("an archive without a TensorFlow checkpoint in it")
            return found
        padding = -header.size % BLOCK
        if header.kind == LONG_NAME:
            long_name = _long_name(stream, header.size)
        elif header.kind == EXTENDED_ONE and header.size <= MAX_EXTENDED_BYTES:
            long_name = _path_of(stream.take(header.size)) or long_name
        elif header.kind in EXTENDED:  # nothing about one member's name
            stream.skip(header.size)
        else:
            parent, name = _place(long_name or header.name, header.kind)
            long_name = None
            if header.kind in FILE and WANTED.fullmatch(name):
                wanted += 1
                if wanted > MAX_WANTED:
                    raise Unsound(f"more than {MAX_WANTED} files of checkpoints in an archive")
                target = folders.setdefault(parent, folder / str(len(folders)))
                target.mkdir(exist_ok=True)
                if (target / name).exists():
                    raise Unsound(f"{name!r:.80} stands in the archive twice")
                stream.copy(header.size, target / name)
            else:
                stream.skip(header.size)
        stream.skip(padding)
    raise Unsound(f"more than {MAX_MEMBERS:,} members in an archive")


def _header(block: bytes) -> _Header | None:
    """What a header says; None for the zeros at the end of an archive."""
    if not any(block):
        return None
    checksum = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    if _octal(block[148:156]) != checksum:
        raise Unsound("damaged: no member of an archive where one should be")
    name = text(block[:100].split(b"\0")[0], "a member's name")
    if block[257:263] == b"ustar\0":  # GNU's own format has times there
        prefix = text(block[345:500].split(b"\0")[0], "a member's name")
        name = f"{prefix}/{name}" if prefix else name
    return _Header(name, block[156:157], _octal(block[124:136]))


def _octal(field: bytes) -> int:
    if field[0] == 0x80:  # GNU's way for 8 GB and more
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    if not re.fullmatch(rb"[0-7]{0,12}", digits):
        raise Unsound("damaged: a number in the archive is none")
    return int(digits or b"0", 8)


def _long_name(stream: "_Stream", size: int) -> str:
    if size > MAX_NAME_CHARACTERS:
        raise Unsound("a member of the archive with an endless name")
    return text(stream.take(size).split(b"\0")[0], "a member's name")


def _path_of(records: bytes) -> str | None:
    """The next member's path if pax's records tell it: `LENGTH KEY=VALUE` and a new line each."""
    begin, path = 0, None
    while begin < len(records):
        found = RECORD.match(records, begin)
        end = begin + int(found[1]) if found else begin
        if found is None or not found.end() < end <= len(records):
            raise Unsound("damaged: what the archive says of a member")
        key, _, value = records[found.end() : end - 1].partition(b"=")
        if key == b"path":
            path = text(value, "a member's name")
        begin = end
    if path is not None and len(path) > MAX_NAME_CHARACTERS:
        raise Unsound("a member of the archive with an endless name")
    return path


def _place(path: str, kind: bytes) -> tuple[str, str]:
    """Folder and name of a member."""
    parts = path.removeprefix("./").rstrip("/").split("/")
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise Unsound(f"a member of the archive called {path!r:.80}")
    if kind not in (*(FILE[i : i + 1] for i in range(len(FILE))), FOLDER):
        raise Unsound(f"{path!r:.80} in the archive is neither a file nor a folder")
    return "/".join(parts[:-1]), parts[-1]


class _Stream:
    """What a gzip file unpacks to, from its beginning to its end, as far as it is no bomb."""

    def __init__(self, source: Source):
        self._source = source
        self._position = 0
        self._engine = zlib.decompressobj(GZIP)
        self._ready = b""
        self._packed = b""
        self._archives = 1
        self._left = source.size * MOST_EXPANSION + FREE_BYTES

    def take(self, count: int) -> bytes:
        """The next bytes; few enough to be held."""
        if count > MAX_DESCRIPTION_BYTES:
            raise Unsound("a description in the archive that is too long")
        pieces = []
        while count:
            piece = self._next(count)
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Go over the next bytes."""
        while count:
            count -= len(self._next(count))

    def copy(self, count: int, target: Path) -> None:
        """Write the next bytes to a file of its own."""
        with target.open("xb") as file:
            while count:
                piece = self._next(count)
                count -= len(piece)
                file.write(piece)

    def finish(self) -> None:
        """Read to the end, whose checksum proves that all was there."""
        while not self._engine.eof or self._packed or self._position < self._source.size:
            self._unpack()

    def _next(self, most: int) -> bytes:
        """Some of the next bytes: at least one, at most so many."""
        while not self._ready:
            self._unpack()
        piece, self._ready = self._ready[:most], self._ready[most:]
        return piece

    def _unpack(self) -> None:
        if self._engine.eof:  # another archive may follow, as from programs that pack in parallel
            self._archives += 1
            if self._archives > MAX_MEMBERS:
                raise Unsound(f"more than {MAX_MEMBERS:,} archives in a row")
            self._engine = zlib.decompressobj(GZIP)
        if not self._packed:
            count = min(CHUNK_BYTES, self._source.size - self._position)
            if not count:
                raise Unsound("truncated: the archive ends too soon")
            self._source.file.seek(self._source.begin + self._position)
            self._packed = self._source.file.read(count)
            self._position += count
        try:
            self._ready = self._engine.decompress(self._packed, CHUNK_BYTES)
        except zlib.error as error:
            raise Unsound("damaged: the archive cannot be unpacked") from error
        self._packed = self._engine.unused_data or self._engine.unconsumed_tail
        self._left -= len(self._ready)
        if self._left < 0:
            raise Unsound(
                f"an archive that grows to more than {MOST_EXPANSION} times its size: a bomb"
            )
