"""More than the server can do: it refuses quickly, forgets who left, and finishes what it took."""

import asyncio
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from live_server import ColourModel, Live, answer, live, photo, rest

from xception.deploy.server import service
from xception.deploy.server.limits import Limits

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"


class Held(ColourModel):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def compute(self, prepared):
        outcomes = super().compute(prepared)
        assert self.go.wait(20)
        return outcomes


@pytest.fixture
def held() -> Iterator[Held]:
    model = Held()
    yield model
    model.go.set()


def test_beyond_the_queue_is_refused_at_once_and_before_the_body(held: Held):
    limits = Limits(queue=3, photos=3)
    with live(held, limits, batch_size=1) as server, ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(server.predict, photo()) for _ in range(3)]
        server.wait_for(lambda: server.service.gate.inside == 3)
        began = time.monotonic()
        reply = server.predict(photo())
        assert time.monotonic() - began < 1
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) >= 1
        with server.connect() as connection:  # a body that never comes
            connection.sendall(HEAD % 10_000 + b"\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 503 ")
        assert server.ask("GET", "/health").status == 200
        assert not any(future.done() for future in accepted)
        held.go.set()
        assert [future.result().status for future in accepted] == [200, 200, 200]
        assert server.predict(photo()).status == 200


def test_a_refused_caller_may_go_on_with_the_same_connection(held: Held):
    with live(held, Limits(queue=1, photos=1)) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.predict, photo())
        server.wait_for(lambda: server.service.gate.inside == 1)
        with server.connect() as connection:
            body = b"x" * 100_000
            connection.sendall(HEAD % len(body) + b"\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 503 ")
            connection.sendall(body)  # it was told no and sends all the same
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
        held.go.set()
        assert accepted.result().status == 200


def test_who_leaves_is_not_computed_for(held: Held):
    with live(held, batch_size=1) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.predict, photo())
        server.wait_for(lambda: held.batches)
        for _ in range(5):
            with server.connect() as connection:
                connection.sendall(HEAD % len(photo()) + b"\r\n" + photo())
                server.wait_for(lambda: server.service.gate.inside == 2)
            server.wait_for(lambda: server.service.gate.inside == 1)
        held.go.set()
        assert first.result().status == 200
        assert server.figure('xception_requests_total{path="/predict",status="499"}') == 5
    assert held.batches == [1]


def test_a_pool_does_not_keep_what_was_given_up():
    class Photo:
        pass

    go = threading.Event()

    async def give_up(pool: ThreadPoolExecutor) -> weakref.ref[Photo]:
        held = Photo()
        seen = weakref.ref(held)
        task = asyncio.ensure_future(service._in_thread(pool, id, held))
        del held
        await asyncio.sleep(0)
        assert seen() is not None
        task.cancel()
        await asyncio.wait([task])
        return seen

    with ThreadPoolExecutor(1) as pool:
        pool.submit(go.wait, 20)
        seen = asyncio.run(give_up(pool))
        gone = seen() is None  # though its turn has not come
        go.set()
    assert gone


def test_an_answer_that_comes_too_late_is_a_refusal(held: Held):
    with live(held, Limits(answer_seconds=0.2)) as server:
        reply = server.predict(photo())
        assert reply.status == 503
        assert "retry-after" in reply.headers
        assert server.service.gate.inside == 0
        held.go.set()


def test_a_body_that_comes_too_slowly_is_given_up():
    with live(ColourModel(), Limits(body_seconds=0.3, linger_seconds=0.2)) as server:
        with server.connect() as connection:
            connection.sendall(HEAD % 100 + b"\r\n")
            began = time.monotonic()
            told = b""
            while not told and time.monotonic() - began < 5:
                connection.settimeout(0.05)
                try:
                    told = connection.recv(10_000)
                except TimeoutError:
                    connection.sendall(b"x")  # a byte now and then does not help
            assert told.startswith(b"HTTP/1.1 408 ")
            connection.settimeout(10)
            rest(connection)  # and then it is closed
        assert server.service.bodies.total_bytes == 0


def test_where_memory_for_bodies_is_short_the_slowest_gives_way():
    limits = Limits(body_bytes=100_000, bodies_bytes=150_000)
    with live(ColourModel(), limits) as server, ExitStack() as stack:
        slow = stack.enter_context(server.connect())
        slow.sendall(HEAD % 100_000 + b"\r\n" + b"x" * 90_000)
        server.wait_for(lambda: server.service.bodies.total_bytes == 90_000)
        quick = photo() + b"\x00" * 95_000  # what follows a PNG is not looked at
        assert server.predict(quick).status == 200
        assert answer(slow).startswith(b"HTTP/1.1 408 ")
        assert server.service.bodies.total_bytes == 0


def test_many_slow_senders_stop_nobody():
    limits = Limits(connections=60, header_seconds=30, body_seconds=30)
    with live(ColourModel(), limits) as server, ExitStack() as stack:
        slow: list[socket.socket] = []
        for number in range(100):
            connection = stack.enter_context(server.connect())
            connection.sendall(HEAD % 1000 if number % 2 else b"G")
            if number % 4 == 1:
                connection.sendall(b"\r\nx")
            slow.append(connection)
            if number % 10 == 0:
                assert server.predict(photo()).status == 200
        assert server.predict(photo()).status == 200
        assert server.figure("xception_connections") <= 61
        assert rest(slow[0]) == b""  # it had waited longest
        assert server.figure('xception_connections_closed_total{reason="crowded out"}') >= 40
        for connection in slow:
            connection.close()


def test_when_everybody_is_being_served_a_newcomer_is_told(held: Held):
    with live(held, Limits(connections=2)) as server, ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.predict, photo()) for _ in range(2)]
        server.wait_for(lambda: server.service.gate.inside == 2)
        with server.connect() as connection:
            told = rest(connection)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert told.endswith(b'{"error": "too many connections"}')
        held.go.set()
        assert [future.result().status for future in accepted] == [200, 200]


def stop(server: Live) -> None:
    server.server.should_exit = True
    server.wait_for(lambda: server.server._shield.draining)


def test_what_was_accepted_is_answered_before_the_end(held: Held):
    with live(held, batch_size=1) as server, ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(server.predict, photo()) for _ in range(4)]
        server.wait_for(lambda: server.service.gate.inside == 4)
        with server.connect() as idle, server.connect() as begun:
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in answer(idle)
            begun.sendall(HEAD % len(photo()))  # half a head
            stop(server)
            late = pool.submit(server.predict, photo())  # a load balancer that has not heard yet
            assert server.ask("GET", "/ready").status == 503
            assert rest(idle) == b""
            begun.sendall(b"\r\n" + photo())
            server.wait_for(lambda: server.service.gate.inside == 6)
            held.go.set()
            assert b"HTTP/1.1 200 OK" in rest(begun)
        replies = [future.result() for future in (*accepted, late)]
        assert [reply.status for reply in replies] == [200] * 5
        assert replies[-1].headers["connection"] == "close"
    with pytest.raises(ConnectionRefusedError):
        server.ask("GET", "/health")
