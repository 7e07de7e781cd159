"""What every reader relies on: no byte outside a file, no read without end, tensors that can be."""

import io

import numpy as np
import pytest

from xception.weights.readers.source import (
    MAX_DESCRIPTION_BYTES,
    MAX_READ_BYTES,
    READ_COST_BYTES,
    Collection,
    Cursor,
    Source,
    Unsound,
    widen_bfloat16,
)


def source(data: bytes) -> Source:
    return Source(io.BytesIO(data), 0, len(data))


def nothing() -> np.ndarray:
    raise AssertionError("read too early")


def test_reads_what_is_there():
    whole = source(b"0123456789")
    assert whole.read(2, 3) == b"234"
    assert whole.window(4, 4).read(1, 2) == b"56"
    assert whole.window(4, 4).window(1, 2).fields(0, "H") == (0x3635,)


@pytest.mark.parametrize(("offset", "count"), [(9, 2), (-1, 1), (0, 11), (11, 0), (1 << 64, 1)])
def test_reads_nothing_else(offset, count):
    with pytest.raises(Unsound, match="points to"):
        source(b"0123456789").read(offset, count)
    with pytest.raises(Unsound, match="points to"):
        source(b"x0123456789x").window(1, 10).read(offset, count)


def test_a_window_cannot_be_larger_than_the_file():
    with pytest.raises(Unsound, match="points to"):
        source(bytes(4)).window(1, 4)


def test_one_description_is_small_and_all_together_too():
    large = source(bytes(MAX_READ_BYTES + 1))
    with pytest.raises(Unsound, match="at most"):
        large.read(0, MAX_READ_BYTES + 1)
    for _ in range(MAX_DESCRIPTION_BYTES // MAX_READ_BYTES - 1):
        large.window(0, MAX_READ_BYTES).read(0, MAX_READ_BYTES)  # all pay from the same purse
    large.budget[0] = 3 * READ_COST_BYTES
    large.read(0, 1)
    large.read(0, 0)
    with pytest.raises(Unsound, match="must be read"):
        large.window(0, 10).read(0, 10)


def test_a_file_that_becomes_shorter():
    file = source(bytes(8))
    file.file = io.BytesIO(bytes(4))
    with pytest.raises(Unsound, match="became shorter"):
        file.read(0, 8)
    with pytest.raises(Unsound, match="became shorter"):
        file.values(0, (2,), np.dtype("<f4"))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i8", ">i2", "u1", "<f2", "<c8"])
def test_values_are_native(dtype):
    expected = np.arange(6).reshape(2, 3).astype(dtype)
    found = source(b"xy" + expected.tobytes()).values(2, (2, 3), np.dtype(dtype))
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, expected)


def test_values_of_no_or_one_element_and_of_odd_bools():
    assert source(b"").values(0, (0, 3), np.dtype("<f4")).shape == (0, 3)
    assert source(b"\5\0").values(0, (), np.dtype("<i2")) == 5
    bools = source(b"\0\1\2\xff").values(0, (4,), np.dtype(bool))
    assert bools.tolist() == [False, True, True, True]
    assert bools.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_bfloat16_by_hand():
    # 1.0 is 0x3f80, -2.5 is 0xc020, the smallest normal number 0x0080, infinity 0x7f80.
    bits = np.array([0x3F80, 0xC020, 0x0080, 0x7F80, 0x0000], np.uint16)
    assert widen_bfloat16(bits).tolist() == [1.0, -2.5, 2.0**-126, np.inf, 0.0]


def test_varints_by_hand():
    assert Cursor(b"\x96\x01").varint() == 150  # the example of the protocol buffers' page
    assert Cursor(b"\xff" * 9 + b"\x01").varint() == (1 << 64) - 1
    for endless in (b"\xff" * 11, b"\xff" * 9 + b"\x02", b"\x80", b""):
        with pytest.raises(Unsound):
            Cursor(endless).varint()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("", (1,)),
        ("a\nb", (1,)),
        ("a\0", (1,)),
        ("x" * 1001, (1,)),
        ("a", (1,) * 9),
        ("a", (-1,)),
        ("a", (1 << 40,)),
        ("a", (0, 1 << 39, 1 << 39)),
        ("a", (101,)),
    ],
)
def test_tensors_that_cannot_be(name, shape):
    with pytest.raises(Unsound):
        Collection(50).add(name, shape, "int8", nothing)


def test_a_collection_is_no_larger_than_its_file():
    tensors = Collection(50)
    tensors.add("a", (15,), "float32", nothing)
    tensors.add("b", (10,), "float32", nothing)  # 100 bytes: bfloat16 is widened
    assert [(one.name, one.nbytes) for one in tensors.tensors.values()] == [("a", 60), ("b", 40)]
    with pytest.raises(Unsound, match="twice"):
        tensors.add("a", (0,), "float32", nothing)
    with pytest.raises(Unsound, match="need more than 100 bytes"):
        tensors.add("c", (1,), "int8", nothing)
