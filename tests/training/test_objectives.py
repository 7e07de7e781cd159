import pytest
import torch
import torch.nn.functional as F

from xception.training.config import PixelLoss
from xception.training.objectives import Objective, PhotoLabels, PixelLabels

IGNORED = 255


def masks(seed=0):
    """Logits and truths of five photos, of which the second is ignored wholly, others partly."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, 6, 7, generator=generator)
    targets = torch.randint(0, 4, (5, 6, 7), generator=generator)
    targets[torch.rand(5, 6, 7, generator=generator) < 0.3] = IGNORED
    targets[1] = IGNORED
    targets[2, :5] = IGNORED
    return logits, targets


def step(objective: Objective, logits, targets, parts):
    """Loss and gradient of a step that is computed in parts."""
    logits = logits.clone().requires_grad_()
    counts = objective.counts(targets).float()
    losses = [
        objective.loss(x, y, counts)
        for x, y in zip(logits.chunk(parts), targets.chunk(parts), strict=True)
    ]
    total = torch.stack(losses).sum()
    total.backward()
    assert logits.grad is not None
    return total.item(), logits.grad


PIXELS = [
    PixelLoss(),
    PixelLoss(focusing=2),
    PixelLoss(cross_entropy=0, dice=1),
    PixelLoss(cross_entropy=0.5, dice=2),
]


@pytest.mark.parametrize("loss", PIXELS)
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_of_a_step_add_up_to_it(loss, parts):
    weights = torch.tensor([0.2, 1.0, 3.0, 0.7])
    objective = PixelLabels(parts=loss, weights=weights, smoothing=0.1)
    logits, targets = masks()
    whole, gradient = step(objective, logits, targets, 1)
    split, added = step(objective, logits, targets, parts)
    assert split == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(added, gradient)
    counts = [objective.counts(part) for part in targets.chunk(parts)]
    assert torch.equal(torch.stack(counts).sum(0), objective.counts(targets))


def test_cross_entropy_is_the_mean_over_the_pixels_that_count():
    logits, targets = masks()
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORED)
    assert step(PixelLabels(parts=PixelLoss()), logits, targets, 1)[0] == pytest.approx(
        float(expected), rel=1e-6
    )


@pytest.mark.parametrize("loss", PIXELS)
def test_a_step_whose_pixels_are_all_ignored_moves_nothing(loss):
    logits, targets = masks()
    value, gradient = step(PixelLabels(parts=loss), logits, targets.fill_(IGNORED), 1)
    assert value == 0
    assert not gradient.any()


def test_right_pixels_by_hand():
    logits = torch.tensor([[[[3.0, 0.0, 0.0]], [[1.0, 2.0, 2.0]]]])  # says 0, 1, 1
    targets = torch.tensor([[[0, 0, IGNORED]]])
    assert PixelLabels(parts=PixelLoss()).right(logits, targets).tolist() == [1, 2]


def test_right_photos_by_hand():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([[0.1, 0.9], [0.0, 1.0], [0.4, 0.6]])
    assert PhotoLabels(multilabel=False).right(logits, targets).tolist() == [2, 3]
    assert PhotoLabels(multilabel=True).right(logits, targets).tolist() == [0, 0]


@pytest.mark.parametrize("multilabel", [False, True])
def test_parts_of_a_step_of_photos_add_up_to_it(multilabel):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 3, generator=generator)
    targets = torch.eye(3)[torch.randint(0, 3, (8,), generator=generator)]
    objective = PhotoLabels(multilabel, torch.tensor([0.3, 5.0, 1.0]), 0.1)
    whole, gradient = step(objective, logits, targets, 1)
    for parts in (2, 3):  # 8 photos in 4 + 4, and 3 + 3 + 2
        split, added = step(objective, logits, targets, parts)
        assert split == pytest.approx(whole, rel=1e-6)
        torch.testing.assert_close(added, gradient)
