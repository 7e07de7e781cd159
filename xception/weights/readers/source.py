"""Bytes of a foreign file, and what is allowed to be said about them.

Every reader gets its bytes here and nowhere else: no byte outside the file is read, no read is
larger than what is there, and all that is read to understand a file (not its values) is paid from
one budget, so that no loop that a file asks for goes on for ever. Nothing is mapped into memory: a
file that becomes shorter meanwhile would end the process.
"""

import math
import struct
from collections.abc import Callable
from io import BufferedIOBase
from typing import Any

import numpy as np

from xception.weights.readers.stored import StoredTensor

MAX_READ_BYTES = 4 << 20  # one piece of description; the largest known is a model's JSON, 0.4 MB
MAX_DESCRIPTION_BYTES = 24 << 20  # all of it; an Inception V3 with its optimizer needs 1 MB
READ_COST_BYTES = 128  # what reading a single byte costs, so that many small reads end too
MAX_TENSORS = 20_000
MAX_NAME_CHARACTERS = 1000
MAX_NAMES_CHARACTERS = 2 << 20  # of all names together
MAX_DIMENSIONS = 8
MAX_SIZE = 1 << 40  # of one dimension


class Unsound(ValueError):
    """What a file says cannot be, or is more than is allowed; in one line, without the path."""


class Source:
    """A stretch of an open file, addressed from its own beginning."""

    def __init__(self, file: BufferedIOBase, begin: int, size: int):
        self.file = file
        self.begin = begin
        self.size = size
        self.budget = [MAX_DESCRIPTION_BYTES]  # shared with the windows

    def window(self, offset: int, size: int) -> "Source":
        """A part of it, which shares the budget.

        Raises:
            Unsound: it does not lie within.
        """
        self.check(offset, size)
        part = Source(self.file, self.begin + offset, size)
        part.budget = self.budget
        return part

    def check(self, offset: int, count: int) -> None:
        """Unsound unless `count` bytes from `offset` on are there."""
        if not (offset >= 0 and count >= 0 and offset + count <= self.size):
            raise Unsound(
                f"truncated or damaged: it points to {count:,} bytes at {offset:,}, "
                f"but has {self.size:,} bytes"
            )

    def read(self, offset: int, count: int) -> bytes:
        """A piece of the description of the file.

        Raises:
            Unsound: it is not there, is too large, or too much was read already.
        """
        self.check(offset, count)
        if count > MAX_READ_BYTES:
            raise Unsound(f"{count:,} bytes to describe one thing; {MAX_READ_BYTES:,} at most")
        self.budget[0] -= count + READ_COST_BYTES
        if self.budget[0] < 0:
            raise Unsound(
                f"more than {MAX_DESCRIPTION_BYTES:,} bytes must be read to understand it"
            )
        self.file.seek(self.begin + offset)
        data = self.file.read(count)
        if len(data) != count:
            raise Unsound("the file became shorter while it was read")
        return data

    def fields(self, offset: int, form: str) -> tuple[Any, ...]:
        """The fields of a structure, little-endian without padding, as `struct` names them."""
        return struct.unpack("<" + form, self.read(offset, struct.calcsize("<" + form)))

    def values(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The values of a tensor that lie there one behind the other, in this machine's order.

        Raises:
            Unsound: they are not there.
        """
        self.check(offset, math.prod(shape) * dtype.itemsize)
        if dtype == np.bool_:  # a byte that is neither 0 nor 1 would be no bool for NumPy
            return np.asarray(self.values(offset, shape, np.dtype(np.uint8)) != 0)
        array = np.empty(shape, dtype)
        self.file.seek(self.begin + offset)
        if _read_into(self.file, array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise Unsound("the file became shorter while it was read")
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _read_into(file: BufferedIOBase, memory: memoryview) -> int:
    """Fill `memory`; the number of bytes that were there."""
    done = 0
    while done < len(memory):
        count = file.readinto(memory[done:])
        if not count:
            break
        done += count
    return done


class Cursor:
    """Reads through a piece of memory from its beginning to its end."""

    def __init__(self, data: bytes, position: int = 0):
        self.data = data
        self.position = position

    @property
    def left(self) -> int:
        """How many bytes are still to come."""
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            Unsound: there are fewer.
        """
        if not 0 <= count <= self.left:
            raise Unsound(f"damaged: {count:,} bytes announced, {self.left:,} there")
        self.position += count
        return self.data[self.position - count : self.position]

    def fields(self, form: str) -> tuple[Any, ...]:
        """The fields of a structure, little-endian without padding, as `struct` names them."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def varint(self) -> int:
        """An unsigned number of up to 64 bits in groups of seven, the lowest first."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value
        raise Unsound("damaged: a number of more than 64 bits")


class Collection:
    """The tensors of a file as they are found; each is judged on entering."""

    def __init__(self, file_bytes: int):
        self.tensors: dict[str, StoredTensor] = {}
        self._most_bytes = 2 * file_bytes  # bfloat16 is widened; a few tensors share their values
        self._bytes_left = self._most_bytes
        self._characters_left = MAX_NAMES_CHARACTERS

    def add(
        self, name: str, shape: tuple[int, ...], dtype: str, load: Callable[[], np.ndarray]
    ) -> None:
        """Put one tensor behind the others.

        Raises:
            Unsound: its name or shape is not one that a tensor can have, its name stands there
                twice, or all tensors together would need more memory than the file can hold.
        """
        check_name(name)
        check_shape(name, shape)
        if name in self.tensors:
            raise Unsound(f"tensor {name!r:.80} stands there twice")
        tensor = StoredTensor(name, shape, dtype, load)
        self._characters_left -= len(name)
        self._bytes_left -= tensor.nbytes
        if len(self.tensors) >= MAX_TENSORS or self._characters_left < 0:
            raise Unsound(f"more than {MAX_TENSORS:,} tensors, or too many long names")
        if self._bytes_left < 0:
            raise Unsound(
                f"its tensors would need more than {self._most_bytes:,} bytes of memory, "
                f"which the file cannot hold (from tensor {name!r:.80} on)"
            )
        self.tensors[name] = tensor


def check_name(name: str) -> None:
    """Unsound unless a tensor can be called that: printable, not empty, not endless."""
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise Unsound(f"a tensor called {name!r:.80}")


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Unsound unless a tensor can have this shape."""
    if len(shape) > MAX_DIMENSIONS or not all(0 <= size < MAX_SIZE for size in shape):
        raise Unsound(f"tensor {name!r:.80} has the shape {shape!s:.80}")
    if math.prod(size or 1 for size in shape) >= MAX_SIZE:  # also where one size is 0
        raise Unsound(f"tensor {name!r:.80} has the shape {shape!s:.80}")


def text(data: bytes, what: str) -> str:
    """UTF-8 as text.

    Raises:
        Unsound: it is none.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unsound(f"damaged: {what} is not UTF-8") from error


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 whose upper halves are `bits` (uint16): exactly the bfloat16 numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
