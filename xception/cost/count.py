"""What a network costs on paper: parameters, multiply-accumulates and bytes, layer by layer.

The network runs on shapes alone (torch's meta device): nothing is computed, and an image of any
size costs no memory. What runs is written down by operator, so that it does not matter whether a
network is made of modules or of functions.

- `parameters`: trainable values. Running statistics are not among them.
- `macs`: multiply-accumulates of convolutions and matrix products for one image, one multiply-add
  being 1 (FLOPs as others count them are 2 x MACs). Padding counts like any pixel. Biases,
  normalisation (which folds into the convolution before it), activations, pooling, resizing and
  sums are left out, as papers do; `uncounted` lists them all.
- `bytes`: what the operators move for one image, each on its own: its weights and its input read,
  its output written. Fusing operators moves less.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xception.cost.operators import KINDS, Kind
from xception.cost.rows import Layer, Rows
from xception.cost.trace import Operator, Trace
from xception.errors import UserError


class Total(TypedDict):
    """The sums over a network."""

    parameters: int
    macs: int
    bytes: int


class Group(TypedDict):
    """All layers of one kind."""

    kind: Kind
    layers: int
    parameters: int
    macs: int
    bytes: int


# What torch raises where values are missing, and networks where an input does not suit them.
REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)


@dataclass(frozen=True)
class Cost:
    """What one image costs."""

    total: Total
    layers: tuple[Layer, ...]  # in the order in which they run
    uncounted: dict[str, int]  # operators whose arithmetic is not in `macs`, and how often they ran
    operators: tuple[Operator, ...]  # all that ran, in order
    steps: tuple[int, ...]  # for each of them its place in `layers`
    values: dict[str, int]  # values of each parameter, by name
    remark: str | None  # what the reader must know of the way it was counted

    def share(self, kind: Kind) -> float:
        """The share of one kind of layer in the MACs, 0 … 1."""
        macs = sum(layer["macs"] for layer in self.layers if layer["kind"] == kind)
        return macs / max(self.total["macs"], 1)

    def groups(self) -> list[Group]:
        """The sums by kind, for the kinds that there are."""
        found = []
        for kind in KINDS:
            layers = [layer for layer in self.layers if layer["kind"] == kind]
            if layers:
                found.append(
                    Group(
                        kind=kind,
                        layers=len(layers),
                        parameters=sum(layer["parameters"] for layer in layers),
                        macs=sum(layer["macs"] for layer in layers),
                        bytes=sum(layer["bytes"] for layer in layers),
                    )
                )
        return found


def count(model: nn.Module, size: int | tuple[int, int], in_channels: int = 3) -> Cost:
    """What the network costs for one image; the network itself is left untouched.

    Args:
        model: takes one tensor of `1 in_channels height width`; on any device, in any mode.
        size: side of the image in pixels, or its height and width.
        in_channels: channels of the image.

    Raises:
        UserError: the network refuses such an image.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return count_call(model, [(1, in_channels, height, width)])


def count_call(model: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Cost:
    """What one call of any network with tensors of these shapes, of its weights' type, costs.

    Where the network cannot run on shapes alone (it looks at values on the way), it runs for real,
    on zeros and the CPU, and the remark says so.

    Raises:
        UserError: it does not run at all, with what it says itself.
    """
    try:
        trace = trace_call(model, shapes, torch.device("meta"))
        remark = None
    except REFUSALS as error:
        reason = _first_line(error)
        try:
            trace = trace_call(model, shapes, torch.device("cpu"))
        except REFUSALS as refusal:
            given = ", ".join("x".join(map(str, shape)) for shape in shapes)
            raise UserError(
                f"the network does not run on an input of {given}: {_first_line(refusal)}"
            ) from refusal
        remark = f"ran for real, on zeros: it cannot run on shapes alone ({reason})"
    return cost_of(model, trace, remark)


def trace_call(model: nn.Module, shapes: Sequence[tuple[int, ...]], device: torch.device) -> Trace:
    """The operators of one call in evaluation mode, with the network moved to a device meanwhile.

    Its parameters are replaced by empty ones on `meta`, and keep their values elsewhere; one that
    has none (the network itself is on `meta`) is zero.
    """

    def moved(tensor: Tensor) -> Tensor:
        if tensor.device == device:
            return tensor
        if tensor.is_meta or device.type == "meta":
            return torch.zeros_like(tensor, device=device)
        return tensor.detach().to(device)

    twins: dict[int, Tensor] = {}
    state = {}
    for name, tensor in _named(model):
        state[name] = twins.setdefault(id(tensor), moved(tensor))
    parameters = {name for name, _ in model.named_parameters()}
    trace = Trace(model, [(name if name in parameters else "", t) for name, t in state.items()])
    with torch.no_grad(), torch.device(device), evaluation(model):
        inputs = tuple(torch.zeros(shape, dtype=float_type(model)) for shape in shapes)
        for image in inputs:
            trace.begin(image)
        with trace.watch(), trace:
            functional_call(model, state, inputs, tie_weights=False)
    return trace


def float_type(model: nn.Module) -> torch.dtype:
    """The type of the first weights that are no whole numbers; float32 if there are none."""
    types = (parameter.dtype for parameter in model.parameters())
    return next((one for one in types if one.is_floating_point), torch.float32)


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers under all their names; of a shared one the first name first."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; every module comes back as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def cost_of(model: nn.Module, trace: Trace, remark: str | None) -> Cost:
    """The layers and sums of what a trace of the network wrote down."""
    values = {name: tensor.numel() for name, tensor in model.named_parameters()}
    rows = Rows(trace, values)
    total = Total(
        parameters=sum(values.values()),  # a shared one counts once
        macs=sum(layer["macs"] for layer in rows.layers),
        bytes=sum(layer["bytes"] for layer in rows.layers),
    )
    uncounted = Counter(one.name for one in trace.operators if one.macs is None)
    return Cost(
        total=total,
        layers=tuple(rows.layers),
        uncounted=dict(uncounted.most_common()),
        operators=tuple(trace.operators),
        steps=tuple(rows.steps),
        values=values,
        remark=remark,
    )


def _first_line(error: Exception) -> str:
    said = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    return said.removesuffix(": ")
