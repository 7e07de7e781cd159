"""Connections that keep nobody else waiting.

uvicorn bounds how long a connection may idle between requests, and nothing else: a head that
arrives byte by byte, a body that nobody reads any more, an answer that is never taken and the
number of connections are all without bounds. `Connection` is uvicorn's HTTP/1.1 protocol with these
bounds; it relies on attributes that uvicorn does not promise (`conn`, `cycle`, `connections`), and
the tests of this module notice when they change.
"""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from xception.deploy.server.limits import Limits
from xception.deploy.server.logs import log_fault

_FULL_BODY = b'{"error": "too many connections"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_FULL_BODY)
) + _FULL_BODY
_SLICE = 2**14  # bytes parsed at once, so that nothing in them can keep the event loop for long


class Connection(H11Protocol):
    """One connection, with the times since when it keeps us waiting.

    Args:
        limits: the bounds.
        closed: told the reason of each connection that is closed on its caller.
        config: this and the rest is what uvicorn hands to a protocol.
    """

    def __init__(
        self,
        limits: Limits,
        closed: Callable[[str], None],
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ):
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self.closed = closed
        self.head_since: float | None = None  # waiting for the rest of a head
        self.request_since: float | None = None  # a request is being served
        self.answered_since: float | None = None  # answered, and its body still comes
        self.stalled_since: float | None = None  # of what was written nothing is taken
        self.unsent = 0  # bytes, when last looked
        self.deaf = False  # what still comes is not even parsed

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def owing_since(self) -> float | None:
        """Since when the caller owes bytes, of a head or of a body; None if we owe an answer.

        A connection that merely idles has owed them for ever.
        """
        if self.idle:
            return self.answered_since or self.head_since or 0.0
        return self.request_since if self.cycle.more_body else None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Come in; if all places are taken, in the place of whoever has kept us waiting longest."""
        others = [one for one in self.connections if isinstance(one, Connection)]
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if len(others) < self.limits.connections:
            return
        waiting = [
            (since, one)
            for one in others
            if (since := one.owing_since) is not None and not one.transport.is_closing()
        ]
        if waiting:
            min(waiting, key=lambda pair: pair[0])[1].abort("crowded out")
        else:
            self.closed("full")
            transport.write(_FULL)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or of a body."""
        for begin in range(0, len(data), _SLICE):
            if self.deaf or self.transport.is_closing():
                return
            self._take(data[begin : begin + _SLICE])

    def _take(self, data: bytes) -> None:
        cycle = self.cycle
        if not self.idle and not cycle.more_body:
            # Another request before this one is answered, which nobody does who means well. It may
            # be sent again; kept, it could be parsed only in one piece.
            cycle.keep_alive, self.deaf = False, True
            return
        if self.idle and self.head_since is None:
            self.head_since = self.loop.time()
        super().data_received(data)
        if self.cycle is not cycle:
            self._begun()
        elif self.answered_since is not None and self.conn.their_state is h11.IDLE:
            self.answered_since = self.head_since = None  # the rest of the body is through
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """An answer was written; perhaps a caller is still sending what it was the answer to."""
        cycle = self.cycle
        self.request_since = None
        super().on_response_complete()
        if self.cycle is not cycle:  # the next request was already there
            self._begun()
        elif self.conn.their_state is h11.SEND_BODY:
            self.answered_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; in the middle of an answer there is only one way to say so."""
        self.closed("malformed")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()
        if not self.idle:  # its request is not to be answered a second time
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def shutdown(self) -> None:
        """Told to stop: a connection without a request leaves, unless one is on its way."""
        if not self.idle:
            self.cycle.keep_alive = False
        elif self._expects_more():
            self.loop.call_later(0.1, self._shutdown_again)
        else:
            # The caller is told now. Closing waits for its turn in the loop, and what a caller
            # who knows of nothing sends until then would be lost.
            with contextlib.suppress(OSError):
                self.transport.write_eof()
            with contextlib.suppress(h11.LocalProtocolError):
                self.conn.send(h11.ConnectionClosed())
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Close the connection if it has kept us waiting for too long."""
        limits = self.limits
        unsent = self.transport.get_write_buffer_size()
        if unsent != self.unsent or not unsent:
            self.stalled_since, self.unsent = (now if unsent else None), unsent
        for since, seconds, reason in (
            (self.stalled_since, limits.header_seconds, "not reading"),
            (self.answered_since, limits.linger_seconds, "still sending"),
            (self.head_since, limits.header_seconds, "slow head"),
            (self.request_since, limits.request_seconds + limits.linger_seconds, "stuck"),
        ):
            if since is not None and now - since > seconds:
                return self.abort(reason)

    def abort(self, reason: str) -> None:
        """Close at once, whatever is still to be read or written."""
        self.closed(reason)
        self.transport.abort()

    def _begun(self) -> None:
        """A head is complete."""
        self.head_since = self.answered_since = None
        self.request_since = None if self.idle else self.loop.time()
        # Chunks of a single byte are quickly sent and slowly parsed. The server refuses such bodies
        # (see `shield`), so that nothing is lost by not listening.
        self.deaf = any(name == b"transfer-encoding" for name, _ in self.headers)

    def _expects_more(self) -> bool:
        """Whether a request has begun to arrive, or may be about to on a new connection."""
        if self.answered_since is not None or self.conn.trailing_data[0]:
            return True
        waited = self.loop.time() - (self.head_since or 0.0)
        return waited < self.limits.farewell_seconds or _readable(self.transport)

    def _shutdown_again(self) -> None:
        if not self.transport.is_closing():
            self.shutdown()


def _readable(transport: asyncio.Transport) -> bool:
    """Whether bytes have arrived that the event loop has not yet handed over."""
    number = transport.get_extra_info("socket").fileno()
    if number < 0:
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


def accept_the_last(listener: socket.socket) -> list[socket.socket]:
    """The connections that a non-blocking listener has not accepted yet; then it is closed.

    Nothing comes between the two: who is let in by the system after the last look, and before the
    door is closed, is thrown out by it.
    """
    found = []
    with listener:
        while True:
            try:
                found.append(listener.accept()[0])
            except BlockingIOError:
                return found
            except ConnectionAbortedError:  # left again already
                continue
            except OSError as error:  # too many open files, say: who was let in is still served
                log_fault("accept", error)
                return found
