import pytest
import torch
from torch import nn

from xception.layers.conv import Conv2d
from xception.layers.regular import refusal, replace


class Scaled(nn.Conv2d):
    """A convolution that makes something else of its weight."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, 2 * self.weight, self.bias)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(8, 4, 3),
        nn.Conv2d(8, 4, (1, 7), padding=(0, 3)),
        nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
        Conv2d(8, 4, 5, stride=2),
    ],
)
def test_regular_convolutions(module: nn.Module):
    assert refusal(module) is None


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv2d(8, 4, 1), "1×1: it is pointwise already"),
        (nn.Conv2d(8, 8, 3, groups=8), "depthwise already"),
        (nn.Conv2d(8, 8, 3, groups=2), "2 groups apart"),
        (Scaled(8, 4, 3), "Scaled"),
        (nn.Linear(8, 4), "Linear"),
        (nn.ConvTranspose2d(8, 4, 3), "ConvTranspose2d"),
    ],
)
def test_others_are_refused(module: nn.Module, reason: str):
    said = refusal(module)
    assert said is not None
    assert reason in said


def test_a_weight_made_anew_at_each_pass_is_refused():
    conv = nn.Conv2d(8, 4, 3)
    conv.register_forward_pre_hook(lambda module, args: None)
    assert "hooks" in str(refusal(conv))


def test_a_module_is_replaced_wherever_it_stands():
    shared, other = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    model = nn.Sequential(shared, nn.Sequential(other, shared))
    new = nn.Identity()
    replace(model, shared, new)
    assert model[0] is new
    inner = model[1]
    assert isinstance(inner, nn.Sequential)
    assert inner[0] is other
    assert inner[1] is new
    with pytest.raises(ValueError, match="no such Conv2d"):
        replace(model, shared, new)
