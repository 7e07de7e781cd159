"""Safetensors files that others wrote: judged as our own are, without a card."""

from functools import partial
from io import BufferedReader
from pathlib import Path

import numpy as np
import torch

from xception.weights.header import DTYPES, Stored, read_index
from xception.weights.readers.source import Collection, Source, widen_bfloat16
from xception.weights.readers.stored import Foreign

ALL_DTYPES = DTYPES | {
    "F64": torch.float64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}


def read_safetensors(file: BufferedReader, size: int, path: Path) -> Foreign:
    """The tensors of a safetensors file, and its metadata.

    Raises:
        ModelFileError: damaged, or not what it says.
        Unsound: a tensor has a name that none can have.
    """
    file.seek(0)
    metadata, stored = read_index(file, path, ALL_DTYPES)
    begin = file.tell()  # of the values
    values = Source(file, begin, size - begin)
    tensors = Collection(size)
    for one in stored:
        name = str(one.dtype).removeprefix("torch.")
        dtype = "float32" if name == "bfloat16" else name
        tensors.add(one.name, one.shape, dtype, partial(_read, values, one, name))
    meta = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return Foreign("safetensors", tensors.tensors, dict(meta))


def _read(values: Source, stored: Stored, name: str) -> np.ndarray:
    if name == "bfloat16":
        return widen_bfloat16(values.values(stored.begin, stored.shape, np.dtype("<u2")))
    return values.values(stored.begin, stored.shape, np.dtype(name).newbyteorder("<"))
