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
from typing import Protocol

from xception.data.images import MAX_FILE_BYTES, ImageError, read_file
from xception.errors import UserError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip, APPNOTE 4.3.7: signature, …, name and extra length


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
        self._members: dict[str, tuple[int, int, int, int, bool]] = {}
        folders: set[str] = set()
        for member in members:
            name = _checked_name(member.filename, path)
            if member.filename.endswith(("/", "\\")):
                folders.add(name)
                continue
            folders.add(posixpath.dirname(name))
            if name in self._members:
                raise UserError(f"{path}: holds {name} twice; zip the folder anew")
            if member.flag_bits & 1:
                raise UserError(f"{path}: {name} is encrypted; zip the folder without a password")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{path}: {name} is packed with an unusual method "
                    f"({member.compress_type}); zip the folder with the usual one (deflate)"
                )
            deflated = member.compress_type == zipfile.ZIP_DEFLATED
            self._members[name] = (
                member.header_offset,
                member.compress_size,
                member.file_size,
                member.CRC,
                deflated,
            )
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
        offset, packed_size, size, crc, deflated = self._members[name]
        if size > MAX_FILE_BYTES or packed_size > MAX_FILE_BYTES:
            raise ImageError(name, f"more than the {MAX_FILE_BYTES // 2**20} MiB allowed")
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                signature, name_length, extra_length = _LOCAL_HEADER.unpack(
                    file.read(_LOCAL_HEADER.size)
                )
                file.seek(name_length + extra_length, os.SEEK_CUR)
                data = file.read(packed_size)
            if deflated:  # never more than was announced, whatever the stream holds
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise ImageError(name, f"cannot be read from {self.path} ({error})") from error
        if signature != b"PK\x03\x04" or len(data) != size or zlib.crc32(data) != crc:
            raise ImageError(name, f"damaged in {self.path}")
        return data


def _identity(entry: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _checked_name(name: str, path: Path) -> str:
    """A member's name with forward slashes. Raises `UserError` if it points out of the zip."""
    # Some packers on Windows write backslashes.
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith(("/", "\\")) or parts[0].endswith(":"):
        raise UserError(f"{path}: holds a file whose name points out of it: {name!r}")
    return "/".join(parts)
