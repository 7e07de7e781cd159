"""TensorFlow's checkpoints of version 2: `PREFIX.index` and `PREFIX.data-00000-of-00001`, …

Facts from tensorflow/core/protobuf/tensor_bundle.proto and util/tensor_bundle. The index maps names
to entries (type, shape, shard, offset, size, checksum), the values lie bare in the shards. Names
are the file's own: `xception_65/entry_flow/conv1_1/weights`, or of object-based checkpoints
`model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE`. A variable that was saved in slices is one tensor.
What holds no numbers (the object graph, text) is named in `meta["left_out"]`.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from pydantic import JsonValue

from xception.weights.readers.crc32c import masked_crc32c
from xception.weights.readers.protobuf import Fields, signed
from xception.weights.readers.source import (
    Collection,
    Source,
    Unsound,
    check_shape,
    text,
    widen_bfloat16,
)
from xception.weights.readers.stored import Foreign
from xception.weights.readers.table import entries

# tensorflow/core/framework/types.proto
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
NOT_NUMBERS = (7, 20, 21)  # string, resource, variant
MAX_SHARDS = 256
MAX_SLICES = 64  # of one variable
MAX_LEFT_OUT = 100  # names that are told
FULL_EXTENT = -1

Extent = tuple[int, int]
"""Where a slice begins along one dimension, and how long it is."""


class Entry(NamedTuple):
    """What the index says about one tensor."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: int
    slices: tuple[tuple[Extent, ...], ...]


def read_checkpoint(index: Source, open_shard: Callable[[int, int], Source]) -> Foreign:
    """The tensors of a checkpoint.

    Args:
        index: the index file.
        open_shard: gives the shard of that number, out of so many.

    Raises:
        Unsound: damaged, or its values are not there.
    """
    table = dict(entries(index))
    shards = _shards(table.pop(b"", None), open_shard)
    tensors = Collection(sum(shard.size for shard in shards))
    left_out: list[JsonValue] = []
    for key, value in table.items():
        if key.startswith(b"\0"):  # a slice: found by way of its variable
            continue
        entry = _entry(text(key, "a tensor's name"), value)
        if entry.dtype in NOT_NUMBERS:
            left_out.append(entry.name[:200])
            continue
        if entry.dtype not in DTYPES:
            raise Unsound(f"tensor {entry.name!r:.80} has the unknown type {entry.dtype}")
        if entry.slices:
            load = partial(_read_slices, entry, _slice_loads(entry, table, shards))
        else:
            load = _load(entry, shards)
        tensors.add(entry.name, entry.shape, _dtype(entry), load)
    meta: dict[str, JsonValue] = {"left_out": left_out[:MAX_LEFT_OUT]} if left_out else {}
    return Foreign("tensorflow", tensors.tensors, meta)


def _shards(header: bytes | None, open_shard: Callable[[int, int], Source]) -> list[Source]:
    if header is None:
        raise Unsound("a table, but not the index of a TensorFlow checkpoint")
    fields = Fields(header, "the header of the index")
    count = fields.number(1)
    if not 0 < count <= MAX_SHARDS:
        raise Unsound(f"a checkpoint in {count:,} files; {MAX_SHARDS} at most")
    if fields.number(2) != 0:
        raise Unsound("a checkpoint of a big-endian machine")
    return [open_shard(number, count) for number in range(count)]


def _entry(name: str, data: bytes) -> Entry:
    fields = Fields(data, f"the entry of {name!r:.80}")
    shape = next(iter(fields.messages(2)), Fields(b"", "no shape"))
    sizes = tuple(signed(dimension.number(1)) for dimension in shape.messages(2))
    check_shape(name, sizes)
    slices = tuple(
        tuple(
            (signed(extent.number(1)), signed(extent.number(2, FULL_EXTENT & (1 << 64) - 1)))
            for extent in one.messages(1)
        )
        for one in fields.messages(7)
    )
    if shape.number(3) or len(slices) > MAX_SLICES:
        raise Unsound(f"tensor {name!r:.80} has no known shape, or too many slices")
    place = (fields.number(3), signed(fields.number(4)), signed(fields.number(5)))
    return Entry(name, fields.number(1), sizes, *place, fields.number(6), slices)


def _dtype(entry: Entry) -> str:
    name = DTYPES[entry.dtype]
    return "float32" if name == "bfloat16" else name


def _load(entry: Entry, shards: list[Source]) -> Callable[[], np.ndarray]:
    """How to read one stretch of values, which is seen to be there."""
    name = DTYPES[entry.dtype]
    stored = np.dtype("<u2" if name == "bfloat16" else name).newbyteorder("<")
    if entry.size != math.prod(entry.shape) * stored.itemsize:
        raise Unsound(f"tensor {entry.name!r:.80} does not fill its {entry.size:,} bytes")
    if entry.shard >= len(shards):
        raise Unsound(f"tensor {entry.name!r:.80} is in a file that is not there")
    return partial(_read, shards[entry.shard].window(entry.offset, entry.size), stored, entry)


def _read(window: Source, stored: np.dtype, entry: Entry) -> np.ndarray:
    octets = window.values(0, (entry.size,), np.dtype(np.uint8))
    if masked_crc32c(octets) != entry.crc:
        raise Unsound(f"damaged: the values of tensor {entry.name!r:.80} have another checksum")
    if stored == np.bool_:
        return (octets != 0).reshape(entry.shape)
    values = octets.view(stored).reshape(entry.shape)
    if DTYPES[entry.dtype] == "bfloat16":
        return widen_bfloat16(values)
    return values if stored.isnative else values.astype(stored.newbyteorder("="))


Part = tuple[tuple[slice, ...], Callable[[], np.ndarray]]


def _slice_loads(entry: Entry, table: dict[bytes, bytes], shards: list[Source]) -> list[Part]:
    """Where in the variable each slice goes, and how it is read; together they are all of it."""
    parts: list[Part] = []
    for extents in entry.slices:
        key = slice_key(entry.name, extents)
        if len(extents) != len(entry.shape) or key not in table:
            raise Unsound(f"tensor {entry.name!r:.80} lacks a slice")
        place = tuple(
            slice(0, size) if length == FULL_EXTENT else slice(start, start + length)
            for (start, length), size in zip(extents, entry.shape, strict=True)
        )
        part = _entry(entry.name, table[key])
        shape = tuple(one.stop - one.start for one in place)
        inside = all(
            0 <= one.start < one.stop <= size for one, size in zip(place, entry.shape, strict=True)
        )
        if not inside or part.shape != shape or part.dtype != entry.dtype or part.slices:
            raise Unsound(f"tensor {entry.name!r:.80} has a slice that does not fit into it")
        parts.append((place, _load(part, shards)))
    sizes = [math.prod(one.stop - one.start for one in place) for place, _ in parts]
    overlap = any(
        all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
        for (one, _), (other, _) in itertools.combinations(parts, 2)
    )
    if overlap or sum(sizes) != math.prod(entry.shape):
        raise Unsound(f"the slices of tensor {entry.name!r:.80} do not add up to it")
    return parts


def _read_slices(entry: Entry, parts: list[Part]) -> np.ndarray:
    whole = np.empty(entry.shape, _dtype(entry))
    for place, load in parts:
        whole[place] = load()
    return whole


def slice_key(name: str, extents: tuple[Extent, ...]) -> bytes:
    """The key of a slice in the index (saved_tensor_slice_util.cc, in the encoding of
    ordered_code.cc, which sorts as the numbers do)."""
    escaped = name.encode().replace(b"\0", b"\0\xff")
    key = b"\0" + escaped + b"\0\1" + _ordered(len(extents))
    return key + b"".join(_ordered_signed(n) for extent in extents for n in extent)


def _ordered(value: int) -> bytes:
    """A number from 0 on: its length in bytes, then its bytes."""
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(data)]) + data


def _ordered_signed(value: int) -> bytes:
    """Any int64: as many leading ones as bytes (zeros, if negative), then its two's complement."""
    length = (value if value >= 0 else ~value).bit_length() // 7 + 1
    data = int.from_bytes(value.to_bytes(10, "big", signed=True)[-length:], "big")
    ones = (1 << length) - 1
    return (data ^ ones << 7 * length).to_bytes(length, "big")
