from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from xception.layers.conv import Conv2d
from xception.layers.exchange import fill, inseparable, padding_of, separated_like
from xception.layers.separable import SeparableConv2d
from xception.layers.separated import SeparatedConv2d, take


def regular(kernels, mixing, ranks, groups, first, outputs, inputs):
    """The kernel that the terms add up to, term by term."""
    whole = torch.zeros(outputs, inputs // groups, *kernels.shape[1:], dtype=kernels.dtype)
    size = len(ranks) // groups
    term = 0
    for i, rank in enumerate(ranks):
        for _ in range(rank):
            for other in range(mixing.shape[1]):
                part = mixing[term, other] * kernels[term]
                if first:
                    whole[(i // size) * (outputs // groups) + other, i % size] += part
                else:
                    whole[i, other] += part
            term += 1
    return whole


CASES = [
    # order, groups, ranks
    ("depthwise_first", 1, [1, 1, 1, 1]),
    ("depthwise_first", 1, [3, 3, 3, 3]),
    ("depthwise_first", 1, [2, 1, 4, 1]),
    ("depthwise_first", 1, [0, 3, 1, 0]),
    ("depthwise_first", 2, [1, 1, 1, 1]),
    ("depthwise_first", 2, [2, 2, 2, 2]),
    ("depthwise_first", 2, [0, 3, 2, 1]),
    ("depthwise_first", 4, [2, 2, 2, 2]),
    ("pointwise_first", 1, [1] * 8),
    ("pointwise_first", 1, [2] * 8),
    ("pointwise_first", 1, [1, 3, 2, 1, 1, 2, 3, 1]),
    ("pointwise_first", 1, [4, 1, 1, 1, 1, 1, 1, 1]),
    ("pointwise_first", 2, [1] * 8),
    ("pointwise_first", 2, [2] * 8),
    ("pointwise_first", 2, [2, 1, 1, 1, 1, 1, 1, 2]),
]
WINDOWS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (1, 5), "padding": (0, 2)},
    {"kernel_size": (4, 2), "padding": "same"},
    {"kernel_size": 3, "dilation": (2, 1), "padding": (2, 1)},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("case", "window"), list(product(CASES, WINDOWS)))
def test_the_module_is_the_sum_of_its_terms(case, window):
    order, groups, ranks = case
    first = order == "depthwise_first"
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, **window, groups=groups, dtype=torch.float64)
    most = conv.weight[0, 0].numel()
    ranks = [min(rank, 2 if not first and groups > 1 else most, 4) for rank in ranks]
    module = separated_like(conv, order=order, ranks=ranks, bias=True)
    height, width = conv.weight.shape[2:]
    kernels = torch.randn(sum(ranks), height, width, dtype=torch.float64)
    mixing = torch.randn(sum(ranks), (8 if first else 4) // groups, dtype=torch.float64)
    bias = torch.randn(8, dtype=torch.float64)
    fill(module, kernels, mixing, bias)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(regular(kernels, mixing, ranks, groups, first, 8, 4))
        assert conv.bias is not None
        conv.bias.copy_(bias)
        torch.testing.assert_close(module(x), conv(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("edge", ["same", "valid", 2, (2, 0, 1, 3)])
@pytest.mark.parametrize("order", ["depthwise_first", "pointwise_first"])
def test_our_own_padding_is_kept(edge, order):
    torch.manual_seed(0)
    conv = Conv2d(2, 2, 3, stride=2, padding=edge, bias=False).double()
    module = separated_like(conv, order=order, ranks=[2, 1], bias=False)
    kernels = torch.randn(3, 3, 3, dtype=torch.float64)
    mixing = torch.randn(3, 2, dtype=torch.float64)
    fill(module, kernels, mixing, None)
    with torch.no_grad():
        first = order == "depthwise_first"
        conv.weight.copy_(regular(kernels, mixing, [2, 1], 1, first, 2, 2))
        x = torch.randn(1, 2, 8, 7, dtype=torch.float64)
        torch.testing.assert_close(module(x), conv(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("options", "order", "ranks", "kind"),
    [
        ({}, "depthwise_first", 1, SeparableConv2d),
        ({}, "depthwise_first", 3, SeparableConv2d),
        ({}, "depthwise_first", (3, 3, 3, 3), SeparableConv2d),
        ({}, "pointwise_first", 1, SeparableConv2d),
        ({}, "pointwise_first", 2, SeparatedConv2d),
        ({}, "depthwise_first", (1, 2, 1, 1), SeparatedConv2d),
        ({"groups": 2}, "depthwise_first", 1, SeparatedConv2d),
        ({"padding_mode": "circular"}, "depthwise_first", 1, SeparatedConv2d),
        ({"stride": (1, 2)}, "depthwise_first", 1, SeparatedConv2d),
    ],
)
def test_the_one_separable_convolution_is_used_where_it_can_say_it(options, order, ranks, kind):
    conv = nn.Conv2d(4, 8, 3, **options)
    assert type(separated_like(conv, order=order, ranks=ranks, bias=True)) is kind


@pytest.mark.parametrize("ranks", [2, (1, 2, 0, 1)])
def test_the_empty_module_is_like_the_convolution(ranks):
    conv = nn.Conv2d(4, 8, 3, dtype=torch.float64).eval()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    module = separated_like(conv, order="depthwise_first", ranks=ranks, bias=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert all((p == 0).all() for p in module.parameters())
    assert module(torch.ones(1, 4, 5, 5, dtype=torch.float64)).shape == (1, 8, 3, 3)


@pytest.mark.parametrize("order", ["depthwise_first", "pointwise_first"])
def test_it_is_built_on_meta_and_filled_from_a_dictionary(order):
    ranks = [1, 2, 1, 1]
    conv = nn.Conv2d(4, 4, 3, groups=1)
    real = separated_like(conv, order=order, ranks=ranks, bias=True)
    torch.manual_seed(0)
    for parameter in real.parameters():
        nn.init.normal_(parameter)
    with torch.device("meta"):
        empty = separated_like(nn.Conv2d(4, 4, 3), order=order, ranks=ranks, bias=True)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert empty(torch.empty(1, 4, 6, 6, device="meta")).shape == (1, 4, 4, 4)
    empty.load_state_dict(real.state_dict(), assign=True)
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(empty(x), real(x))


def test_channels_last_stays():
    x = torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last)
    taken = take(x, torch.tensor([5, 0, 0]))
    assert taken.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(taken, x[:, [5, 0, 0]])
    assert take(x.contiguous(), torch.tensor([1])).is_contiguous()


@pytest.mark.parametrize(
    ("options", "order", "ranks", "said"),
    [
        ({}, "depthwise_first", 0, "ranks must be 0 to 8|sum"),
        ({}, "depthwise_first", 9, "ranks must be 0 to 8, not 9 to 9"),
        ({}, "depthwise_first", (1, 2), "needs 4 ranks, not 2"),
        ({}, "pointwise_first", 5, "ranks must be 1 to 4"),
        ({}, "pointwise_first", 0, "ranks must be 1 to 4"),
        ({"groups": 2}, "depthwise_first", (1, 1, 1, 2), "same sum"),
        ({}, "sideways", 1, "order must be"),
    ],
)
def test_what_cannot_be_is_said(options, order, ranks, said, unchecked_types):
    with pytest.raises(ValueError, match=said):
        separated_like(nn.Conv2d(4, 8, 3, **options), order=order, ranks=ranks, bias=False)


class Standardised(nn.Conv2d):
    def forward(self, input):
        return F.conv2d(input, self.weight - self.weight.mean())


def test_what_is_no_plain_convolution_is_refused():
    assert inseparable(nn.Conv2d(1, 1, 3)) is None
    assert inseparable(Conv2d(1, 1, 3)) is None
    assert "no 2-D convolution" in str(inseparable(nn.Linear(1, 1)))
    assert "no 2-D convolution" in str(inseparable(nn.ConvTranspose2d(1, 1, 3)))
    assert "of its own" in str(inseparable(Standardised(1, 1, 3)))
    with pytest.raises(ValueError, match="of its own"):
        separated_like(Standardised(1, 1, 3), order="depthwise_first", ranks=1, bias=False)


@pytest.mark.parametrize(
    ("conv", "padding"),
    [
        (nn.Conv2d(1, 1, 3), 0),
        (nn.Conv2d(1, 1, 3, padding=2), 2),
        (nn.Conv2d(1, 1, (1, 3), padding=(0, 1)), (1, 1, 0, 0)),
        (nn.Conv2d(1, 1, 3, padding="same"), "same"),
        (nn.Conv2d(1, 1, 3, padding="valid"), "valid"),
        (Conv2d(1, 1, 3, padding=(1, 0, 2, 0)), (1, 0, 2, 0)),
    ],
)
def test_padding_in_our_words(conv, padding):
    assert padding_of(conv) == padding


def test_a_bias_needs_a_place():
    module = separated_like(nn.Conv2d(1, 1, 3), order="depthwise_first", ranks=1, bias=False)
    with pytest.raises(ValueError, match="no bias"):
        fill(module, torch.ones(1, 3, 3), torch.ones(1, 1), torch.ones(1))


class Centred(nn.Conv2d):
    """Weight standardisation, as timm and others write it: `forward` is torch's own."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight - weight.mean(), bias)


def test_what_only_seems_a_plain_convolution_is_refused():
    patched = nn.Conv2d(1, 1, 3)
    patched.forward = lambda input: F.conv2d(input, 2 * patched.weight)
    for one in (Centred(1, 1, 3), patched):
        assert "of its own" in str(inseparable(one))
    assert inseparable(parametrizations.weight_norm(nn.Conv2d(1, 1, 3))) is None
