import numpy as np
import pytest
import torch
from torch import nn

from xception.data.loader import Batch
from xception.data.preprocess import Preprocess
from xception.errors import UserError
from xception.evaluation.evaluate import Outcomes, combine, evaluating, outcomes


class FirstPixels(nn.Module):
    """Logits are the three channels of the upper left pixel; dropout shows the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3, eps=0.01))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return self.body(x)[:, :, 0, 0] * 1.01**0.5  # undoes the fresh norm's epsilon


def batch(pixels: list[list[int]], targets: torch.Tensor, first: int = 0) -> Batch:
    values = torch.tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 1, 3).repeat(1, 4, 4, 1)
    return Batch(values, targets, torch.arange(first, first + len(pixels)))


def test_softmax_of_the_normalised_pixels_in_order():
    batches = [
        batch([[0, 255, 0], [255, 0, 0]], torch.tensor([1, 2])),
        batch([[0, 0, 0]], torch.tensor([0]), first=2),
    ]
    model = FirstPixels()
    found = outcomes(model, batches, Preprocess(size=4), device="cpu", task="classification")
    high, low = np.exp(2) / (np.exp(2) + 2), 1 / (np.exp(2) + 2)  # logits 1 and -1
    expected = [[low, high, low], [high, low, low], [1 / 3] * 3]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.probabilities.dtype == np.float32
    assert found.targets.tolist() == [1, 2, 0]
    assert found.positions.tolist() == [0, 1, 2]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in model.seen)
    measured = found.measure(("a", "b", "c"), "classification")
    assert measured["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_mirror_means_that_both_sides_are_asked():
    pixels = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    pixels[0, 0, 0], pixels[0, 0, 3] = torch.tensor([255, 0, 0]), torch.tensor([255, 255, 0])
    batches = [Batch(pixels, torch.tensor([0]), torch.arange(1))]
    both = Preprocess(size=4, mirror=True)
    found = outcomes(FirstPixels(), batches, both, device="cpu", task="classification")
    odds = np.exp([1, 0, -1])  # means of the logits (1, -1, -1) and (1, 1, -1)
    np.testing.assert_allclose(found.probabilities[0], odds / odds.sum(), atol=1e-6)


def test_sigmoid_and_float_targets_of_several_labels():
    given = torch.tensor([[1.0, 0.0, 1.0]])
    found = outcomes(
        FirstPixels(), [batch([[255, 0, 255]], given)], Preprocess(size=4), device="cpu",
        task="multilabel", precision=torch.bfloat16,
    )  # fmt: skip
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found.probabilities, [[p, 1 - p, p]], atol=1e-2)
    assert found.probabilities.dtype == np.float32
    assert found.measure(("a", "b", "c"), "multilabel")["map"] == 1.0


def test_each_module_gets_its_own_mode_back():
    model = FirstPixels().train()
    model.body[0].eval()  # a frozen part stays frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = [batch([[0, 255, 0], [9, 9, 9]], torch.tensor([1, 1]))]
    outcomes(model, data, Preprocess(size=4), device="cpu", task="classification")
    assert (model.training, model.body[0].training, model.body[1].training) == (True, False, True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        raise RuntimeError("stop")
    assert model.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_no_numbers_are_refused(value):
    model = FirstPixels()
    norm = model.body[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.bias[1] = value
    data = [batch([[0, 0, 0], [9, 9, 9]], torch.tensor([1, 1]), first=7)]
    with pytest.raises(UserError, match=r"2 of 2 photos .*NaN or infinity \(first: photo 7"):
        outcomes(model, data, Preprocess(size=4), device="cpu", task="classification")


def test_parts_combine_in_the_order_of_the_photos():
    part = Outcomes(np.eye(2, dtype=np.float32), np.array([0, 1]), np.array([2, 0]))
    rest = Outcomes(np.full((1, 2), 0.5, np.float32), np.array([1]), np.array([1]))
    none = outcomes(FirstPixels(), [], Preprocess(size=4), device="cpu", task="classification")
    whole = combine([none, part, rest])
    assert whole.positions.tolist() == [0, 1, 2]
    assert whole.targets.tolist() == [1, 1, 0]
    assert whole.probabilities.tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    with pytest.raises(ValueError, match="more than once"):
        combine([part, part])
    with pytest.raises(UserError, match="no photo was evaluated"):
        combine([none, none]).measure((), "classification")
