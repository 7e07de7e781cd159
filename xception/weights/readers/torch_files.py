"""What `torch.save` writes: a zip file since 1.6, before it a row of pickles (the legacy form).

Names are those of the state dict, without what wraps it: the dictionaries `state_dict`, `model` and
their like around it (`meta["wrapper"]`), and `module.` or `_orig_mod.` before every name. Entries
that are no tensors are named in `meta["left_out"]`, and what holds tensors beside the state dict
(an optimizer, averaged weights) in `meta["beside"]`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from pydantic import JsonValue

from xception.weights.readers.pickle_records import Storage, Tensor
from xception.weights.readers.pickled import load
from xception.weights.readers.source import (
    MAX_READ_BYTES,
    Collection,
    Cursor,
    Source,
    Unsound,
    check_name,
    check_shape,
    widen_bfloat16,
)
from xception.weights.readers.stored import Foreign
from xception.weights.readers.zip_files import Entry, content, stored

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
MAX_LEFT_OUT = 100  # names that are told

FindStorage = Callable[[Storage], Source]
"""Where the values of a storage are."""


def read_zip(source: Source, entries: dict[str, Entry]) -> Foreign:
    """The tensors of a file that `torch.save` wrote as a zip file.

    Raises:
        Unsound: damaged, or its pickle asks for more than tensors and plain values.
    """
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Unsound("a zip file that PyTorch did not write")
    folder = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{folder}code/") for name in entries):
        raise Unsound("a TorchScript program; save the state dict of the model instead")
    if f"{folder}byteorder" in entries:
        order = content(source, entries[f"{folder}byteorder"])
        if order != b"little":
            raise Unsound("a file of a big-endian machine")

    def find(storage: Storage) -> Source:
        name = f"{folder}data/{storage.key}"
        if name not in entries:
            raise Unsound(f"damaged: storage {storage.key!r:.40} is not there")
        return stored(source, entries[name])

    program = Cursor(content(source, entries[pickles[0]]))
    return _foreign(load(program).value, find, source.size)


def is_legacy(start: bytes) -> bool:
    """Whether a file begins as the legacy form does: with a pickle of the magic number."""
    return start[:1] == b"\x80" and LEGACY_MAGIC.to_bytes(10, "little") in start


def read_legacy(source: Source) -> Foreign:
    """The tensors of a file that `torch.save` wrote before version 1.6.

    Raises:
        Unsound: damaged, or its pickles ask for more than tensors and plain values.
    """
    head = Cursor(source.read(0, min(source.size, MAX_READ_BYTES)))
    magic, protocol, system = (load(head).value for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
        raise Unsound("a pickle, but not one that torch.save wrote")
    if system.get("little_endian") is not True:
        raise Unsound("a file of a big-endian machine")
    value, storages = load(head)
    keys = load(head).value
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Unsound("damaged: no list of storages where one should be")
    begins = {}
    position = head.position
    for key in keys:
        if key not in storages or key in begins:
            raise Unsound(f"storage {key!r:.40} belongs to no tensor")
        (count,) = source.fields(position, "Q")
        begins[key] = source.window(position + 8, count * storages[key].itemsize)
        position += 8 + begins[key].size
    if position != source.size:
        raise Unsound(f"{source.size - position:,} bytes behind the last storage")

    def find(storage: Storage) -> Source:
        if storage.key not in begins:
            raise Unsound(f"damaged: storage {storage.key!r:.40} is not there")
        return begins[storage.key]

    return _foreign(value, find, source.size)


def _foreign(content: Any, find: FindStorage, file_bytes: int) -> Foreign:
    wrapper, entries, beside = _state_dict(content)
    for name in entries:
        check_name(name)
    prefix = ""
    while more := _common_prefix(entries, prefix):
        prefix += more
    tensors = Collection(file_bytes)
    left_out: list[JsonValue] = []
    for name, value in entries.items():
        if isinstance(value, Tensor):
            short = name.removeprefix(prefix)
            stored_as, load = _loader(value, find, short)
            tensors.add(short, value.shape, stored_as, load)
        else:
            left_out.append(name[:200])
    meta: dict[str, JsonValue] = {"wrapper": wrapper} if wrapper else {}
    if left_out:
        meta["left_out"] = left_out[:MAX_LEFT_OUT]
    if beside:
        meta["beside"] = [*beside[:MAX_LEFT_OUT]]
    return Foreign("torch", tensors.tensors, meta)


def _state_dict(content: Any) -> tuple[str, dict[str, Any], list[str]]:
    """The dictionary that holds the tensors; what stands around it, `model.state_dict`; and beside.

    Beside it are the other entries with tensors in them.
    """
    wrapper: list[str] = []
    beside: list[str] = []
    while isinstance(content, dict):
        if any(isinstance(value, Tensor) for value in content.values()):
            if not all(isinstance(name, str) for name in content):
                break
            return ".".join(wrapper), content, beside
        inner = [name for name in WRAPPERS if isinstance(content.get(name), dict)]
        if not inner or len(wrapper) == 3:
            break
        wrapper.append(inner[0])
        others = (name for name in content if name != inner[0] and _has_tensors(content[name]))
        beside += [".".join([*wrapper[:-1], f"{name!s:.200}"]) for name in others]
        content = content[inner[0]]
    raise Unsound(
        "no state dict: neither a dictionary of tensors nor one under a usual name "
        f"({', '.join(WRAPPERS[:4])}, …)"
    )


def _has_tensors(content: Any) -> bool:
    """Whether there is a tensor anywhere in a value; each of its parts is looked at once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            return True
        if isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one
    return False


def _common_prefix(entries: dict[str, Any], before: str) -> str:
    """What stands before every name, behind what was found already."""
    names = entries.keys() - {"n_averaged"}  # of torch's AveragedModel, beside the model
    for prefix in PREFIXES:
        if names and all(name.startswith(before + prefix) for name in names):
            return prefix
    return ""


def _loader(tensor: Tensor, find: FindStorage, name: str) -> tuple[str, Callable[[], np.ndarray]]:
    """Type and way of reading of a tensor; every value of it is seen to be there."""
    storage, offset, shape, strides = tensor
    check_shape(name, shape)
    if offset < 0 or any(stride < 0 for stride in strides):
        raise Unsound(f"tensor {name!r:.80} begins before its storage")
    dtype = np.dtype("<u2" if storage.dtype == "bfloat16" else storage.dtype).newbyteorder("<")
    steps = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    span = sum(steps) + 1 if math.prod(shape) else 0  # from the first value to the last
    values = find(storage)
    if values.size != storage.length * dtype.itemsize:
        raise Unsound(f"storage {storage.key!r:.40} has another size than announced")
    begin = storage.offset + offset
    if begin + span > storage.length:
        raise Unsound(f"tensor {name!r:.80} goes beyond the end of its storage")
    window = values.window(begin * dtype.itemsize, span * dtype.itemsize)
    as_float = storage.dtype == "bfloat16"
    load = partial(_read, window, dtype, span, shape, strides, as_float)
    return "float32" if as_float else storage.dtype, load


def _read(
    window: Source,
    dtype: np.dtype,
    span: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    as_float: bool,
) -> np.ndarray:
    row = window.values(0, (span,), dtype)
    steps = [stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True)]
    if not span:
        steps = [0] * len(shape)
    # Most tensors lie in their own order: for these nothing is copied.
    array = np.lib.stride_tricks.as_strided(row, shape, [step * dtype.itemsize for step in steps])
    array = np.ascontiguousarray(array).reshape(shape)  # a scalar would have got a dimension
    return widen_bfloat16(array) if as_float else array
