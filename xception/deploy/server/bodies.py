"""Bodies of requests: read within bounds of size, time and memory, and taken apart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from xception.deploy.server.limits import Limits
from xception.deploy.server.refusal import Refusal, busy

_MOST_NAME = 200  # characters of a file's name that are given back


class Photo(NamedTuple):
    """A file that a caller sent, not yet looked at."""

    name: str
    data: bytes


class _Held:
    """What one request holds in memory."""

    def __init__(self) -> None:
        self.size = 0
        self.hurry: Callable[[], None] | None = None  # ends the reading at once


class Bodies:
    """All bodies in memory together; used by the event loop alone."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.total_bytes = 0
        self._reading: dict[_Held, None] = {}  # the slowest first

    @contextlib.asynccontextmanager
    async def take(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; its memory counts until the block ends.

        Raises `Refusal`: 413 too long, 408 too slow, 415 compressed, 503 no memory left for it.
        Raises `ClientDisconnect` where the sender went away.
        """
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise Refusal(415, f"Content-Encoding {encoding[:20]} is not taken", "encoding")
        # A length that is no number was refused by the HTTP parser.
        if int(request.headers.get("content-length", "0")) > self.limits.body_bytes:
            raise self._too_long()
        held = _Held()
        try:
            yield await self._read(request, held)
        finally:
            self.total_bytes -= held.size

    async def _read(self, request: Request, held: _Held) -> bytes:
        chunks = []
        loop = asyncio.get_running_loop()
        self._reading[held] = None
        try:
            async with asyncio.timeout(self.limits.body_seconds) as timeout:
                held.hurry = lambda: timeout.reschedule(loop.time())
                async for chunk in request.stream():
                    held.size += len(chunk)
                    self.total_bytes += len(chunk)
                    chunks.append(chunk)
                    if held.size > self.limits.body_bytes:
                        raise self._too_long()
                    if self.total_bytes > self.limits.bodies_bytes:
                        self._make_room(held)
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise Refusal(408, f"the body did not arrive within {seconds:g} s", "slow") from None
        finally:
            self._reading.pop(held, None)
        return b"".join(chunks)

    def _make_room(self, newest: _Held) -> None:
        """End the reading that began first; refuse `newest` if it is that one."""
        if newest not in self._reading:  # it was told to end, and some of it came all the same
            raise busy(1.0)
        slowest = next(iter(self._reading))
        if slowest is newest or slowest.hurry is None:
            raise busy(1.0)
        with contextlib.suppress(RuntimeError):  # its time was over by itself, just now
            slowest.hurry()
        del self._reading[slowest]
        self.total_bytes -= slowest.size  # all but gone
        slowest.size = 0

    def _too_long(self) -> Refusal:
        most = self.limits.body_bytes / 2**20
        return Refusal(413, f"the body is longer than the {most:g} MiB allowed", "body")


def is_multipart(content_type: str) -> bool:
    """Whether the body has parts; any other body is one photo."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def split_multipart(body: bytes, content_type: str, most: int) -> list[Photo]:
    """The files of a multipart body, whatever their fields are called.

    Raises `Refusal`: 400 not sound, 413 more than `most` files.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _unsound("it names no boundary")
    parts = _Parts(most)
    callbacks: Any = {
        "on_part_begin": parts.begin,
        "on_header_field": parts.header_name,
        "on_header_value": parts.header_value,
        "on_header_end": parts.header_end,
        "on_headers_finished": parts.open,
        "on_part_data": parts.add,
        "on_end": parts.end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _unsound(str(error)[:200]) from error
    if not parts.ended:
        raise _unsound("it ends too early")
    photos = []
    while parts.files:  # one after the other, so that no two copies of all are there at once
        name, data = parts.files.pop(0)
        photos.append(Photo(name, bytes(data)))
    return photos


class _Parts:
    """Collects the files while the parser goes through a body."""

    def __init__(self, most: int):
        self.most = most
        self.files: list[tuple[str, bytearray]] = []
        self.ended = False
        self._name = self._value = self._disposition = b""

    def begin(self) -> None:
        if len(self.files) == self.most:
            raise Refusal(413, f"more than the {self.most} photos allowed", "photos")
        self._name = self._value = self._disposition = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def open(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"filename")
        if name is None:
            raise _unsound("a part is no file: give it a filename")
        self.files.append((name.decode("utf-8", "replace")[:_MOST_NAME], bytearray()))

    def add(self, data: bytes, start: int, end: int) -> None:
        self.files[-1][1].extend(memoryview(data)[start:end])

    def end(self) -> None:
        self.ended = True


def _unsound(why: str) -> Refusal:
    return Refusal(400, f"the multipart body is not sound: {why}", "multipart")
