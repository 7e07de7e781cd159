"""What the layers of a network really cost here: time, beside what the machine allows.

The network runs as it would for one image (evaluation mode, channels last, float32), several times;
of each operator the median of its times is taken. The trace that watches it slows what happens
between operators, not the operators. `whole_ms` is the same pass with nobody watching.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from xception.cost.count import Cost, cost_of, evaluation
from xception.cost.machine import Machine, measure_machine, median_ms
from xception.cost.separable import Comparison, Exchange, compare
from xception.cost.trace import Trace

REPEATS = 11
BEATEN = 1.2  # times the ceiling: more than clocks and chance explain


@dataclass(frozen=True)
class Measured:
    """A network's cost on paper and in time."""

    machine: Machine
    cost: Cost
    layers_ms: tuple[float, ...]  # for each of `cost.layers`
    floors_ms: tuple[float, ...]  # the least that the machine allows for each
    whole_ms: float
    comparison: Comparison
    exchanges: tuple["Timed", ...]  # for each of `comparison.separable`

    @property
    def disturbed(self) -> bool:
        """Whether a layer multiplied faster than the ceiling, which an idle machine forbids."""
        layers = zip(self.cost.layers, self.layers_ms, strict=True)
        most = BEATEN * self.machine.macs_per_second / 1e3
        return any(ms > 0 and layer["macs"] / ms > most for layer, ms in layers)


@dataclass(frozen=True)
class Timed:
    """A separable convolution and the regular one that it replaces, in time."""

    separable_ms: float  # depthwise and pointwise convolution, without what stands between them
    regular_ms: float

    @property
    def ratio(self) -> float:
        """The share of the regular convolution's time that the separable one takes."""
        return self.separable_ms / self.regular_ms


def measure(
    model: nn.Module,
    size: int | tuple[int, int],
    in_channels: int = 3,
    *,
    device: torch.device,
    repeats: int = REPEATS,
    machine: Machine | None = None,
) -> Measured:
    """Run the network on one random image and time every layer.

    Args:
        model: with its weights; it is moved to the device and stays there, in channels_last.
        size: side of the image in pixels, or its height and width.
        in_channels: channels of the image.
        device: where to run.
        repeats: runs of which the medians are taken.
        machine: its ceilings, if they have been measured before.
    """
    before = machine or measure_machine(device)
    height, width = (size, size) if isinstance(size, int) else size
    model.to(device)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, in_channels, height, width, generator=generator)
    image = image.to(device, memory_format=torch.channels_last)
    with torch.no_grad(), evaluation(model):
        whole_ms = median_ms(lambda: model(image), device, repeats=repeats)
        traces = [_trace(model, image, device) for _ in range(repeats)]
    # Before and after: other work that came or went would make layers faster than the ceilings.
    machine = machine or before.or_better(measure_machine(device))
    for one, other in pairwise(traces):
        if [step.name for step in one.operators] != [step.name for step in other.operators]:
            raise ValueError("the network does not do the same each time: there is nothing to time")
    cost = cost_of(model, traces[0], None)
    layers_ms = [0.0] * len(cost.layers)
    for step, *runs in zip(cost.steps, *(trace.operators for trace in traces), strict=True):
        layers_ms[step] += 1e3 * statistics.median(run.seconds for run in runs)
    comparison = compare(cost)
    floors_ms = [machine.floor_ms(layer["macs"], layer["bytes"]) for layer in cost.layers]
    return Measured(
        machine=machine,
        cost=cost,
        layers_ms=tuple(layers_ms),
        floors_ms=tuple(floors_ms),
        whole_ms=whole_ms,
        comparison=comparison,
        exchanges=tuple(_timed(cost, layers_ms, comparison.separable, device)),
    )


def _trace(model: nn.Module, image: torch.Tensor, device: torch.device) -> Trace:
    named = [*model.named_parameters(), *(("", buffer) for buffer in model.buffers())]
    trace = Trace(model, named, timed_on=device)
    trace.begin(image)
    with trace.watch(), trace:
        model(image)
    return trace


def _timed(
    cost: Cost, layers_ms: Sequence[float], exchanges: Sequence[Exchange], device: torch.device
) -> list[Timed]:
    """The time of each exchange; regular convolutions of equal shape are timed once."""
    places = {layer["name"]: place for place, layer in enumerate(cost.layers)}
    known: dict[tuple[object, ...], float] = {}
    found = []
    for one in exchanges:
        calls = cost.layers[places[one["depthwise"]]]["calls"]  # of one module, together
        separable_ms = sum(layers_ms[places[one[part]]] for part in ("depthwise", "pointwise"))
        keys = ("in_channels", "out_channels", "kernel", "stride", "dilation", "output")
        shape = tuple(str(one[key]) for key in keys)
        if shape not in known:
            known[shape] = _regular_ms(one, device)
        found.append(Timed(separable_ms / calls, known[shape]))
    return found


def _regular_ms(one: Exchange, device: torch.device) -> float:
    """The time of the regular convolution in place of a separable one; its input is padded."""
    geometry = zip(one["output"], one["kernel"], one["stride"], one["dilation"], strict=True)
    sides = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in geometry]
    x = torch.randn(1, one["in_channels"], *sides, device=device)
    weight = torch.randn(one["out_channels"], one["in_channels"], *one["kernel"], device=device)
    if len(sides) == 2:
        x, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (x, weight))
    none, stride, dilation = [0] * len(sides), one["stride"], one["dilation"]

    def run() -> object:
        return torch.convolution(x, weight, None, stride, none, dilation, False, none, 1)

    with torch.no_grad():
        return median_ms(run, device, repeats=5)
