import itertools

import oracles
import pytest
import torch
from torch import Tensor, nn

from xception.cost.count import count
from xception.cost.separable import Comparison, compare, theory
from xception.layers.separable import SeparableConv2d
from xception.models.zoo import create_model


def compared(model: nn.Module, size: int | tuple[int, int], channels: int) -> Comparison:
    return compare(count(model, size, channels))


SHAPES = list(itertools.product((1, 2), (1, 2, 3), (1, 2)))


@pytest.mark.parametrize(("multiplier", "stride", "dilation"), SHAPES)
def test_depthwise_first(multiplier: int, stride: int, dilation: int):
    model = SeparableConv2d(
        6, 10, 3, stride=stride, dilation=dilation, depth_multiplier=multiplier
    )  # fmt: skip
    (one,) = compared(model, (12, 18), 6).separable
    places = (12 // stride) * (18 // stride)
    # The regular convolution itself, counted as a network of its own.
    regular = count(nn.Conv2d(6, 10, 3, bias=False), (12 // stride + 2, 18 // stride + 2), 6)
    assert one["regular_macs"] == regular.total["macs"] == 9 * 6 * 10 * places
    assert one["regular_parameters"] == regular.total["parameters"]
    assert one["macs"] == multiplier * (9 * 6 + 6 * 10) * places
    assert one["parameters"] == multiplier * (9 * 6 + 6 * 10)
    assert one["ratio"] == pytest.approx(multiplier * (1 / 10 + 1 / 9), rel=1e-12)
    assert one["ratio"] == pytest.approx(one["theory"], rel=1e-12)
    assert (one["stride"], one["dilation"]) == ([stride] * 2, [dilation] * 2)
    assert (one["depth_multiplier"], one["order"]) == (multiplier, "depthwise_first")


@pytest.mark.parametrize(("multiplier", "stride", "dilation"), SHAPES)
def test_pointwise_first(multiplier: int, stride: int, dilation: int):
    model = SeparableConv2d(
        6, 10, 5, stride=stride, dilation=dilation, depth_multiplier=multiplier,
        order="pointwise_first",
    )  # fmt: skip
    (one,) = compared(model, (12, 18), 6).separable
    inside, outside = 12 * 18, (12 // stride) * (18 // stride)
    assert one["macs"] == 6 * 10 // multiplier * inside + 25 * 10 * outside
    assert one["regular_macs"] == 25 * 6 * 10 * outside
    assert one["ratio"] == pytest.approx(one["theory"], rel=1e-12)
    assert one["theory"] == pytest.approx(1 / 6 + stride**2 / (multiplier * 25))
    assert (one["in_channels"], one["out_channels"]) == (6, 10)
    assert one["order"] == "pointwise_first"


def test_theory_of_the_paper():
    # Howard et al. 2017, §3.1: "between 8 to 9 times less computation" with 3x3 windows.
    assert 8 < 1 / theory((3, 3), (1, 1), 512, 512) < 9
    assert theory((3, 3), (1, 1), 3, 16) == pytest.approx(1 / 16 + 1 / 9)


def separable(between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), between, nn.Conv2d(4, 8, 1))


@pytest.mark.parametrize(
    "between",
    [nn.BatchNorm2d(4), nn.ReLU6(), nn.Hardswish(), nn.Identity(), nn.Dropout(), nn.ZeroPad2d(1)],
    ids=lambda module: type(module).__name__,
)
def test_what_may_stand_between(between: nn.Module):
    found = compared(separable(between), 9, 4)
    assert len(found.separable) == 1
    assert found.separable[0]["norms"] == (8 if isinstance(between, nn.BatchNorm2d) else 0)


@pytest.mark.parametrize(
    "between",
    [nn.MaxPool2d(2), nn.ChannelShuffle(2), nn.Conv2d(4, 4, 3), nn.Upsample(scale_factor=2)],
    ids=lambda module: type(module).__name__,
)
def test_what_may_not(between: nn.Module):
    found = compared(separable(between), 9, 4)
    assert found.separable == ()
    assert found.alone == ("0",)
    total = count(separable(between), 9, 4).total
    assert (found.regular["macs"], found.regular["parameters"]) == (
        total["macs"], total["parameters"],
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pointwise = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x) + x)


def test_a_sum_is_no_separable_convolution():
    found = compared(Residual(), 9, 4)
    assert (found.separable, found.alone) == ((), ("depthwise",))


def test_a_chain_of_pointwise_first_keeps_together_what_is_one_module():
    layers = [SeparableConv2d(4, 4, order="pointwise_first", norm_after=nn.BatchNorm2d)]
    layers += [SeparableConv2d(4, 4, order="pointwise_first")]
    found = compared(nn.Sequential(*layers), 9, 4)
    assert [(one["depthwise"], one["pointwise"]) for one in found.separable] == [
        ("0.depthwise", "0.pointwise"),
        ("1.depthwise", "1.pointwise"),
    ]


def test_an_inverted_residual_means_the_convolution_behind():
    block = nn.Sequential(
        nn.Conv2d(4, 24, 1), nn.ReLU6(), nn.Conv2d(24, 24, 3, groups=24), nn.ReLU6(),
        nn.Conv2d(24, 8, 1),
    )  # fmt: skip
    (one,) = compared(block, 9, 4).separable
    assert (one["depthwise"], one["pointwise"]) == ("2", "4")
    assert (one["in_channels"], one["out_channels"]) == (24, 8)


def test_a_linear_layer_on_channels_that_lie_last():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 7, padding=3, groups=4)
            self.norm = nn.LayerNorm(4)
            self.linear = nn.Linear(4, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    (one,) = compared(Block(), 9, 4).separable
    assert (one["pointwise"], one["ratio"]) == ("linear", pytest.approx(1 / 16 + 1 / 49))


def mobilenet_with_regular_convolutions() -> nn.Sequential:
    """Table 4's "Conv MobileNet", built as such: the body of Table 1 without depthwise layers."""
    widths = [64, 128, 128, 256, 256] + [512] * 6 + [1024, 1024]
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in zip([32, *widths], [2, *strides], strict=True):
        layers.append(nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU6()]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers)


def test_a_whole_network_with_regular_convolutions():
    with torch.device("meta"):
        model, regular = create_model("mobilenet_v1"), mobilenet_with_regular_convolutions()
    found = compared(model, 224, 3)
    expected = count(regular, 224).total
    assert len(found.separable) == 13
    assert found.regular["macs"] == expected["macs"] == 4_867_293_184
    assert found.regular["parameters"] == expected["parameters"]


def test_a_module_used_twice_works_twice_and_weighs_once():
    layer = SeparableConv2d(4, 4)
    found = compared(nn.Sequential(layer, layer), 8, 4)
    assert len(found.separable) == 2
    assert found.regular["macs"] == 2 * 9 * 16 * 64
    assert found.regular["parameters"] == 9 * 16


def test_foreign_networks():
    timm = oracles.timm()
    with torch.device("meta"):
        ours, theirs = create_model("mobilenet_v1"), timm.create_model("mobilenetv1_100")
        second = timm.create_model("mobilenetv2_100")
    mine, foreign = compared(ours, 224, 3), compared(theirs, 224, 3)
    keys = ("macs", "regular_macs", "ratio", "theory", "output")
    assert [[one[key] for key in keys] for one in mine.separable] == [
        [one[key] for key in keys] for one in foreign.separable
    ]
    assert mine.regular == foreign.regular
    found = compared(second, 224, 3)
    assert len(found.separable) == 17  # Sandler et al. 2018, Table 2: 1 + 2 + 3 + 4 + 3 + 3 + 1
    assert found.alone == ()
    assert {one["depthwise"].rpartition(".")[2] for one in found.separable} == {"conv_dw"}
    assert all(one["ratio"] == pytest.approx(one["theory"]) for one in found.separable)
