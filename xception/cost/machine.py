"""What this machine can do at most: multiply-accumulates and bytes per second, both measured.

The two ceilings of a roofline (Williams, Waterman, Patterson 2009): a large matrix product, and a
large sum of two arrays into a third ("triad" of the STREAM benchmark) that no cache holds. A small
layer whose values are still in a cache can beat the second.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

SIDE = 2048  # of the matrices: 8.6 GMAC
VALUES = 2**25  # of each array, 128 MiB in float32


@dataclass(frozen=True)
class Machine:
    """The measured ceilings, in float32."""

    device: str
    threads: int  # of the CPU
    macs_per_second: float
    bytes_per_second: float

    def floor_ms(self, macs: int, moved_bytes: int) -> float:
        """The least time for so much work: what takes longer, the arithmetic or the moving."""
        return 1e3 * max(macs / self.macs_per_second, moved_bytes / self.bytes_per_second)

    def or_better(self, other: "Machine") -> "Machine":
        """The higher of both ceilings of two measurements: a busy machine seems a slow one."""
        return replace(
            self,
            macs_per_second=max(self.macs_per_second, other.macs_per_second),
            bytes_per_second=max(self.bytes_per_second, other.bytes_per_second),
        )

    def bound(self, macs: int, moved_bytes: int) -> str:
        """Which of the two takes longer: "arithmetic" or "bandwidth"."""
        arithmetic = macs / self.macs_per_second >= moved_bytes / self.bytes_per_second
        return "arithmetic" if arithmetic else "bandwidth"


def measure_machine(device: torch.device, *, side: int = SIDE, values: int = VALUES) -> Machine:
    """Measure both ceilings; a second or two, and 400 MB.

    Args:
        device: where.
        side: of the square matrices that are multiplied.
        values: of each of the three arrays.
    """
    a = torch.randn(side, side, device=device)
    b = torch.randn(side, side, device=device)
    product = torch.empty_like(a)
    # The best of several: a ceiling is what can be reached, not what usually is.
    multiply = min(times(lambda: torch.mm(a, b, out=product), device, repeats=7))
    x = torch.ones(values, device=device)
    y = torch.ones(values, device=device)
    z = torch.empty_like(x)
    move = min(times(lambda: torch.add(x, y, alpha=2.0, out=z), device, repeats=7))
    return Machine(
        device=_name(device),
        threads=torch.get_num_threads(),
        macs_per_second=side**3 / multiply,
        bytes_per_second=3 * 4 * values / move,
    )


def times(run: Callable[[], object], device: torch.device, *, repeats: int) -> list[float]:
    """Seconds of each of several runs, after two that warm up; the device is waited for."""
    seconds = []
    for _ in range(repeats + 2):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def median_ms(run: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """The median of several runs in milliseconds."""
    return 1e3 * statistics.median(times(run, device, repeats=repeats))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told to; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
