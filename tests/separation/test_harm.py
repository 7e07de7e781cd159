import copy

import pytest
import torch
from torch import nn

from xception.separation.harm import LEAST_IMPORTANCE, harms, importances

from .networks import branches, images


def linear_network() -> nn.Sequential:
    """Answers that are a linear function of its convolution's output: nothing is approximated."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 7)).double()


def centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(1, keepdim=True)


def batches():
    return images(8, size=6).double().split(4)


@torch.no_grad()
def test_harm_is_the_squared_change_of_the_answers():
    model = linear_network()
    conv = model[0]
    assert isinstance(conv, nn.Conv2d)
    worse, worst = copy.deepcopy(conv), copy.deepcopy(conv)
    worse.weight += 0.02 * torch.randn_like(conv.weight)
    worst.weight *= 0.5
    (found,) = harms(model, [conv], [[conv, worse, worst]], batches, 300, 0)
    assert found[0] == 0
    x = torch.cat(batches())
    answers = centred(model(x))
    for one, harm in ((worse, found[1]), (worst, found[2])):
        changed = centred(model[1:](one(x)))
        expected = float((changed - answers).square().sum() / answers.square().sum())
        # The mean of 2,400 squares of normal variables: 3 % off, as a rule.
        assert harm == pytest.approx(expected, rel=0.15)


@torch.no_grad()
def test_importance_is_what_an_error_in_a_channel_does():
    model = linear_network()
    head = model[2]
    assert isinstance(head, nn.Linear)
    head.weight.view(7, 4, 36)[:, 1] *= 3
    head.weight.view(7, 4, 36)[:, 2] = 0
    (found,) = importances(model, [model[0]], batches, 300, 0)
    exact = centred(head.weight.T).T.view(7, 4, 36).square().sum((0, 2))
    exact = exact / exact.mean()
    assert found[2] == LEAST_IMPORTANCE
    torch.testing.assert_close(found[[0, 1, 3]], exact[[0, 1, 3]], rtol=0.1, atol=0)


def test_of_a_real_network_small_errors_are_told_well():
    """Residuals, branches, a layer that runs twice, and ReLU that writes into its input."""
    model = branches()
    layers = [model.left, model.twice, model.later]
    worse = []
    for layer in layers:
        one = copy.deepcopy(layer)
        with torch.no_grad():
            one.weight += 0.01 * torch.randn(one.weight.shape, generator=torch.manual_seed(1))
        worse.append([one])
    found = harms(model, layers, worse, lambda: images(32).split(8), 40, 0)
    with torch.no_grad():
        answers = centred(model(images(32)))
        for layer, (one,), (harm,) in zip(layers, worse, found, strict=True):
            kept = layer.weight.clone()
            layer.weight.copy_(one.weight)
            change = centred(model(images(32))) - answers
            layer.weight.copy_(kept)
            expected = float(change.square().sum() / answers.square().sum())
            assert harm == pytest.approx(expected, rel=0.35)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_of_several_answers_is_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(x), x]

    model = Two()
    with pytest.raises(ValueError, match="must answer with one tensor, not list"):
        harms(model, [model.conv], [[]], lambda: images(2).split(2), 1, 0)


@pytest.mark.parametrize(("answers", "sigmoid"), [(1, False), (7, True)])
@torch.no_grad()
def test_what_a_sigmoid_sees_is_counted(answers: int, sigmoid: bool):
    """A single answer, or one for each of several labels: their mean is no less than the rest."""
    model = linear_network()
    model[2] = nn.Linear(4 * 36, answers).double()
    conv, head = model[0], model[2]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(head, nn.Linear)
    head.bias.add_(3)  # much of the answers is their mean
    head.weight.view(answers, 4, 36)[:, 1] += 0.5
    worse = copy.deepcopy(conv)
    worse.weight *= 0.5
    ((found,),) = harms(model, [conv], [[worse]], batches, 300, 0, sigmoid)
    x = torch.cat(batches())
    expected = (model[1:](worse(x)) - model(x)).square().sum() / model(x).square().sum()
    assert found == pytest.approx(float(expected), rel=0.15)
    (weights,) = importances(model, [conv], batches, 300, 0, sigmoid)
    exact = head.weight.view(answers, 4, 36).square().sum((0, 2))
    torch.testing.assert_close(weights, exact / exact.mean(), rtol=0.1, atol=0)


class Folding(nn.Module):
    """Both halves of an image pass one convolution, as two images of a batch twice as large."""

    def __init__(self, neighbours: bool):
        super().__init__()
        self.neighbours = neighbours
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 40, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = 1 if self.neighbours else 0  # beside each other, or all upper halves first
        parts = torch.stack(x.chunk(2, 2), at)
        y = self.conv(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])
        upper, lower = y.unbind(at)
        return self.head((upper + 2 * lower).flatten(1))


@pytest.mark.parametrize("neighbours", [True, False])
@torch.no_grad()
def test_a_network_that_makes_a_batch_of_parts_of_images(neighbours: bool):
    """The harm is that to the answers of whole images: here the halves' errors add up."""
    torch.manual_seed(0)
    model = Folding(neighbours).double()
    worse = copy.deepcopy(model.conv)
    worse.weight *= 0.5
    x = images(16).double()
    x[:, :, 6:] = x[:, :, :6]
    ((found,),) = harms(model, [model.conv], [[worse]], lambda: x.split(2), 300, 0)
    other = copy.deepcopy(model)
    other.conv = worse
    change, answers = centred(other(x) - model(x)), centred(model(x))
    expected = float(change.square().sum() / answers.square().sum())
    assert found == pytest.approx(expected, rel=0.15)
