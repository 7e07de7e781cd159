"""The values of the data sets of an HDF5 file.

Section numbers are those of the HDF5 File Format Specification 3.0.
"""

import io
import math
from typing import NamedTuple

import numpy as np

from xception.weights.readers.hdf5 import (
    DATASPACE,
    DATATYPE,
    FILTERS,
    LAYOUT,
    UNDEFINED,
    Member,
)
from xception.weights.readers.hdf5_types import Attributes, Element, element_of, shape_of
from xception.weights.readers.source import Cursor, Source, Unsound, check_shape, widen_bfloat16


class Dataset(NamedTuple):
    """A data set whose values are known to be there, in one piece."""

    path: str
    shape: tuple[int, ...]
    element: Element
    values: Source  # all of them, nothing else

    @property
    def is_bfloat16(self) -> bool:
        """Whether the values must be widened; Keras calls its type in an attribute."""
        return self.element.kind in ("bfloat16", "opaque")

    @property
    def dtype(self) -> str:
        """Of the array that `read` gives, as NumPy names it."""
        return "float32" if self.is_bfloat16 else self.element.dtype.newbyteorder("=").name

    def read(self) -> np.ndarray:
        """The values; bfloat16 as float32."""
        values = self.values.values(0, self.shape, self.element.dtype)
        return widen_bfloat16(values) if self.is_bfloat16 else values


def dataset(source: Source, member: Member) -> Dataset:
    """Where the values of a data set are, and what they are.

    Raises:
        Unsound: they are not numbers, are not in one piece, or not there.
    """
    space, kind = member.first(DATASPACE), member.first(DATATYPE)
    layout = member.first(LAYOUT)
    if space is None or kind is None or layout is None:
        raise Unsound(f"damaged: {member.path!r:.80} has no shape or no type")
    shape = shape_of(Cursor(space.data), member.path)
    check_shape(member.path, shape)
    element = element_of(Cursor(kind.data), member.path)
    if element.kind.startswith("string"):
        raise Unsound(f"{member.path!r:.80} holds text, not numbers")
    if element.kind == "opaque" and Attributes(source).text(member, "dtype") != "bfloat16":
        raise Unsound(f"{member.path!r:.80} holds values of an unknown type")
    if member.first(FILTERS) is not None:
        raise Unsound(_not_in_one_piece(member.path))
    count = math.prod(shape) * element.size
    return Dataset(member.path, shape, element, _values(source, member.path, layout.data, count))


def _values(source: Source, path: str, layout: bytes, count: int) -> Source:
    """The stretch of the file that a data layout message (IV.A.2.i) names."""
    cursor = Cursor(layout)
    version, storage = cursor.fields("BB")
    address, size = None, 0
    if version in (1, 2):
        dimensions, storage = storage, cursor.fields("B5s")[0]
        address = cursor.fields("Q")[0] if storage else None
        cursor.take(4 * dimensions)
        size = count if storage else cursor.fields("I")[0]
    elif version not in (3, 4):
        raise Unsound(f"HDF5 data layout version {version}; 1 to 4 are known")
    elif storage == 0:
        size = cursor.fields("H")[0]
    elif storage == 1:
        address, size = cursor.fields("QQ")
    elif storage == 3:
        raise Unsound(f"{path!r:.80} is a virtual data set, made of other files")
    if storage not in (0, 1):
        raise Unsound(_not_in_one_piece(path))
    if size != count and not (address == UNDEFINED and count == 0):
        raise Unsound(f"{path!r:.80} has {size:,} bytes of values, its shape needs {count:,}")
    if address is None:  # the values stand here, in the header
        return Source(io.BytesIO(cursor.take(size)), 0, size)
    if count and address == UNDEFINED:
        raise Unsound(f"the values of {path!r:.80} were never written")
    return source.window(address if count else 0, count)


def _not_in_one_piece(path: str) -> str:
    return (
        f"the values of {path!r:.80} are compressed or in pieces, which Keras does not write; "
        "copy the file with h5py without compression"
    )
