import itertools
from typing import Any

import pytest
from torch import nn

from xception.cost.count import count
from xception.cost.textbook import Textbook
from xception.errors import UserError
from xception.layers.separable import SeparableConv2d

EXAMPLE: dict[str, Any] = {
    "height": 11, "width": 11, "in_channels": 3, "kernel": 3, "filters": 16, "stride": 2,
    "padding": 1,
}  # fmt: skip


def test_the_example_by_hand():
    figures = Textbook(**EXAMPLE).figures()
    # (11 + 2 - 3) / 2 + 1 = 6; 3 x 3 x 3 x 16 = 432 weights at 36 places; 27 + 48 in two parts.
    assert figures == {
        "output": [6, 6, 16],
        "regular": {"macs": 15_552, "parameters": 432},
        "separable": {"macs": 2_700, "parameters": 75},
        "depthwise": {"macs": 972, "parameters": 27},
        "pointwise": {"macs": 1_728, "parameters": 48},
        "ratio": 75 / 432,
        "theory": pytest.approx(1 / 16 + 1 / 9),
    }


def test_the_way_is_shown():
    text = "\n".join(Textbook(**EXAMPLE).steps())
    for part in (
        "height = floor((11 + 2 x 1 - 3) / 2) + 1 = 6",
        "output: 6x6x16",
        "weights = 3 x 3 x 3 x 16 = 432",
        "MACs = 6x6 x 432 = 15,552",
        "MACs = 2,700",
        "75 / 432 = 1/16 + 1/9 = 0.1736: 5.76 times fewer MACs",
    ):
        assert part in text


def test_bias_multiplier_and_dilation():
    example = Textbook(**EXAMPLE | {"bias": True, "depth_multiplier": 2, "dilation": 3})
    figures = example.figures()
    assert figures["output"] == [4, 4, 16]  # (11 + 2 - 7) // 2 + 1
    assert figures["regular"] == {"macs": 16 * 432, "parameters": 448}
    assert figures["separable"] == {"macs": 16 * 150, "parameters": 150 + 16}
    text = "\n".join(example.steps())
    assert "reach = (3 - 1) x 3 + 1 = 7" in text
    assert "parameters = 432 + 16 biases = 448" in text
    assert "2 x (1/16 + 1/9)" in text


def test_a_separable_one_may_cost_more():
    text = "\n".join(Textbook(height=5, width=5, in_channels=3, kernel=1, filters=4).steps())
    assert "1.25 times as many MACs" in text


SETTINGS = list(itertools.product((1, 3), (1, 2), (0, 2), (1, 2), (1, 2)))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "multiplier"), SETTINGS)
def test_formula_and_network_agree(
    kernel: int, stride: int, padding: int, dilation: int, multiplier: int
):
    example = Textbook(
        height=9, width=12, in_channels=4, kernel=kernel, filters=5, stride=stride,
        padding=padding, dilation=dilation, depth_multiplier=multiplier, bias=True,
    )  # fmt: skip
    regular = count(
        nn.Conv2d(4, 5, kernel, stride=stride, padding=padding, dilation=dilation), (9, 12), 4
    )
    separable = count(
        SeparableConv2d(
            4, 5, kernel, stride=stride, padding=padding, dilation=dilation,
            depth_multiplier=multiplier, bias=True,
        ),
        (9, 12),
        4,
    )  # fmt: skip
    figures = example.figures()
    for name, cost in (("regular", regular), ("separable", separable)):
        assert figures[name] == {key: cost.total[key] for key in ("macs", "parameters")}
    height, width, filters = figures["output"]  # pyright: ignore[reportGeneralTypeIssues]
    assert regular.layers[-1]["output"] == [filters, height, width]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": 0}, "kernel must be from 1"),
        ({"stride": -1}, "stride must be from 1"),
        ({"padding": -1}, "padding must be from 0"),
        ({"filters": 10**7}, "filters must be from 1 to 1,000,000"),
        ({"depth_multiplier": 0}, "depth multiplier must be"),
        ({"kernel": 15}, "a window of 15 pixels does not fit into an image of 11x11 padded by 1"),
        ({"dilation": 7}, "a window of 15 pixels does not fit"),
        ({"width": 0}, "width must be from 1"),
    ],
)
def test_what_cannot_be(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Textbook(**EXAMPLE | change)
