"""Where the bytes of photos come from: a folder or a zip file, read by name.

Names are relative paths with forward slashes. Stores hold no open file: they can be pickled, forked
and used by many threads at once. Nothing is ever unpacked onto the disk.
"""

import os
import posixpath
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from xception.data.images import MAX_FILE_BYTES, ImageError, read_file
from xception.errors import UserError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip, APPNOTE 4.3.7: signature, …, name and extra length


@runtime_checkable
class Store(Protocol):
    """Files read by name."""

    path: Path
    """What the person named: the folder or the zip file."""

    def names(self) -> tuple[str, ...]:
        """All files, sorted."""
        ...

    def folders(self) -> tuple[str, ...]:
        """All folders below the top, sorted; empty ones too where the store knows them."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises `ImageError`, also if it is larger than allowed."""
        ...


class FolderStore:
    """The files below a folder, symbolic links followed (but never in a circle)."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> tuple[str, ...]:
        """All files, sorted. Raises `UserError` if a folder may not be read."""
        return self._walk()[0]

    def folders(self) -> tuple[str, ...]:
        """All folders below the top, sorted. Raises `UserError` if one may not be read."""
        return self._walk()[1]

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises `ImageError`."""
        return read_file(self.path / name, name)

    def _walk(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        files: list[str] = []
        folders: list[str] = []
        # Folders to visit: path, its name with a slash, it and those above.
        visit = [(str(self.path), "", frozenset([_identity(self.path)]))]
        while visit:
            path, prefix, above = visit.pop()
            try:
                entries = list(os.scandir(path))
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from error
            for entry in entries:
                if not entry.is_dir():
                    files.append(prefix + entry.name)
                elif (identity := _identity(entry)) not in above:
                    folders.append(prefix + entry.name)
                    visit.append((entry.path, f"{prefix}{entry.name}/", above | {identity}))
        return tuple(sorted(files)), tuple(sorted(folders))


class _Member(NamedTuple):
    """Where a file stands in a zip, and what the directory says of it."""

    offset: int
    packed_size: int
    size: int
    checksum: int
    deflated: bool


class ZipStore:
    """The members of a zip file.

    The directory is read once, here; a photo is then one seek and one read of a file opened for it.
    Raises `UserError` for a damaged or encrypted file, for names that point out of it or occur
    twice, and for methods of compression other than deflate.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a sound zip file ({error})") from error
        self._members: dict[str, _Member] = {}
        folders: set[str] = set()
        for member in members:
            name = _checked_name(member.filename, path)
            if member.filename.endswith(("/", "\\")):
                folders.add(name)
            elif name in self._members:
                raise UserError(f"{path}: holds {name} twice; zip the folder anew")
            else:
                folders.add(posixpath.dirname(name))
                self._members[name] = _checked_member(member, path)
        for folder in list(folders):
            while folder := posixpath.dirname(folder):
                folders.add(folder)
        self._folders = tuple(sorted(folders - {""}))

    def names(self) -> tuple[str, ...]:
        """All files, sorted."""
        return tuple(sorted(self._members))

    def folders(self) -> tuple[str, ...]:
        """All folders, sorted; an empty one only if the zip says so."""
        return self._folders

    def read(self, name: str) -> bytes:
        """The bytes of one member, its checksum verified. Raises `ImageError`."""
        if name not in self._members:
            raise ImageError(name, f"not in {self.path}")
        member = self._members[name]
        if max(member.size, member.packed_size) > MAX_FILE_BYTES:
            raise ImageError(name, f"more than the {MAX_FILE_BYTES // 2**20} MiB allowed")
        try:
            with self.path.open("rb") as file:
                file.seek(member.offset)
                header = file.read(_LOCAL_HEADER.size)
                signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
                file.seek(name_length + extra_length, os.SEEK_CUR)
                data = file.read(member.packed_size)
            if member.deflated:  # never more than was announced, whatever the stream holds
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise ImageError(name, f"cannot be read from {self.path} ({error})") from error
        sound = len(data) == member.size and zlib.crc32(data) == member.checksum
        if signature != b"PK\x03\x04" or not sound:
            raise ImageError(name, f"damaged in {self.path}")
        return data


def store_at(path: Path) -> Store | None:
    """The store of a folder or a zip; None for any other file. Raises `UserError` as `ZipStore`."""
    if path.is_dir():
        return FolderStore(path)
    return ZipStore(path) if zipfile.is_zipfile(path) else None


def _identity(entry: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _checked_name(name: str, path: Path) -> str:
    """A member's name with forward slashes. Raises `UserError` if it points out of the zip."""
    # Some packers on Windows write backslashes.
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = ".." in parts or name.startswith(("/", "\\"))
    if outside or (parts and parts[0].endswith(":")):
        raise UserError(f"{path}: holds a file whose name points out of it: {name!r}")
    return "/".join(parts)


def _checked_member(member: zipfile.ZipInfo, path: Path) -> _Member:
    if member.flag_bits & 1:
        raise UserError(
            f"{path}: {member.filename} is encrypted; zip the folder without a password"
        )
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{path}: {member.filename} is packed with an unusual method "
            f"({member.compress_type}); zip the folder with the usual one (deflate)"
        )
    return _Member(
        offset=member.header_offset,
        packed_size=member.compress_size,
        size=member.file_size,
        checksum=member.CRC,
        deflated=member.compress_type == zipfile.ZIP_DEFLATED,
    )
