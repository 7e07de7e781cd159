"""What a PyTorch file's pickle may name, and the records that are kept of it."""

from typing import NamedTuple

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
DICTS = ("collections OrderedDict", "collections Counter")
TENSORS = (
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
)
# Values that a checkpoint may hold beside its weights, and that nobody asks for here.
UNUSED = (
    "torch Size",
    "torch device",
    "torch.serialization _get_layout",
    "_codecs encode",
    "builtins set",
    "__builtin__ set",
    "builtins complex",
)
DTYPES = (*STORAGES.values(), "float", "double", "half", "long", "int", "short")


class Global(NamedTuple):
    """A name that the pickle wants to import."""

    name: str  # module and name, with a space between, as pickles have it


class Storage(NamedTuple):
    """A row of values that stands elsewhere in the file."""

    key: str
    dtype: str
    length: int  # in values
    offset: int = 0  # of a view, in values

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        sizes = {"complex128": 16, "64": 8, "32": 4, "16": 2, "8": 1, "bool": 1}
        return next(size for ending, size in sizes.items() if self.dtype.endswith(ending))


class Tensor(NamedTuple):
    """A tensor of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Unused(NamedTuple):
    """A value that is of no use here."""

    name: str
