import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from xception.cost.count import Cost, count, count_call
from xception.cost.rows import Layer
from xception.errors import UserError
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


def loop_macs(conv: nn.Conv2d, height: int, width: int) -> int:
    """Every single multiplication of a convolution, counted in a plain loop."""
    (k, _), (s, _), (p, _), (d, _) = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    assert not isinstance(p, str)
    macs = 0
    corners = (range(-p, side + p - (k - 1) * d, s) for side in (height, width))
    pairs = itertools.product(range(conv.out_channels), range(conv.in_channels))
    for _, (n, m) in itertools.product(list(itertools.product(*corners)), list(pairs)):
        if n // (conv.out_channels // conv.groups) == m // (conv.in_channels // conv.groups):
            for _ in itertools.product(range(k), range(k)):
                macs += 1
    return macs


def test_a_tiny_network_by_loops():
    first = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
    second = nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=2)
    third = nn.Conv2d(8, 3, 1)
    model = nn.Sequential(first, nn.ReLU(), second, third, nn.Flatten(), nn.Linear(3 * 4 * 5, 6))
    cost = count(model, (7, 9), in_channels=2)
    by_loop = [loop_macs(first, 7, 9), loop_macs(second, 4, 5), loop_macs(third, 4, 5), 60 * 6]
    assert [layer["macs"] for layer in cost.layers if layer["macs"]] == by_loop
    assert [layer["kind"] for layer in cost.layers] == [
        "regular", "other", "depthwise", "pointwise", "linear",
    ]  # fmt: skip
    assert only(cost, "2")["output"] == [8, 4, 5]


class Functional(nn.Module):
    """Convolutions and products that no module does."""

    blur: Tensor

    def __init__(self):
        super().__init__()
        self.window = nn.Parameter(torch.ones(4, 1, 3, 3))
        self.mix = nn.Parameter(torch.ones(6, 4))
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.register_buffer("blur", torch.ones(6, 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.window, padding=1, groups=4)
        x = torch.einsum("bchw,nc->bnhw", x, self.mix) * self.scale
        x = F.conv2d(x, self.blur, stride=2, groups=6)
        return F.interpolate(x, scale_factor=2, mode="bilinear").softmax(1)


def test_functions_count_like_modules():
    cost = count(Functional(), 8, in_channels=4)
    window, mix, blur = only(cost, "window"), only(cost, "mix"), only(cost, "depthwise")
    assert (window["kind"], window["macs"], window["parameters"]) == ("depthwise", 4 * 9 * 64, 36)
    assert (mix["kind"], mix["macs"], mix["parameters"]) == ("linear", 4 * 6 * 64, 24)
    assert (blur["kind"], blur["macs"], blur["parameters"]) == ("depthwise", 6 * 4 * 16, 0)
    assert only(cost, "")["parameters"] == 6
    assert cost.total["parameters"] == 36 + 24 + 6
    assert cost.uncounted["upsample_bilinear2d"] == cost.uncounted["_softmax"] == 1


class Attention(nn.Module):
    def __init__(self, fused: bool):
        super().__init__()
        self.fused = fused
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.mT / 2).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(1, -1, 8))


@pytest.mark.parametrize("fused", [False, True])
def test_attention(fused: bool):
    cost = count_call(Attention(fused), [(1, 5, 8)])
    macs = {layer["name"]: (layer["kind"], layer["macs"]) for layer in cost.layers}
    assert macs["qkv"] == ("linear", 5 * 8 * 24)
    assert macs["out"] == ("linear", 5 * 8 * 8)
    assert macs[""] == ("matmul", 2 * 2 * 5 * 5 * 4)  # two products, two heads, 5x5 pairs


def test_attention_of_torch():
    model = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)

    class Self(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = model

        def forward(self, x: Tensor) -> Tensor:
            return self.attend(x, x, x, need_weights=False)[0]

    cost = count_call(Self(), [(1, 5, 8)])
    macs = {layer["name"]: (layer["macs"], layer["parameters"]) for layer in cost.layers}
    assert macs["attend.in_proj_weight"] == (5 * 8 * 24, 192)
    assert macs["attend.matmul"] == (2 * 2 * 5 * 5 * 4, 0)
    assert macs["attend.out_proj"] == (5 * 8 * 8, 64)


@pytest.mark.parametrize(
    ("model", "shape", "macs", "kind"),
    [
        (nn.Conv1d(4, 6, 5), (1, 4, 20), 4 * 6 * 5 * 16, "regular"),
        (nn.Conv3d(2, 3, 3), (1, 2, 5, 6, 7), 2 * 3 * 27 * 3 * 4 * 5, "regular"),
        (nn.Conv3d(3, 6, 1, groups=3), (1, 3, 2, 2, 2), 6 * 8, "depthwise"),
        # Every pixel of the input meets every weight once.
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (1, 4, 5, 5), 4 * 6 * 9 * 25, "regular"),
        (nn.ConvTranspose2d(4, 4, 2, groups=4), (1, 4, 5, 5), 4 * 4 * 25, "depthwise"),
        (nn.ConvTranspose1d(4, 6, 3), (1, 4, 5), 4 * 6 * 3 * 5, "regular"),
        (nn.Linear(7, 3), (1, 2, 5, 7), 2 * 5 * 7 * 3, "linear"),
    ],
)
def test_other_dimensions(model: nn.Module, shape: tuple[int, ...], macs: int, kind: str):
    (layer,) = count_call(model, [shape]).layers
    assert (layer["macs"], layer["kind"]) == (macs, kind)
    assert layer["output"] == list(model(torch.zeros(shape)).shape[1:])


class StandardConv(nn.Conv2d):
    """A weight that is standardised each time."""

    def forward(self, input: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
        return F.conv2d(input, weight, self.bias)


def test_a_computed_weight_is_a_weight():
    cost = count(nn.Sequential(StandardConv(3, 4, 3)), 5)
    (layer,) = cost.layers
    assert (layer["name"], layer["kind"]) == ("0", "regular")
    assert (layer["macs"], layer["parameters"]) == (3 * 4 * 9 * 9, 3 * 4 * 9 + 4)


class Looks(nn.Module):
    """It looks at its values, which shapes alone do not have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum().item() == 0 else x


def test_what_cannot_run_on_shapes_runs_for_real_and_says_so():
    cost = count(Looks(), 4)
    assert cost.total["macs"] == 3 * 2 * 16
    assert cost.remark is not None
    assert "ran for real" in cost.remark
    with torch.device("meta"):
        model = Looks()
    assert count(model, 4).total["macs"] == 3 * 2 * 16
    assert model.conv.weight.is_meta
    assert count(nn.Conv2d(3, 2, 1), 4).remark is None


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 2 == 0
        return x


def test_what_does_not_run_is_refused():
    with pytest.raises(UserError, match="on an input of 1x3x5x5: AssertionError"):
        count(Picky(), 5)
    with pytest.raises(UserError, match="does not run on an input of 1x3x5x5: RuntimeError"):
        count(nn.Conv2d(4, 2, 1), 5)
    with torch.device("meta"):
        model = create_model("xception")
    with pytest.raises(UserError, match="too small"):
        count(model, 3)


def test_parameters_that_are_not_used_are_shown():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    model[1].add_module("aside", nn.Linear(4, 5))
    cost = count(model, 4)
    aside = only(cost, "1.aside")
    assert (aside["parameters"], aside["calls"], aside["macs"]) == (25, 0, 0)
    assert cost.total["parameters"] == 8 + 25


def test_a_repeated_tensor_is_read_once():
    class Spread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3), keepdim=True).expand_as(x).relu()

    (layer,) = count(Spread(), 4).layers
    # The mean reads 48 and writes 3 values; the ReLU reads these and writes 48.
    assert (layer["read_bytes"], layer["written_bytes"]) == (4 * (48 + 3), 4 * (3 + 48))


def test_groups_add_up(xception_cost: Cost):
    for key in ("parameters", "macs", "bytes"):
        assert sum(group[key] for group in xception_cost.groups()) == xception_cost.total[key]
    assert sum(group["layers"] for group in xception_cost.groups()) == len(xception_cost.layers)


def test_receptive_field_of_xception(xception_cost: Cost):
    # By hand: k - 1 = 2 pixels more at the step of each 3x3 window, pools among them.
    steps = [1, 2] + [2] * 3 + [4] * 3 + [8] * 3 + [16] * 24 + [16] * 3 + [32] * 2
    layer = [layer for layer in xception_cost.layers if layer["kind"] == "depthwise"][-1]
    assert layer["receptive_field"] == [1 + 2 * sum(steps)] * 2
    assert layer["stride"] == [32, 32]
