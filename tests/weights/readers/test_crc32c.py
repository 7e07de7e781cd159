"""CRC-32C against the vectors of RFC 3720 and against one bit at a time."""

import numpy as np
import pytest

from xception.weights.readers.crc32c import BLOCK_BYTES, crc32c, masked_crc32c

VECTORS = [  # RFC 3720, B.4, as numbers
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


def eight_bits(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register


def bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = eight_bits(register ^ byte)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_published_vectors(data, expected):
    assert crc32c(data) == expected


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 127, 129, 1000, 4096, 5003])
def test_any_length(count):
    data = np.random.default_rng(count).bytes(count)
    assert crc32c(data) == bit_by_bit(data)


@pytest.mark.parametrize("count", [BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 12_345])
def test_blocks_are_joined(count):
    """Zeros in front, then one known vector: its checksum follows from the register alone."""
    data = np.random.default_rng(0).bytes(count)
    half = count // 3
    joined = crc32c(np.frombuffer(data, np.uint8))
    assert joined == crc32c(data)
    # The register is linear: three messages of one length, one the sum of the others and zeros.
    other = np.random.default_rng(half).bytes(count)
    both = bytes(np.frombuffer(data, np.uint8) ^ np.frombuffer(other, np.uint8))
    assert crc32c(both) == joined ^ crc32c(other) ^ crc32c(bytes(count))


def test_more_than_a_block_byte_by_byte():
    table = [eight_bits(byte) for byte in range(256)]
    assert table[1] == 0xF26B8303  # as in every printed table
    data = np.random.default_rng(1).bytes(BLOCK_BYTES + 77)
    register = 0xFFFFFFFF
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_arrays_of_any_type_are_their_bytes():
    values = np.arange(100, dtype=np.float32).reshape(4, 25)
    assert crc32c(values) == crc32c(values.tobytes())


def test_masked_as_leveldb_does():
    crc = crc32c(b"foo")
    assert masked_crc32c(b"foo") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % (1 << 32)
    assert masked_crc32c(b"foo") != crc
