"""A network walked through layer by layer: each time from where everything before is settled.

Layers are exchanged in the order in which they run, and each has to be shown all photos in the
network as it is by then. To run that from the start for every layer would be the greater part of
the work. So a walk keeps, at the last place where memory allows, the values that what follows
needs, and the next layer is reached from there.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from xception.cost.count import evaluation
from xception.separation.watch import Batches, seen_inputs, watch_all

MOST_BYTES = 450 << 20  # of each of two walks; ResNet-50 with 256 photos at 224 stays below 6 GB
PLAIN = (int, float, str, torch.Size, torch.dtype, torch.device)  # of what else a step may need

Values = dict[fx.Node, Any]


class Walk:
    """Inputs of layers that are asked for one after another, while those before are exchanged.

    A network whose steps are seen to depend on what it is given runs from the start each time.
    Not everything is seen: `proven` tells afterwards.

    Args:
        model: the network; a layer may be exchanged once it has been seen for all batches.
        layers: paths of the convolutions that will be asked for, best in the order in which they
            run.
        images: some, on which the steps are compared with the network itself.
        count: how many images there are in all batches together.
        most_bytes: of values that may be kept.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        images: Tensor,
        count: int,
        most_bytes: int = MOST_BYTES,
    ):
        self.model = model
        self._each = most_bytes / count  # bytes for an image
        self._places: dict[int, tuple[int, Values]] = {}  # by batch: the next step, and its needs
        self._steps: _Steps | None = None
        # Any network may come; why its steps cannot be had would help no one.
        try:
            self._steps = _Steps(model, layers)
            self._steps.choose_stops(model, images[:1], self._each)
            if not self._agrees(layers, (images[:2], images[-1:].neg())):
                self._steps = None
        except Exception:
            self._steps = None
        self._places.clear()

    def seen(self, number: int, images: Tensor, name: str, calls: int) -> list[Tensor]:
        """What a convolution is given for a batch, call by call.

        Args:
            number: of the batch, the same each time.
            images: of the batch.
            name: the path of the convolution.
            calls: how often it runs for one image.

        Raises:
            ValueError: the network did not run as often through it.
        """
        if self._steps is None:
            return seen_inputs(self.model, name, calls, images)
        found = self._advance(self._steps, number, images, name)
        if len(found) != calls:
            raise ValueError(f"{name} ran {len(found)} times, and {calls} before")
        return found

    @torch.no_grad()
    def _advance(self, steps: "_Steps", number: int, images: Tensor, name: str) -> list[Tensor]:
        """What the convolution is given for a batch, whose place comes as near as may be."""
        own, stop = steps.calls[name], steps.stops[name]
        start, values = self._places.get(number, (0, {}))
        if start == 0 or start > own[0]:
            self._places.pop(number, None)
            start, values = 0, {steps.nodes[0]: images}
        run = fx.Interpreter(self.model, graph=steps.graph)
        run.env = _copied(values)
        seen: list[Tensor] = []
        with evaluation(self.model):
            for step in range(start, own[-1] + 1):
                node = steps.nodes[step]
                if start < step == stop and _bytes(run.env) <= self._each * len(images):
                    self._places[number] = (step, _copied(run.env))
                if step in own:
                    given = run.fetch_args_kwargs_from_env(node)[0][0]
                    seen.append(given if len(own) == 1 else given.clone())
                if step < own[-1]:
                    _take(run, node)
        return seen

    def _agrees(self, layers: Sequence[str], images: Sequence[Tensor]) -> bool:
        """Whether a walk through these batches, in turn, gives layers what whole runs give them.

        In turn, as it will be used: a network that remembers something else than its values, such
        as the output of an earlier module, would take it from another batch. And each layer twice,
        as one that is very wide is seen. The batches differ in size: some networks look at that.
        """
        whole = [_inputs(self.model, layers, one) for one in images]
        return all(
            _same(self.seen(number, one, name, len(wanted[name])), wanted[name])
            for name in layers
            for _ in range(2)
            for number, (one, wanted) in enumerate(zip(images, whole, strict=True))
        )

    def give_up(self) -> None:
        """Run from the start from now on."""
        self._steps = None
        self._places.clear()

    def proven(self, batches: Batches, name: str, calls: int) -> bool:
        """Whether the walk gives a layer what whole runs give it, for all batches.

        Asked for the last layer, when all before are exchanged, that is: did it go right? What a
        network decides where its steps are not written down, by a value or by the size of a batch,
        may have differed from the images of the start.
        """
        return self._steps is None or all(
            _same(
                self.seen(number, images, name, calls),
                seen_inputs(self.model, name, calls, images),
            )
            for number, images in enumerate(batches())
        )


def pairs(
    changed: Walk, original: Walk, batches: Batches, name: str, calls: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A convolution's inputs in the changed network, each beside its output in the original one.

    Args:
        changed: a walk through the network of which earlier layers have been exchanged.
        original: one through the network as it was.
        batches: the images, the same each time.
        name: the path of the convolution, which both still have.
        calls: how often it runs for one image.

    Yields:
        An input (b m h w) and an output (b n i j) of the same images.
    """
    conv = original.model.get_submodule(name)
    for number, images in enumerate(batches()):
        ours, theirs = (walk.seen(number, images, name, calls) for walk in (changed, original))
        for x, own in zip(ours, theirs, strict=True):
            with torch.no_grad(), evaluation(conv):
                y = conv(own)
            yield x, y


class _Tracer(fx.Tracer):
    """Goes into modules that hold one of the layers, and takes every other for one step."""

    def __init__(self, layers: set[nn.Module]):
        super().__init__()
        self._layers = layers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._layers or self._layers.isdisjoint(m.modules())

    def get_fresh_qualname(self, prefix: str) -> str:
        # A constant of the forward function, which would become an attribute of the network.
        raise NotImplementedError(prefix)


class _Steps:
    """A network as a list of steps, as far as the last layer that will be asked for."""

    def __init__(self, model: nn.Module, layers: Sequence[str]):
        # A copy, in which it does not matter what the network keeps of such a run.
        one = copy.deepcopy(model).eval()
        self.graph = _Tracer({one.get_submodule(name) for name in layers}).trace(one)
        self.nodes = list(self.graph.nodes)
        while not any(_runs(self.nodes[-1], name) for name in layers):
            self.graph.erase_node(self.nodes.pop())
        self.calls = {
            name: [i for i, node in enumerate(self.nodes) if _runs(node, name)] for name in layers
        }
        """The steps at which a layer runs."""
        self.stops: dict[str, int] = {}
        """For each layer the last step before it whose needs may be kept; 0 is the start."""

    @torch.no_grad()
    def choose_stops(self, model: nn.Module, image: Tensor, each: float) -> None:
        """Set `stops` by what one image takes, of which there may be `each` bytes."""
        run = fx.Interpreter(model, graph=self.graph)
        run.env = {self.nodes[0]: image.clone()}
        room = []
        with evaluation(model):
            for node in self.nodes:
                room.append(_bytes(run.env))
                _take(run, node)
        for name, own in self.calls.items():
            fitting = [step for step in range(own[0] + 1) if room[step] <= each]
            self.stops[name] = max(fitting, default=0)


def _runs(node: fx.Node, name: str) -> bool:
    return node.op == "call_module" and node.target == name


def _take(run: fx.Interpreter, node: fx.Node) -> None:
    """One step, after which what no other needs is forgotten."""
    if node.op != "placeholder":
        run.env[node] = run.run_node(node)
    for done in run.user_to_last_uses.get(node, []):
        del run.env[done]
    if not node.users:
        del run.env[node]


def _inputs(model: nn.Module, layers: Sequence[str], images: Tensor) -> dict[str, list[Tensor]]:
    """What layers are given in a whole run: by path and call."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    watch_all(
        model,
        [model.get_submodule(name) for name in layers],
        lambda: [images.clone()],
        lambda place, x, y: seen[layers[place]].append(x.clone()),
    )
    return seen


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


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
