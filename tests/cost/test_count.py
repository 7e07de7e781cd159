import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from xception.cost.count import Cost, Layer, count
from xception.layers.conv import Conv2d
from xception.models.xception import Xception
from xception.models.zoo import create_model


def only(cost: Cost, name: str) -> Layer:
    (layer,) = [layer for layer in cost.layers if layer["name"] == name]
    return layer


@pytest.fixture(scope="module")
def xception_cost() -> Cost:
    with torch.device("meta"):
        model = create_model("xception")
    return count(model, 299)


def test_xception_has_the_parameters_of_table_3(xception_cost: Cost):
    assert xception_cost.total["parameters"] == 22_855_952


def test_xception_macs(xception_cost: Cost):
    assert xception_cost.total["macs"] == 8_357_403_496


def test_xception_macs_by_hand(xception_cost: Cost):
    # Sides of the feature maps at 299 pixels: 149, 147, then halved with TF's "same" padding.
    stem = 27 * 32 * 149**2 + 9 * 32 * 64 * 147**2
    separable = [(64, 128, 147), (128, 128, 147), (128, 256, 74), (256, 256, 74)]
    separable += [(256, 728, 37), (728, 728, 37)] + [(728, 728, 19)] * 24
    separable += [(728, 728, 19), (728, 1024, 19), (1024, 1536, 10), (1536, 2048, 10)]
    depthwise = sum(9 * c * side**2 for c, _, side in separable)
    pointwise = sum(c * n * side**2 for c, n, side in separable)
    shortcut = 64 * 128 * 74**2 + 128 * 256 * 37**2 + 256 * 728 * 19**2 + 728 * 1024 * 10**2
    linear = 2048 * 1000
    total = stem + depthwise + pointwise + shortcut + linear
    assert total == 8_357_403_496

    assert {group["kind"]: group["macs"] for group in xception_cost.groups()} == {
        "depthwise": depthwise,
        "pointwise": pointwise + shortcut,
        "regular": stem,
        "linear": linear,
        "norm": 0,
        "other": 0,
    }
    shares = [round(100 * part / total, 2) for part in (pointwise, stem, shortcut, depthwise)]
    assert shares == [90.63, 5.00, 2.77, 1.58]
    assert xception_cost.share("depthwise") == depthwise / total


def test_layers_stand_in_the_order_in_which_they_run(xception_cost: Cost):
    outputs = [layer["output"] for layer in xception_cost.layers if layer["kind"] == "regular"]
    assert outputs == [[32, 149, 149], [64, 147, 147]]
    assert xception_cost.layers[-1]["name"] == "head.classifier"
    assert xception_cost.layers[-1]["output"] == [1000]


def test_layers_add_up_to_the_total(xception_cost: Cost):
    for key in ("parameters", "macs", "bytes"):
        assert sum(layer[key] for layer in xception_cost.layers) == xception_cost.total[key]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_by_formula(kernel: int, stride: int, dilation: int, groups: int):
    conv = nn.Conv2d(4, 8, kernel, stride, dilation=dilation, groups=groups, bias=True)
    side = (17 - dilation * (kernel - 1) - 1) // stride + 1
    cost = count(conv, 17, in_channels=4)
    (layer,) = cost.layers
    assert layer["macs"] == 8 * side**2 * (4 // groups) * kernel**2
    assert layer["parameters"] == 8 * (4 // groups) * kernel**2 + 8
    assert layer["output"] == [8, side, side]
    moved = 4 * 17**2 + 8 * side**2 + layer["parameters"]
    assert layer["bytes"] == 4 * moved == cost.total["bytes"]
    kinds = {1: "pointwise" if kernel == 1 else "regular", 2: "grouped", 4: "depthwise"}
    assert layer["kind"] == kinds[groups]


def test_uneven_padding_costs_like_any_pixel():
    cost = count(Conv2d(3, 5, 3, stride=2, bias=False), 8)
    assert cost.total["macs"] == 3 * 5 * 9 * 4 * 4


def test_norm_linear_and_the_rest():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(4 * 25, 7))
    cost = count(model, 5)
    norm, linear = only(cost, "1"), only(cost, "4")
    assert (norm["kind"], norm["macs"], norm["parameters"]) == ("norm", 0, 8)
    assert norm["bytes"] == 4 * (2 * 4 * 25 + 4 * 4)  # in, out; scale, shift, mean, variance
    assert (linear["kind"], linear["macs"], linear["parameters"]) == ("linear", 700, 707)
    assert cost.uncounted == {"native_batch_norm": 1, "relu": 1}  # to flatten is no work


class Twice(nn.Module):
    """One convolution used twice, a parameter of its own, a keyword argument, a tuple returned."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(self.conv(input=x)) * self.scale, x


def test_a_module_that_runs_twice_works_twice_and_weighs_once():
    cost = count(Twice(), 6)
    conv = only(cost, "conv")
    assert conv["macs"] == 2 * 81 * 36
    assert conv["bytes"] == 2 * 4 * (81 + 2 * 3 * 36)
    assert conv["parameters"] == 81
    assert cost.total["parameters"] == 81 + 3
    assert conv["calls"] == 2
    assert cost.uncounted == {"mul": 1}
    product = only(cost, "")
    assert product["output"] == [3, 6, 6]
    assert product["bytes"] == 4 * (2 * 3 * 36 + 3)


def test_a_shared_weight_counts_once():
    first = nn.Conv2d(3, 3, 1, bias=False)
    second = nn.Conv2d(3, 3, 1, bias=False)
    second.weight = first.weight
    assert count(nn.Sequential(first, second), 4).total["parameters"] == 9


def test_the_model_is_left_as_it_was():
    model = Xception(num_classes=3, width=0.1, middle=1)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, 96)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_agrees_with_the_flop_counter_of_torch():
    with torch.device("meta"):
        model = create_model("xception", width=0.25, num_classes=10, in_channels=1).eval()
        image = torch.empty(1, 1, 150, 150)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert count(model, 150, in_channels=1).total["macs"] == counter.get_total_flops() / 2


def test_no_macs_no_division_by_zero():
    cost = count(nn.ReLU(), 3)
    assert math.isclose(cost.share("linear"), 0)
