import copy
from typing import Any

import pytest
import torch
from networks import lively
from torch import nn
from torch.nn import functional as F

from xception.errors import UserError
from xception.layers import SeparableConv2d
from xception.models import aligned_xception
from xception.models.aligned_xception import (
    AlignedXception,
    Grid,
    Xception41,
    Xception65,
    Xception71,
    atrous,
)

SMALL: dict[str, Any] = {"num_classes": 5, "width": 0.03, "middle": 1}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"deep_entry": True, "output_stride": 8},
    {"activation": "relu", "padding": "same", "output_stride": 16},
    {"in_channels": 1, "middle": 0, "dropout": 0.5},
]
NETWORKS = [
    (Xception41, 41, 26_969_560),
    (Xception65, 65, 39_916_312),
    (Xception71, 71, 42_338_736),
]


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("make", "layers", "expected"), NETWORKS)
def test_parameters_and_layers(make, layers, expected):
    with torch.device("meta"):
        model = make()
    assert parameters(model) == expected
    separable = [m for m in model.modules() if isinstance(m, SeparableConv2d)]
    assert 2 + len(separable) == layers  # the two of the stem; shortcuts do not count
    assert len(model.middle) == (8 if layers == 41 else 16)


@pytest.mark.parametrize("make", [Xception65, Xception71])
@pytest.mark.parametrize(
    ("output_stride", "sides"), [(32, (33, 17)), (16, (33, 33)), (8, (65, 65))]
)
def test_stages_of_a_513_pixel_image(make, output_stride, sides):
    with torch.device("meta"):
        model = make(output_stride=output_stride).eval()
        stages = model.forward_features(torch.zeros(1, 3, 513, 513))
    middle, last = sides
    shapes = {name: tuple(stage.shape[1:]) for name, stage in stages.items()}
    assert {name: shape[0] for name, shape in shapes.items()} == model.stage_channels
    assert shapes["stem"] == (64, 257, 257)
    assert shapes["entry1"] == (128, 129, 129)
    assert shapes["low_level"] == (256, 129, 129)
    assert shapes["middle"] == (728, middle, middle)
    assert shapes["exit"] == (2048, last, last)
    names = list(stages)
    assert stages[names[names.index("low_level") + 1]].shape[-1] == 65  # here comes the stride


def test_strides_become_dilation_behind_the_module_that_loses_its_own():
    # Entry flow, middle flow, exit flow, and what follows; as the released networks do it.
    xception65 = [2, 2, 2, 1, 1, 2]
    once = [Grid(2, 1)] * 3 + [Grid(1, 1)] * 2
    assert atrous(xception65, 32) == [*once, Grid(2, 1), Grid(1, 1)]
    assert atrous(xception65, 16) == [*once, Grid(1, 1), Grid(1, 2)]
    twice = [Grid(2, 1), Grid(2, 1), Grid(1, 1), Grid(1, 2), Grid(1, 2)]
    assert atrous(xception65, 8) == [*twice, Grid(1, 2), Grid(1, 4)]
    xception71 = [2, 1, 2, 1, 2, 1, 2]
    assert [grid.dilation for grid in atrous(xception71, 8)] == [1, 1, 1, 1, 1, 2, 2, 4]


@pytest.mark.parametrize("deep_entry", [False, True])
@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
@pytest.mark.parametrize("size", [(65, 97), (64, 50)])
def test_dense_features_contain_the_strided_ones(deep_entry, output_stride, step, size):
    torch.manual_seed(0)
    options = SMALL | {"deep_entry": deep_entry}
    strided = lively(AlignedXception(**options), 96).double()
    dense = AlignedXception(**options, output_stride=output_stride).double().eval()
    dense.load_state_dict(strided.state_dict())  # the same names and shapes
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = strided.forward_features(x)["exit"]
        got = dense.forward_features(x)["exit"]
    assert got.shape[2:] == tuple(-(-side // output_stride) for side in size)
    assert expected.std() > 0.01
    torch.testing.assert_close(got[:, :, ::step, ::step], expected, rtol=0, atol=1e-10)


def by_hand(block: Any, x: torch.Tensor, between, stride: int, dilation: int):
    """What a module does, and what its second separable convolution gives; plain functions."""
    inside = []
    y = x
    for i, separable in enumerate(block.separables):
        assert isinstance(separable, SeparableConv2d)
        depthwise, pointwise = separable.depthwise.weight, separable.pointwise.weight
        y = F.pad(F.relu(y), [dilation] * 4)
        step = stride if i == 2 else 1
        y = F.conv2d(y, depthwise, stride=step, dilation=dilation, groups=len(depthwise))
        y = normalized(
            F.conv2d(between(normalized(y, separable.norm_between)), pointwise),
            separable.norm_after,
        )
        inside.append(y)
    if not isinstance(block.shortcut, nn.Identity):
        conv, norm = block.shortcut
        x = normalized(F.conv2d(x[:, :, ::stride, ::stride], conv.weight), norm)
    return inside[1], y + x


def normalized(x, norm):
    mean, variance = norm.running_mean[:, None, None], norm.running_var[:, None, None]
    scale = norm.weight[:, None, None] / (variance + 1e-3).sqrt()
    return (x - mean) * scale + norm.bias[:, None, None]


@pytest.mark.parametrize(("activation", "between"), [("none", lambda y: y), ("relu", F.relu)])
def test_modules_do_what_the_figure_says(activation, between):
    torch.manual_seed(0)
    options = SMALL | {"activation": activation, "output_stride": 16}
    model = lively(AlignedXception(**options), 32).double()
    x = torch.randn(2, 3, 37, 42, dtype=torch.float64)
    with torch.no_grad():
        stages = model.forward_features(x)
        low_level, entry2 = by_hand(model.entry[1], stages["entry1"], between, 2, 1)
        torch.testing.assert_close(stages["low_level"], low_level)
        torch.testing.assert_close(stages["entry2"], entry2)
        _, middle = by_hand(model.middle[0], stages["entry3"], between, 1, 1)
        torch.testing.assert_close(stages["middle"], middle)
        _, y = by_hand(model.exit[0], stages["middle"], between, 1, 1)
        # Behind the last shortcut both readings have a ReLU between and behind.
        last: Any = model.exit[1::2]
        for separable in last:
            depthwise, pointwise = separable.depthwise.weight, separable.pointwise.weight
            y = F.conv2d(F.pad(y, [2] * 4), depthwise, dilation=2, groups=len(depthwise))
            y = F.conv2d(F.relu(normalized(y, separable.norm_between)), pointwise)
            y = F.relu(normalized(y, separable.norm_after))
        torch.testing.assert_close(stages["exit"], y)


def test_same_padding_differs_at_even_sizes_only():
    torch.manual_seed(0)
    symmetric = lively(AlignedXception(**SMALL), 32).double()
    same = AlignedXception(**SMALL, padding="same").double().eval()
    same.load_state_dict(symmetric.state_dict())
    with torch.no_grad():
        odd, even = (torch.randn(1, 3, n, n, dtype=torch.float64) for n in (65, 64))
        torch.testing.assert_close(same(odd), symmetric(odd))
        assert same(even).shape == symmetric(even).shape
        assert (same(even) - symmetric(even)).abs().max() > 1e-3


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_learns(options):
    torch.manual_seed(0)
    model = AlignedXception(**SMALL | options)
    logits = model(torch.randn(4, model.options["in_channels"], 32, 32))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", VARIANTS)
def test_options_build_the_same_model_again(options):
    model = AlignedXception(**SMALL | options)
    again = AlignedXception(**model.options)
    assert again.options == model.options
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


@pytest.mark.parametrize("options", VARIANTS)
def test_working_in_place_changes_no_gradient_and_no_stage(options, monkeypatch):
    torch.manual_seed(0)
    quick = AlignedXception(**SMALL | options | {"dropout": 0.0}).double()
    careful = copy.deepcopy(quick)
    for module in careful.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = torch.randn(2, quick.options["in_channels"], 21, 32, dtype=torch.float64)
    x.requires_grad_()
    stages = quick.forward_features(x)
    (gradient,) = torch.autograd.grad(weighted(stages), x)
    relu = F.relu
    monkeypatch.setattr(aligned_xception.F, "relu", lambda x, inplace=False: relu(x))
    again = careful.forward_features(x)
    assert all(torch.equal(stages[name], again[name]) for name in stages)
    torch.testing.assert_close(gradient, torch.autograd.grad(weighted(again), x)[0])


def weighted(stages):
    """A number on which every stage has a say."""
    return torch.stack([i * s.square().mean() for i, s in enumerate(stages.values(), 1)]).sum()


def test_gradients_through_a_module_are_right():
    torch.manual_seed(0)
    model = AlignedXception(num_classes=2, width=0.01, middle=1, output_stride=8).double()
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.entry[2], (x,), fast_mode=True)
    assert torch.autograd.gradcheck(model.middle, (x,), fast_mode=True)


def test_memory_layout_does_not_change_the_answer():
    torch.manual_seed(0)
    model = AlignedXception(**SMALL, output_stride=16).double().eval()
    x = torch.randn(2, 3, 50, 43, dtype=torch.float64)
    expected = model(x)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    got = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected)


def test_one_pixel_is_enough():
    model = AlignedXception(**SMALL).eval()
    assert model(torch.zeros(1, 3, 1, 1)).shape == (1, 5)
    with pytest.raises(UserError, match="images of 0x4 pixels are too small"):
        model(torch.zeros(1, 3, 0, 4))


def test_a_new_head_keeps_all_before_it():
    model = AlignedXception(**SMALL)
    model.reset_head(7)
    assert model.options["num_classes"] == 7
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number from 1 "),
        ({"in_channels": 0}, "in_channels"),
        ({"dropout": 1.0}, "dropout"),
        ({"width": 0.0}, "width"),
        ({"middle": 65}, "middle"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"activation": "elu"}, "activation must be one of none, relu, not 'elu'"),
        ({"padding": "valid"}, "padding must be one of symmetric, same, not 'valid'"),
        ({"output_stride": 4}, "output_stride must be one of 8, 16, 32, not 4"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlignedXception(**options)
