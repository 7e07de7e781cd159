"""What a foreign weight file holds: names, shapes and types at once, values when asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from xception.errors import UserError

Kind = Literal["keras_h5", "keras_weights_h5", "keras_zip", "tensorflow", "torch", "safetensors"]
"""Keras 1 and 2 (`.h5`), Keras 3 (`.weights.h5`, `.keras`), TensorFlow's V2 checkpoints, and what
PyTorch and the `safetensors` library write."""


class ForeignFileError(UserError):
    """A foreign weight file cannot be used: `path`, and the `reason` in one line."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the two arguments, so that it travels between processes."""
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a foreign file; its values are in the file until `read` is called."""

    name: str
    """As the file calls it; what was taken off is said by the reader of its kind."""
    shape: tuple[int, ...]
    """As in the file, in its own order of axes."""
    dtype: str
    """Of what `read` gives, as NumPy names it: a file's bfloat16 is float32 here, which holds each
    of its values exactly (NumPy has no bfloat16)."""
    load: Callable[[], np.ndarray] = field(repr=False, compare=False)
    """How the reader gets the values; call `read` instead, which checks them."""

    @property
    def nbytes(self) -> int:
        """How many bytes `read` gives."""
        count = 1
        for size in self.shape:
            count *= size
        return count * np.dtype(self.dtype).itemsize

    def read(self) -> np.ndarray:
        """The values, C-contiguous and in this machine's byte order; nothing else stays in memory.

        Each call reads anew. Only while the file is open (`open_foreign`).

        Raises:
            ForeignFileError: the values are damaged (a checksum) or the file became shorter.
        """
        values = self.load()
        if values.shape != self.shape or values.dtype != np.dtype(self.dtype):
            raise ValueError(f"{self.name}: {values.dtype}{values.shape}, not as announced")
        return values


@dataclass(frozen=True)
class Foreign:
    """An opened foreign file, found to be sound."""

    kind: Kind
    """What wrote it; found by its content, not by its name."""
    tensors: Mapping[str, StoredTensor]
    """By name, in the order of the file; optimizer tensors too."""
    meta: dict[str, JsonValue]
    """What the file says of itself, within limits: `config` (the JSON of a Keras model),
    `keras_version`, `backend`, the metadata of a safetensors file; nothing in it is believed."""
