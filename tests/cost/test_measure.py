"""Times differ from run to run: what is tested is what is timed, and that sums hold."""

import pytest
import torch
from torch import Tensor, nn

from xception.cost.count import count
from xception.cost.machine import Machine
from xception.cost.measure import Timed, measure
from xception.layers.separable import SeparableConv2d
from xception.models.zoo import create_model

CPU = torch.device("cpu")
MACHINE = Machine("cpu", 1, 1e9, 1e8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return create_model("mobilenet_v1", width=0.25, num_classes=10)


def test_every_layer_has_its_time(model: nn.Module):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure(model, 64, device=CPU, repeats=2, machine=MACHINE)
    assert [layer["name"] for layer in found.cost.layers] == [
        layer["name"] for layer in count(model, 64).layers
    ]
    assert found.cost.total["macs"] == count(model, 64).total["macs"]
    working = [i for i, layer in enumerate(found.cost.layers) if layer["macs"]]
    assert all(found.layers_ms[i] > 0 for i in working)
    assert found.whole_ms > 0
    assert len(found.exchanges) == len(found.comparison.separable) == 13
    assert all(one.separable_ms > 0 and one.regular_ms > 0 for one in found.exchanges)
    # The network is as it was, but for the order in which its weights lie in memory.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_floors(model: nn.Module):
    found = measure(model, 32, device=CPU, repeats=1, machine=MACHINE)
    for layer, floor in zip(found.cost.layers, found.floors_ms, strict=True):
        assert floor == 1e3 * max(layer["macs"] / 1e9, layer["bytes"] / 1e8)


def test_a_module_used_twice_is_timed_once_for_each():
    layer = SeparableConv2d(4, 4)
    found = measure(nn.Sequential(layer, layer), 8, 4, device=CPU, repeats=1, machine=MACHINE)
    both = sum(
        ms for ms, one in zip(found.layers_ms, found.cost.layers, strict=True) if one["macs"]
    )
    assert sum(one.separable_ms for one in found.exchanges) == pytest.approx(both)


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.relu() if self.calls % 2 else x.sigmoid()


def test_what_differs_each_time_is_refused():
    with pytest.raises(ValueError, match="not do the same each time"):
        measure(Moody(), 4, device=CPU, repeats=2, machine=MACHINE)


def test_one_axis():
    class Sound(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = nn.Conv1d(3, 3, 3, groups=3)
            self.pointwise = nn.Conv1d(3, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.pointwise(self.depthwise(x.flatten(2)))

    found = measure(Sound(), 8, device=CPU, repeats=1, machine=MACHINE)
    assert found.exchanges[0].regular_ms > 0


def test_ratio():
    assert Timed(separable_ms=2.0, regular_ms=8.0).ratio == 0.25


@pytest.mark.parametrize(("ceiling", "disturbed"), [(1e3, True), (1e18, False)])
def test_layers_above_the_ceiling_show_that_the_machine_was_busy(ceiling, disturbed):
    machine = Machine("cpu", 1, ceiling, 1e8)
    found = measure(nn.Conv2d(3, 4, 3), 8, device=CPU, repeats=1, machine=machine)
    assert found.disturbed is disturbed
