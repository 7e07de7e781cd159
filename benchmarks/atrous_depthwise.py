"""The atrous depthwise convolution, forward and backward, against `F.conv2d`, in one run.

    python benchmarks/atrous_depthwise.py [--rates 6,12,18] [--threads 2] [--rounds 9]
    python benchmarks/atrous_depthwise.py --sweep

Both get the same float32 tensors in channels_last, the layout of `xception train`; `F.conv2d` is
also timed in torch's default layout (NCHW), lest its slowness be that of a layout. In each round
the sides take turns, forward and backward apart; figures are medians, ratios those of each round.
Freed memory is kept by the allocator for all of them, as in `xception train` (--no-keep: not).
The gradients by image and by kernel are both taken. Largest differences are printed too.

`--sweep` times shapes around the rule of `xception.layers.atrous.pays`: one line for each, with
the rule's answer, and at the end how often the rule was wrong by more than a tenth.

On a machine that others share, `--clock process --threads 1` times the processor's work instead.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from xception.layers.atrous import atrous_depthwise, pays
from xception.training.allocator import keep_freed_memory

Convolution = Callable[[Tensor, Tensor, int], Tensor]
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
SWEEP = [  # batch, channels, side, rate
    *((4, 2048, 16, rate) for rate in (2, 6, 12, 18)),
    *((2, 2048, 33, rate) for rate in (2, 6, 12, 18, 24)),
    *((1, 2048, 65, rate) for rate in (12, 24, 36)),
    *((4, 1536, 16, rate) for rate in (2, 4)),
    *((4, channels, 32, rate) for channels in (64, 256, 728) for rate in (2, 4, 8)),
    *((1, channels, 16, rate) for channels in (256, 512, 1024) for rate in (2, 6)),
    *((2, 128, side, 2) for side in (8, 16, 24, 32, 48, 64)),
    *((16, channels, side, 2) for channels in (64, 128, 256, 384) for side in (4, 6)),
    *((8, channels, 8, rate) for channels in (64, 128, 256) for rate in (3, 6)),
]


def plain(x: Tensor, kernel: Tensor, rate: int) -> Tensor:
    return F.conv2d(x, kernel, None, 1, rate, rate, x.shape[1])


def ours(x: Tensor, kernel: Tensor, rate: int) -> Tensor:
    return atrous_depthwise(x, kernel, None, rate)


class Side:
    """One way of computing it, on tensors of its own layout."""

    def __init__(self, function: Convolution, x: Tensor, kernel: Tensor, grad: Tensor, rate: int):
        self.function, self.rate = function, rate
        self.x = x.detach().requires_grad_()
        self.kernel = kernel.detach().requires_grad_()
        self.grad = grad
        self.times: list[tuple[float, float]] = []  # forward, backward

    def answers(self) -> list[Tensor]:
        y = self.function(self.x, self.kernel, self.rate)
        return [y.detach(), *torch.autograd.grad(y, (self.x, self.kernel), self.grad)]

    def run(self, clock: Callable[[], float]) -> None:
        start = clock()
        y = self.function(self.x, self.kernel, self.rate)
        middle = clock()
        torch.autograd.grad(y, (self.x, self.kernel), self.grad)
        self.times.append((middle - start, clock() - middle))

    def median_ms(self, part: int | None) -> float:
        """Of the forward pass (0), the backward pass (1), or both (None)."""
        return 1e3 * statistics.median(sum(t) if part is None else t[part] for t in self.times)


def compared(shape: tuple[int, int, int, int], rate: int, rounds: int, clock) -> dict[str, Side]:
    """The sides after as many rounds, behind one to warm up."""
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, (shape[1], 1, 3, 3), shape)
    x, kernel, grad = (torch.randn(size, generator=generator) for size in sizes)
    last = [one.to(memory_format=torch.channels_last) for one in (x, grad)]
    sides = {
        "ours": Side(ours, last[0], kernel, last[1], rate),
        "F.conv2d": Side(plain, last[0], kernel, last[1], rate),
        "F.conv2d, NCHW": Side(plain, x, kernel, grad, rate),
    }
    for _ in range(rounds + 1):
        for side in sides.values():
            side.run(clock)
    for side in sides.values():
        side.times.pop(0)
    return sides


def ratio(one: Side, other: Side) -> float:
    """How many times faster `one` is: the median of the rounds."""
    pairs = zip(one.times, other.times, strict=True)
    return statistics.median(sum(b) / sum(a) for a, b in pairs)


def difference(one: Side, other: Side) -> float:
    """The largest, as a share of the largest value."""
    pairs = zip(one.answers(), other.answers(), strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def report(shape: tuple[int, int, int, int], rates: list[int], rounds: int, clock) -> Iterator[str]:
    yield "| rate | | forward ms | backward ms | both ms | ours is faster | difference |"
    yield "|---|---|---|---|---|---|---|"
    totals: dict[str, float] = {}
    for rate in rates:
        sides = compared(shape, rate, rounds, clock)
        for name, side in sides.items():
            totals[name] = totals.get(name, 0.0) + side.median_ms(None)
            times = " | ".join(f"{side.median_ms(part):.1f}" for part in (0, 1, None))
            faster = "" if name == "ours" else f"{ratio(sides['ours'], side):.1f}×"
            error = "" if name == "ours" else f"{difference(sides['ours'], side):.1e}"
            yield f"| {rate} | {name} | {times} | {faster} | {error} |"
    for name, total in totals.items():
        yield f"| all | {name} | | | {total:.1f} | {total / totals['ours']:.1f}× | |"


def sweep(rounds: int, clock) -> Iterator[str]:
    yield "| batch, channels, side, rate | F.conv2d ms | ours ms | faster | the rule |"
    yield "|---|---|---|---|---|"
    wrong = 0
    for *image, rate in SWEEP:
        batch, channels, side = image
        sides = compared((batch, channels, side, side), rate, rounds, clock)
        mine, theirs = sides["ours"], sides["F.conv2d"]
        says = pays(mine.x.detach().requires_grad_(), mine.kernel, rate)
        faster = ratio(mine, theirs)
        wrong += faster < 0.9 if says else faster > 1.1
        times = f"{theirs.median_ms(None):.2f} | {mine.median_ms(None):.2f}"
        yield f"| {batch}, {channels}, {side}, {rate} | {times} | {faster:.2f}× | {says} |"
    yield f"The rule is wrong by more than a tenth in {wrong} of {len(SWEEP)} shapes."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="6,12,18", help="pixels between two taps")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--side", type=int, default=33)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.keep:
        keep_freed_memory()
    clock = CLOCKS[arguments.clock]
    shape = (arguments.batch, arguments.channels, arguments.side, arguments.side)
    rates = [int(rate) for rate in arguments.rates.split(",")]
    lines = (
        sweep(arguments.rounds, clock)
        if arguments.sweep
        else report(shape, rates, arguments.rounds, clock)
    )
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
