"""Fits to data: what they give, measured by running the module; and how near the best they are."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from separation_layers import images, layer, measured_error
from torch import nn

from xception.errors import UserError
from xception.separation import PatchStatistics, separability, separate, statistics
from xception.separation.fit import separate_quickly
from xception.separation.windows import patches

ORDERS = ("depthwise_first", "pointwise_first")


def known_of(conv, x, y=None, **options):
    known = PatchStatistics(conv, **options)
    known.update(x, y)
    return known


def error_of(made):
    """The error that a fit says it has."""
    assert made.output_error is not None
    return made.output_error


def changed(x, seed=5):
    """What the layer sees after the network before it was changed: nearly the same."""
    torch.manual_seed(seed)
    mixing = torch.eye(x.shape[1], dtype=x.dtype) + 0.15 * torch.randn(x.shape[1], x.shape[1])
    return torch.einsum("ij,bjhw->bihw", mixing, x) + 0.05 * torch.randn_like(x)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "bias": False}])
@pytest.mark.parametrize("rank", [1, 2, (2, 1, 1, 1, 2, 1)])
def test_the_error_is_what_a_run_has_and_below_that_without_data(order, options, rank):
    conv = layer(6, 6, **options)
    x = images(6, 6)
    y = conv(x).detach()
    made = separate(conv, rank=rank, order=order, inputs=known_of(conv, x))
    assert made.output_error == pytest.approx(measured_error(made.module, x, y))
    free = separate(conv, rank=rank, order=order)
    assert free.ranks == made.ranks
    assert error_of(made) < 0.9 * measured_error(free.module, x, y)
    assert made.error > free.error  # that one is the nearest kernel
    assert made.bias


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_lost_before_is_made_up_for(order):
    conv = layer(6, 8, padding=1)
    x = images(8, 6)
    y, x_new = conv(x).detach(), changed(x)
    asymmetric = separate(conv, rank=2, order=order, inputs=known_of(conv, x_new, y))
    symmetric = separate(conv, rank=2, order=order, inputs=known_of(conv, x))
    assert asymmetric.output_error == pytest.approx(measured_error(asymmetric.module, x_new, y))
    assert error_of(asymmetric) < 0.8 * measured_error(symmetric.module, x_new, y)
    assert asymmetric.floor is not None
    assert 0 < asymmetric.floor < error_of(asymmetric)
    other = images(8, 6, seed=9)  # not those it was fitted to
    y, x_new = conv(other).detach(), changed(other)
    assert measured_error(asymmetric.module, x_new, y) < 0.9 * measured_error(
        symmetric.module, x_new, y
    )


@pytest.mark.parametrize("order", ORDERS)
def test_outputs_keep_their_means(order):
    conv = layer(4, 5)
    x = images(4, 4)
    y = conv(x).detach() + 3
    module = separate(conv, rank=1, order=order, inputs=known_of(conv, changed(x), y)).module
    means = module(changed(x)).mean(dim=(0, 2, 3)).detach()
    torch.testing.assert_close(means, y.mean(dim=(0, 2, 3)), atol=1e-9, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", [1, 2])
def test_all_ranks_reach_the_best_regular_convolution(order, groups):
    conv = layer(4, 6, groups=groups)
    x = images(6, 4)
    y = conv(x).detach()
    made = separate(conv, rank=9, order=order, inputs=known_of(conv, changed(x), y))
    assert made.output_error == pytest.approx(made.floor, rel=1e-6)
    assert made.floor is not None
    assert made.floor > 0.01


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rank", [1, 2])
def test_a_separable_layer_stays_itself(order, rank):
    conv = layer(5, 4)
    hidden = separate(conv, rank=rank, order=order)
    with torch.no_grad():
        kernels = hidden.module.depthwise.weight[:, 0]
        mixing = hidden.module.pointwise.weight[:, :, 0, 0]
        if order == "depthwise_first":
            made = (mixing[:, :, None, None] * kernels).unflatten(1, (5, rank)).sum(2)
        else:
            terms = mixing[:, :, None, None] * kernels[:, None]
            made = terms.unflatten(0, (rank, 4)).sum(0)
        conv.weight.copy_(made)
    again = separate(conv, rank=rank, order=order, inputs=images(6, 5))
    assert again.error < 1e-6
    assert error_of(again) < 1e-6


def test_one_channel_is_reduced_rank_regression():
    """The textbook's answer, by numpy: the roots of the covariance on both sides."""
    conv = layer(1, 6)
    x, y = images(20, 1), torch.randn(20, 6, 8, 8, dtype=torch.float64)
    y += conv(x).detach()
    made = separate(conv, rank=2, inputs=known_of(conv, x, y, ridge=1e-12))
    rows = patches(conv, x)[:, 0].permute(0, 2, 1).flatten(0, 1).numpy()
    answers = y.flatten(2).permute(0, 2, 1).flatten(0, 1).numpy()
    rows, answers = rows - rows.mean(0), answers - answers.mean(0)
    fitted = rows @ np.linalg.lstsq(rows, answers)[0]
    _, _, right = np.linalg.svd(fitted, full_matrices=False)
    best = fitted @ right[:2].T @ right[:2]  # the best of rank 2 among linear functions of rows
    expected = np.linalg.norm(answers - best) / np.linalg.norm(answers)
    assert made.output_error == pytest.approx(expected, rel=1e-8)


def descended(conv, x, y, rank, order):
    """The output's error that descent on kernels, mixing and bias comes to, from a random start."""
    outputs, inputs, height, width = conv.weight.shape
    first = order == "depthwise_first"
    slices, others = (inputs, outputs) if first else (outputs, inputs)
    sizes = ((slices, rank, height, width), (slices, rank, others), (outputs,))
    free = [(0.5 * torch.randn(one, dtype=torch.float64)).requires_grad_() for one in sizes]
    optimiser = torch.optim.LBFGS(free, max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        kernel = torch.einsum("sthw,sta->sahw", free[0], free[1])
        kernel = kernel.transpose(0, 1) if first else kernel
        value = (nn.functional.conv2d(x, kernel, free[2]) - y).square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    mean = y.mean(dim=(0, 2, 3), keepdim=True)
    return math.sqrt(float(loss().detach())) / float((y - mean).norm())


@pytest.mark.parametrize("order", ORDERS)
def test_hardly_anything_better_is_found_by_descent(order):
    conv = layer(2, 3)
    x = images(3, 2, 6)
    y = conv(x).detach()
    x_new = changed(x)
    found = min(descended(conv, x_new, y, 1, order) for _ in range(3))
    made = separate(conv, rank=1, order=order, inputs=known_of(conv, x_new, y), sweeps=10)
    assert error_of(made) < 1.02 * found


@pytest.mark.parametrize("order", ORDERS)
def test_no_sweep_makes_it_worse(order):
    conv = layer(6, 6)
    x = images(6, 6)
    known = known_of(conv, changed(x), conv(x).detach())
    errors = [
        error_of(separate(conv, rank=2, order=order, inputs=known, sweeps=sweeps))
        for sweeps in range(5)
    ]
    assert all(b <= a + 1e-9 for a, b in pairwise(errors))
    assert errors[-1] < errors[0]


def test_what_matters_more_is_kept_better():
    conv = layer(6, 8)
    x = images(6, 6)
    y = conv(x).detach()
    weight = torch.tensor([100.0] * 2 + [1.0] * 6)
    kept = []
    for importance in (None, weight):
        module = separate(conv, rank=1, inputs=known_of(conv, x, y, importance=importance)).module
        error = (module(x) - y).detach().square().mean(dim=(0, 2, 3))
        kept.append((float(error[:2].sum()), float(error[2:].sum())))
    assert kept[1][0] < 0.7 * kept[0][0]
    assert kept[1][1] > kept[0][1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("equal", [False, True])
def test_a_wanted_error_of_the_output_is_reached(order, equal):
    conv = layer(6, 6)
    x = images(6, 6)
    y = conv(x).detach()
    known = known_of(conv, x)
    made = separate(conv, error=0.2, order=order, inputs=known, equal=equal)
    assert measured_error(made.module, x, y) <= 0.2
    assert made.macs < separate(conv, error=0.05, order=order, inputs=known, equal=equal).macs
    assert separate(conv, energy=0.96, order=order, inputs=known, equal=equal).ranks == made.ranks
    if equal:
        assert len(set(made.ranks)) == 1


def test_what_no_rank_reaches_is_said():
    conv = layer(4, 4)
    x = images(4, 4)
    known = known_of(conv, torch.randn_like(x), conv(x).detach())
    with pytest.raises(UserError, match=r"an error of 0\.1 cannot be had .* regular"):
        separate(conv, error=0.1, inputs=known)


@pytest.mark.parametrize("order", ORDERS)
def test_the_module_alone_is_the_same(order):
    conv = layer(6, 6)
    known = known_of(conv, images(6, 6))
    made = separate(conv, rank=(2, 1, 1, 1, 2, 1), order=order, inputs=known, sweeps=0)
    alone = separate_quickly(conv, rank=(2, 1, 1, 1, 2, 1), order=order, inputs=known)
    assert str(made.module) == str(alone)
    for name, weight in made.module.state_dict().items():
        torch.testing.assert_close(alone.state_dict()[name], weight)


def test_inputs_in_three_forms():
    conv = layer(4, 4)
    x = images(4, 4)
    batches = [(part, conv(part).detach()) for part in x.split(3)]
    made = [
        separate(conv, rank=2, inputs=inputs) for inputs in (x, known_of(conv, x), lambda: batches)
    ]
    for one in made[1:]:
        torch.testing.assert_close(one.module(x), made[0].module(x), atol=1e-9, rtol=0)


def test_statistics_of_another_layer_are_refused():
    with pytest.raises(ValueError, match="another layer"):
        separate(layer(4, 4), rank=1, inputs=PatchStatistics(layer(4, 5)))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("rank", [1, (3, 1, 2, 2, 1, 3)])
def test_a_wide_layer_is_fitted_in_two_passes(groups, rank, monkeypatch):
    conv = layer(6, 8, groups=groups, padding=1)
    x = images(6, 6)
    y, x_new = conv(x).detach(), changed(x)
    narrow = separate(conv, rank=rank, inputs=known_of(conv, x_new, y), sweeps=0)
    monkeypatch.setattr(statistics, "WIDEST", 1)
    passes = []

    def replay():
        passes.append(0)
        return [(x_new[:4], y[:4]), (x_new[4:], y[4:])]

    made = separate(conv, rank=rank, inputs=replay)
    assert len(passes) == 2
    assert made.floor is None
    assert made.output_error == pytest.approx(measured_error(made.module, x_new, y))
    assert error_of(made) < 1.3 * error_of(narrow)
    free = separate(conv, rank=rank)
    assert error_of(made) < 0.8 * measured_error(free.module, x_new, y)


def test_a_wide_layer_pointwise_first_takes_one_pass(monkeypatch):
    monkeypatch.setattr(statistics, "WIDEST", 1)
    conv = layer(6, 8, padding=1)
    x = images(6, 6)
    made = separate(conv, rank=2, order="pointwise_first", inputs=x)
    assert made.output_error is None
    free = separate(conv, rank=2, order="pointwise_first")
    y = conv(x).detach()
    assert measured_error(made.module, x, y) < 0.8 * measured_error(free.module, x, y)


def test_wide_layers_need_what_they_need(monkeypatch):
    monkeypatch.setattr(statistics, "WIDEST", 1)
    conv = layer(3, 4)
    known = known_of(conv, images(2, 3))
    with pytest.raises(UserError, match="27 taps is fitted in two passes"):
        separate(conv, rank=1, inputs=known)
    with pytest.raises(UserError, match="27 taps has too many for a search"):
        separate(conv, error=0.1, inputs=known)
    with pytest.raises(ValueError, match="not known"):
        known.moments.lost(known.moments.best)


@pytest.mark.parametrize("order", ORDERS)
def test_whitened_values_are_energy_of_the_output(order):
    """With one input channel, or one output, slices have nothing in common: the energy is exact."""
    sizes = (1, 6) if order == "depthwise_first" else (6, 1)
    conv = layer(*sizes)
    x = images(8, sizes[0])
    known = known_of(conv, x, ridge=1e-12)
    spectrum = separability(conv, known).of(order)
    assert spectrum.whitened
    whole = float(conv(x).detach().var(dim=(0, 2, 3), correction=0).sum())
    if order == "depthwise_first":
        assert float(spectrum.values.square().sum()) == pytest.approx(whole)
        made = separate(conv, rank=2, inputs=known)
        assert spectrum.error(2) == pytest.approx(made.output_error, rel=1e-6)
    with pytest.raises(ValueError, match="bound nothing"):
        spectrum.gain(1)


def test_dead_inputs_and_dead_outputs_do_no_harm():
    conv = layer(4, 4)
    with torch.no_grad():
        conv.weight[2] = 0
    x = images(4, 4)
    x[:, 1] = 0
    y = conv(x).detach()
    for order in ORDERS:
        for rank in (1, 2):
            made = separate(conv, rank=rank, order=order, inputs=known_of(conv, x))
            assert made.output_error == pytest.approx(measured_error(made.module, x, y))
            assert error_of(made) < (0.7 if rank == 1 else 0.5)
