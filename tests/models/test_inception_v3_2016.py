import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xception.models.inception_v3 import InceptionV3
from xception.models.inception_v3_2016 import InceptionV3August2016


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return InceptionV3August2016(num_classes=3).eval()


def test_parameters_are_those_of_table_3_of_the_xception_paper():
    with torch.device("meta"):
        model = InceptionV3August2016()
    assert sum(p.numel() for p in model.parameters()) == 23_626_728
    # The sum by its parts: kernels, biases, scales and offsets, classifier.
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(conv.weight.numel() for conv in convs) == 21_526_368
    assert sum(conv.bias.numel() for conv in convs if conv.bias is not None) == 17_120
    assert sum(p.numel() for norm in norms for p in norm.parameters()) == 34_240
    assert model.classifier.weight.numel() + model.classifier.bias.numel() == 2_049_000


def test_bias_then_relu_then_normalisation(model):
    first = model.stem1[0]
    norm = first.get_submodule("norm")
    nn.init.normal_(first.get_submodule("conv").get_parameter("bias"))
    nn.init.normal_(norm.get_buffer("running_mean"))
    nn.init.normal_(norm.get_parameter("bias"))
    x = torch.randn(2, 3, 9, 9)
    weight, bias = first.get_submodule("conv").parameters()
    rectified = F.conv2d(x, weight, bias, stride=2).relu()
    shift = (norm.get_parameter("bias"), norm.get_buffer("running_mean"))
    offset, mean = (value[:, None, None] for value in shift)  # scale and variance are 1
    expected = (rectified - mean) / (1 + 1e-3) ** 0.5 + offset
    with torch.no_grad():
        torch.testing.assert_close(first(x), expected)
    assert expected.min() < 0  # nothing rectifies behind the normalisation


def test_averages_lead_to_the_last_grid(model):
    x = torch.randn(1, 768, 7, 6)
    mixed8 = model.grid8.get_submodule("mixed8")
    with torch.no_grad():
        pooled = mixed8(x)[:, -768:]
    by_hand = torch.stack(
        [x[..., i : i + 3, j : j + 3].mean((2, 3)) for i in (0, 2, 4) for j in (0, 2)], -1
    )
    torch.testing.assert_close(pooled.flatten(2), by_hand)


def test_what_differs_from_today():
    with torch.device("meta"):
        old = InceptionV3August2016().state_dict()
        new = InceptionV3().state_dict()
    names = {name for name in new if name.endswith("conv.weight") and "mixed" in name}
    differ = {name for name in names if old[name].shape != new[name].shape}
    # The pool branches of mixed1 and mixed2; what reads their 256 channels and not 288, so that
    # mixed3 gives 736 and not 768; and the branch of mixed7.
    assert differ == {
        "grid35.mixed1.3.1.conv.weight",
        *(f"grid35.mixed2.{i}.{int(i == 3)}.conv.weight" for i in range(4)),
        *(f"grid17.mixed3.{i}.0.conv.weight" for i in range(2)),
        *(f"grid17.mixed4.{i}.{int(i == 3)}.conv.weight" for i in range(4)),
        *(f"grid17.mixed7.2.{i}.conv.weight" for i in range(2)),
    }
    assert old["grid17.mixed7.2.0.conv.weight"].shape == (160, 768, 1, 1)


def test_every_parameter_learns():
    torch.manual_seed(0)
    model = InceptionV3August2016(num_classes=3)
    model(torch.randn(4, 3, 80, 80)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
