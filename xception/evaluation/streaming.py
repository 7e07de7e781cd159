"""Maps that pass through layers in bands of rows, for images that memory does not hold at once.

A layer that looks at its neighbourhood needs some rows above and below those that it makes. So the
bands of its input overlap by exactly these, and its output is what it would have made of the whole.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xception.layers.conv import Conv2d, MaxPool2d
from xception.layers.padding import edges

# Children that stand beside the path through their module, not in it.
BESIDE = ("shortcut", "smaller")


@dataclass(frozen=True)
class Step:
    """Layers that are run together.

    Args:
        run: an image or map to a map.
        above: rows of the input above its own that a row of the output may depend on.
        below: the same below.
        stride: rows of the input for a row of the output.
        period: where a band is cut, the rows on either side must be so many times a whole number
            (but for what lies behind the last cut): the padding of some layers depends on it.
    """

    run: Callable[[Tensor], Tensor]
    above: int = 0
    below: int = 0
    stride: int = 1
    period: int = 1

    @classmethod
    def of(cls, *modules: nn.Module) -> "Step":
        """The step that runs some modules one after another."""
        above = below = 0
        stride = period = 1
        for layer in (layer for module in modules for layer in _windows(module)):
            window = _Window.of(layer)
            above += window.above * stride
            below += window.below * stride
            period = math.lcm(period, window.period * stride)
            stride *= window.stride
        return cls(nn.Sequential(*modules), above, below, stride, period)


@dataclass
class Stream:
    """A step that is given its input band by band and gives its output so.

    Args:
        step: what is run.
        before: rows of the whole input.
        after: rows of the whole output.
        rows: of the output, the least that is made at once (but for the last).
        most: the most that is made at once; None is as many as there are.
    """

    step: Step
    before: int
    after: int
    rows: int = 1
    most: int | None = None
    _held: list[Tensor] = field(default_factory=list)
    _start: int = 0  # the row of the input that what is held begins with
    _end: int = 0  # the row behind it
    _made: int = 0  # rows of the output so far

    def push(self, band: Float[Tensor, "1 c h w"]) -> Iterator[Float[Tensor, "1 f i j"]]:
        """The next rows of the input; gives the next rows of the output, if it can make enough."""
        self._held.append(band)
        self._end += band.shape[2]
        del band  # here and below: what follows may take long, and nothing is to be kept for it
        done = self._end == self.before
        ready = self.after if done else self._ready(self._end)
        if ready - self._made < (1 if done else self.rows):
            return
        self._held = [torch.cat(self._held, dim=2)] if len(self._held) > 1 else self._held
        while self._made < ready:
            until = ready if self.most is None else min(self._made + self.most, ready)
            made = [self._run(until)]
            self._forget()
            yield made.pop()

    def _ready(self, end: int) -> int:
        """The rows of the output that need no row of the input from `end` on."""
        end -= (end - self.before) % self.step.period
        return max((end - 1 - self.step.below) // self.step.stride + 1, 0)

    def _run(self, until: int) -> Tensor:
        """The rows of the output from the next one to `until`."""
        step = self.step
        end = self.before
        if until < self.after:
            needed = (until - 1) * step.stride + step.below + 1
            end = min(needed + (self.before - needed) % step.period, self.before)
        made = step.run(self._held[0][:, :, : end - self._start])
        first = self._start // step.stride  # the row of the output that `run` begins with
        made = made[:, :, self._made - first : until - first]
        self._made = until
        return made

    def _forget(self) -> None:
        """Keep only the rows of the input that the next rows of the output depend on."""
        step = self.step
        keep = max(self._made * step.stride - step.above, 0) // step.period * step.period
        keep = min(keep, self._end)
        self._held, self._start = [self._held[0][:, :, keep - self._start :].clone()], keep


class Chain:
    """Steps that follow one another, each a stream.

    Args:
        steps: in their order.
        sample: a narrow image with as many rows as the whole: says how many rows each step gives.
        widening: how many times wider the whole is.
        band_bytes: what the maps between the steps should take, about, for each band.
    """

    def __init__(
        self,
        steps: list[Step],
        sample: Float[Tensor, "1 c h w"],
        *,
        widening: float,
        band_bytes: int,
    ):
        self.streams: list[Stream] = []
        largest = 0.0  # bytes of a map for each row of the image, as long as there are strides
        rows = sample.shape[2]
        lowering = max((i for i, step in enumerate(steps) if step.stride > 1), default=-1)
        for i, step in enumerate(steps):
            before = sample.shape[2]
            sample = step.run(sample)
            stream = Stream(step, before, sample.shape[2])
            bytes_of = sample.nbytes * widening
            if i <= lowering:
                largest = max(largest, bytes_of / rows)
            else:  # from here on it is few rows but many channels
                fitting = max(int(band_bytes * sample.shape[2] / bytes_of), 1)
                stream.most = max(fitting, step.above + step.below)
                if i == lowering + 1:
                    stream.rows = fitting
            self.streams.append(stream)
        self.image_rows = max(int(band_bytes / largest), 1) if largest else rows

    def push(
        self, band: Float[Tensor, "1 c h w"]
    ) -> Iterator[tuple[int, Float[Tensor, "1 _ _ _"]]]:
        """What the steps give for the next rows of the image, each with the number of its step."""
        at_work = [self.streams[0].push(band)]
        del band
        while at_work:  # the last of them first: few bands are there at once
            given = next(at_work[-1], None)
            if given is None:
                at_work.pop()
                continue
            number = len(at_work) - 1
            yield number, given
            if number + 1 < len(self.streams):
                at_work.append(self.streams[number + 1].push(given))
            del given


@dataclass(frozen=True)
class _Window:
    """How a layer looks at rows: see `Step`."""

    above: int
    below: int
    stride: int
    period: int

    @classmethod
    def of(cls, layer: nn.Conv2d | MaxPool2d) -> "_Window":
        kernel, stride, dilation = map(_one, (layer.kernel_size, layer.stride, layer.dilation))
        reach = (kernel - 1) * dilation
        if isinstance(layer, MaxPool2d):
            period = 2 * dilation if stride > 1 else 1
            return cls(reach, reach, 1 if layer.dense else stride, period)
        if isinstance(layer, Conv2d):
            both = (64, 65)  # an even and an odd number of rows
            tops = [edges(n, n, layer.edge_padding, kernel, stride, dilation)[2] for n in both]
        elif isinstance(layer.padding, str):
            tops = [reach // 2 if layer.padding == "same" else 0]
        else:
            tops = [layer.padding[0]]
        return cls(max(tops), max(reach - min(tops), 0), stride, stride)


def _windows(module: nn.Module) -> Iterator[nn.Conv2d | MaxPool2d]:
    """The layers on the path through a module that look at a neighbourhood, in their order."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | MaxPool2d) and not set(name.split(".")) & set(BESIDE):
            yield layer


def _one(value: int | tuple[int, ...]) -> int:
    """The number of rows in a size that may be given for each axis."""
    return value if isinstance(value, int) else value[0]
