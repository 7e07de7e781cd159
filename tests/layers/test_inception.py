import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xception.layers import SeparableConv2d
from xception.layers.inception import (
    Inception,
    SegmentedInception,
    SimplifiedInception,
    joined,
    parted,
    segmented,
    separable,
)

TOWERS = [
    [(3, 4)],
    [(2, 2), (2, 2), (2, 2)],
    [(1, 5), (4, 2), (3, 3)],  # Figure 3 asks for no equal segments
]


def image(channels, height=7, width=8):
    generator = torch.Generator().manual_seed(height)
    return torch.randn(2, channels, height, width, dtype=torch.float64, generator=generator)


def same(module, other, channels):
    """Both compute the same; how far they differ."""
    differences = [
        (module(image(channels, *size)) - other(image(channels, *size))).abs().max()
        for size in ((7, 8), (6, 9), (1, 2))
    ]
    return max(differences)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_canonical_module_by_hand():
    torch.manual_seed(0)
    module = Inception(4, single=3, tower=(2, 5), deep_tower=(3, 2), pooled=1).double()
    x = image(4)
    assert parameters(module) == 4 * 3 + (4 * 2 + 9 * 2 * 5) + (4 * 3 + 9 * 3 * 2 + 9 * 2 * 2) + 4
    weights = [p.detach() for p in module.parameters()]
    second = F.conv2d(F.conv2d(x, weights[1]).relu(), weights[2], padding=1)
    third = F.conv2d(F.conv2d(x, weights[3]).relu(), weights[4], padding=1)
    third = F.conv2d(third.relu(), weights[5], padding=1)
    inside = F.conv2d(torch.ones(1, 1, 7, 8).double(), torch.ones(1, 1, 3, 3).double(), padding=1)
    sums = F.conv2d(x, torch.ones(4, 1, 3, 3).double(), padding=1, groups=4)
    fourth = F.conv2d(sums / inside, weights[6])
    expected = torch.cat([F.conv2d(x, weights[0]), second, third, fourth], dim=1)
    torch.testing.assert_close(module(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("activation", ["none", "relu", "elu"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("towers", TOWERS)
def test_figure_2_is_figure_3(towers, kernel, activation):
    torch.manual_seed(0)
    simplified = SimplifiedInception(5, towers, kernel, activation=activation).double()
    as_one = joined(simplified)
    assert as_one.mixing.weight.shape == (sum(between for between, _ in towers), 5, 1, 1)
    assert same(simplified, as_one, 5) <= 1e-10
    assert parameters(as_one) == parameters(simplified)
    again = parted(as_one)
    assert again.state_dict().keys() == simplified.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(*map(weights, (again, simplified)), strict=True))


def weights(module):
    return module.state_dict().values()


def test_figure_2_by_hand():
    torch.manual_seed(0)
    module = SimplifiedInception(3, [(2, 1), (1, 2)]).double()
    x = image(3)
    first, second, narrow, wide = (p.detach() for p in module.parameters())
    expected = [
        F.conv2d(F.conv2d(x, first).relu(), narrow, padding=1),
        F.conv2d(F.conv2d(x, second).relu(), wide, padding=1),
    ]
    torch.testing.assert_close(module(x), torch.cat(expected, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("activation", ["none", "relu", "elu"])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("sizes", [[7], [4, 3], [3, 2, 2], [2, 2, 1, 1, 1], [1] * 7])
def test_figure_3_with_equal_segments_is_a_separable_convolution(sizes, multiplier, activation):
    torch.manual_seed(0)
    towers = [(size, size * multiplier) for size in sizes]
    figure_3 = SegmentedInception(5, towers, activation=activation).double()
    convolution = separable(figure_3)
    assert convolution.segments == len(sizes)
    assert not convolution.depthwise_first
    assert parameters(convolution) == parameters(figure_3)
    assert same(figure_3, convolution, 5) <= 1e-10
    back = segmented(convolution)
    assert back.towers == tuple(towers)
    assert all(torch.equal(a, b) for a, b in zip(*map(weights, (back, figure_3)), strict=True))
    assert same(back, convolution, 5) <= 1e-10


def test_the_whole_way_from_towers_to_the_extreme_form():
    """As many towers as channels: Figures 2, 3 and 4 are one function."""
    torch.manual_seed(0)
    figure_2 = SimplifiedInception(3, [(1, 1)] * 6).double()
    figure_3 = joined(figure_2)
    figure_4 = separable(figure_3)
    assert figure_4.depthwise.weight.shape == (6, 1, 3, 3)
    assert figure_4.depthwise.groups == 6
    assert max(same(figure_2, figure_3, 3), same(figure_3, figure_4, 3)) <= 1e-10


def test_a_conversion_shares_no_memory():
    module = SegmentedInception(3, [(1, 1)] * 2)
    other = separable(module)
    before = other.pointwise.weight.clone()
    nn.init.zeros_(module.mixing.weight)
    assert torch.equal(other.pointwise.weight, before)


@pytest.mark.parametrize("towers", [[(1, 1), (2, 2)], [(2, 2), (2, 4)], [(3, 3), (1, 1)], [(2, 1)]])
def test_segments_that_no_separable_convolution_has(towers):
    with pytest.raises(ValueError, match="would have the segments"):
        separable(SegmentedInception(3, towers))


@pytest.mark.parametrize(
    "options",
    [
        {"order": "depthwise_first"},
        {"stride": 2},
        {"dilation": 2},
        {"padding": "valid"},
        {"bias": True},
        {"norm_after": nn.BatchNorm2d},
        {"norm_between": nn.BatchNorm2d},
    ],
)
def test_more_than_figure_4_shows_is_refused(options):
    with pytest.raises(ValueError, match="Figure 4"):
        segmented(SeparableConv2d(4, 4, **{"order": "pointwise_first"} | options))


@pytest.mark.parametrize("kind", [SimplifiedInception, SegmentedInception])
def test_a_module_needs_a_tower(kind):
    with pytest.raises(ValueError, match="at least one"):
        kind(3, [])
