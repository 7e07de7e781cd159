"""Single layers without data: the theorem of docs/separation.md, and Eckart and Young."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xception.errors import UserError
from xception.layers.conv import Conv2d
from xception.layers.separable import SeparableConv2d
from xception.separation import PatchStatistics, separability, separate

ORDERS = ("depthwise_first", "pointwise_first")


def convolution(kernel, **options):
    """A convolution with this kernel, in its type."""
    groups = options.get("groups", 1)
    outputs, inputs, *window = kernel.shape
    conv = nn.Conv2d(inputs * groups, outputs, tuple(window), **options, dtype=kernel.dtype)
    with torch.no_grad():
        conv.weight.copy_(kernel)
    return conv


def largest_difference(a, b, x):
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max())


# The example of docs/separation.md: two inputs, two outputs, four taps.
EXAMPLE = torch.tensor(
    [[[[1, 0], [0, -1]], [[1, 1], [0, 0]]], [[[2, 0], [0, -2]], [[0, 0], [1, 1]]]],
    dtype=torch.float64,
)


def test_the_example_of_the_page():
    known = separability(convolution(EXAMPLE))
    first, last = known.depthwise_first, known.pointwise_first
    np.testing.assert_allclose(first.values, [[math.sqrt(10), 0], [math.sqrt(2)] * 2], atol=1e-12)
    root = math.sqrt(13)
    values = [[math.sqrt(3), 1], [math.sqrt(5 + root), math.sqrt(5 - root)]]
    np.testing.assert_allclose(last.values, values, atol=1e-12)
    assert first.exact_ranks == (1, 2)
    assert last.exact_ranks == (2, 2)
    assert not known.separable
    assert first.error(1) == pytest.approx(math.sqrt(2 / 14))
    assert last.error(1) == pytest.approx(math.sqrt((6 - root) / 14))
    assert (first.macs((1, 2)), first.macs(1), first.regular_macs) == (18, 12, 16)
    assert first.energy(1) == pytest.approx(12 / 14)
    assert first.mean_energy(1) == pytest.approx((1 + 1 / 2) / 2)
    assert first.ranks_for(error=0.37) == (1, 2)
    assert first.ranks_for(error=0.38) == (1, 1)
    assert first.rank_for(error=0.38) == 1
    assert first.rank_for(energy=1) == 2


def test_one_input_channel_that_answers_nothing_needs_no_kernel():
    kernel = EXAMPLE.clone()
    kernel[:, 1] = 0
    conv = convolution(kernel)
    spectrum = separability(conv).depthwise_first
    assert spectrum.exact_ranks == (1, 0)
    assert spectrum.ranks_for(error=0) == (1, 0)
    assert spectrum.mean_energy(1) == 1
    made = separate(conv, error=0)
    assert made.ranks == (1, 0)
    assert largest_difference(conv, made.module, torch.randn(1, 2, 4, 4).double()) < 1e-12


@st.composite
def disguises(draw):
    """A separable kernel written as a regular one: its order, ranks, options and a seed."""
    order = draw(st.sampled_from(ORDERS))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = draw(st.integers(1, 4)) * groups, draw(st.integers(1, 4)) * groups
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (2, 2), (5, 5), (1, 7), (7, 1), (2, 3), (1, 1)]))
    slices, others = (inputs, outputs) if order == ORDERS[0] else (outputs, inputs)
    most = min(others // groups, kernel[0] * kernel[1])
    multiplier = draw(st.integers(1, most))
    options = {
        "stride": draw(st.sampled_from([1, 2, 3, (2, 1)])),
        "dilation": draw(st.sampled_from([1, 2, (1, 3)])),
        "padding": draw(st.sampled_from([0, 1, 2, (0, 3)])),
        "padding_mode": draw(st.sampled_from(["zeros", "zeros", "reflect", "circular"])),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    seed = draw(st.integers(0, 2**20))
    return order, (inputs, outputs, kernel), (slices, others, multiplier), options, seed


def disguise(order, sizes, ranks, groups):
    """The kernel, as sums over terms; each slice has this rank, as the numbers are random."""
    height, width = sizes[2]
    slices, others, multiplier = ranks
    kernels = torch.randn(slices, multiplier, height, width, dtype=torch.float64)
    mixing = torch.randn(slices, multiplier, others // groups, dtype=torch.float64)
    made = torch.einsum("sthw,sta->sahw", kernels, mixing)
    if order == "pointwise_first":
        return made
    return made.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


@given(disguises())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_a_disguised_separable_convolution_is_recovered(case):
    order, sizes, ranks, options, seed = case
    torch.manual_seed(seed)
    conv = convolution(disguise(order, sizes, ranks, options["groups"]), **options)
    made = separate(conv, error=0, order=order)
    assert made.ranks == (ranks[2],) * ranks[0]
    assert made.error < 1e-12
    x = torch.randn(2, sizes[0], 15, 20, dtype=torch.float64)
    assert largest_difference(conv, made.module, x) < 1e-10


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid", (0, 1, 0, 1)])
def test_our_own_module_in_disguise(order, multiplier, padding):
    torch.manual_seed(0)
    options = {"stride": 2, "padding": padding, "bias": True}
    hidden = SeparableConv2d(4, 6, 3, order=order, depth_multiplier=multiplier, **options).double()
    conv = Conv2d(4, 6, 3, **options).double()
    with torch.no_grad():
        # A regular convolution is known by what it makes of unit pulses, one tap apart.
        probe = SeparableConv2d(4, 6, 3, order=order, depth_multiplier=multiplier, padding=2)
        probe = probe.double()
        probe.load_state_dict(hidden.state_dict(), strict=False)
        pulses = torch.eye(4, dtype=torch.float64)[:, :, None, None]
        conv.weight.copy_(probe(pulses).flip(2, 3).transpose(0, 1))
        second = hidden.pointwise if order == ORDERS[0] else hidden.depthwise
        assert conv.bias is not None
        assert second.bias is not None
        conv.bias.copy_(second.bias)
    known = separability(conv).of(order)
    # Pointwise first each output has one depthwise kernel, whatever the multiplier shares.
    assert known.exact_rank == (multiplier if order == ORDERS[0] else 1)
    made = separate(conv, rank=known.exact_rank, order=order)
    assert isinstance(made.module, SeparableConv2d)
    x = torch.randn(2, 4, 9, 10, dtype=torch.float64)
    assert largest_difference(hidden, conv, x) < 1e-12
    assert largest_difference(hidden, made.module, x) < 1e-10


@pytest.mark.parametrize(
    ("outputs", "inputs", "kernel"),
    [(16, 5, (3, 3)), (4, 16, (3, 3)), (6, 7, (1, 7)), (9, 8, (7, 1))],
)
@pytest.mark.parametrize("order", ORDERS)
def test_the_smaller_of_channels_and_taps_always_suffices(outputs, inputs, kernel, order):
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    most = min(outputs if order == ORDERS[0] else inputs, kernel[0] * kernel[1])
    made = separate(conv, rank=99, order=order)
    assert set(made.ranks) == {most}
    assert separability(conv).of(order).exact_rank == most
    assert made.error < 1e-7
    assert largest_difference(conv, made.module, torch.randn(2, inputs, 9, 8)) < 1e-5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", [1, 2])
def test_the_error_is_that_of_eckart_and_young(order, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, groups=groups, dtype=torch.float64)
    weight = conv.weight.detach().numpy()
    for rank in range(1, 4):
        lost = 0.0
        if order == "depthwise_first":
            size = 8 // groups
            for group in range(groups):
                for i in range(6 // groups):
                    part = weight[group * size : (group + 1) * size, i].reshape(size, 9)
                    lost += np.linalg.eigvalsh(part.T @ part)[: 9 - rank].sum()
        else:
            for part in weight.reshape(8, 6 // groups, 9):
                lost += np.linalg.eigvalsh(part.T @ part)[: 9 - rank].sum()
        optimum = math.sqrt(max(lost, 0) / (weight**2).sum())
        assert separate(conv, rank=rank, order=order).error == pytest.approx(optimum, abs=1e-7)
        assert separability(conv).of(order).error(rank) == pytest.approx(optimum, abs=1e-7)


def test_no_other_kernel_of_these_ranks_is_nearer():
    """Kernels and mixing fitted in turn, from a random start, come to the same and never below."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, dtype=torch.float64)
    made = separate(conv, rank=2)
    weight = conv.weight.detach().flatten(2).numpy()
    rng = np.random.default_rng(0)
    lost = 0.0
    for part in weight.transpose(1, 0, 2):
        kernels = rng.normal(size=(2, 9))
        for _ in range(300):
            mixing = np.linalg.lstsq(kernels.T, part.T)[0].T
            kernels = np.linalg.lstsq(mixing, part)[0]
        mixing = np.linalg.lstsq(kernels.T, part.T)[0].T
        lost += ((mixing @ kernels - part) ** 2).sum()
    found = math.sqrt(lost / (weight**2).sum())
    assert made.error == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", [1, 2])
def test_unequal_ranks_are_the_best_of_their_sum(order, groups):
    """All ranks of that sum are tried."""
    torch.manual_seed(1)
    conv = nn.Conv2d(4, 4, (1, 3), groups=groups, dtype=torch.float64)
    with torch.no_grad():
        conv.weight *= torch.rand(4, 4 // groups, 1, 1, dtype=torch.float64)
    spectrum = separability(conv).of(order)
    least, most = (0 if order == "depthwise_first" else 1), spectrum.largest_rank
    size = 4 // groups
    for total in range(4 if least else groups, 4 * most + 1, groups):
        all_ranks = [
            ranks
            for ranks in np.ndindex(*(most + 1,) * 4)
            if min(ranks) >= least
            and all(sum(ranks[g * size : (g + 1) * size]) == total // groups for g in range(groups))
        ]
        best = min(spectrum.error(ranks) for ranks in all_ranks)
        chosen = spectrum.allocate(total)
        assert chosen in all_ranks
        assert spectrum.error(chosen) == pytest.approx(best)
        assert sum(spectrum.ranks_for(error=best + 1e-9)) <= total


def test_fewer_terms_than_equal_ranks_for_the_same_energy():
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3)
    with torch.no_grad():
        conv.weight *= torch.logspace(-2, 0, 16)[:, None, None]
    unequal = separate(conv, energy=0.9)
    equal = separate(conv, energy=0.9, equal=True)
    assert len(set(equal.ranks)) == 1
    assert unequal.macs < equal.macs
    assert unequal.error <= math.sqrt(0.1)
    assert equal.error <= math.sqrt(0.1)
    assert unequal.macs == sum(unequal.ranks) * (9 + 16)
    assert unequal.regular_macs == 9 * 16 * 16


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_macs_are_those_that_run(order, stride):
    """Counted by the module's own weights and places."""
    conv = nn.Conv2d(6, 8, 3, stride=stride, padding=1)
    made = separate(conv, rank=2, order=order)
    place = (8 // stride) ** 2
    points = place if order == ORDERS[0] else 64
    module = made.module
    counted = module.depthwise.weight.numel() * place + module.pointwise.weight.numel() * points
    assert made.macs * place == counted
    assert made.regular_macs == conv.weight.numel()
    assert separability(conv).of(order).macs(2) == made.macs


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 2},
        {"kernel_size": (1, 4), "stride": (1, 3), "dilation": (1, 2), "padding": (0, 3)},
        {"kernel_size": 3, "padding": 1, "groups": 2},
    ],
)
def test_no_input_breaks_the_bound_and_the_worst_one_comes_near(order, options):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, **options, dtype=torch.float64)
    made = separate(conv, rank=1, order=order)
    x = torch.randn(1, 4, 12, 12, dtype=torch.float64)
    norm = 0.0
    for _ in range(60):  # power iteration towards the input that suffers most
        x = (x / x.norm()).requires_grad_()
        change = conv(x) - made.module(x)
        norm = float(change.detach().norm())
        assert norm <= made.output_bound
        (x,) = torch.autograd.grad(change.square().sum(), x)
    assert norm > 0.3 * made.output_bound
    assert made.output_bound <= separability(conv).of(order).gain(1) + 1e-12


def test_the_type_is_kept_and_the_original_untouched():
    conv = nn.Conv2d(4, 4, 3).half().eval()
    before = conv.weight.clone()
    made = separate(conv, rank=2)
    assert made.module.depthwise.weight.dtype == torch.float16
    assert not made.module.training
    assert torch.equal(conv.weight, before)
    assert made.output_error is None
    assert made.floor is None
    assert made.bias


def test_float32_kernels_are_told_apart_from_their_rounding():
    torch.manual_seed(0)
    kernel = torch.einsum("nmt,mthw->nmhw", torch.randn(32, 8, 2), torch.randn(8, 2, 3, 3))
    assert separability(convolution(kernel)).depthwise_first.exact_ranks == (2,) * 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of"),
        ({"rank": 1, "energy": 0.5}, "give one of"),
        ({"energy": 1.5}, "must be 0 … 1, not 1.5"),
        ({"error": -0.1}, "must be 0 … 1"),
        ({"rank": 0}, "sum of ranks above 0"),
        ({"rank": [1, 1]}, "4 slices need as many ranks, not 2"),
        ({"rank": [1, 1, 1, 10]}, "ranks must be 0 to 4, not 1 to 10"),
    ],
)
def test_wrong_targets_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        separate(nn.Conv2d(4, 4, 3), **options)


def test_wrong_sums_are_refused():
    spectrum = separability(nn.Conv2d(4, 4, 3, groups=2)).depthwise_first
    for total in (0, 3, 18):
        with pytest.raises(ValueError, match="2 to 8 in steps of 2"):
            spectrum.allocate(total)
    with pytest.raises(ValueError, match="either"):
        spectrum.ranks_for()


class Standardised(nn.Conv2d):
    def forward(self, input):
        return nn.functional.conv2d(input, self.weight - self.weight.mean())


def test_what_computes_something_else_is_refused():
    for call in (separability, lambda conv: separate(conv, rank=1)):
        with pytest.raises(UserError, match="Standardised computes something of its own"):
            call(Standardised(2, 2, 3))


def test_weights_that_are_no_numbers_are_refused():
    conv = nn.Conv2d(2, 2, 3)
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="not all finite"):
        separate(conv, rank=1)


def test_a_kernel_of_zeros_is_kept():
    conv = convolution(torch.zeros(3, 2, 3, 3))
    made = separate(conv, energy=0.9)
    assert made.error == 0
    assert sum(made.ranks) == 1
    assert separability(conv).depthwise_first.mean_energy(1) == 1


@pytest.mark.parametrize(("dtype", "outputs"), [(torch.bfloat16, 128), (torch.float16, 1024)])
def test_weights_of_a_coarse_type(dtype: torch.dtype, outputs: int):
    """Many outputs times a coarse rounding is above 1; still not all of a kernel is rounding."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, outputs, 3).to(dtype)
    slices = conv.weight.detach().double().flatten(2).transpose(0, 1).numpy()
    squares = np.linalg.svd(slices, compute_uv=False) ** 2
    known = separability(conv)
    assert not known.separable
    assert known.depthwise_first.exact_ranks == (9,) * 4
    lost = math.sqrt(squares[:, 1:].sum() / squares.sum())
    assert known.depthwise_first.error(1) == pytest.approx(lost, rel=1e-6)
    assert separate(conv, energy=0.99).error < 0.11  # √0.01, and the rounding of what is written
    disguised = torch.randn(outputs, 4, 1, 1) * torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        conv.weight.copy_(disguised)
    assert separability(conv).separable


def test_statistics_of_another_layer_are_refused():
    conv = nn.Conv2d(4, 6, 3)
    for other in (nn.Conv2d(4, 5, 3), nn.Conv2d(4, 6, 3, stride=2), nn.Conv2d(4, 6, 5)):
        known = PatchStatistics(other)
        known.update(torch.randn(4, 4, 9, 9))
        with pytest.raises(ValueError, match="of another layer"):
            separability(conv, known)
        with pytest.raises(ValueError, match="of another layer"):
            separate(conv, rank=1, inputs=known)
