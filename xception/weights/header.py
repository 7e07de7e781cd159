"""The header of a safetensors file, judged before anything is built or allocated from it.

A safetensors file is a length (8 bytes, little-endian), that many bytes of JSON, and the values of
the tensors one behind the other. Nothing in the JSON is believed: lengths must agree with the size
of the file, every tensor with the next, and all of it with the limits below.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from xception.errors import UserError

MAX_HEADER_BYTES = 2 << 20  # 17,000 classes and 1,000 tensors need a quarter of it
MAX_HEADER_ITEMS = 250_000  # JSON can ask for 30 times its size in memory; an item takes ~100 bytes
MAX_DIMENSIONS = 8
CARD_KEY = "xception.card"

DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}

FOREIGN = {
    b"PK\x03\x04": "a PyTorch archive or another zip file; pickles are never read",
    b"\x80": "a Python pickle; pickles are never read",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
}


class ModelFileError(UserError):
    """A file is not a model file that can be used: `path`, and the `reason` in one line."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the two arguments, so that it travels between processes."""
        return type(self), (self.path, self.reason)


class Stored(NamedTuple):
    """One tensor of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes behind the header
    end: int


class Header(NamedTuple):
    """What a file says about itself, found to be consistent."""

    card: str  # JSON, not yet looked at
    tensors: tuple[Stored, ...]  # in the order of their values, which follow without gaps


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; what is no regular file neither blocks nor is read.

    Raises:
        ModelFileError: there is no such file, it may not be read, or it is a folder, a pipe, …
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise ModelFileError(path, error.strerror or str(error)) from error
    except ValueError as error:  # a NUL in the name
        raise ModelFileError(path, str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFileError(path, "not a regular file")
    return os.fdopen(descriptor, "rb")


def read_header(file: BufferedReader, path: Path) -> Header:
    """Read and judge the header of an open file, which is then at the first tensor's values.

    Raises:
        ModelFileError: the file is foreign, damaged, truncated, or lies about itself.
    """
    metadata, tensors = read_index(file, path, DTYPES)
    card = metadata.get(CARD_KEY)
    if not isinstance(card, str):
        raise ModelFileError(path, f"a safetensors file without a card of ours ({CARD_KEY})")
    return Header(card, tensors)


def read_index(
    file: BufferedReader, path: Path, dtypes: Mapping[str, torch.dtype]
) -> tuple[dict[str, Any], tuple[Stored, ...]]:
    """Metadata and tensors of any safetensors file, judged as in `read_header`.

    Raises:
        ModelFileError: the file is foreign, damaged, truncated, lies about itself, or holds a
            tensor of a type that is not one of `dtypes`.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    # A header of 128 bytes more than a multiple of 256 begins like a pickle, but JSON follows.
    for magic, what in FOREIGN.items():
        if start.startswith(magic) and file.peek(1)[:1] != b"{":
            raise ModelFileError(path, f"this is {what}")
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length < 2:
        raise ModelFileError(path, "not a model file (no safetensors header)")
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(
            path, f"not a model file (a header of {length:,} bytes; {MAX_HEADER_BYTES:,} at most)"
        )
    if 8 + length > size:
        raise ModelFileError(path, f"truncated: {size:,} bytes, the header alone needs more")
    try:
        content = parse_json(file.read(length).decode())
        metadata = _object(content.pop("__metadata__", {}), "the metadata")
        found = (_stored(item, dtypes) for item in content.items())
        tensors = tuple(sorted(found, key=lambda one: (one.begin, one.end)))
        _check_order(tensors, size - 8 - length)
    except ValueError as error:
        raise ModelFileError(path, f"not a sound safetensors file: {error}") from error
    return metadata, tensors


def parse_json(text: str) -> dict[str, Any]:
    """The object that `text` stands for.

    Raises:
        ValueError: not JSON, not an object, a key twice, NaN or infinity, too deep, too many items.
    """
    if sum(text.count(mark) for mark in ",[{") > MAX_HEADER_ITEMS:
        raise ValueError(f"more than {MAX_HEADER_ITEMS:,} items of JSON")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    return _object(value, "the JSON")


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key of the JSON stands there twice")
    return keys


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _stored(item: tuple[str, Any], dtypes: Mapping[str, torch.dtype]) -> Stored:
    """The description of one tensor; ValueError if it is not one."""
    name, entry = item
    what = f"tensor {name!r:.60}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{what} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise ValueError(f"{what} has the type {dtype!r:.20}; {', '.join(dtypes)} are known")
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{what} has the shape {shape!r:.60}")
    if not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{what} has the offsets {offsets!r:.60}")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtypes[dtype].itemsize:
        raise ValueError(f"{what} does not fill its bytes")
    return Stored(name, dtypes[dtype], tuple(shape), begin, end)


def _sizes(values: object) -> bool:
    """Whether `values` is a list of whole numbers that a file can have."""
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 48 for value in values
    )


def _check_order(tensors: tuple[Stored, ...], data_bytes: int) -> None:
    """ValueError unless the tensors follow each other from the first byte to the last."""
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            raise ValueError(f"tensor {tensor.name!r:.60} overlaps another or leaves a gap")
        position = tensor.end
    if position != data_bytes:
        raise ValueError(f"its tensors need {position:,} bytes, {data_bytes:,} are there")
