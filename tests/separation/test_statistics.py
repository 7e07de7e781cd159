from itertools import product

import jaxtyping
import numpy as np
import pytest
import torch
from separation_layers import images, layer, measured_error
from torch import nn

from xception.errors import UserError
from xception.layers.conv import Conv2d
from xception.separation import PatchStatistics, statistics

LAYERS = [
    nn.Conv2d(2, 3, 3, padding=1),
    nn.Conv2d(2, 3, 3, stride=2, padding=(1, 2), dilation=2, bias=False),
    nn.Conv2d(4, 6, (1, 3), groups=2, padding=(0, 1)),
    nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(2, 3, (2, 4), padding="same"),
    Conv2d(2, 3, 3, stride=2),
    Conv2d(2, 3, 2, padding=(0, 1, 2, 0)),
]


def places_of(conv, x, y):
    """Patches and answers of all places, place by place, from what single weights answer."""
    seen = []
    height, width = conv.kernel_size
    size = conv.in_channels // conv.groups
    probe = torch.zeros_like(conv.weight)
    for i, a, b in product(range(size), range(height), range(width)):
        probe.zero_()
        probe[:, i, a, b] = 1
        kept = conv.weight.data, conv.bias
        conv.weight.data, conv.bias = probe, None
        with torch.no_grad():
            seen.append(conv(x)[:, :: conv.out_channels // conv.groups].clone())
        conv.weight.data, conv.bias = kept
    patches = torch.stack(seen, dim=2)  # b, g, d, i, j
    rows = patches.permute(1, 0, 3, 4, 2).flatten(1, 3)
    answers = y.unflatten(1, (conv.groups, -1)).permute(1, 0, 3, 4, 2).flatten(1, 3)
    return rows.numpy(), answers.numpy()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("conv", LAYERS, ids=str)
def test_the_moments_are_those_of_all_places(conv):
    torch.manual_seed(0)
    conv = conv.double()
    x = images(3, conv.in_channels, 7)
    with torch.no_grad():
        y = conv(x) + torch.randn_like(conv(x))  # of another network
    known = PatchStatistics(conv, ridge=1e-3)
    known.update(x[:1], y[:1])
    known.update(x[1:], y[1:])
    rows, answers = places_of(conv, x, y)
    moments = known.moments
    assert known.samples == rows.shape[1]
    weight = conv.weight.detach().flatten(1).unflatten(0, (conv.groups, -1)).numpy()
    for g in range(conv.groups):
        covariance = np.cov(rows[g].T, bias=True)
        noise = 1e-3 * np.mean([np.var(rows[h], axis=0).mean() for h in range(conv.groups)])
        assert moments.noise == pytest.approx(noise)
        whole = covariance + noise * np.eye(len(covariance))
        np.testing.assert_allclose(moments.gram[g], whole, atol=1e-12)
        centred = answers[g] - answers[g].mean(0)
        cross = centred.T @ rows[g] / len(rows[g]) + noise * weight[g]
        np.testing.assert_allclose(moments.cross[g], cross, atol=1e-12)
        np.testing.assert_allclose(moments.variance[g], answers[g].var(0), atol=1e-12)
        np.testing.assert_allclose(moments.y[g], answers[g].mean(0), atol=1e-12)


def test_parts_and_float32_make_no_difference(monkeypatch):
    conv = layer(3, 4, padding=1)
    x = images(5, 3)
    whole = PatchStatistics(conv)
    whole.update(x)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    monkeypatch.setattr(statistics, "STRIPE", 4)
    parts = PatchStatistics(conv)
    parts.update(x)
    np.testing.assert_allclose(parts.moments.gram, whole.moments.gram, atol=1e-12)
    np.testing.assert_allclose(parts.moments.cross, whole.moments.cross, atol=1e-12)
    single = PatchStatistics(conv.float())
    single.update(x.float())
    np.testing.assert_allclose(single.moments.gram, whole.moments.gram, atol=1e-6)


def test_without_answers_the_layer_answers_itself():
    conv = layer(3, 4)
    x = images(2, 3)
    alone, given = PatchStatistics(conv), PatchStatistics(conv)
    alone.update(x)
    given.update(x, conv(x).detach())
    assert torch.equal(alone.moments.cross, given.moments.cross)


def test_places_are_drawn_by_the_seed_and_each_once():
    conv = layer(2, 2, padding=1)
    x = images(3, 2, 5)
    known = [PatchStatistics(conv, places=4, seed=seed) for seed in (0, 0, 1)]
    for one in known:
        one.update(x)
        assert one.samples == 12
    assert torch.equal(known[0].moments.gram, known[1].moments.gram)
    assert not torch.equal(known[0].moments.gram, known[2].moments.gram)
    every, most = PatchStatistics(conv), PatchStatistics(conv, places=25)
    every.update(x)
    most.update(x)
    assert torch.equal(every.moments.gram, most.moments.gram)
    # The same place of patch and answer: the layer's own answers are explained without a rest.
    assert known[0].moments.lost(known[0].moments.best) < 1e-6


def test_the_best_kernel_is_that_of_least_squares():
    conv = layer(2, 3, padding=1)
    x = images(6, 2)
    y = torch.randn(6, 3, 10, 10, dtype=torch.float64) + 3 * conv(x).detach()
    known = PatchStatistics(conv, ridge=1e-12)
    known.update(x, y)
    rows, answers = places_of(conv, x, y)
    design = np.hstack([rows[0], np.ones((len(rows[0]), 1))])
    solution, squares, *_ = np.linalg.lstsq(design, answers[0])
    np.testing.assert_allclose(known.moments.best[0], solution[:-1].T, atol=1e-8)
    centred = answers[0] - answers[0].mean(0)
    expected = np.sqrt(squares.sum() / (centred**2).sum())
    assert known.moments.floor == pytest.approx(expected)


def test_a_strong_ridge_keeps_the_original():
    conv = layer(2, 3)
    known = PatchStatistics(conv, ridge=1e9)
    known.update(images(2, 2), torch.randn(2, 3, 8, 8, dtype=torch.float64))
    best = known.moments.best[0].reshape(conv.weight.shape)
    torch.testing.assert_close(best, conv.weight.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_lost_is_what_a_run_loses(groups):
    conv = layer(4, 6, groups=groups, padding=1)
    x, y = images(4, 4), torch.randn(4, 6, 10, 10, dtype=torch.float64)
    known = PatchStatistics(conv)
    known.update(x, y)
    other = layer(4, 6, groups=groups, padding=1, seed=1)
    kernel = other.weight.detach().flatten(1).unflatten(0, (groups, -1))
    with torch.no_grad():
        other.bias += (y - other(x)).mean(dim=(0, 2, 3))
    assert known.moments.lost(kernel) == pytest.approx(measured_error(other, x, y))


def test_importance_is_a_share():
    known = PatchStatistics(layer(2, 4, groups=2), importance=torch.tensor([0.0, 1, 2, 5]))
    assert known.importance.tolist() == [[0, 0.5], [1, 2.5]]


@pytest.mark.parametrize(
    "importance",
    [torch.zeros(2), torch.tensor([1.0, -1]), torch.ones(3), torch.tensor([1, np.nan])],
)
def test_a_wrong_importance_is_refused(importance):
    with pytest.raises(ValueError, match="importance must be 2 numbers"):
        PatchStatistics(layer(2, 2), importance=importance.float())


@pytest.mark.parametrize("options", [{"ridge": 0}, {"ridge": -1.0}, {"places": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="must be above 0"):
        PatchStatistics(layer(2, 2), **options)


def test_no_data_constant_data_and_no_numbers_are_refused():
    known = PatchStatistics(layer(2, 2))
    with pytest.raises(UserError, match="no inputs"):
        _ = known.moments
    known.update(torch.ones(1, 2, 5, 5, dtype=torch.float64))
    with pytest.raises(UserError, match="constant"):
        _ = known.moments
    with pytest.raises(UserError, match="not all finite"):
        known.update(torch.full((1, 2, 5, 5), torch.nan, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (2, 2, 3, 4)])
def test_answers_of_other_inputs_are_refused(shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    known = PatchStatistics(layer(2, 2))
    with pytest.raises(ValueError, match="output"):
        known.update(images(2, 2, 5), torch.zeros(shape, dtype=torch.float64))


def test_more_data_change_what_is_known():
    conv = layer(2, 2)
    known = PatchStatistics(conv)
    known.update(images(1, 2))
    before, values = known.moments.gram, known.singular_values("depthwise_first")
    known.update(images(1, 2, seed=1))
    assert not torch.equal(known.moments.gram, before)
    assert not torch.equal(known.singular_values("depthwise_first"), values)
