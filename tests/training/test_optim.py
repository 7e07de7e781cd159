import copy

import pytest
import torch
from torch import nn

from xception.training.config import Optimizer
from xception.training.optim import build_average, build_optimizer, set_learning_rate


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_weights_decay_and_norms_and_biases_do_not(name):
    optimizer = build_optimizer(module(), Optimizer(name=name, weight_decay=0.3))
    decays = {
        tuple(p.shape): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]
    }
    assert decays == {(3, 2, 1, 1): 0.3, (3,): 0.0}
    set_learning_rate(optimizer, 0.25)
    assert {g["lr"] for g in optimizer.param_groups} == {0.25}


def test_kernels_of_depthwise_convolutions_can_be_spared():
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=4, bias=False),  # two kernels a channel
        nn.Conv2d(8, 4, 1, bias=False),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),  # two channels a kernel
        nn.Conv2d(4, 1, 3, bias=False),
        nn.Conv2d(1, 2, 3, bias=False),  # one channel is all channels
    )
    for spared, decay_depthwise in (([0], False), ([], True)):
        settings = Optimizer(weight_decay=0.3, decay_depthwise=decay_depthwise)
        groups = build_optimizer(network, settings).param_groups
        decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        expected = [0.0 if i in spared else 0.3 for i in range(5)]
        assert [decays[id(p)] for p in network.parameters()] == expected


def test_sgd_with_momentum_by_hand():
    line = nn.Linear(1, 1, bias=False)
    nn.init.constant_(line.weight, 1.0)
    settings = Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0)
    optimizer = build_optimizer(line, settings)
    for _ in range(2):  # the gradient is 2: v = 2, then 0.9*2 + 2 = 3.8
        line(torch.tensor([[2.0]])).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert line.weight.item() == pytest.approx(1 - 0.1 * 2 - 0.1 * 3.8)


def test_the_average_warms_up_and_follows_the_statistics():
    network = module()
    state = network.state_dict()
    average = build_average(network, decay=0.5)
    values = [1.0, 2.0, 4.0, 8.0]
    # the first is copied; then the weight of the old is min(decay, (1 + n) / (10 + n))
    expected = 1.0
    for n, value in enumerate(values):
        with torch.no_grad():
            state["0.weight"].fill_(value)
            state["1.running_mean"].fill_(value)
            state["1.num_batches_tracked"].fill_(n)
        average.update_parameters(network)
        if n > 0:
            old = min(0.5, (1 + n) / (10 + n))
            expected = old * expected + (1 - old) * value
    averaged = average.module.state_dict()
    assert averaged["0.weight"][0, 0].item() == pytest.approx(expected)
    assert averaged["1.running_mean"][0].item() == pytest.approx(expected)
    assert averaged["1.num_batches_tracked"].item() == 3


def test_the_average_is_restored_from_its_state():
    network = module()
    average = build_average(network, decay=0.9)
    average.update_parameters(network)
    other = build_average(copy.deepcopy(network), decay=0.9)
    other.load_state_dict(average.state_dict())
    assert int(other.n_averaged) == 1
