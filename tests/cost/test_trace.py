import pytest
import torch
from torch import Tensor, nn

from xception.cost.count import count, trace_call
from xception.cost.step import Step
from xception.cost.trace import BookkeepingError

META = torch.device("meta")


def test_operators_stand_in_order_in_their_modules():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    trace = trace_call(model, [(1, 3, 6, 6)], META)
    assert [(one.name, one.module) for one in trace.operators] == [
        ("convolution", "0"), ("native_batch_norm", "1"), ("relu_", "2"),
    ]  # fmt: skip
    conv, norm, relu = trace.operators
    assert (conv.weights, conv.factor) == (("0.weight",), ("0.weight",))
    assert norm.weights == ("1.bias", "1.weight")  # statistics are no parameters
    assert [conv.takes, norm.takes, relu.takes] == [None, 0, 0]
    assert [conv.passes, norm.passes, relu.passes] == [False, True, True]
    # In float32: input, weights; statistics, scale and shift; over itself.
    assert (conv.read_bytes, conv.written_bytes) == (4 * (108 + 108), 4 * 64)
    assert (norm.read_bytes, norm.written_bytes) == (4 * (64 + 16), 4 * 64)
    assert (relu.read_bytes, relu.written_bytes) == (4 * 64, 4 * 64)


def test_views_are_no_work():
    class Views(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.permute(0, 2, 3, 1).reshape(1, -1, 3)[:, 1:]
            return y.unsqueeze(0).transpose(1, 2).squeeze(0)

    trace = trace_call(Views(), [(1, 3, 4, 4)], META)
    assert [one.name for one in trace.operators] == []


def test_what_is_picked_is_read():
    class Pick(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(1000, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x.argmax(1))

    pick = trace_call(Pick(), [(1, 3, 2, 2)], META).operators[-1]
    assert pick.name == "embedding"
    assert pick.read_bytes == 4 * 4 * 8 + 8 * 4  # four rows in float32, four places in int64


def test_a_trace_leaves_no_hooks_when_it_fails():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3))
    with pytest.raises(RuntimeError):
        trace_call(model, [(1, 3, 6, 6)], META)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert model.training


def test_a_fault_of_ours_is_not_blamed_on_the_network(monkeypatch: pytest.MonkeyPatch):
    def fail(self: Step, index: int) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(Step, "result", fail)
    with pytest.raises(BookkeepingError, match="relu"):
        count(nn.ReLU(), 4)


def test_time_is_taken_where_it_is_asked_for():
    trace = trace_call(nn.Conv2d(3, 4, 3), [(1, 3, 6, 6)], META)
    assert [one.seconds for one in trace.operators] == [0.0]


def test_the_weights_of_a_network_on_the_cpu_are_used_as_they_are():
    model = nn.Conv2d(3, 4, 3)
    trace = trace_call(model, [(1, 3, 6, 6)], torch.device("cpu"))
    assert trace.operators[0].factor == ("weight",)
    assert not hasattr(model.weight, "_cost_note")
