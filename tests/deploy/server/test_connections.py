"""The bounds on connections that uvicorn does not have."""

import errno
import io
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live_server import ColourModel, Live, answer, live, photo, rest

from xception.deploy.server import logs
from xception.deploy.server.connections import accept_the_last
from xception.deploy.server.limits import Limits, most_connections
from xception.deploy.server.serving import bind
from xception.errors import UserError

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    limits = Limits(header_seconds=0.5, linger_seconds=0.5, body_seconds=2, idle_seconds=1)
    with live(ColourModel(), limits) as running:
        yield running


@contextmanager
def lasting(least: float, most: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert least <= time.monotonic() - began <= most


def test_silence_and_a_slow_head_are_cut_off(server: Live):
    slow_heads = 'xception_connections_closed_total{reason="slow head"}'
    before = server.figure(slow_heads)
    with server.connect() as silent, lasting(0.4, 4):
        assert rest(silent) == b""
    with server.connect() as slow, lasting(0.4, 4):
        slow.settimeout(0.05)
        for _ in range(100):
            try:
                slow.sendall(b"G")
                if not slow.recv(10):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("still there after a hundred letters")
    assert server.figure(slow_heads) == before + 2


def test_a_slow_head_behind_a_good_request_is_cut_off_too(server: Live):
    with server.connect() as connection:
        connection.sendall(GET)
        assert b"200 OK" in answer(connection)
        with lasting(0.4, 4):
            connection.sendall(b"GET /he")
            assert rest(connection) == b""


def test_an_idle_connection_ends_in_peace(server: Live):
    with server.connect() as connection:
        connection.sendall(GET)
        assert b"200 OK" in answer(connection)
        with lasting(0.8, 5):
            assert connection.recv(10) == b""


def test_a_body_that_nobody_wants_is_not_taken_for_ever(server: Live):
    with server.connect() as connection, lasting(0.4, 5):
        head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
        connection.sendall(head)
        assert answer(connection).startswith(b"HTTP/1.1 404 ")
        try:
            for _ in range(500):
                connection.sendall(b"x" * 1000)
                time.sleep(0.01)
        except ConnectionError:
            return
        pytest.fail("it still listens")


def test_requests_follow_each_other_on_one_connection(server: Live):
    body = photo()
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(post + body)
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
            connection.sendall(GET)
            assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_body_is_asked_for_only_when_it_is_wanted(server: Live):
    head = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n"
    with server.connect() as connection:
        connection.sendall(head % (b"predict", len(photo())) + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 100 ")
        connection.sendall(photo())
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(head % (b"predict", 10**12) + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
    ],
)
def test_what_is_no_http_is_refused_and_closed(server: Live, bytes_sent: bytes):
    with server.connect() as connection:
        connection.sendall(bytes_sent)
        assert rest(connection).startswith(b"HTTP/1.1 400 ")
    assert server.ask("GET", "/health").status == 200


def test_requests_that_do_not_wait_for_the_answer_are_answered_or_cut_off_whole(server: Live):
    with server.connect() as connection:
        connection.sendall(GET * 2000)
        found = rest(connection)
    assert found.startswith(b"HTTP/1.1 200 OK")
    assert found.count(b"HTTP/1.1 200 OK") == found.count(b'{"status":"ok"}')


def test_resets_leave_nothing_behind(server: Live):
    body = photo()
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    for cut in (1, 30, len(post), len(post) + 10, len(post) + len(body)):
        with server.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall((post + body)[:cut])
    server.wait_for(lambda: server.figure("xception_connections") == 1)
    assert server.service.gate.inside == 0
    assert server.service.bodies.total_bytes == 0


def test_who_does_not_read_the_answer_does_not_stay():
    class Wordy(ColourModel):
        def about(self):
            return {"words": "x" * 20_000_000}

    with live(Wordy(), Limits(header_seconds=0.5)) as server, server.connect() as connection:
        body = photo()
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        server.wait_for(lambda: server.figure("xception_connections") == 2)
        server.wait_for(lambda: server.figure("xception_connections") == 1)


class Listener(socket.socket):
    """One whose callers are known beforehand."""

    def __init__(self, *callers: socket.socket | OSError):
        super().__init__()
        self.callers = list(callers)

    def accept(self):
        caller = self.callers.pop(0)
        if isinstance(caller, OSError):
            raise caller
        return caller, ("", 0)


def test_who_left_before_being_accepted_does_not_end_the_drain():
    with socket.socket() as first, socket.socket() as second:
        listener = Listener(first, ConnectionAbortedError(), second, BlockingIOError())
        assert accept_the_last(listener) == [first, second]
        assert listener.fileno() == -1


def test_where_no_more_files_may_be_open_those_let_in_are_served():
    stream = io.StringIO()
    with socket.socket() as first, logs.json_logs(stream=stream):
        listener = Listener(first, OSError(errno.EMFILE, "Too many open files"))
        assert accept_the_last(listener) == [first]
        assert listener.fileno() == -1
    assert "Too many open files" in stream.getvalue()  # and it is said


def test_an_address_that_is_taken_or_not_ours():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port}: address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1, port 0"):
        bind("192.0.2.1", 0)
    with pytest.raises(UserError, match="cannot listen on no such host"):
        bind("no such host", 0)


def test_no_more_connections_than_files_may_be_open():
    assert 8 <= most_connections(1000) <= 1000
    assert most_connections(10) == 10
