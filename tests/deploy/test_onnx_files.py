"""Files of bytes put together by hand, as no library would write them."""

from pathlib import Path
from typing import Any

import pytest
from small_networks import small

from xception.deploy.export import write
from xception.deploy.onnx_files import read_onnx
from xception.errors import UserError

onnx = pytest.importorskip("onnx", reason="NOT TESTED: ONNX files, because onnx is missing")

BIT_32 = 1 << 32  # of the key of a field: readers that keep 32 bits do not see it


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file as this program writes it."""
    file = tmp_path_factory.mktemp("onnx") / "m.onnx"
    write(small("mobilenet_v1"), "onnx", file)
    return file.read_bytes()


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes | int, bit: int = 0) -> bytes:
    if isinstance(content, int):
        return varint(number << 3 | bit) + varint(content)
    return varint(number << 3 | 2 | bit) + varint(len(content)) + content


def with_more(exported: bytes, more: bytes) -> bytes:
    """The file with more fields at the end of its graph."""
    model: Any = onnx.load_from_string(exported)
    graph = model.graph.SerializeToString() + more
    model.ClearField("graph")
    return model.SerializeToString() + field(7, graph)


def loop(bit: int) -> bytes:
    """A node whose attribute has a graph in field 6."""
    attribute = field(1, b"body") + field(6, field(2, b"body"), bit) + field(20, 5)
    return field(1, field(4, b"Loop") + field(5, attribute))


def weights_elsewhere(bit: int) -> bytes:
    """Weights with a path in field 13 and "in another file" in field 14."""
    place = field(1, b"location") + field(2, b"secret.bin")
    tensor = field(1, 3) + field(2, 1) + field(8, b"w")
    return field(5, tensor + field(13, place, bit) + field(14, 1, bit))


@pytest.mark.parametrize(
    ("content", "plain"),
    [(loop, "loops or branches"), (weights_elsewhere, "weights lie in another file")],
)
def test_a_number_of_more_than_29_bits_hides_nothing(
    content: Any, plain: str, exported: bytes, tmp_path: Path
):
    file = tmp_path / "x.onnx"
    for bit, said in [(0, plain), (BIT_32, "not a message"), (BIT_32 << 20, "not a message")]:
        file.write_bytes(with_more(exported, content(bit)))
        with pytest.raises(UserError, match=said):
            read_onnx(file)
    file.write_bytes(with_more(exported, field((1 << 29) - 1, b"what no reader knows")))
    assert len(read_onnx(file)[1].card.classes) == 3
