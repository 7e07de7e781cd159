"""Writing safetensors one tensor after the other, so that no second copy of a network is made.

Byte for byte what `safetensors.torch.save` makes of the same tensors, which takes three times their
memory.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
PIECE = 1 << 20  # bytes that are put in order at a time


@runtime_checkable
class Sink(Protocol):
    """A file open for writing bytes."""

    def write(self, data: Any, /) -> int:
        """Take all of the bytes."""
        ...


class Lazy(NamedTuple):
    """A tensor that is made when it is written; in memory it may lie in any order."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def lazy(value: Tensor) -> Lazy:
    """A tensor that is there."""
    return Lazy(value.dtype, tuple(value.shape), lambda: value)


def header_bytes(tensors: Mapping[str, Lazy], metadata: Mapping[str, str]) -> bytes:
    """What stands before the values: a length and as much JSON, filled up to a multiple of 8.

    Raises:
        ValueError: a tensor has a type that is not written.
    """
    content: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, tensor in _ordered(tensors):
        if tensor.dtype not in NAMES:
            raise ValueError(f"{name} is of the type {tensor.dtype}, which is not written")
        end = position + math.prod(tensor.shape) * tensor.dtype.itemsize
        content[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensors(file: Sink, tensors: Mapping[str, Lazy], metadata: Mapping[str, str]) -> None:
    """Write a whole safetensors file.

    Raises:
        ValueError: a tensor is not what was announced.
    """
    file.write(header_bytes(tensors, metadata))
    for name, tensor in _ordered(tensors):
        value = tensor.make()
        if value.dtype != tensor.dtype or tuple(value.shape) != tensor.shape:
            raise ValueError(f"{name} is {value.dtype}{tuple(value.shape)}, not as announced")
        for piece in _pieces(value):
            file.write(piece.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        del value  # before the next one is made


def _pieces(value: Tensor) -> Iterable[Tensor]:
    """The whole, or rows of it where its order in memory is another and all must be copied."""
    if value.numel() == 0:
        return ()
    if value.ndim == 0 or value.is_contiguous():
        return (value,)
    return value.split(max(PIECE // (value[0].numel() * value.dtype.itemsize), 1))


def _ordered(tensors: Mapping[str, Lazy]) -> list[tuple[str, Lazy]]:
    """The longest numbers first, so that all are aligned; then by name."""
    return sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
