import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from xception.cost.count import count
from xception.errors import UserError
from xception.layers.regular import replace
from xception.models.zoo import create_model
from xception.separation.algebra import separability
from xception.separation.candidates import Candidate, Choice
from xception.separation.fit import Separated, separate
from xception.separation.measure import measured
from xception.separation.plan import make_plan
from xception.separation.surgery import Photos, Prepared, exchange, prepare
from xception.separation.watch import seen_inputs

from .networks import Branches, HalfDead, branches, images


def pairs(changed, original, name, calls):
    """What a layer is given in one network beside what it gives in another, both run anew."""
    for part in batches():
        ours, theirs = (seen_inputs(one, name, calls, part) for one in (changed, original))
        for x, own in zip(ours, theirs, strict=True):
            yield x, original.get_submodule(name)(own).detach()


def batches():
    return images(32).split(8)


@pytest.fixture(scope="module")
def looked_at() -> Prepared:
    """A network and what it would do to exchange its layers, measured once."""
    return prepare(branches(), 12, 3, batches=batches, images=32)


def with_all_terms(prepared: Prepared, fitted: bool) -> tuple[nn.Module, list[Separated]]:
    """Each layer with all the terms that a kernel can have: dearer, so that no plan may do it."""
    changed = copy.deepcopy(prepared.model)
    done = []
    for site in prepared.sites:
        if site.refusal is None:
            rank = site.most("depthwise_first")
            seen = partial(pairs, changed, prepared.model, site.name, site.calls)
            done.append(separate(site.conv, rank=rank, inputs=seen if fitted else None))
            replace(changed, changed.get_submodule(site.name), done[-1].module)
    return changed, done


@pytest.mark.parametrize("fitted", [False, True])
def test_with_all_terms_the_network_answers_as_before(fitted: bool):
    model = branches()
    changed, done = with_all_terms(prepare(model, 12, 3, with_menu=False), fitted)
    assert len(done) == 4
    with torch.no_grad():
        torch.testing.assert_close(changed(images(8, 5)), model(images(8, 5)), rtol=0, atol=1e-4)
    for one in done:
        assert one.error < 1e-3
        assert (one.output_error is None) != fitted


@pytest.mark.parametrize("rank", [8, 9])
def test_a_dearer_plan_is_refused_and_nothing_is_changed(looked_at: Prepared, rank: int):
    """8 terms of 9 + 24 MACs a slice are more than the 216 of a filter of 3 x 3 over 24."""
    plan = make_plan(looked_at.sites, looked_at.total_macs, {})
    plan.choices["left"] = Candidate("depthwise_first", 1, 1, 0.0, 0.0)
    plan.choices["twice"] = Candidate("depthwise_first", rank, 1, 0.0, 0.0)  # 1 is not true
    message = f"twice would become no cheaper: {72 * 24 * rank * 33:,} .* instead of 373,248"
    changed = copy.deepcopy(looked_at.model)
    with pytest.raises(UserError, match=message):
        exchange(changed, looked_at.model, plan, looked_at.sites, None)
    assert isinstance(changed.get_submodule("left"), nn.Conv2d)
    with pytest.raises(UserError, match=message):
        looked_at.operate(plan)


def test_the_network_that_is_looked_at_stays_as_it_was(looked_at: Prepared):
    model = looked_at.model.train()
    before = branches().state_dict()
    changed, _ = looked_at.operate(looked_at.within(0.6))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert changed.training
    assert isinstance(model.get_submodule("twice"), nn.Conv2d)
    assert not isinstance(changed.get_submodule("twice"), nn.Conv2d)
    assert all(parameter.requires_grad for parameter in changed.parameters())
    model.eval()


def test_macs_of_the_plan_are_those_of_the_network(looked_at: Prepared):
    plan = looked_at.within(0.5)
    changed, done = looked_at.operate(plan)
    saved = sum(one.macs_before - one.macs_after for one in done)
    assert plan.macs == looked_at.total_macs - saved
    assert prepare(changed, 12, 3, with_menu=False).total_macs == plan.macs
    assert plan.macs <= 0.5 * looked_at.total_macs


@torch.no_grad()
def test_fitted_to_photos_it_answers_better_than_by_the_kernels(looked_at: Prepared):
    model = looked_at.model
    plan = looked_at.within(0.5)
    aware, _ = looked_at.operate(plan)
    kernels = copy.deepcopy(model)
    exchange(kernels, model, plan, looked_at.sites, None)
    x = images(64, 9)
    wrong = [float((one(x) - model(x)).square().sum()) for one in (aware, kernels)]
    assert wrong[0] < 0.5 * wrong[1]


@torch.no_grad()
def test_later_layers_make_up_for_earlier_ones():
    """Scaled by a half, and behind it a layer that sees it: the fit doubles that one's kernel."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1)
    # A kernel of rank 1, so that rank 1 can double it exactly.
    second.weight.copy_(torch.randn(8, 8, 1, 1) * torch.randn(1, 8, 3, 3))
    original = nn.Sequential(first, second)
    changed = copy.deepcopy(original)
    for parameter in changed[0].parameters():  # the weight alone
        parameter.mul_(0.5)
    x = torch.randn(64, 6, 10, 10)
    prepared = prepare(original, 10, 6, batches=lambda: x.split(16), images=64, with_menu=False)
    plan = make_plan(
        prepared.sites,
        prepared.total_macs,
        {"1": Candidate("depthwise_first", 1, prepared.sites[1].macs - 1, 0.0, 0.0)},
    )
    (done,) = exchange(changed, original, plan, prepared.sites, prepared.photos)
    assert done.output_error is not None
    assert done.output_error < 1e-2
    torch.testing.assert_close(
        changed(x), original(x), rtol=0, atol=0.05 * float(original(x).std())
    )


def test_a_disguised_separable_network_is_found_out():
    """Kernels that are separable lose nothing at rank 1, and the plan knows."""
    model = branches()
    with torch.no_grad():
        for conv in (model.left, model.twice, model.later):
            n, m, h, w = conv.weight.shape
            conv.weight.copy_(torch.randn(n, m, 1, 1) * torch.randn(1, m, h, w) / m**0.5)
    prepared = prepare(model, 12, 3, batches=batches, images=32, with_menu=False)
    plan = prepared.of_rank(1)
    for name in ("left", "twice", "later"):
        assert plan.choices[name].order == "depthwise_first"
    del plan.choices["right"]
    changed, done = prepared.operate(plan)
    assert max(one.error for one in done) < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(changed(images(8)), model(images(8)), rtol=0, atol=1e-4)


def test_all_kernels_of_inception_are_exchanged():
    """3x3, 5x5, 1x7, 7x1, 1x3 and 3x1: exactly at their largest ranks, more cheaply at rank 1."""
    torch.manual_seed(0)
    model = create_model("inception_v3", num_classes=3, width=0.1).eval()
    prepared = prepare(model, model.MINIMUM_SIZE, 3, with_menu=False)
    changed, done = with_all_terms(prepared, fitted=False)
    kernels = {site.name: site.conv.kernel_size for site in prepared.sites}
    names = [site.name for site in prepared.sites if site.refusal is None]
    seen = {kernels[name] for name in names}
    assert seen == {(3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)}
    lines = [(name, one) for name, one in zip(names, done, strict=True) if 1 in kernels[name]]
    assert len(lines) > 20
    assert all(max(one.ranks) == max(kernels[name]) for name, one in lines)  # and no more
    assert all(one.error < 1e-6 for one in done)
    x = torch.randn(2, 3, model.MINIMUM_SIZE, model.MINIMUM_SIZE)
    with torch.no_grad():
        torch.testing.assert_close(changed(x), model(x), rtol=0, atol=1e-4)
    plan = prepared.of_rank(1)
    assert {kernels[name] for name in plan.choices} == seen
    cheaper, _ = prepared.operate(plan)
    assert count(cheaper, model.MINIMUM_SIZE, 3).total["macs"] == plan.macs < prepared.total_macs


def test_what_cannot_be_asked():
    model = branches()
    with pytest.raises(ValueError, match="give both or neither"):
        prepare(model, 12, 3, batches=batches)
    prepared = prepare(model, 12, 3)
    with pytest.raises(UserError, match="is the least"):
        prepared.within(0.01)
    assert 0 < prepared.least < 0.5
    assert isinstance(prepared.model, Branches)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fitted", [False, True])
def test_networks_of_other_types(dtype: torch.dtype, fitted: bool):
    model = branches().to(dtype)
    parts = [part.to(dtype) for part in batches()]
    prepared = prepare(
        model, 12, 3, batches=(lambda: parts) if fitted else None, images=32 * fitted
    )
    assert prepared.total_macs == count(branches(), 12).total["macs"]
    changed, done = prepared.operate(prepared.within(0.6))
    assert done
    assert {parameter.dtype for parameter in changed.parameters()} == {dtype}
    with torch.no_grad():
        assert torch.isfinite(changed(parts[0])).all()


@pytest.mark.parametrize("with_menu", [True, False])
def test_a_dead_layer_is_left_and_the_others_are_exchanged(with_menu: bool):
    prepared = prepare(HalfDead(), 12, 3, batches=batches, images=32, with_menu=with_menu)
    reasons = {site.name: site.refusal for site in prepared.sites}
    assert "the same everywhere" in str(reasons["dead"])
    plan = prepared.within(0.7) if with_menu else prepared.of_rank(1)
    changed, done = prepared.operate(plan)
    assert [one.name for one in done] == ["alive"]
    assert isinstance(changed.get_submodule("dead"), nn.Conv2d)


@pytest.mark.parametrize("with_menu", [True, False])
def test_a_layer_whose_weights_are_no_numbers_is_named(with_menu: bool):
    model = branches()
    with torch.no_grad():
        model.twice.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="twice: cannot be separated: the weights are not all"):
        prepare(model, 12, 3, with_menu=with_menu).of_rank(1)
    x = images(4)
    with pytest.raises(UserError, match="answers to the photos are not all finite"):
        prepare(model, 12, 3, batches=lambda: [x], images=4)


def test_a_layer_that_cannot_be_fitted_is_named():
    model = branches()
    prepared = prepare(model, 12, 3, with_menu=False)
    plan = prepared.of_rank(1)
    photos = Photos(lambda: [torch.zeros(4, 3, 12, 12)], 4)
    model.stem.bias = None
    with pytest.raises(UserError, match="left: the layer's inputs are constant"):
        exchange(copy.deepcopy(model), model, plan, prepared.sites, photos)


@pytest.mark.parametrize("fitted", [False, True])
def test_what_a_parametrization_remembers_stays(fitted: bool):
    """In training, spectral normalisation goes on by a step each time its weight is read."""
    model = branches()
    for name in ("left", "twice"):
        parametrizations.spectral_norm(model.get_submodule(name))
    model.train()
    before = copy.deepcopy(model.state_dict())
    x = images(8, 3)
    with torch.no_grad():
        answers = copy.deepcopy(model).eval()(x)
    prepared = prepare(model, 12, 3, batches=batches if fitted else None, images=32 * fitted)
    plan = prepared.within(0.6)
    changed, done = prepared.operate(plan)
    assert {"left", "twice"} & {one.name for one in done}
    separability(model.left)
    separate(model.left, rank=1, inputs=torch.randn(4, 16, 12, 12))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert changed.training
    full, _ = with_all_terms(prepared, fitted=False)
    with torch.no_grad():
        torch.testing.assert_close(full.eval()(x), answers, rtol=0, atol=1e-4)


def test_a_wide_layer_too_hears_which_outputs_matter(monkeypatch):
    """With one depthwise kernel a channel, all outputs share it; one of them alone gets its own."""
    monkeypatch.setattr("xception.separation.statistics.WIDEST", 10)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    x = torch.randn(64, 6, 8, 8)
    prepared = prepare(model, 8, 6, batches=lambda: x.split(16), images=64, with_menu=False)
    plan = make_plan(
        prepared.sites,
        prepared.total_macs,
        {"1": Candidate("depthwise_first", 1, 64 * 8 * 17, 0.0, 0.0)},
    )
    one = torch.full((8,), 1e-3)
    one[2] = 1.0
    errors = []
    for importance in ({}, {"1": one}):
        photos = Photos(lambda: x.split(16), 64, importance)
        changed = copy.deepcopy(model)
        exchange(changed, model, plan, prepared.sites, photos)
        with torch.no_grad():
            errors.append((changed(x) - model(x))[:, 2].square().mean())
    assert errors[1] < 0.01 * errors[0]
    found = measured(model, prepared.sites, lambda: x.split(8), Choice(), images=64)
    assert all(math.isfinite(way.harm) for way in found.menu["1"])
