import re

import pytest
from PIL import Image
from torch import nn

from xception.cost.count import count
from xception.cost.machine import Machine
from xception.cost.measure import Measured
from xception.cost.roofline import LOOKS, draw, points_by_kind
from xception.cost.separable import compare
from xception.layers.separable import SeparableConv2d


@pytest.fixture
def measured() -> Measured:
    """A network whose times are given: 2 ms for each layer."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), SeparableConv2d(8, 16), nn.Flatten(), nn.Linear(16 * 36, 5)
    )
    cost = count(model, 8)
    layers = len(cost.layers)
    return Measured(
        machine=Machine("cpu", 3, 5e9, 2e10),
        cost=cost,
        layers_ms=(2.0,) * layers,
        floors_ms=(1.0,) * layers,
        whole_ms=2.0 * layers,
        comparison=compare(cost),
        exchanges=(),
    )


def test_points(measured: Measured):
    points = points_by_kind(measured)
    assert list(points) == ["regular", "pointwise", "depthwise", "linear"]
    (linear,) = points["linear"]
    weights, inputs, outputs = 576 * 5 + 5, 576, 5
    moved = 4 * (weights + inputs + outputs)
    assert linear == (pytest.approx(2880 / moved), 1e3 * 2880 / 2.0, 2.0)


def test_the_picture_says_what_it_shows(measured: Measured):
    svg = draw(measured, "a network & more, 3 threads").decode()
    assert draw(measured, "a network & more, 3 threads").decode() == svg  # the same bytes
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)", svg))
    assert "a network &amp; more, 3 threads" in words
    assert "20 % of the time goes to what multiplies nothing" in words
    assert "arithmetic: 5 GMAC/s" in words
    assert "bandwidth: 20 GB/s" in words
    assert "MAC per byte (1 MAC = 2 FLOP)" in words
    assert "GMAC per second" in words
    for kind in ("regular", "pointwise", "depthwise", "linear"):
        assert f"{kind}, 20 % of the time" in words


def test_png(measured: Measured, tmp_path):
    path = tmp_path / "roofline.png"
    path.write_bytes(draw(measured, "one", "png"))
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_no_point_lies_beyond_the_ceilings_of_the_axes(measured: Measured):
    # Whatever its times, a network is drawn: here one without any products.
    bare = Measured(
        machine=measured.machine, cost=count(nn.ReLU(), 4), layers_ms=(1.0,), floors_ms=(1.0,),
        whole_ms=1.0, comparison=measured.comparison, exchanges=(),
    )  # fmt: skip
    assert b"100 % of the time goes to what multiplies nothing" in draw(bare, "nothing")


def test_every_kind_that_multiplies_has_a_look_of_its_own():
    assert len({colour for colour, _ in LOOKS.values()}) == len(LOOKS)
    assert len({marker for _, marker in LOOKS.values()}) == len(LOOKS)
