import copy
from typing import Any

import pytest
import torch
from networks import lively
from torch import nn

from xception.errors import UserError
from xception.models.mobilenet_v1 import MobileNetV1

SMALL: dict[str, Any] = {"num_classes": 5, "width": 0.1}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# Keras' counts, and by hand for α = 1: every layer of Table 1 with two numbers per normalised
# channel, and the classifier with its biases.
@pytest.mark.parametrize(
    ("alpha", "total", "trainable"),
    [
        (1.0, 4_253_864, 4_231_976),
        (0.75, 2_601_976, 2_585_560),
        (0.5, 1_342_536, 1_331_592),
        (0.25, 475_544, 470_072),
    ],
)
def test_parameters(alpha, total, trainable):
    with torch.device("meta"):
        model = MobileNetV1(width=alpha)
    statistics = sum(
        buffer.numel() for name, buffer in model.named_buffers() if name.endswith(("_mean", "_var"))
    )
    assert parameters(model) == trainable
    assert parameters(model) + statistics == total


def test_28_layers_as_the_paper_counts():
    with torch.device("meta"):
        model = MobileNetV1()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 28


def test_stages_have_the_shapes_of_table_1():
    with torch.device("meta"):
        model = MobileNetV1().eval()
        stages = model.forward_features(torch.zeros(1, 3, 224, 224))
    assert {name: tuple(stage.shape[1:]) for name, stage in stages.items()} == {
        "stem": (32, 112, 112),
        "stage1": (64, 112, 112),
        "stage2": (128, 56, 56),
        "stage3": (256, 28, 28),
        "stage4": (512, 14, 14),
        "stage5": (1024, 7, 7),
    }
    assert model.stage_channels == {name: stage.shape[1] for name, stage in stages.items()}
    assert stages[model.LOW_LEVEL].shape[-1] == 224 / 4


@pytest.mark.parametrize(("alpha", "first", "last"), [(0.33, 10, 337), (1.25, 40, 1280)])
def test_channels_are_rounded_down(alpha, first, last):
    with torch.device("meta"):
        model = MobileNetV1(width=alpha)
    assert model.stage_channels["stem"] == first  # 10.56, 40
    assert model.num_features == last  # 337.92, 1280


def test_no_width_leaves_a_layer_without_channels():
    model = MobileNetV1(num_classes=2, width=0.01).eval()
    assert list(model.stage_channels.values()) == [1, 1, 1, 2, 5, 10]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


# Where a network of stride 32 looks, a dense one sees the same: the window of its first output
# starts at the first pixel (padding before it: none), or is centred on it.
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    ("padding", "size", "first"),
    [
        ("symmetric", 96, 0),
        ("symmetric", 75, 0),
        ("same", 65, 0),
        ("same", 128, 1),
        ("keras", 64, 1),
    ],
)
def test_dilation_sees_what_strides_see(output_stride, padding, size, first):
    torch.manual_seed(0)
    model = lively(MobileNetV1(**SMALL, padding=padding)).double()
    dense = MobileNetV1(**model.options | {"output_stride": output_stride}).double().eval()
    dense.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, size, size + 32, dtype=torch.float64)
    step = 32 // output_stride
    start = first * (step - 1)  # each lost stride that looks right of its place moves by half
    with torch.no_grad():
        expected = model.forward_features(x)["stage5"]
        seen = dense.forward_features(x)["stage5"][:, :, start::step, start::step]
    assert expected.std() > 0.1
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 31),
        ({"output_stride": 16}, 15),
        ({"output_stride": 8}, 7),
        ({"padding": "same"}, 1),
        ({"padding": "symmetric", "output_stride": 16}, 1),
    ],
)
def test_the_smallest_image(options, least):
    model = MobileNetV1(**SMALL, **options).eval()
    assert least == model.MINIMUM_SIZE
    assert model(torch.zeros(1, 3, least, 40)).shape == (1, 5)
    if least > 1:
        with pytest.raises(UserError, match=f"{least - 1}x40 pixels are too small"):
            model(torch.zeros(1, 3, least - 1, 40))
        model.MINIMUM_SIZE = 1
        with pytest.raises(RuntimeError, match="Kernel size"):  # it is indeed the least
            model(torch.zeros(1, 3, least - 1, 40))


@pytest.mark.parametrize(
    "options",
    [{}, {"in_channels": 1, "dropout": 0.5}, {"output_stride": 8}, {"padding": "symmetric"}],
)
def test_every_parameter_learns_and_options_build_it_again(options):
    torch.manual_seed(0)
    model = MobileNetV1(**SMALL | {"width": 0.2} | options)
    model(torch.randn(8, model.options["in_channels"], 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    again = MobileNetV1(**model.options)
    assert again.options == model.options
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


def test_working_in_place_changes_no_gradient_and_no_stage():
    torch.manual_seed(0)
    careful = MobileNetV1(**SMALL).double()
    quick = copy.deepcopy(careful)
    for module in careful.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = False
    x = torch.randn(2, 3, 64, 33, dtype=torch.float64, requires_grad=True)
    seen, again = careful.forward_features(x), quick.forward_features(x)
    assert all(torch.equal(seen[name], again[name]) for name in seen)
    grads = [torch.autograd.grad(m(x).square().sum(), x)[0] for m in (careful, quick)]
    torch.testing.assert_close(*grads)


def test_activations_stop_at_6():
    model = lively(MobileNetV1(**SMALL))
    stages = model.forward_features(100 * torch.randn(1, 3, 64, 64))
    assert all(stage.min() >= 0 and stage.max() <= 6 for stage in stages.values())
    assert stages["stem"].max() == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"padding": "valid"}, "padding must be one of keras, same, symmetric, not 'valid'"),
        ({"output_stride": 4}, "output_stride must be one of 8, 16, 32, not 4"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MobileNetV1(**options)
