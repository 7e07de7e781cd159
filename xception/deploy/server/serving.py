"""The server's life: bind, start, watch over its connections, and leave without losing anything."""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn

from xception.deploy.server.answers import Answerer
from xception.deploy.server.app import create_app
from xception.deploy.server.batcher import find_pace
from xception.deploy.server.connections import Connection, accept_the_last
from xception.deploy.server.limits import BACKLOG, Limits
from xception.deploy.server.logs import log, log_fault
from xception.deploy.server.metrics import Metrics
from xception.deploy.server.service import Service
from xception.deploy.server.shield import Doors, Shield
from xception.errors import UserError

_SWEEP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Work:
    """How the computing is shared out."""

    workers: int = 1
    """Batches computed at the same time."""
    batch_size: int = 16
    """Photos in a batch, at most; fewer where more would keep the first waiting for the last."""
    wait_seconds: float = 0.002
    """How long a photo may wait for others to be computed with."""
    decoders: int = 2
    """Files decoded at the same time."""


def serve(
    answerer: Answerer, listener: socket.socket, limits: Limits, doors: Doors, work: Work
) -> None:
    """Serve until a signal says stop, and everything accepted is answered.

    The signal is then raised again, for whoever called.
    """
    metrics = Metrics()
    pace = find_pace(answerer.compute, answerer.example(), work.batch_size)
    log("measured", batch_photos=pace.batch_size, batch_ms=round(1000 * pace.batch_seconds, 2))
    service = Service(
        answerer,
        limits,
        metrics,
        pace=pace,
        wait_seconds=work.wait_seconds,
        workers=work.workers,
        decoders=work.decoders,
    )
    server = Server(create_app(service, metrics, doors), limits, metrics)
    server.run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds an address and does not listen yet; port 0 takes a free one.

    Raises:
        UserError: the address is not one of this machine, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen on {host}, port {port}: {reason.lower()}; --port 0 takes a free port"
        ) from error


def address_of(listener: socket.socket) -> str:
    """The URL to open, for a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """uvicorn with bounds on connections and a patient end.

    Told to stop, it first says at `/ready` that it is leaving, and still serves for
    `farewell_seconds` whoever has not heard; then it takes in the connections that the system holds
    for it, closes the door, and ends when every request it has read is answered.

    Args:
        app: what `create_app` gives.
        limits: of connections and times.
        metrics: where closed connections are counted.
    """

    def __init__(self, app: Shield, limits: Limits, metrics: Metrics):
        self._shield = app
        self._limits = limits
        protocol = partial(Connection, limits, lambda why: metrics.closed.labels(why).inc())
        config = uvicorn.Config(
            app,
            http=cast(Any, protocol),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=round(limits.request_seconds + limits.header_seconds),
        )
        super().__init__(config)
        self._sweeper: asyncio.Task[None] | None = None
        metrics.gauge("connections", "Open connections.", self._count_connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and begin to watch."""
        await super().startup(sockets)
        self._sweeper = asyncio.create_task(self._sweep())
        for listener in sockets or []:
            log("listening", url=address_of(listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has been accepted, and stop."""
        self._shield.draining = True
        log("draining", connections=self._count_connections())
        await asyncio.sleep(self._limits.farewell_seconds)
        doors = [listener.dup() for listener in sockets or []]  # they stay open a little longer
        for server in self.servers:
            server.close()
        late = [one for door in doors for one in accept_the_last(door)]
        loop = asyncio.get_running_loop()
        for connection in late:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # left again already
                await loop.connect_accepted_socket(self._make_protocol, connection)
        await super().shutdown(sockets)
        if self._sweeper is not None:
            self._sweeper.cancel()
        log("stopped", requests=self.server_state.total_requests)

    def _make_protocol(self) -> asyncio.BaseProtocol:
        make = cast(Any, self.config.http_protocol_class)
        return make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _count_connections(self) -> int:
        return len(self.server_state.connections)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for connection in list(self.server_state.connections):
                try:
                    cast(Connection, connection).sweep(loop.time())
                except Exception as error:  # one of them must not end the watch over the others
                    log_fault("sweep", error)
