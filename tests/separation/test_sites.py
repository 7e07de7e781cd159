import pytest
import torch
from torch import nn

from xception.cost.count import count
from xception.layers.exchange import separated_like
from xception.layers.separable import Order
from xception.separation.sites import ORDERS, find_sites, leave_constant
from xception.separation.surgery import prepare

from .networks import HalfDead, branches, images


def test_convolutions_come_in_the_order_in_which_they_run():
    sites = find_sites(branches(), images(2))
    assert [site.name for site in sites] == [
        "stem", "left", "right", "twice", "mix", "later", "unused",
    ]  # fmt: skip
    by_name = {site.name: site for site in sites}
    assert by_name["twice"].calls == 2
    assert by_name["left"].inputs == 12 * 12
    assert by_name["left"].outputs == 6 * 6
    assert by_name["twice"].outputs == 2 * 6 * 6


def test_what_does_not_pay_is_left_with_a_reason():
    reasons = {site.name: site.refusal for site in find_sites(branches(), images(1))}
    assert reasons["left"] is reasons["right"] is reasons["twice"] is reasons["later"] is None
    assert "it sees only 3 channels" in str(reasons["stem"])
    assert "pointwise already" in str(reasons["mix"])
    assert "does not run" in str(reasons["unused"])


def test_a_kernel_of_two_taps_over_few_channels_never_pays():
    model = nn.Sequential(nn.Conv2d(8, 1, (1, 2)))
    (site,) = find_sites(model, torch.randn(1, 8, 4, 4))
    assert site.macs_of("depthwise_first", 1) > site.macs  # 1/1 + 1/2 of it
    assert site.refusal is None  # pointwise first: 1/8 + 1/2 of it, were the input not wider
    assert site.macs_of("pointwise_first", 1) == 16 * 8 + 12 * 2


def test_layers_can_be_kept_and_the_network_stays_as_it_was():
    model = branches().train()
    reasons = {s.name: s.refusal for s in find_sites(model, images(1), keep=["twice"])}
    assert reasons["twice"] == "it was to be left"
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no convolution of the network is called 'tiwce'"):
        find_sites(model, images(1), keep=["tiwce"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_macs_are_those_that_are_counted_in_the_module(order: Order, stride: int):
    conv = nn.Conv2d(8, 6, 3, stride=stride, padding=1)
    (site,) = find_sites(nn.Sequential(conv), torch.randn(1, 8, 10, 10))
    assert site.macs == count(nn.Sequential(conv), 10, 8).total["macs"]
    uneven = [1, 2, 3, 1, 2, 3, 1, 2][: site.slices(order)]
    for ranks in (1, 3, uneven):
        module = separated_like(conv, order=order, ranks=ranks, bias=False)
        expected = count(nn.Sequential(module), 10, 8).total["macs"]
        assert site.macs_of(order, ranks) == expected


def test_only_cheaper_numbers_of_terms_are_offered():
    (site,) = find_sites(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), torch.randn(1, 8, 6, 6))
    # A term takes 9 + 8 of the 576 MACs of a place: 33 of them are 561, 34 are 578.
    totals = site.terms("depthwise_first", [0.5, 1, 4.125, 4.25, 9])
    assert totals == [4, 8, 33]
    assert site.terms("pointwise_first", [0.5, 1]) == [8]  # each output has a term


class Folding(nn.Module):
    """Makes a batch of groups of channels, and sees each with the same kernel."""

    def __init__(self):
        super().__init__()
        self.spread = nn.Conv2d(3, 32, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.spread(x).unflatten(1, (4, 8)).flatten(0, 1)
        return self.conv(x).unflatten(0, (-1, 4)).flatten(1)


def test_macs_where_the_network_makes_a_batch_of_its_own():
    model = Folding()
    macs = {site.name: site.macs for site in find_sites(model, torch.randn(2, 3, 8, 8))}
    assert macs["conv"] == 4 * 64 * 8 * 8 * 9  # 4 groups at 64 places
    assert sum(macs.values()) == count(model, 8).total["macs"]
    prepared = prepare(model, 8, 3, with_menu=False)
    changed, _ = prepared.operate(plan := prepared.of_rank(1))
    assert count(changed, 8).total["macs"] == plan.macs


def test_a_layer_that_is_called_by_name_is_left():
    """Its replacement may call its input otherwise."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(input=x)

    (site,) = find_sites(Named(), torch.randn(1, 8, 6, 6))
    assert site.refusal is not None
    assert "given by name" in site.refusal
    assert site.macs == 16 * 8 * 8 * 9


@pytest.mark.parametrize(("kernel", "most"), [(3, 8), (5, 20), (7, 41)])
def test_ranks_are_offered_as_far_as_they_pay(kernel: int, most: int):
    """k²n / (k² + n) terms cost what the layer costs: 8.7, 22.8 and 41.1 with 256 outputs."""
    conv = nn.Conv2d(256, 256, kernel, padding=kernel // 2)
    with torch.device("meta"):
        (site,) = find_sites(nn.Sequential(conv).to("meta"), torch.empty(1, 256, 8, 8))
    assert site.terms("depthwise_first")[-1] == most * 256
    assert most * (kernel**2 + 256) < kernel**2 * 256


def test_layers_whose_inputs_never_change_are_left():
    model = HalfDead()
    sites = find_sites(model, images(1))
    asked = []

    def batches():
        for part in images(6).split(2):
            asked.append(part)
            yield part

    left = {site.name: site.refusal for site in leave_constant(model, sites, batches)}
    assert "the same everywhere" in str(left["dead"])
    assert left["alive"] is None
    assert "pointwise already" in str(left["stem"])
    assert len(asked) == 3
    asked.clear()
    alive = branches()
    sites = find_sites(alive, images(1))
    assert leave_constant(alive, sites, batches) == sites
    assert len(asked) <= 2  # the first tells
