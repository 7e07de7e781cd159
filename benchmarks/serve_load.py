"""The server at 0.7 of its capacity, and at five times as much as it can do.

    python benchmarks/serve_load.py [--model xception] [--size 299] [--seconds 60] [--run RUN]
    python benchmarks/serve_load.py --seconds 600

All in one run against one server: the time of a request that is alone; the capacity, as answers in
a second while many callers ask again as soon as they are answered; then Poisson arrivals at 0.7 of
it, where nothing may fail and p99 may be five times the time of a lone request; then Poisson
arrivals at 5 times the capacity, where answers must come at 0.9 of it and 99 % of the refusals
within 100 ms; and what the process holds in memory before and after. The client shares the machine
with the server.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from serve_client import (
    Client,
    Running,
    as_many_as_possible,
    make_photos,
    make_run,
    one_by_one,
    poisson,
    quantile_ms,
    request,
    serving,
)

FLAT = 1.1  # times the memory before, for what the allocator keeps


async def measure(server: Running, arguments: argparse.Namespace) -> bool:
    requests = [request(photo) for photo in make_photos(16)]
    client = Client(server.port)
    await one_by_one(client, requests, 3)
    alone = await one_by_one(client, requests, arguments.alone)
    capacity = await as_many_as_possible(client, requests, arguments.capacity_seconds, 24)
    begun_mb = server.rss_mb()
    print(f"| alone, median | {1000 * alone:.1f} ms |\n| capacity | {capacity:.2f} a second |")

    calm = await poisson(client, requests, 0.7 * capacity, arguments.seconds)
    wrong = Counter(outcome.status for outcome in calm if outcome.status != 200)
    p50, p99 = (quantile_ms([outcome.seconds for outcome in calm], q) for q in (0.5, 0.99))
    calm_good = not wrong and p99 <= 5000 * alone
    print(
        f"| at 0.7 of it, {arguments.seconds:g} s, {len(calm)} requests | "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms = {p99 / 1000 / alone:.2f} times alone; "
        f"errors: {dict(wrong) or 'none'} | none, ≤ 5 times | {met(calm_good)} |"
    )
    calm_mb = server.rss_mb()

    storm = await poisson(client, requests, 5 * capacity, arguments.overload_seconds, seed=1)
    start = min(outcome.sent for outcome in storm)
    # What is answered after the last arrival is not counted: the queue would flatter.
    answered = [
        outcome
        for outcome in storm
        if outcome.status == 200
        and outcome.sent + outcome.seconds < start + arguments.overload_seconds
    ]
    goodput = len(answered) / arguments.overload_seconds
    refused = [outcome.seconds for outcome in storm if outcome.status == 503]
    statuses = dict(Counter(outcome.status for outcome in storm))
    quick = sum(seconds <= 0.1 for seconds in refused) / max(len(refused), 1)
    storm_good = goodput >= 0.9 * capacity and quick >= 0.99 and set(statuses) <= {200, 503}
    print(
        f"| at 5 times it, {arguments.overload_seconds:g} s, {len(storm)} requests | "
        f"goodput {goodput:.2f} a second = {goodput / capacity:.2f} of capacity; "
        f"{100 * quick:.2f} % of {len(refused)} refusals within 100 ms "
        f"(p99 {quantile_ms(refused, 0.99):.1f} ms); {statuses} | "
        f"≥ 0.9, ≥ 99 % | {met(storm_good)} |"
    )
    storm_mb = server.rss_mb()
    flat = storm_mb < FLAT * begun_mb
    print(
        f"| memory | {begun_mb:.0f} MB after the capacity, {calm_mb:.0f} MB after 0.7, "
        f"{storm_mb:.0f} MB after 5 times | flat: < {FLAT} times | {met(flat)} |"
    )
    client.close()
    return calm_good and storm_good and flat


def met(good: bool) -> str:
    return "met" if good else "NOT MET"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run to serve instead of random weights")
    parser.add_argument("--model", default="xception")
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--capacity-seconds", type=float, default=30)
    parser.add_argument("--overload-seconds", type=float, default=30)
    parser.add_argument("--alone", type=int, default=30, help="lone requests")
    parser.add_argument("options", nargs="*", help="of xception serve, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or make_run(Path(folder) / "run", arguments.model, arguments.size)
        with serving(run, Path(folder) / "log", *arguments.options) as server:
            good = asyncio.run(measure(server, arguments))
    sys.exit(not good)


if __name__ == "__main__":
    main()
