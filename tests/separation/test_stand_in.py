"""Networks that need the convolution itself: it is left, and the network stays as it was."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xception.separation.sites import find_sites

from .networks import Row, images


class InAList(Row):
    """The network runs what stands in a list, which is no module."""

    def __init__(self):
        super().__init__()
        self.run = [self.first]

    def forward(self, x: Tensor) -> Tensor:
        (first,) = self.run
        x = F.relu(self.second(F.relu(first(F.relu(self.stem(x))))))
        return self.head(x.mean((2, 3)))


class ByType(Row):
    """The network runs those of its modules that are convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            if isinstance(module, nn.Conv2d):
                x = F.relu(module(x))
        return x.mean((2, 3))


class Reading(Row):
    """The network reads the weights of a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.first.weight.dtype))


@pytest.mark.parametrize(
    ("network", "left"),
    [
        (Row, {}),
        (InAList, {"first": "does not run what stands in its place"}),
        (
            ByType,
            {
                "first": "does not run what stands in its place",
                "second": "does not run what stands in its place",
            },
        ),
        (
            Reading,
            {"first": "needs the convolution itself (AttributeError: '_StandIn' object has no "},
        ),
    ],
)
def test_what_cannot_be_replaced_is_left(network: type[Row], left: dict[str, str]):
    model = network().train()
    modules = list(model.named_modules())
    sites = {site.name: site.refusal for site in find_sites(model, images(2))}
    for name in ("first", "second"):
        if name in left:
            assert left[name] in str(sites[name])
        else:
            assert sites[name] is None
    assert list(model.named_modules()) == modules
    assert all(module.training for module in model.modules())


def test_the_network_itself_is_left():
    conv = nn.Conv2d(16, 16, 3, padding=1)
    (site,) = find_sites(conv, torch.randn(1, 16, 8, 8))
    assert site.refusal == "it is the whole network"


class OneByOne(Row):
    """Images go through the first layer without a batch around them."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([self.first(one) for one in self.stem(x)])
        return self.second(x).mean((2, 3))


def test_images_without_a_batch():
    sites = {site.name: site.refusal for site in find_sites(OneByOne(), images(2))}
    assert sites["first"] == "it is given an image without a batch"
    assert sites["second"] is None


def test_a_layer_is_kept_by_any_of_its_names():
    model = Row()
    model.add_module("again", model.first)
    sites = {site.name: site.refusal for site in find_sites(model, images(1), keep=["again"])}
    assert sites["first"] == "it was to be left"
    assert sites["second"] is None
