"""A forward pass, written down operator by operator.

The trace stands below modules and functions, where torch's dispatcher runs single operators, and
notes beside each in which module it ran. Every tensor on the way carries a note of what it is: made
of weights alone or of the image too, its receptive field, the convolution that it comes from.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xception.cost.field import Field, image_field
from xception.cost.machine import synchronize
from xception.cost.operators import FREE, Convolution, Kind, moved
from xception.cost.shapes import SHAPES
from xception.cost.step import Note, Step


class Operator(NamedTuple):
    """One operator that ran, other than a mere view."""

    name: str  # as torch calls it, "convolution"
    module: str  # path of the innermost module that was running
    kind: Kind
    macs: int | None  # None: does not multiply as a convolution or a matrix product does
    read_bytes: int
    written_bytes: int
    weights: tuple[str, ...]  # parameters that it uses, sorted; views and sums of them count
    factor: tuple[str, ...]  # those of them that it multiplies by
    output: tuple[int, ...]
    field: Field | None
    convolution: Convolution | None
    takes: int | None  # index of the multiplying operator whose result it works on
    passes: bool  # channel by channel, so that the result still is that operator's
    seconds: float


class Output(NamedTuple):
    """What a module returned when it last ran, if that was one tensor."""

    shape: tuple[int, ...]
    field: Field | None


class BookkeepingError(Exception):
    """An operator ran, but could not be written down: a fault of ours."""


class Trace(TorchDispatchMode):
    """Writes down the operators that run while it is entered and `modules` is watched.

    Args:
        model: the network whose modules are watched.
        parameters: its parameters (and buffers, under the name "") as they are used.
        timed_on: measure the time of each operator on this device, which is waited for.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[tuple[str, Tensor]],
        *,
        timed_on: torch.device | None = None,
    ):
        super().__init__()
        self.operators: list[Operator] = []
        self.calls: dict[str, int] = {}
        self.outputs: dict[str, Output] = {}
        modules = list(model.named_modules())
        self.leaves = {name for name, module in modules if not any(True for _ in module.children())}
        self._modules = modules
        self._running: list[str] = []
        self._timed_on = timed_on
        # By identity: they live as long as the trace.
        self._kept = [tensor for _, tensor in parameters]
        self._notes = {
            id(tensor): Note(frozenset([name]) if name else frozenset())
            for name, tensor in parameters
        }

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch would load its compiler (2 s) to keep it from compiling this class."""
        return False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note which modules run meanwhile."""
        handles = []
        for name, module in self._modules:
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(partial(self._leave, name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._running.clear()

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self._running.append(name)
        self.calls[name] = self.calls.get(name, 0) + 1

    def _leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._running.pop()
        if isinstance(output, Tensor):
            self.outputs[name] = Output(tuple(output.shape), self.note(output).field)

    def begin(self, image: Tensor) -> None:
        """Mark an input of the network, of which everything computed from it is told apart."""
        note = Note(weights=None, field=image_field(image))
        image._cost_note = note  # pyright: ignore[reportAttributeAccessIssue]

    def note(self, tensor: Tensor) -> Note:
        """What is known of a tensor; one never seen was made outside, as weights are."""
        kept = self._notes.get(id(tensor))
        return kept or getattr(tensor, "_cost_note", Note())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operator and write it down."""
        name = func.overloadpacket.__name__
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        start = self._now()
        out = None
        if name in SHAPES and inputs and inputs[0].is_meta and not kwargs:
            out = SHAPES[name](args)
        if out is None:
            out = func(*args, **(kwargs or {}))
        seconds = self._now() - start
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if outputs:
            step = Step(func, name, args, [(one, self.note(one)) for one in inputs], outputs)
            try:
                self._write(step, seconds)
            except Exception as error:  # not to be taken for the network's
                raise BookkeepingError(name) from error
        return out

    def _write(self, step: Step, seconds: float) -> None:
        """Note what an operator did, and mark what it gave."""
        note = step.result(len(self.operators))
        if not (step.func.is_view or step.name in FREE):
            self.operators.append(self._operator(step, note, seconds))
        for tensor in step.outputs:
            if id(tensor) not in self._notes:
                tensor._cost_note = note  # pyright: ignore[reportAttributeAccessIssue]

    def _operator(self, step: Step, note: Note, seconds: float) -> Operator:
        tensors = [tensor for tensor, _ in step.inputs]
        written = [one for one in tensors if any(one is other for other in step.outputs)]
        read_bytes, written_bytes = moved(step.name, tensors, step.outputs, written)
        used = frozenset[str]().union(*(n.weights for _, n in step.inputs if n.weights is not None))
        return Operator(
            name=step.name,
            module=self._running[-1] if self._running else "",
            kind=step.kind,
            macs=step.macs,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
            weights=tuple(sorted(used)),
            factor=tuple(sorted(step.factor_weights)),
            output=tuple(step.outputs[0].shape),
            field=note.field,
            convolution=step.convolution,
            takes=step.source,
            passes=step.macs is None and note.source is not None,
            seconds=seconds,
        )

    def _now(self) -> float:
        """Seconds, once the device has done what it was told to."""
        if self._timed_on is None:
            return 0.0
        synchronize(self._timed_on)
        return time.perf_counter()
