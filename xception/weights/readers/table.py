"""The index of a TensorFlow checkpoint: a sorted table of keys and values, as in LevelDB.

LevelDB, doc/table_format.md: blocks of prefix-compressed entries, an index of the blocks, a footer.
TensorFlow writes its checkpoints' tables uncompressed (`kNoCompression` in tensor_bundle.cc);
compressed blocks are refused.
"""

from collections.abc import Iterator

from xception.weights.readers.crc32c import masked_crc32c
from xception.weights.readers.source import Cursor, Source, Unsound

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
MAX_KEY_BYTES = 2048
MAX_ENTRIES = 60_000
MAX_KEYS_BYTES = 8 << 20  # of all keys, which are stored by their differences


def is_table(source: Source) -> bool:
    """Whether the file ends as a table does."""
    return source.size >= FOOTER_BYTES and source.fields(source.size - 8, "Q") == (MAGIC,)


def entries(source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, in the order of the keys.

    Raises:
        Unsound: damaged, compressed, or out of order.
    """
    if not is_table(source):
        raise Unsound("truncated or foreign: not the index of a TensorFlow checkpoint")
    footer = Cursor(source.read(source.size - FOOTER_BYTES, FOOTER_BYTES))
    _handle(footer)  # of a block about the table, which TensorFlow leaves empty
    last = None
    count = characters = 0
    for _, handle in _block(source, *_handle(footer)):
        before = count
        for key, value in _block(source, *_handle(Cursor(handle))):
            count += 1
            characters += len(key)
            if count > MAX_ENTRIES or characters > MAX_KEYS_BYTES:
                raise Unsound(f"more than {MAX_ENTRIES:,} entries in the index, or too long ones")
            if last is not None and key <= last:
                raise Unsound("damaged: the entries of the index are out of order")
            last = key
            yield key, value
        if count == before:  # or one such block could be read again and again
            raise Unsound("damaged: a block of the index without entries")


def _handle(cursor: Cursor) -> tuple[int, int]:
    """Where a block stands, and how long it is without its trailer."""
    return cursor.varint(), cursor.varint()


def _block(source: Source, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    data = source.read(offset, size + 5)
    kind, crc = data[size], int.from_bytes(data[size + 1 :], "little")
    if masked_crc32c(data[: size + 1]) != crc:
        raise Unsound("damaged: a block of the index has another checksum")
    if kind != 0:
        raise Unsound("a compressed index, which TensorFlow does not write")
    restarts = int.from_bytes(data[size - 4 : size], "little") if size >= 4 else 0
    end = size - 4 - 4 * restarts
    if size < 4 or end < 0:
        raise Unsound("damaged: a block of the index has no end")
    cursor = Cursor(data[:end])
    key = b""
    while cursor.left:
        shared, fresh, length = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key) or shared + fresh > MAX_KEY_BYTES:
            raise Unsound("damaged: a key of the index is no key")
        key = key[:shared] + cursor.take(fresh)
        yield key, cursor.take(length)
