"""What the benchmarks of the server share: a model to serve, the server as a process, a client."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from xception.data.preprocess import Preprocess
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import save_model

TIMEOUT = 90.0  # seconds, far beyond what the server allows itself


def make_run(folder: Path, model: str, size: int, classes: int = 10) -> Path:
    """A run folder of a network with random weights, which take as long as trained ones."""
    torch.manual_seed(0)
    network = create_model(model, num_classes=classes).eval()
    card = Card(
        architecture=Architecture(name=model, options=network.options),
        task=network.TASKS[0],
        classes=tuple(f"class {n}" for n in range(classes)),
        preprocess=Preprocess(size=size),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model.safetensors", network, card)
    return folder


def make_photos(count: int, width: int = 640, height: int = 480) -> list[bytes]:
    """JPEG files like those of a camera: broad shapes with some noise."""
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        file = BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=85)
        photos.append(file.getvalue())
    return photos


def request(body: bytes, path: str = "/predict") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def rss_mb(self) -> float:
        """What it holds in memory (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(run: Path, log: Path, *options: str) -> Iterator[Running]:
    """`xception serve` until the block ends."""
    command = [sys.executable, "-m", "xception", "serve", str(run), "--port", "0", *options]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        end = time.monotonic() + 120
        while '"listening"' not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the server does not start: {log.read_text()}")
            time.sleep(0.05)
        lines = map(json.loads, log.read_text().splitlines())
        (url,) = [line["url"] for line in lines if line["event"] == "listening"]
        yield Running(process, int(url.rstrip("/").rpartition(":")[2]), log)
    finally:
        process.terminate()
        process.wait(120)


@dataclass(frozen=True)
class Outcome:
    """What came of one request; status 0 if its connection broke, -1 if none was to be had."""

    status: int
    seconds: float
    sent: float  # when, by the clock


@dataclass
class Client:
    """Sends requests over connections that it keeps, as many as it needs at once."""

    port: int
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def send(self, data: bytes) -> Outcome:
        began = time.perf_counter()
        try:
            connection = await self._connection()
        except OSError:
            return Outcome(-1, time.perf_counter() - began, began)
        reader, writer = connection
        try:
            async with asyncio.timeout(TIMEOUT):
                writer.write(data)
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.lower().split(b"\r\n")
                length = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
                await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            writer.close()
            return Outcome(0, time.perf_counter() - began, began)
        if b"connection: close" in fields:
            writer.close()
        else:
            self.idle.append(connection)
        return Outcome(int(head[9:12]), time.perf_counter() - began, began)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()


async def one_by_one(client: Client, requests: list[bytes], count: int) -> float:
    """The median time of a request that is alone, in seconds."""
    seconds = []
    for n in range(count):
        outcome = await client.send(requests[n % len(requests)])
        assert outcome.status == 200, outcome
        seconds.append(outcome.seconds)
    return median(seconds)


async def as_many_as_possible(
    client: Client, requests: list[bytes], seconds: float, together: int
) -> float:
    """Answers in a second while `together` callers each ask again as soon as they are answered."""
    end = time.perf_counter() + seconds
    answered = 0

    async def caller(number: int) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            outcome = await client.send(requests[number % len(requests)])
            number += together
            answered += outcome.status == 200 and time.perf_counter() < end

    await asyncio.gather(*(caller(number) for number in range(together)))
    return answered / seconds


async def poisson(
    client: Client, requests: list[bytes], rate: float, seconds: float, seed: int = 0
) -> list[Outcome]:
    """Requests that come whenever they like, `rate` a second; nobody waits for another's answer."""
    rng = np.random.default_rng(seed)
    began = time.perf_counter()
    moment, tasks = 0.0, []
    while (moment := moment + float(rng.exponential(1 / rate))) < seconds:
        await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
        tasks.append(asyncio.create_task(client.send(requests[len(tasks) % len(requests)])))
    return list(await asyncio.gather(*tasks))


def quantile_ms(seconds: list[float], share: float) -> float:
    return 1000 * float(np.quantile(seconds, share)) if seconds else float("nan")
