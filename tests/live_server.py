"""A server on a free port of this machine, with a model that is known by heart."""

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from xception.data.images import decode
from xception.data.preprocess import Preprocess
from xception.deploy.server.answers import Answerer
from xception.deploy.server.app import create_app
from xception.deploy.server.batcher import Pace
from xception.deploy.server.limits import Limits
from xception.deploy.server.metrics import Metrics
from xception.deploy.server.service import Service
from xception.deploy.server.serving import Server, bind
from xception.deploy.server.shield import Doors
from xception.weights.card import Architecture, Card

COLOURS = ("red", "green", "blue")
SIZE = (8, 6)


class ColourModel:
    """Says how much of a photo's light is red, green and blue, `seconds` later."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.card = Card(
            architecture=Architecture(name="colours", options={}),
            task="classification",
            classes=COLOURS,
            preprocess=Preprocess(size=8),
            training={"data": "/home/somebody/photos"},
        )

    def prepare(self, data: bytes, size: tuple[int, int]) -> np.ndarray:
        image = decode(data, "the image")
        assert image.size == size
        light = np.asarray(image, float).reshape(-1, 3).sum(0)
        return light / light.sum()

    def compute(self, prepared: Sequence[Any]) -> list[Any]:
        self.batches.append(len(prepared))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        return list(prepared)

    def present(self, outcome: Any, top: int) -> dict[str, Any]:
        best = sorted(zip(outcome.tolist(), COLOURS, strict=True), reverse=True)[:top]
        return {"top": [{"label": label, "probability": share} for share, label in best]}

    def about(self) -> dict[str, Any]:
        return {"task": "classification"}

    def example(self) -> np.ndarray:
        return np.ones(3) / 3


def photo(colour: tuple[int, int, int] = (200, 50, 0), kind: str = "PNG", size=SIZE) -> bytes:
    """A file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Live:
    """A server that runs, and how to ask it."""

    server: Server
    service: Service
    metrics: Metrics
    port: int

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def predict(self, body: bytes, **headers: str) -> Reply:
        """One photo."""
        return self.ask("POST", "/predict", body, headers)

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        """A bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            yield connection

    def figure(self, name: str) -> float:
        """A value of `/metrics`, with its labels as they stand there."""
        lines = self.ask("GET", "/metrics").content.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

    def wait_for(self, condition: Any, seconds: float = 10.0) -> None:
        """Until something is so; fails if it does not become so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.005)


def answer(connection: socket.socket) -> bytes:
    """One answer, with its body if it has a length."""
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(65536)
        assert part, f"closed after {found!r}"
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"]
    while len(body) < int((lengths or [b"0"])[0]):
        part = connection.recv(65536)
        assert part, f"closed after {body!r}"
        body += part
    return head + b"\r\n\r\n" + body


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset counts as closing."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


@contextmanager
def live(
    model: Answerer,
    limits: Limits | None = None,
    doors: Doors | None = None,
    *,
    batch_size: int = 4,
    workers: int = 1,
    wait_seconds: float = 0.0,
) -> Iterator[Live]:
    """Runs a server in a thread, and stops it as SIGTERM would."""
    limits, metrics = limits or Limits(), Metrics()
    service = Service(
        model,
        limits,
        metrics,
        pace=Pace(batch_size, 0.0),
        wait_seconds=wait_seconds,
        workers=workers,
        decoders=2,
    )
    server = Server(create_app(service, metrics, doors or Doors()), limits, metrics)
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    running = Live(server, service, metrics, port)
    try:
        running.wait_for(lambda: server.started)
        yield running
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
