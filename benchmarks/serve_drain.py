"""Stop a server under load many times; nothing that it accepted may be lost.

    python benchmarks/serve_drain.py [--drains 20] [--seed 0]

Each time a server is started, asked at about 0.8 of its capacity over kept and fresh connections,
and sent SIGTERM at a random moment. A request is lost if it was sent on a connection that was
accepted, and no whole answer came back. Requests that find the door closed, or are refused with
503, are not lost: their callers know. The process must end with status 143.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from serve_client import (
    Client,
    Outcome,
    Running,
    as_many_as_possible,
    make_photos,
    make_run,
    poisson,
    request,
    serving,
)


async def drain(server: Running, requests: list[bytes], moment: float, seed: int) -> list[Outcome]:
    kept = Client(server.port)
    rate = 0.4 * await as_many_as_possible(kept, requests, 2, 8)

    async def fresh() -> list[Outcome]:
        outcomes, rng = [], random.Random(seed)
        end = time.perf_counter() + moment + 4
        while time.perf_counter() < end:
            await asyncio.sleep(rng.expovariate(rate))
            client = Client(server.port)
            outcomes.append(asyncio.create_task(client.send(requests[0])))
            outcomes[-1].add_done_callback(lambda _, client=client: client.close())
        return list(await asyncio.gather(*outcomes))

    async def stop() -> list[Outcome]:
        await asyncio.sleep(moment)
        server.process.send_signal(signal.SIGTERM)
        return []

    found = await asyncio.gather(poisson(kept, requests, rate, moment + 4, seed), fresh(), stop())
    kept.close()
    return [outcome for outcomes in found for outcome in outcomes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drains", type=int, default=20)
    parser.add_argument("--model", default="mobilenet_v1")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    total: Counter[int] = Counter()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", arguments.model, arguments.size)
        requests = [request(photo) for photo in make_photos(8, 320, 240)]
        for number in range(arguments.drains):
            with serving(run, Path(folder) / f"log-{number}") as server:
                outcomes = asyncio.run(drain(server, requests, moments.uniform(1, 3), number))
                status = server.process.wait(90)
                stopped = server.events()[-1]["event"]
            counts = Counter(outcome.status for outcome in outcomes)
            print(f"{number}: {dict(counts)}, exit status {status}, {stopped}", file=sys.stderr)
            good &= status == 143 and stopped == "stopped" and set(counts) <= {200, 503, -1}
            total += counts
    print(
        f"| {arguments.drains} drains under load | {total[200]} answered, {total[503]} refused, "
        f"{total[-1]} found the door closed, {total[0]} lost | 0 lost | "
        f"{'met' if good else 'NOT MET'} |"
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
