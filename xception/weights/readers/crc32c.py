"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, many stretches of the bytes at once.

The register after the bytes A, then B, is `shift(register(A), len(B)) ^ register(B)`, where `shift`
is linear over single bits (a register run over zeros). So the bytes are cut into equal lanes, all
lanes advance together in NumPy, and the lanes are then joined in pairs. Zeros in front of a message
do not move a register of zero: the first lane is filled up with them.

Checked against the vectors of RFC 3720, B.4, and byte by byte.
"""

from functools import lru_cache

import numpy as np

POLYNOMIAL = 0x82F63B78  # reflected
BLOCK_BYTES = 1 << 20
LANE_BYTES = 64  # at least, so that lanes are worth their joining
MAX_LANES = 4096
MASK_DELTA = 0xA282EAD8  # of TensorFlow and LevelDB, crc32c.h

Operator = tuple[int, ...]
"""A linear map of registers: what becomes of each of the 32 bits."""


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """The checksum as TensorFlow stores it: rotated and shifted, since checksums of checksums are
    weak."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | np.ndarray) -> int:
    """The checksum of the bytes; 160 MB take about a second of one core."""
    if isinstance(data, np.ndarray):
        octets = data.reshape(-1).view(np.uint8)
    else:
        octets = np.frombuffer(data, np.uint8)
    register, begin = 0xFFFFFFFF, 0
    while begin < octets.size:  # the odd block first, then whole ones
        end = begin + ((octets.size - begin) % BLOCK_BYTES or BLOCK_BYTES)
        register = _apply(_zeros(end - begin), register) ^ _from_zero(octets[begin:end])
        begin = end
    return register ^ 0xFFFFFFFF


def _from_zero(block: np.ndarray) -> int:
    """The register after at most BLOCK_BYTES, when it was zero before."""
    lanes = min(MAX_LANES, 1 << max(0, (block.size // LANE_BYTES).bit_length() - 1))
    steps = -(-block.size // (8 * lanes))  # of 8 bytes
    if block.size != lanes * steps * 8:
        whole = np.zeros(lanes * steps * 8, np.uint8)
        whole[whole.size - block.size :] = block
        block = whole
    words = np.ascontiguousarray(block).view("<u2").reshape(lanes, steps, 4)
    t0, t1, t2, t3 = _tables()
    registers = np.zeros(lanes, np.uint32)
    for step in range(steps):
        low = words[:, step, 0] ^ (registers & 0xFFFF).astype(np.uint16)
        high = words[:, step, 1] ^ (registers >> 16).astype(np.uint16)
        registers = t3[low] ^ t2[high] ^ t1[words[:, step, 2]] ^ t0[words[:, step, 3]]
    length = steps * 8
    while registers.size > 1:
        octets = np.ascontiguousarray(registers[0::2]).astype("<u4").view(np.uint8).reshape(-1, 4)
        t0, t1, t2, t3 = _tables_of_zeros(length)
        shifted = t0[octets[:, 0]] ^ t1[octets[:, 1]] ^ t2[octets[:, 2]] ^ t3[octets[:, 3]]
        registers = shifted ^ registers[1::2]
        length *= 2
    return int(registers[0])


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, ...]:
    """What 16 bits do to the register when 0, 2, 4 or 6 more bytes follow them."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(POLYNOMIAL), np.uint32(0))
    tables = [table]
    for _ in range(3):
        tables.append((tables[-1] >> 16) ^ table[tables[-1] & 0xFFFF])
    return tuple(tables)


@lru_cache(maxsize=256)
def _zeros(count: int) -> Operator:
    """What `count` bytes of zero do to a register."""
    if count == 0:
        return tuple(1 << bit for bit in range(32))
    if count == 1:
        bits = []
        for bit in range(32):
            register = 1 << bit
            for _ in range(8):
                register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
            bits.append(register)
        return tuple(bits)
    half = _zeros(count // 2)
    whole = tuple(_apply(half, column) for column in half)
    return tuple(_apply(_zeros(1), column) for column in whole) if count % 2 else whole


def _apply(operator: Operator, register: int) -> int:
    result = 0
    for bit in range(32):
        if register >> bit & 1:
            result ^= operator[bit]
    return result


@lru_cache(maxsize=64)
def _tables_of_zeros(count: int) -> np.ndarray:
    """`_zeros(count)` for each value of each of the four bytes of a register."""
    tables = np.zeros((4, 256), np.uint32)
    values = np.arange(256, dtype=np.uint32)
    for bit, column in enumerate(_zeros(count)):
        tables[bit // 8] ^= (values >> bit % 8 & 1) * np.uint32(column)
    return tables
