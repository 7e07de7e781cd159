"""A walk through a network gives what runs from the start give, and does not repeat itself."""

from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xception.models.zoo import create_model
from xception.separation.sites import find_sites
from xception.separation.walk import Walk, pairs
from xception.separation.watch import seen_inputs

from .networks import branches, images, inputs_by_hand


def batches():
    return images(6).split(2)


def walk_of(model: nn.Module, layers: list[tuple[str, int]], most_bytes: int = 1 << 30) -> Walk:
    return Walk(model, [name for name, _ in layers], images(2, 1), 6, most_bytes)


def inputs(walk: Walk, name: str, calls: int) -> list[list[Tensor]]:
    return [walk.seen(number, one, name, calls) for number, one in enumerate(batches())]


def from_the_start(model: nn.Module, name: str, calls: int) -> list[list[Tensor]]:
    return [seen_inputs(model, name, calls, one) for one in batches()]


def same(some: list[list[Tensor]], others: list[list[Tensor]]) -> bool:
    return len(some) == len(others) and all(
        len(one) == len(other) and all(map(torch.equal, one, other))
        for one, other in zip(some, others, strict=True)
    )


def change(model: nn.Module, name: str) -> None:
    with torch.no_grad():
        model.get_parameter(f"{name}.weight").mul_(1.1)


def walked(model: nn.Module, layers: list[tuple[str, int]], most_bytes: int = 1 << 30) -> Walk:
    """A walk during which each layer changes once it has been seen, compared with runs anew."""
    walk = walk_of(model, layers, most_bytes)
    for name, calls in layers:
        expected = from_the_start(model, name, calls)
        for _ in range(2):  # a very wide layer is seen twice
            assert same(inputs(walk, name, calls), expected)
        change(model, name)
    assert not any(module._forward_pre_hooks for module in model.modules())
    return walk


def layers_of(model: nn.Module) -> list[tuple[str, int]]:
    sites = find_sites(model, images(1))
    return [(site.name, site.calls) for site in sites if site.refusal is None]


@pytest.mark.parametrize("most_bytes", [0, 30_000, 60_000, 1 << 30])
def test_inputs_are_those_of_a_run_from_the_start(most_bytes: int):
    """Whatever fits into memory: nothing, some, all."""
    model = branches()
    assert walked(model, layers_of(model), most_bytes)._steps is not None


def test_any_order_will_do():
    model = branches()
    assert walked(model, layers_of(model)[::-1])._steps is not None


@torch.no_grad()
def test_pairs_are_of_two_networks():
    original, changed = branches(), branches()
    change(changed, "stem")
    layers = [("left", 1), ("twice", 2), ("later", 1)]
    ours, theirs = walk_of(changed, layers), walk_of(original, layers)
    for name, calls in layers:
        found = list(pairs(ours, theirs, batches, name, calls))
        given = [x for part in batches() for x in inputs_by_hand(changed, part)[name]]
        before = [x for part in batches() for x in inputs_by_hand(original, part)[name]]
        for (x, y), right, old in zip(found, given, before, strict=True):
            torch.testing.assert_close(x, right)
            torch.testing.assert_close(y, original.get_submodule(name)(old))


class Row(nn.Module):
    """A stem, and two convolutions within modules of their own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1)),
            nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))


LAYERS = [("blocks.0.1", 1), ("blocks.1.1", 1)]


def test_what_is_settled_does_not_run_again():
    model = Row()
    runs: list[int] = []
    model.stem.register_forward_hook(lambda module, args, out: runs.append(len(out)))
    walk = walk_of(model, LAYERS)
    runs.clear()
    for name, calls in LAYERS:
        for _ in range(2):
            inputs(walk, name, calls)
    assert runs == [2, 2, 2]


def test_a_pass_that_is_broken_off_leaves_a_walk_as_good():
    model = Row()
    walk = walk_of(model, LAYERS)
    inputs(walk, *LAYERS[0])
    change(model, LAYERS[0][0])
    first, *_ = batches()
    walk.seen(0, first, *LAYERS[1])
    assert same(inputs(walk, *LAYERS[1]), from_the_start(model, *LAYERS[1]))
    assert same(inputs(walk, *LAYERS[0]), from_the_start(model, *LAYERS[0]))


def test_a_layer_that_no_longer_runs_as_often_is_an_error():
    walk = walk_of(Row(), LAYERS)
    with pytest.raises(ValueError, match=r"blocks\.0\.1 ran 1 times, and 2 before"):
        walk.seen(0, images(2), "blocks.0.1", 2)


class Sharing(Row):
    """The first of two blocks has the convolution of the second, and a third follows."""

    def __init__(self):
        super().__init__()
        self.later = nn.Sequential(nn.ReLU(), self.get_submodule("blocks.0.1"))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.later(self.stem(x))).mean((2, 3))


def test_a_layer_of_two_parents():
    model = Sharing()
    layers = layers_of(model)
    assert ("blocks.0.1", 2) in layers
    assert walked(model, layers)._steps is not None


class Wilful(Row):
    """Its steps depend on what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.mean()) > 0 else -x)


class Shared(Row):
    """One value is a part of another, which is written into."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        part = x[:, :4]
        x = self.blocks[0](F.avg_pool2d(x, 1) + 1)
        part.mul_(0.5)
        return self.blocks[1](x + torch.cat([part, part], 1)).mean((2, 3))


class Seeing(Row):
    """A constant that a run with another image would not have."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.detach().numpy().mean() if isinstance(x, Tensor) else 0.0
        return super().forward(x + float(mean))


class Remembering(Row):
    """What a later module needs is kept beside the values."""

    def __init__(self):
        super().__init__()
        self.kept: list[Tensor] = []
        self.stem.register_forward_hook(lambda module, args, out: self.keep(out))
        relu = self.blocks[1].get_submodule("0")
        relu.register_forward_hook(self.add)

    def keep(self, out: Any) -> None:
        self.kept[:] = [out.clone()]

    def add(self, module: nn.Module, args: Any, out: Any) -> Tensor:
        return out + self.kept[-1]


class Adding(Row):
    """A constant that would become an attribute of the network."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.tensor(0.5))


class Counting(Row):
    """Hides from a trace that it looks at the size of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and len(x) > 1:
            x = x - x.mean(0, keepdim=True)
        return super().forward(x)


class Stale(Row):
    """Between its two runs a layer needs what was kept beside the values before the first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.get_buffer("mean").copy_(x.square().mean().reshape(1))
        x = self.blocks[0](x)
        return self.blocks[1](self.blocks[1](x) * self.get_buffer("mean")).mean((2, 3))


@pytest.mark.parametrize(
    ("network", "steps"),
    [
        (Wilful, False),
        (Seeing, False),
        (Shared, True),
        (Remembering, False),
        (Adding, False),
        (Counting, False),
    ],
)
def test_networks_that_are_hard_to_write_down(network: type[Row], steps: bool):
    torch.manual_seed(0)
    model = network().eval()
    attributes = set(vars(model))
    walk = walked(model, LAYERS)
    assert (walk._steps is not None) == steps
    assert set(vars(model)) == attributes


def test_what_is_kept_beside_the_values_is_not_relied_on():
    torch.manual_seed(0)
    assert walked(Stale().eval(), [(LAYERS[1][0], 2)])._steps is None


class Storing(Row):
    """Keeps a value where it then fails to be written down."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.stem(x)
        assert self.kept.shape[1] == 8
        return self.blocks(self.kept).mean((2, 3))


def test_what_stands_for_a_value_does_not_stay_in_the_network():
    model = Storing()
    model(images(1))
    walked(model, LAYERS)
    assert type(model.kept) is Tensor


class Gate(nn.Module):
    """Remembers whether there was a large value, which its network then asks."""

    def __init__(self, limit: float):
        super().__init__()
        self.limit, self.open = limit, False

    def forward(self, x: Tensor) -> Tensor:
        self.open = bool(x.max() > self.limit)
        return x


class Gated(Row):
    def __init__(self, limit: float):
        super().__init__()
        self.gate = Gate(limit)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(x)
        return super().forward(3 * x - 1 if self.gate.open else x)


def test_a_walk_that_went_astray_is_told_in_the_end():
    """No image of the start opens the gate, and one of the others does."""
    largest = sorted(float(one.max()) for one in batches())
    model = Gated(0.5 * (largest[-1] + largest[-2]))
    ordered = sorted(batches(), key=lambda one: float(one.max()))
    layers = [name for name, _ in LAYERS]
    walk = Walk(model, layers, ordered[0].clamp(-1, 1), 6)
    assert walk._steps is not None
    assert walk.proven(lambda: ordered[:-1], *LAYERS[1])
    assert not walk.proven(lambda: ordered, *LAYERS[1])
    walk.give_up()
    assert walk.proven(lambda: ordered, *LAYERS[1])
    assert same(inputs(walk, *LAYERS[1]), from_the_start(model, *LAYERS[1]))


@pytest.mark.parametrize("name", ["xception", "mobilenet_v1", "inception_v3", "deeplab_v3plus"])
def test_our_networks_can_be_walked(name: str, monkeypatch: pytest.MonkeyPatch):
    # What stands for a value while steps are written down is no tensor, which only tests mind.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = create_model(name).eval()
    image = torch.randn(2, 3, 96, 96)
    sites = [site for site in find_sites(model, image[:1]) if site.refusal is None]
    layers = [site.name for site in sites] or ["stem.0"]
    assert Walk(model, layers, image, 2)._steps is not None
