import pytest
import torch

from xception.errors import UserError
from xception.models.budget import width_for
from xception.models.xception import Xception, count_parameters
from xception.models.zoo import create_model


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("budget", [1_000_000, 5_000_000, 22_855_952])
@pytest.mark.parametrize("segments", [1, 2, 5, 16, 100, None])
def test_points_of_the_spectrum_meet_the_budget(segments, budget):
    with torch.device("meta"):
        model = create_model("xception", segments=segments, parameters=budget)
        assert abs(parameters(model) - budget) <= 0.01 * budget
        assert model.options["segments"] == segments
        assert "parameters" not in model.options
        again = create_model("xception", **model.options)  # what a card does
    assert again.options == model.options
    assert parameters(again) == parameters(model)


def test_the_paper_s_number_gives_the_paper_s_network():
    with torch.device("meta"):
        options = create_model("xception", parameters=22_855_952).options
    assert (options["width"], options["multiple"]) == (1.0, 8)


@pytest.mark.parametrize(
    ("options", "width", "multiple"),
    [
        ({}, 1.0, 8),
        ({"segments": 1, "middle": 2}, 0.3, 8),
        ({"segments": 7, "residual": False, "in_channels": 1}, 0.1234, 4),
        ({"segments": 7, "order": "pointwise_first"}, 0.1234, 4),
        ({"order": "pointwise_first", "stem_stride": 1}, 0.25, 8),
        ({"fully_connected": [40, 30], "num_classes": 7, "middle": 0}, 0.05, 1),
        ({"activation": "elu", "stem_stride": 1, "output_stride": 8, "segments": 90}, 0.5, 2),
    ],
)
def test_the_sum_is_the_number_of_the_built_network(options, width, multiple):
    with torch.device("meta"):
        model = Xception(**options, width=width, multiple=multiple)
    assert count_parameters(model.options, width, multiple) == parameters(model)


def squares(width, multiple):
    """A network of one layer of 10·width channels, in multiples."""
    return (max(round(10 * width / multiple), 1) * multiple) ** 2


@pytest.mark.parametrize(
    ("budget", "width", "multiple"),
    [
        (6400, 8.0, 8),  # 80 channels
        (6430, 8.0, 8),  # within 1 %
        (7056, 8.4, 4),  # 84 channels: no multiple of 8 comes near
        (49, 0.7, 1),
    ],
)
def test_the_largest_multiple_and_the_plainest_width(budget, width, multiple):
    found = width_for(squares, budget)
    assert found[1] == multiple
    assert squares(*found) == squares(width, multiple)
    assert len(str(found[0])) <= len(str(width))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (50, "nearest is 49, at width="),
        (10**9, "no width gives 1000000000 parameters within 1 % with these options; the nearest"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(budget, message):
    with pytest.raises(ValueError, match=message):
        width_for(squares, budget)


def test_a_person_is_told_in_one_line():
    with torch.device("meta"), pytest.raises(UserError) as caught:
        create_model("xception", parameters=1000)
    assert str(caught.value) == (
        "xception: no width gives 1000 parameters within 1 % with these options; "
        "the nearest is 25497, at width=0.01, multiple=1"
    )
