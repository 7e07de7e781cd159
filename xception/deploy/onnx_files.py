"""An ONNX file judged before a runtime sees it.

ONNX Runtime computes whatever a file says: it follows paths to weights in other files, and runs
loops for as long as they want. Nothing of the kind is in a file that this program writes. So the
file is read once, as protocol buffers, and refused if it holds loops or branches, functions,
operators of others or weights from elsewhere. It needs no library, and the same bytes that were
judged are those that are run.

Field numbers: onnx.proto of ONNX 1.16 (Apache-2.0), github.com/onnx/onnx.
"""

from collections.abc import Iterator
from pathlib import Path

from xception.deploy.metadata import Stated, read_stated
from xception.weights.header import ModelFileError, open_regular

MAX_BYTES = 2**31 - 1  # the most that a message of protocol buffers can have
MAX_FIELDS = 200_000  # of the whole graph; Xception-71 in eight bits has 12,000
MAX_METADATA_BYTES = 4 << 20
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
NUMBERS = 1 << 29  # of a field: below. Of a larger one some readers see only the low bits

# ModelProto
GRAPH, METADATA, TRAINING, FUNCTIONS = 7, 14, 20, 25
# GraphProto
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15
# NodeProto
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7
# AttributeProto
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE = 5, 6, 10, 11, (22, 23)
# TensorProto
EXTERNAL_DATA, DATA_LOCATION = 13, 14

OWN_DOMAINS = ("", "ai.onnx")


class _Damaged(ValueError):
    """The bytes are not the message that they should be."""


def read_onnx(path: Path) -> tuple[bytes, Stated]:
    """The bytes of an ONNX file of ours, found harmless, and what it says about itself.

    Raises:
        ModelFileError: there is no such file, or it is none of ours; one line says why.
    """
    with open_regular(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ModelFileError(path, "larger than the 2 GiB that an ONNX file can have")
    try:
        texts = _judge(memoryview(data))
    except _Damaged as error:
        raise ModelFileError(path, f"not a sound ONNX file of ours: {error}") from error
    return data, read_stated(texts, path)


def _judge(model: memoryview) -> dict[str, str]:
    """The metadata of a model that is harmless; _Damaged otherwise."""
    budget = [MAX_FIELDS]
    texts: dict[str, str] = {}
    graphs = 0
    for number, value in _fields(model, budget):
        if number in (TRAINING, FUNCTIONS):
            raise _Damaged("it holds functions of its own")
        if number == METADATA:
            key, text = _entry(_message(value), budget)
            if key in texts:
                raise _Damaged(f"the metadata {key!r:.40} stands there twice")
            texts[key] = text
        elif number == GRAPH:
            graphs += 1
            _judge_graph(_message(value), budget)
    if graphs != 1:
        raise _Damaged("it holds no graph" if not graphs else "it holds several graphs")
    return texts


def _judge_graph(graph: memoryview, budget: list[int]) -> None:
    for number, value in _fields(graph, budget):
        if number == NODE:
            _judge_node(_message(value), budget)
        elif number == INITIALIZER:
            _judge_tensor(_message(value), budget)
        elif number == SPARSE_INITIALIZER:
            raise _Damaged("it holds sparse weights")


def _judge_node(node: memoryview, budget: list[int]) -> None:
    domain = ""
    for number, value in _fields(node, budget):
        if number == DOMAIN:
            domain = _text(_message(value))
        elif number == ATTRIBUTE:
            _judge_attribute(_message(value), budget)
    if domain not in OWN_DOMAINS:
        raise _Damaged(f"it needs operators of {domain!r:.40}")


def _judge_attribute(attribute: memoryview, budget: list[int]) -> None:
    for number, value in _fields(attribute, budget):
        if number in (SUBGRAPH, SUBGRAPHS):
            raise _Damaged("it holds loops or branches")
        if number in SPARSE:
            raise _Damaged("it holds sparse weights")
        if number in (TENSOR, TENSORS):
            _judge_tensor(_message(value), budget)


def _judge_tensor(tensor: memoryview, budget: list[int]) -> None:
    for number, value in _fields(tensor, budget):
        if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
            raise _Damaged("its weights lie in another file")


def _entry(entry: memoryview, budget: list[int]) -> tuple[str, str]:
    """A key and its value."""
    found = {1: "", 2: ""}
    for number, value in _fields(entry, budget):
        if number in found:
            found[number] = _text(_message(value))
    return found[1], found[2]


def _text(data: memoryview) -> str:
    if len(data) > MAX_METADATA_BYTES:
        raise _Damaged(f"a text of {len(data):,} bytes")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise _Damaged("a text that is not UTF-8") from error


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number where a message should be")
    return value


def _fields(message: memoryview, budget: list[int]) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; messages are not copied.

    https://protobuf.dev/programming-guides/encoding. A packed row of numbers is one field.
    """
    position, end = 0, len(message)
    while position < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise _Damaged(f"more than {MAX_FIELDS:,} parts")
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if not 0 < number < NUMBERS:
            raise _Damaged("not a message of protocol buffers")
        if wire == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == BYTES:
            length, position = _varint(message, position)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise _Damaged("not a message of protocol buffers")
        if position + length > end:
            raise _Damaged(f"truncated: {length:,} bytes announced, {end - position:,} there")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _Damaged("truncated within a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Damaged("a number of more than 64 bits")
