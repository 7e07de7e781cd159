import pytest
import torch
from torch import nn

from xception.models.inception_parts import Branches, Conv, Fork, Parts, Pool, ShiftNorm

PARTS = Parts(
    norm_scale=True, norm_epsilon=1e-3, pool_border="exclude", norm_last=False, multiple=1
)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("train", [True, False])
def test_an_offset_without_a_scale_is_a_scale_of_1(layout, train):
    torch.manual_seed(0)
    mine = ShiftNorm(7, eps=1e-3, momentum=0.1).double().train(train)
    theirs = nn.BatchNorm2d(7, eps=1e-3).double().train(train)
    nn.init.normal_(mine.bias)
    nn.init.uniform_(mine.get_buffer("running_var"), 0.5, 2)
    theirs.load_state_dict(mine.state_dict() | {"weight": torch.ones(7)})
    x = torch.randn(4, 7, 5, 6, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    assert [name for name, _ in mine.named_parameters()] == ["bias"]
    outputs = mine(x), theirs(x)
    torch.testing.assert_close(*outputs)
    grads = [
        torch.autograd.grad(out.pow(3).sum(), (x, norm.bias))
        for out, norm in zip(outputs, (mine, theirs), strict=True)
    ]
    torch.testing.assert_close(*grads)
    torch.testing.assert_close(mine.running_var, theirs.running_var)


@pytest.mark.parametrize(("border", "divisors"), [("exclude", (4, 6, 9)), ("include", (9, 9, 9))])
def test_what_an_average_divides_by_at_the_edges(border, divisors):
    pool = PARTS._replace(pool_border=border).pool(Pool("average", 1))
    out = pool(torch.ones(1, 1, 4, 4))[0, 0]
    corner, edge, middle = divisors
    assert out[0, 0] == pytest.approx(4 / corner)
    assert out[0, 1] == pytest.approx(6 / edge)
    assert out[1, 1] == pytest.approx(9 / middle)


def test_the_larger_pooling_takes_whole_windows_only():
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    largest = PARTS.pool(Pool("maximum", 2))(x)[0, 0]
    assert largest.tolist() == [[14, 16], [26, 28]]  # rows 0 to 2 and 2 to 4; the last is left
    assert PARTS.pool(Pool("average", 2))(x)[0, 0].tolist() == [[7, 9], [19, 21]]


def test_branches_stand_side_by_side_in_their_order():
    branches = Branches([nn.Identity(), nn.ReLU(), nn.MaxPool2d(1)])
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(branches(x), torch.cat([x, x.clamp(min=0), x], 1))


def test_channels_are_counted_through_rows_forks_and_poolings():
    fork = Fork((Conv(5, (1, 3)), Conv(6, (3, 1))))
    steps = (Conv(4), Pool("maximum", 2), fork, Conv(7, (3, 3), padded=False))
    layers, channels = PARTS.branch(2, steps)
    assert channels == 7
    assert layers[:3](torch.zeros(1, 2, 9, 9)).shape == (1, 11, 4, 4)
    assert layers(torch.zeros(1, 2, 9, 9)).shape == (1, 7, 2, 2)
    module, channels = PARTS.module(2, ((Conv(3),), (Pool("average", 1), fork), ()))
    assert channels == 3 + 11 + 2
    assert module(torch.zeros(1, 2, 9, 9)).shape == (1, 16, 9, 9)
