"""Callers who mean harm, while others go on asking.

    python benchmarks/serve_attack.py [--slow 500] [--malformed 6000] [--seconds 30] [--seed 0]

Three waves against one server, each while a good client asks all the time: slow senders, half of
them in the middle of a head and half in the middle of a body, who send a byte now and then;
malformed requests, made by damaging good ones (heads, multipart bodies, images); and bombs, small
files and requests that unpack to much. The good client must get nothing but answers (or 503), no
caller may get another status of 5xx than 503, and the process must not grow by more than
`GROWTH_MB` in a wave, measured when the wave is over and its callers are gone. The largest photo
that it takes leaves its mark on what the allocator keeps, so the first round of bombs has a limit
of its own.
"""

import argparse
import asyncio
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path

from PIL import Image
from serve_client import (
    Client,
    Outcome,
    Running,
    make_photos,
    make_run,
    one_by_one,
    quantile_ms,
    request,
    serving,
)

# What a wave may leave behind: 100 KB of each of 500 slow senders, and the four photos of 49
# megapixels that come at once, 4 bytes a pixel.
GROWTH_MB = {"slow senders": 50, "malformed": 50, "bombs": 800, "more bombs": 50}
SETTLING_SECONDS = 3.0  # for connections that are left to be noticed

HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"


class Good:
    """A client who keeps asking, `rate` times a second, until it is stopped."""

    def __init__(self, port: int, requests: list[bytes], rate: float):
        self.client, self.requests, self.rate = Client(port), requests, rate
        self.outcomes: list[Outcome] = []

    async def __aenter__(self) -> "Good":
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        self.client.close()

    async def _ask(self) -> None:
        while True:
            self.outcomes.append(await self.client.send(self.requests[0]))
            await asyncio.sleep(1 / self.rate)

    def told(self) -> str:
        counts = dict(Counter(outcome.status for outcome in self.outcomes))
        p99 = quantile_ms([outcome.seconds for outcome in self.outcomes], 0.99)
        return f"good client: {counts}, p99 {p99:.0f} ms"

    def well(self) -> bool:
        return bool(self.outcomes) and {one.status for one in self.outcomes} <= {200, 503}


async def slow_sender(port: int, number: int, seconds: float) -> None:
    """A byte every half second, beginning anew whenever it is cut off."""
    end = time.perf_counter() + seconds
    begun = HEAD if number % 2 else HEAD + b"Content-Length: 100000\r\n\r\n"
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            while time.perf_counter() < end and not writer.is_closing():
                writer.write(b"X")
                await writer.drain()
                try:
                    async with asyncio.timeout(0.5):
                        if not await reader.read(65536):
                            break
                except TimeoutError:
                    continue
            writer.close()
        except OSError:
            await asyncio.sleep(0.1)


async def send_raw(port: int, data: bytes, patience: float) -> int:
    """The status that comes back; 0 if the connection was closed, -2 if nothing came in time.

    A damaged request may well promise more than it holds: then the server is right to wait.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return -1
    try:
        async with asyncio.timeout(patience):
            writer.write(data)
            line = await reader.readline()
            while line.startswith(b"HTTP/1.1 100"):
                await reader.readline()
                line = await reader.readline()
            return int(line.split()[1]) if line else 0
    except TimeoutError:
        return -2
    except (OSError, ValueError, IndexError):
        return 0
    finally:
        writer.close()


def multipart(files: list[bytes]) -> bytes:
    parts = b"".join(
        b'--edge\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\n' + f + b"\r\n"
        for f in files
    )
    return parts + b"--edge--\r\n"


def whole(body: bytes, kind: bytes = b"image/jpeg", path: bytes = b"/predict") -> bytes:
    return (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        % (path, kind, len(body))
    ) + body


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, repeated or put in."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 2, 5, 20))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(5)
        if kind == 0 and found:
            found[at % len(found)] = rng.randrange(256)
        elif kind == 1:
            del found[at : at + rng.choice((1, 4, 100))]
        elif kind == 2:
            found[at:at] = found[at : at + rng.choice((1, 4, 100))]
        elif kind == 3:
            found[at:at] = rng.choice(
                (b"\r\n", b"\x00", b"\xff" * 9, b"%", b"--edge", b":", b"A" * 999)
            )
        else:
            found[at:] = found[at : at + rng.randrange(200)]
    return bytes(found)


def malformed(rng: random.Random, photos: list[bytes], files: list[bytes]) -> bytes:
    kind = rng.randrange(4)
    photo = rng.choice(photos)
    edge = b"multipart/form-data; boundary=edge"
    if kind == 0:  # the head
        head, end, body = whole(photo).partition(b"\r\n\r\n")
        return damaged(head, rng) + end + body
    if kind == 1:  # the frame of the body
        return whole(damaged(multipart([b"x" * 50, b"y"]), rng), edge)
    if kind == 2:  # the image
        return whole(damaged(rng.choice(files), rng))
    start = rng.choice((b"GET", b"PUT", b"POST", b"TRACE", b"CONNECT", b"\xff\xfe"))
    target = rng.choice((b"/", b"/%zz", b"//", b"*", b"/predict?top=" + b"9" * 99, b"http://x/"))
    fields = [
        rng.choice((b"Content-Length: 1", b"Content-Length: x", b"Transfer-Encoding: chunked",
                    b"Expect: 100-continue", b"Upgrade: websocket", b"Connection: upgrade",
                    b"Content-Encoding: br", b"Range: bytes=0-", b"Cookie: " + b"c" * 5000))
        for _ in range(rng.randrange(6))
    ]  # fmt: skip
    return b"\r\n".join([start + b" " + target + b" HTTP/1.1", b"Host: a", *fields, b"", b"5\r\nx"])


def png(width: int, height: int, rows: bytes, *before: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = b"".join(chunk(name, data) for name, data in before)
    end = chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + middle + end


def bombs() -> dict[str, bytes]:
    """Requests by what they are."""
    file = BytesIO()
    Image.new("RGB", (600, 400)).save(file, "JPEG", progressive=True)
    jpeg = file.getvalue()
    scan = jpeg[jpeg.index(b"\xff\xda") : -2]
    zeros = zlib.compress(bytes(50 * 2**20), 9)
    text = b"c\x00\x00" + zlib.compress(bytes(200 * 2**20), 9)
    frames = BytesIO()
    pages = [Image.new("P", (8, 8), n % 250) for n in range(500)]
    pages[0].save(frames, "GIF", save_all=True, append_images=pages[1:])
    wide = bytearray(frames.getvalue())
    wide[6:10] = struct.pack("<HH", 65535, 65535)
    many = multipart([b"x"] * 20_000)
    edge = b"multipart/form-data; boundary=edge"
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 65535) + bytes(12 * 65535)
    webp = b"RIFF\x1e\x00\x00\x00WEBPVP8L\x11\x00\x00\x00\x2f" + b"\xff" * 4 + bytes(12)
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    return {
        "PNG of 50000 × 50000": whole(png(50000, 50000, zeros)),
        "PNG of 7000 × 7000 in 50 KB": whole(png(7000, 7000, zlib.compress(bytes(147_007_000), 9))),
        "PNG with 200 MB of text": whole(png(9, 9, zeros, (b"zTXt", text), (b"iCCP", text))),
        "JPEG of 5,000 scans": whole(jpeg[:-2] + scan * 5000 + b"\xff\xd9"),
        "GIF of 65535 × 65535": whole(bytes(wide)),
        "TIFF of 65,535 tags": whole(tiff),
        "WebP of 16384 × 16384": whole(webp),
        "20,000 parts": whole(many, edge),
        "a body of line ends": whole(b"--edge\r\n" + b"\r\n" * 4_000_000, edge),
        "chunks of one byte": chunked + b"1\r\nx\r\n" * 300_000 + b"0\r\n\r\n",
        "50,000 requests at once": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50_000,
        "a body of 10 TB": HEAD + b"Content-Length: 10995116277760\r\n\r\n" + b"x" * 10_000_000,
        "a head of 10 MB": HEAD + b"X: " + b"x" * 10_000_000,
        "gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n" + b"x" * 9,
    }


class Memory:
    """What the server holds, and whether a wave left more of it than it may."""

    def __init__(self, server: Running):
        self.server, self.held, self.well = server, server.rss_mb(), True
        print(f"| memory before | {self.held:.0f} MB |")

    async def judge(self, wave: str) -> None:
        """Compare with what it was after the wave before."""
        await asyncio.sleep(SETTLING_SECONDS)
        now = self.server.rss_mb()
        grown, most = now - self.held, GROWTH_MB[wave]
        met = grown <= most
        told = f"{now:.0f} MB, grown by {grown:.0f} MB of {most} MB allowed"
        print(f"| memory after {wave} | {told} | {'met' if met else 'NOT MET'} |")
        self.held, self.well = now, self.well and met


async def attack(server: Running, arguments: argparse.Namespace) -> bool:
    photos = make_photos(4, 320, 240)
    files = list(photos)
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF"):
        file = BytesIO()
        Image.open(BytesIO(photos[0])).resize((64, 48)).save(file, kind)
        files.append(file.getvalue())
    requests = [request(photo) for photo in photos]
    port, good = server.port, True
    await one_by_one(Client(port), requests, 20)
    memory = Memory(server)

    async with Good(port, requests, 5) as asking:
        seconds = arguments.seconds
        await asyncio.gather(*(slow_sender(port, n, seconds) for n in range(arguments.slow)))
    print(f"| {arguments.slow} slow senders, {seconds:g} s | {asking.told()} |")
    good &= asking.well()
    await memory.judge("slow senders")

    rng = random.Random(arguments.seed)
    statuses: Counter[int] = Counter()
    async with Good(port, requests, 5) as asking:
        for _ in range(0, arguments.malformed, 100):
            batch = [send_raw(port, malformed(rng, photos, files), 0.7) for _ in range(100)]
            statuses += Counter(await asyncio.gather(*batch))
    print(f"| {arguments.malformed} malformed requests | {dict(statuses)}; {asking.told()} |")
    good &= asking.well() and all(status < 500 or status == 503 for status in statuses)
    await memory.judge("malformed")

    for wave in ("bombs", "more bombs", "more bombs"):
        async with Good(port, requests, 5) as asking:
            for name, data in bombs().items():
                began = time.perf_counter()
                found = await asyncio.gather(*(send_raw(port, data, 60) for _ in range(4)))
                took = time.perf_counter() - began
                told = f"{sorted(found)} in {took:.1f} s, {server.rss_mb():.0f} MB"
                print(f"| bomb: {name} | {told} |")
                good &= all(status < 500 or status == 503 for status in found) and -2 not in found
        print(f"| bombs | {asking.told()} |")
        good &= asking.well()
        await memory.judge(wave)
    alone = await one_by_one(Client(port), requests, 20)
    print(f"| afterwards | {server.rss_mb():.0f} MB, a request takes {1000 * alone:.1f} ms |")
    return good and memory.well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--malformed", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--model", default="mobilenet_v1")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", arguments.model, arguments.size)
        with serving(run, Path(folder) / "log") as server:
            good = asyncio.run(attack(server, arguments))
            faults = [event for event in server.events() if event["event"] == "fault"]
    for fault in faults[:3]:
        print(fault["traceback"], file=sys.stderr)
    good = good and not faults
    print(
        f"| faults of the server | {len(faults)} | no 5xx but 503, no growth, still serving | "
        f"{'met' if good else 'NOT MET'} |"
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
