"""A walk through a network gives what runs from the start give, and does not repeat itself."""

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xception.models.zoo import create_model
from xception.separation import watch
from xception.separation.sites import find_sites
from xception.separation.walk import Walk, pairs

from .networks import branches, images


def batches():
    return images(6).split(2)


def walked(model: nn.Module, layers: list[tuple[str, int]], most_bytes: int = 1 << 30) -> Walk:
    """A walk during which each layer changes once it has been seen, compared with runs anew."""
    walk = Walk(model, [name for name, _ in layers], batches, 6, most_bytes)
    for name, calls in layers:
        expected = list(watch.inputs_of(model, name, calls, batches))
        for _ in range(2):  # a very wide layer is seen twice
            found = list(walk.inputs(name, calls))
            for ours, theirs in zip(found, expected, strict=True):
                assert len(ours) == calls
                assert all(map(torch.equal, ours, theirs))
        with torch.no_grad():
            model.get_parameter(f"{name}.weight").mul_(1.1)
    assert not any(module._forward_pre_hooks for module in model.modules())
    return walk


@pytest.mark.parametrize("most_bytes", [0, 30_000, 60_000, 1 << 30])
def test_inputs_are_those_of_a_run_from_the_start(most_bytes: int):
    """Whatever fits into memory: nothing, some, all."""
    model = branches()
    sites = [site for site in find_sites(model, images(1)) if site.refusal is None]
    walked(model, [(site.name, site.calls) for site in sites], most_bytes)


def test_pairs_are_of_two_networks():
    original, changed = branches(), branches()
    with torch.no_grad():
        changed.stem.weight *= 1.1
    ours, theirs = (Walk(one, ["left", "twice"], batches, 6) for one in (changed, original))
    for name, calls in (("left", 1), ("twice", 2)):
        expected = list(watch.pairs(changed, original, name, calls, batches))
        found = list(pairs(ours, theirs, name, calls))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


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
    walk = Walk(model, [name for name, _ in LAYERS], batches, 6)
    runs.clear()
    for name, calls in LAYERS:
        for _ in range(2):
            list(walk.inputs(name, calls))
    assert runs == [2, 2, 2]


def test_a_run_that_is_broken_off_leaves_a_walk_as_good():
    model = Row()
    walk = Walk(model, [name for name, _ in LAYERS], batches, 6)
    for number, _ in enumerate(walk.inputs(*LAYERS[1])):
        if number == 1:
            break
    expected = list(watch.inputs_of(model, *LAYERS[1], batches))
    assert [torch.equal(a[0], b[0]) for a, b in zip(walk.inputs(*LAYERS[1]), expected, strict=True)]


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


@pytest.mark.parametrize(("network", "steps"), [(Wilful, False), (Seeing, False), (Shared, True)])
def test_networks_that_are_hard_to_write_down(network: type[Row], steps: bool):
    torch.manual_seed(0)
    walk = walked(network().eval(), LAYERS)
    assert (walk._steps is not None) == steps


@pytest.mark.parametrize("name", ["xception", "mobilenet_v1", "inception_v3", "deeplab_v3plus"])
def test_our_networks_can_be_walked(name: str, monkeypatch: pytest.MonkeyPatch):
    # What stands for a value while steps are written down is no tensor, which only tests mind.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = create_model(name).eval()
    image = torch.randn(2, 3, 96, 96)
    sites = [site for site in find_sites(model, image[:1]) if site.refusal is None]
    layers = [site.name for site in sites] or ["stem.0"]
    assert Walk(model, layers, lambda: [image], 2)._steps is not None
