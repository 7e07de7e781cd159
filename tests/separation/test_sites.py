import pytest
import torch
from torch import nn

from xception.cost.count import count
from xception.layers.exchange import separated_like
from xception.layers.separable import Order
from xception.separation.sites import ORDERS, find_sites

from .networks import branches, images


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
    assert "the image itself, of 3 channels" in str(reasons["stem"])
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
