"""The pickle in a PyTorch file, read as data: nothing is imported, nothing is called.

A pickle is a program for a small stack machine. Here the machine knows plain values, PyTorch's
storages and tensors, and nothing else: what the program wants to import is only compared with the
names in pickle_records.py, and where it wants to call one of them, a record of the arguments is
kept. Any other name is refused. What is allowed is far less than what PyTorch's own `weights_only`
loader allows, and unlike it builds nothing of a size that the file chooses. Why: docs/weights.md.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from xception.weights.readers.pickle_records import (
    DICTS,
    DTYPES,
    STORAGES,
    TENSORS,
    UNUSED,
    Global,
    Storage,
    Tensor,
    Unused,
)
from xception.weights.readers.source import MAX_DIMENSIONS, Cursor, Unsound, text

MAX_STEPS = 400_000  # a thousand tensors with their optimizer take 120,000
MAX_LINE_BYTES = 200  # of a name that is to be imported
STOP = b"."


class Loaded(NamedTuple):
    """What a pickle holds."""

    value: Any  # dictionaries, lists and tuples of plain values, `Storage`, `Tensor` and `Unused`
    storages: dict[str, Storage]  # all that were met, by their keys


def load(cursor: Cursor) -> Loaded:
    """The pickle from where `cursor` stands to its end, where `cursor` stands afterwards.

    Raises:
        Unsound: it is damaged, too long, or asks for anything but tensors and plain values.
    """
    machine = _Machine()
    while True:
        machine.pay(1)
        code = cursor.take(1)
        if code == STOP:
            return Loaded(machine.pop(), machine.storages)
        if code not in OPERATIONS:
            raise Unsound(f"its pickle has the step {code!r}, which PyTorch does not write")
        read, carry_out = OPERATIONS[code]
        carry_out(machine, read(cursor))


class _Machine:
    """The stack, the marks on it, and the memory of a pickle."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memory: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.steps_left = MAX_STEPS

    def pay(self, steps: int) -> None:
        """Count what is done; what one step has made, others can use again and again."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise Unsound(f"a pickle of more than {MAX_STEPS:,} steps")

    def pop(self) -> Any:
        if not self.stack:
            raise Unsound("damaged: a pickle that takes more than it has")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise Unsound("damaged: a pickle that takes more than it has")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Unsound("damaged: a pickle that takes more than it has")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def skip(self, _: Any) -> None:
        """Versions and frames change nothing."""

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def make_tuple(self, _: Any) -> None:
        items = tuple(self.pop_to_mark())
        self.stack.append(items)

    def append(self, _: Any) -> None:
        self._extend([self.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self.pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.top(), list):
            self.top().extend(items)
        elif not isinstance(self.top(), Unused):
            raise Unsound("damaged: a pickle that lengthens what is no list")

    def set_item(self, _: Any) -> None:
        value = self.pop()
        self._update([self.pop(), value])

    def set_items(self, _: Any) -> None:
        self._update(self.pop_to_mark())

    def _update(self, items: list[Any]) -> None:
        if not isinstance(self.top(), dict) or len(items) % 2:
            raise Unsound("damaged: a pickle that fills what is no dictionary")
        _fill(self.top(), zip(items[0::2], items[1::2], strict=True))

    def put(self, place: Any) -> None:
        self.memory[len(self.memory) if place is None else place] = self.top()

    def get(self, place: Any) -> None:
        if place not in self.memory:
            raise Unsound("damaged: a pickle that remembers what it never knew")
        self.stack.append(self.memory[place])

    def global_name(self, name: Any) -> None:
        module, _, short = name.partition(" ")
        is_storage = module in ("torch", "torch.cuda", "torch.storage") and short in STORAGES
        is_dtype = module == "torch" and short in DTYPES
        if not is_storage and not is_dtype and name not in (*DICTS, *TENSORS, *UNUSED):
            raise Unsound(
                f"its pickle asks for {'.'.join((module, short))!r:.80}; only tensors and plain "
                "values are read. Save the state dict alone, with torch.save or safetensors"
            )
        self.stack.append(Unused(short) if is_dtype else Global(name))

    def stack_global(self, _: Any) -> None:
        short, module = self.pop(), self.pop()
        if not isinstance(short, str) or not isinstance(module, str):
            raise Unsound("damaged: a pickle that asks for no name")
        self.global_name(f"{module} {short}")

    def persistent(self, _: Any) -> None:
        """A storage: its type, its key, where it was, its length; in old files also a view."""
        match self.pop():
            case ("storage", Global(name), str(key), str(), int(length), *rest) if length >= 0:
                module, _, short = name.rpartition(" ")
                if short not in STORAGES or not module.startswith("torch"):
                    raise Unsound(f"its pickle has a storage of the type {short!r:.40}")
                storage = Storage(key, STORAGES[short], length)
            case _:
                raise Unsound("damaged: its pickle refers to what is no storage")
        if self.storages.setdefault(key, storage) != storage:
            raise Unsound(f"storage {key!r:.40} is described in two ways")
        match rest:
            case [] | [None]:
                self.stack.append(storage)
            case [(_, int(offset), int())] if offset >= 0:
                self.stack.append(storage._replace(offset=offset))
            case _:
                raise Unsound("damaged: its pickle refers to what is no storage")

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise Unsound("damaged: a pickle that calls what is no function")
        if function.name in UNUSED:
            self.stack.append(Unused(function.name))
        elif function.name in DICTS:
            self.stack.append(_dict_of(arguments, self.pay))
        elif function.name in TENSORS:
            self.stack.append(_tensor_of(arguments))
        else:
            raise Unsound("damaged: a pickle that calls what is no function")

    def build(self, _: Any) -> None:
        """Attributes of a dictionary (`_metadata` of a state dict) are of no use here."""
        self.pop()
        if not isinstance(self.top(), dict | Unused):
            raise Unsound("damaged: a pickle that gives attributes to a plain value")


def _fill(target: dict[Any, Any], pairs: Iterable[Sequence[Any]]) -> None:
    for key, value in pairs:
        # No other keys: many with one hash would make this loop endless.
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 1 << 31):
            raise Unsound(f"its pickle has a dictionary with a key of type {type(key).__name__}")
        target[key] = value


def _dict_of(arguments: tuple[Any, ...], pay: Callable[[int], None]) -> dict[Any, Any]:
    """What `OrderedDict` was called with: nothing, or, by Python 2, a list of pairs."""
    made: dict[Any, Any] = {}
    match arguments:
        case () | ({},):
            return made
        case (list() | tuple() as pairs,):
            pay(len(pairs))
            if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                _fill(made, pairs)
                return made
    raise Unsound("damaged: a pickle that calls a dictionary with what it does not take")


def _tensor_of(arguments: tuple[Any, ...]) -> Tensor:
    """What a tensor is made of."""
    match arguments:
        case (Tensor() as tensor, *_):  # of a parameter
            return tensor
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            if max(len(shape), len(strides)) > MAX_DIMENSIONS:
                raise Unsound(f"a tensor of {max(len(shape), len(strides)):,} dimensions")
            numbers = (offset, *shape, *strides)
            if all(type(number) is int for number in numbers) and len(shape) == len(strides):
                return Tensor(storage, offset, shape, strides)
    raise Unsound("damaged: its pickle makes a tensor of what is no storage")


Read = Callable[[Cursor], Any]


def _nothing(_: Cursor) -> None:
    return None


def _always(value: Any) -> Read:
    return lambda _: value


def _number(form: str) -> Read:
    return lambda cursor: cursor.fields(form)[0]


def _long(cursor: Cursor) -> int:
    return int.from_bytes(cursor.take(cursor.take(1)[0]), "little", signed=True)


def _bytes(form: str) -> Read:
    return lambda cursor: cursor.take(cursor.fields(form)[0])


def _latin(form: str) -> Read:
    return lambda cursor: cursor.take(cursor.fields(form)[0]).decode("latin-1")


def _text(form: str) -> Read:
    return lambda cursor: text(cursor.take(cursor.fields(form)[0]), "a text of its pickle")


def _two_lines(cursor: Cursor) -> str:
    """Module and name, with a space between."""
    lines = []
    for _ in range(2):
        end = cursor.data.find(b"\n", cursor.position, cursor.position + MAX_LINE_BYTES)
        if end < 0:
            raise Unsound("damaged: a pickle that asks for no name")
        lines.append(text(cursor.take(end - cursor.position), "a name of its pickle"))
        cursor.take(1)
    return " ".join(lines)


# What follows a step's byte, and what it does; CPython's Lib/pickletools.py describes each.
OPERATIONS: dict[bytes, tuple[Read, Callable[[_Machine, Any], None]]] = {
    b"\x80": (_number("B"), _Machine.skip),  # PROTO
    b"\x95": (_number("Q"), _Machine.skip),  # FRAME
    b"N": (_nothing, _Machine.push),
    b"\x88": (_always(True), _Machine.push),
    b"\x89": (_always(False), _Machine.push),
    b"K": (_number("B"), _Machine.push),
    b"M": (_number("H"), _Machine.push),
    b"J": (_number("i"), _Machine.push),
    b"\x8a": (_long, _Machine.push),
    b"G": (lambda cursor: struct.unpack(">d", cursor.take(8))[0], _Machine.push),
    b"X": (_text("I"), _Machine.push),
    b"\x8c": (_text("B"), _Machine.push),
    b"T": (_latin("I"), _Machine.push),  # a text of Python 2
    b"U": (_latin("B"), _Machine.push),
    b"B": (_bytes("I"), _Machine.push),
    b"C": (_bytes("B"), _Machine.push),
    b")": (_always(()), _Machine.push),
    b"]": (lambda _: [], _Machine.push),
    b"}": (lambda _: {}, _Machine.push),
    b"\x8f": (_always(Unused("set")), _Machine.push),
    b"\x85": (_always(1), _Machine.tuple_of),
    b"\x86": (_always(2), _Machine.tuple_of),
    b"\x87": (_always(3), _Machine.tuple_of),
    b"(": (_nothing, _Machine.mark),
    b"t": (_nothing, _Machine.make_tuple),
    b"a": (_nothing, _Machine.append),
    b"e": (_nothing, _Machine.appends),
    b"\x90": (_nothing, _Machine.appends),  # of a set
    b"s": (_nothing, _Machine.set_item),
    b"u": (_nothing, _Machine.set_items),
    b"q": (_number("B"), _Machine.put),
    b"r": (_number("I"), _Machine.put),
    b"\x94": (_nothing, _Machine.put),
    b"h": (_number("B"), _Machine.get),
    b"j": (_number("I"), _Machine.get),
    b"c": (_two_lines, _Machine.global_name),
    b"\x93": (_nothing, _Machine.stack_global),
    b"Q": (_nothing, _Machine.persistent),
    b"R": (_nothing, _Machine.reduce),
    b"b": (_nothing, _Machine.build),
}
