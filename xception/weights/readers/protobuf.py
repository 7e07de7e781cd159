"""As much of protocol buffers' wire format as TensorFlow's checkpoints need.

https://protobuf.dev/programming-guides/encoding: a message is a row of fields, each a key (number
and wire type) and a value. Which names and types the numbers stand for is known to the caller.
"""

from xception.weights.readers.source import Cursor, Unsound

MAX_FIELDS = 1000  # of one message
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Fields:
    """The fields of one message; those of a number keep their order."""

    def __init__(self, data: bytes, what: str):
        """Raises Unsound if `data` is not a message; `what` it should be stands in the line."""
        self.what = what
        self._values: dict[int, list[int | bytes]] = {}
        cursor = Cursor(data)
        count = 0
        while cursor.left:
            count += 1
            key = cursor.varint()
            number, wire = key >> 3, key & 7
            if wire == VARINT:
                value: int | bytes = cursor.varint()
            elif wire == BYTES:
                value = cursor.take(cursor.varint())
            elif wire in (FIXED32, FIXED64):
                value = int.from_bytes(cursor.take(4 if wire == FIXED32 else 8), "little")
            else:
                raise Unsound(f"damaged: {what} is not a message of protocol buffers")
            if count > MAX_FIELDS or not number:
                raise Unsound(f"damaged: {what} is not a message of protocol buffers")
            self._values.setdefault(number, []).append(value)

    def number(self, field: int, default: int = 0) -> int:
        """A number; the last one counts, as the format says."""
        value = self._values.get(field, [default])[-1]
        if isinstance(value, bytes):
            raise Unsound(f"damaged: field {field} of {self.what} is not a number")
        return value

    def messages(self, field: int) -> list["Fields"]:
        """All messages in a field."""
        found = []
        for value in self._values.get(field, []):
            if not isinstance(value, bytes):
                raise Unsound(f"damaged: field {field} of {self.what} is not a message")
            found.append(Fields(value, self.what))
        return found

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return field in self._values


def signed(value: int) -> int:
    """An int64, which the wire holds in two's complement."""
    return value - (1 << 64) if value >> 63 else value
