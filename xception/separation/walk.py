"""A network walked through layer by layer: each time from where everything before is settled.

Layers are exchanged in the order in which they run, and each has to be shown all photos in the
network as it is by then. To run that from the start for every layer would be the greater part of
the work. So a walk keeps, at the last place where memory allows, the values that what follows
needs, and the next layer is reached from there: to the bit with the same result.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from xception.cost.count import evaluation
from xception.separation.watch import Batches, inputs_of

MOST_BYTES = 1 << 29
COMPARED = 2  # images
PLAIN = (int, float, str, torch.Size, torch.dtype, torch.device)  # of what else a step may need

Values = dict[fx.Node, Any]


class Walk:
    """Inputs of layers that are asked for one after another, while those before are exchanged.

    A network whose steps depend on what it is given runs from the start each time.

    Args:
        model: the network; a layer may be exchanged as soon as the next one is asked for.
        layers: paths of the convolutions that will be asked for, in the order in which they run.
        batches: the images.
        count: how many images.
        most_bytes: of values that may be kept.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        batches: Batches,
        count: int,
        most_bytes: int = MOST_BYTES,
    ):
        self.model, self._batches = model, batches
        self._each = most_bytes / count  # bytes for an image
        self._steps = _written_down(model, layers, next(iter(batches()))[:COMPARED])
        self._places: dict[int, tuple[int, Values]] = {}  # by batch: the next step, and its needs
        self._last: dict[str, int] = {}  # for a layer: the last step before it that can be kept

    def inputs(self, name: str, calls: int) -> Iterator[list[Tensor]]:
        """What a convolution is given, batch by batch: a list of its calls.

        Can be asked for again until another convolution is.
        """
        if self._steps is None:
            yield from inputs_of(self.model, name, calls, self._batches)
            return
        for number, images in enumerate(self._batches()):
            yield self._seen(self._steps, number, images, name)

    @torch.no_grad()
    def _seen(self, steps: "_Steps", number: int, images: Tensor, name: str) -> list[Tensor]:
        """What the convolution is given for one batch, whose place comes as near as may be."""
        own = steps.calls(name)
        start, values = self._places.get(number, (0, {steps.nodes[0]: images}))
        run = fx.Interpreter(self.model, graph=steps.graph)
        run.env = _copied(values)
        seen: list[Tensor] = []
        with evaluation(self.model):
            for step in range(start, own[-1] + 1):
                node = steps.nodes[step]
                if start < step == self._last.get(name, step) <= own[0]:
                    self._keep(number, step, run.env, len(images))
                if step in own:
                    given = run.fetch_args_kwargs_from_env(node)[0][0]
                    seen.append(given if len(own) == 1 else given.clone())
                if step < own[-1]:
                    _take(run, node)
        self._last.setdefault(name, self._places.get(number, (0, {}))[0])
        return seen

    def _keep(self, number: int, step: int, values: Values, images: int) -> None:
        """Go on from here the next time, if there is room for that."""
        if _bytes(values) <= self._each * images:
            self._places[number] = (step, _copied(values))


def pairs(changed: Walk, original: Walk, name: str, calls: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A convolution's inputs in the changed network, each beside its output in the original one.

    Args:
        changed: a walk through the network of which earlier layers have been exchanged.
        original: one through the network as it was.
        name: the path of the convolution, which both still have.
        calls: how often it runs for one image.

    Yields:
        An input (b m h w) and an output (b n i j) of the same images.
    """
    conv = original.model.get_submodule(name)
    for ours, theirs in zip(changed.inputs(name, calls), original.inputs(name, calls), strict=True):
        for x, own in zip(ours, theirs, strict=True):
            with torch.no_grad(), evaluation(conv):
                y = conv(own)
            yield x, y


class _Steps(NamedTuple):
    """A network as a list of steps, as far as the last layer that will be asked for."""

    graph: fx.Graph
    nodes: list[fx.Node]

    def calls(self, name: str) -> list[int]:
        """The steps at which a layer runs."""
        return [i for i, node in enumerate(self.nodes) if _is_call(node, [name])]


class _Tracer(fx.Tracer):
    """Goes into modules that hold one of the layers, and takes every other for one step."""

    def __init__(self, layers: Sequence[str]):
        super().__init__()
        parts = [name.split(".") for name in layers]
        self._inside = {".".join(one[:end]) for one in parts for end in range(1, len(one))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._inside


def _written_down(model: nn.Module, layers: Sequence[str], images: Tensor) -> _Steps | None:
    """The steps of a network; None unless they give each layer what the network itself gives it."""
    try:
        with evaluation(model):
            graph = _Tracer(layers).trace(model)
        nodes = list(graph.nodes)
        while not _is_call(nodes[-1], layers):
            graph.erase_node(nodes.pop())
        steps = _Steps(graph, nodes)
        with torch.no_grad(), evaluation(model):
            wanted = _inputs(model, layers, lambda: model(images.clone()))
            given = _inputs(model, layers, lambda: _run(model, steps, images.clone()))
    except Exception:  # any network may come, and to say why its steps cannot be had helps no one
        return None
    same = len(wanted) == len(given) and all(map(torch.equal, wanted, given))
    return steps if same else None


def _run(model: nn.Module, steps: _Steps, images: Tensor) -> None:
    run = fx.Interpreter(model, graph=steps.graph)
    run.env = {steps.nodes[0]: images}
    for node in steps.nodes:
        _take(run, node)


def _take(run: fx.Interpreter, node: fx.Node) -> None:
    """One step, after which what no other needs is forgotten."""
    if node.op != "placeholder":
        run.env[node] = run.run_node(node)
    for done in run.user_to_last_uses.get(node, []):
        del run.env[done]
    if not node.users:
        del run.env[node]


def _inputs(model: nn.Module, layers: Sequence[str], run: Callable[[], object]) -> list[Tensor]:
    """What layers are given in a run, call by call."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].clone())

    with ExitStack() as hooks:
        for name in layers:
            hooks.callback(model.get_submodule(name).register_forward_pre_hook(keep).remove)
        run()
    return seen


def _is_call(node: fx.Node, layers: Sequence[str]) -> bool:
    return node.op == "call_module" and node.target in layers


def _bytes(values: Values) -> float:
    """Of the tensors; without end where copies would not do, as two share memory."""
    tensors = {id(one): one for one in values.values() if isinstance(one, Tensor)}
    stores = {one.untyped_storage().data_ptr() for one in tensors.values()}
    others = [one for one in values.values() if not isinstance(one, Tensor)]
    if len(stores) < len(tensors) or not all(isinstance(one, PLAIN) for one in others):
        return math.inf
    return sum(one.nbytes for one in tensors.values())


def _copied(values: Values) -> Values:
    """With tensors of its own: steps may write into what they are given."""
    copies = {id(one): one.clone() for one in values.values() if isinstance(one, Tensor)}
    return {node: copies.get(id(one), one) for node, one in values.items()}
