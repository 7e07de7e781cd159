from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import small
from torch import nn

from xception.deploy.fold import fold, folded, last_convolutions
from xception.layers import Conv2d, SeparableConv2d
from xception.layers.exchange import separated_like
from xception.layers.separable import Order
from xception.models.inception_parts import Conv, Fork, Parts
from xception.models.zoo import create_model


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def random_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, -1.5, 1.5)  # negative scales too
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.get_buffer("running_mean"))
    nn.init.uniform_(norm.get_buffer("running_var"), 0.2, 3)
    return norm


def test_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    with torch.no_grad():
        conv.weight.fill_(2)
        conv.get_parameter("bias").fill_(7)
        norm.weight.fill_(4)
        norm.bias.fill_(6)
        norm.get_buffer("running_mean").fill_(5)
        norm.get_buffer("running_var").fill_(3)
    row = nn.Sequential(conv, norm)
    fold(row)
    # Four over the root of 3 + 1 is a scale of 2: weight 2·2, bias 7·2 + 6 − 5·2.
    assert conv.weight.item() == 4
    assert conv.get_parameter("bias").item() == 10
    assert isinstance(row[1], nn.Identity)


def test_rounded_once():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), random_norm(5)
    variance = norm.get_buffer("running_var").double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    exact = conv.weight.detach().double() * scale[:, None, None, None]
    fold(nn.Sequential(conv, norm))
    # One rounding is at most half a unit in the last place away: 2^-24.
    difference = (conv.weight.double() - exact).abs() / exact.abs()
    assert difference.max() <= 2.0**-24 * (1 + 1e-6)


SEPARABLE: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": "same"},
    {"stride": 2, "padding": (0, 1, 0, 1)},
    {"order": "pointwise_first"},
    {"order": "pointwise_first", "bias": True, "depth_multiplier": 2},
    {"segments": 4},
    {"segments": 4, "order": "pointwise_first"},
    {"depth_multiplier": 2, "bias": True, "dilation": 2, "activation": "relu"},
]


@pytest.mark.parametrize("options", SEPARABLE)
@pytest.mark.parametrize("between", [None, random_norm])
@pytest.mark.parametrize("after", [None, random_norm])
def test_separable_convolutions(
    options: dict[str, Any],
    between: Callable[[int], nn.Module] | None,
    after: Callable[[int], nn.Module] | None,
):
    torch.manual_seed(0)
    module = SeparableConv2d(7, 10, norm_between=between, norm_after=after, **options).eval()
    result = folded(module)
    assert norms(result) == []
    x = torch.randn(2, 7, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(result(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xception", {}),
        ("xception", {"residual": False, "segments": 3, "activation": "elu"}),
        ("mobilenet_v1", {"padding": "same"}),
        ("xception41", {"activation": "relu"}),
        ("deeplab_v3plus", {"backbone": "mobilenet_v1", "backbone_options": {"width": 0.1}}),
        (
            "deeplab_v3plus",
            {
                "backbone": "mobilenet_v1",
                "backbone_options": {"width": 0.1},
                "separable": False,
                "decoder": False,
            },
        ),
    ],
)
def test_networks(name: str, options: dict[str, Any]):
    model = small(name, **options)
    result = folded(model)
    assert norms(model)
    assert norms(result) == []
    assert result.card is not None
    x = torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        plain, found = model(x), result(x)
        exact = model.double()(x.double())
    # No farther from the exact answer than the network itself is, but for the last digits.
    assert (found - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-5


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_parts_of_inception(scales: bool, last: bool):
    torch.manual_seed(0)
    steps = (Conv(4, (3, 3)), Fork((Conv(3, (1, 3)), Conv(2, (3, 1)))), Conv(5, stride=2))
    module, _ = Parts(scales, 1e-3, "exclude", last).branch(3, steps)
    for norm in norms(module):
        nn.init.normal_(norm.get_parameter("bias"))
        nn.init.uniform_(norm.get_buffer("running_var"), 0.2, 3)
    result = folded(module)
    # In August 2016 the normalisation came behind the ReLU, where no convolution can take it.
    assert len(norms(result)) == (4 if last else 0)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(result(x), module.eval()(x), rtol=1e-4, atol=1e-5)


def test_what_stands_elsewhere_stays():
    shared = Conv2d(3, 3, 3)
    rows = nn.ModuleList(
        [
            nn.Sequential(nn.ReLU(), random_norm(3)),
            nn.Sequential(shared, random_norm(3)),
            nn.Sequential(shared, random_norm(3)),
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        ]
    ).eval()
    result = folded(rows)
    assert len(norms(result)) == 4
    x = torch.randn(2, 3, 5, 5)
    for before, after in zip(rows, result, strict=True):
        torch.testing.assert_close(after(x), before(x))
    assert last_convolutions(nn.Sequential()) == []
    assert last_convolutions(None) == []


def test_a_row_within_a_row():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1))
    module = nn.Sequential(inner, random_norm(4)).eval()
    result = folded(module)
    assert norms(result) == []
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(result(x), module(x))


def test_the_structure_without_memory():
    whole = small("xception")
    names = set(folded(whole).state_dict())
    with torch.device("meta"):
        empty = create_model("xception", **whole.options)
    fold(empty)
    assert set(empty.state_dict()) == names
    assert not any(name.endswith("running_var") for name in names)


@pytest.mark.parametrize("ranks", [2, (1, 3, 2, 1, 2, 3)])
@pytest.mark.parametrize("order", ["depthwise_first", "pointwise_first"])
def test_exchanged_convolutions(order: Order, ranks: int | tuple[int, ...]):
    """A normalisation behind the sum of several separable convolutions may stay."""
    torch.manual_seed(0)
    exchanged = separated_like(nn.Conv2d(6, 6, 3), order=order, ranks=ranks, bias=True)
    for parameter in exchanged.parameters():
        nn.init.normal_(parameter)
    row = nn.Sequential(exchanged, random_norm(6), nn.ReLU()).eval()
    x = torch.randn(2, 6, 8, 9)
    changed = folded(row)
    torch.testing.assert_close(changed(x), row(x), rtol=1e-4, atol=1e-4)
    assert bool(norms(changed)) == (order == "pointwise_first")
