import math

import numpy as np
import pytest
import torch

from xception.training.pixel_losses import dice, pixel_cross_entropy

IGNORED = 255


@pytest.fixture
def case():
    """Three classes, two photos of 3x4 pixels, some ignored; the second photo has no class 2."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 3, 4), generator=generator)
    targets[1] = targets[1].clamp(max=1)
    targets[0, 0, :2] = targets[1, 2, 3] = IGNORED
    return logits, targets


def places(targets):
    return [index for index in np.ndindex(*targets.shape) if targets[index] != IGNORED]


def chances(logits, b, i, j):
    powers = [math.exp(value) for value in logits[b, :, i, j].tolist()]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 4.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("focusing", [0.0, 2.0])
def test_cross_entropy_pixel_by_pixel(case, weights, smoothing, focusing):
    logits, targets = case
    w = weights or [1.0, 1.0, 1.0]
    expected = np.zeros(targets.shape)
    for b, i, j in places(targets):
        p, truth = chances(logits, b, i, j), int(targets[b, i, j])
        own = -w[truth] * math.log(p[truth])
        spread = -sum(w[c] * math.log(p[c]) for c in range(3)) / 3
        loss = (1 - smoothing) * own + smoothing * spread
        expected[b, i, j] = loss * (1 - p[truth]) ** focusing
    found = pixel_cross_entropy(
        logits,
        targets,
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        smoothing=smoothing,
        focusing=focusing,
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_dice_photo_by_photo(case):
    logits, targets = case
    expected = []
    for photo in range(2):
        own = [place for place in places(targets) if place[0] == photo]
        misses = []
        for c in {int(targets[place]) for place in own}:
            p = {place: chances(logits, *place)[c] for place in own}
            truths = [place for place in own if targets[place] == c]
            common = sum(p[place] for place in truths)
            misses.append(1 - 2 * common / (sum(p.values()) + len(truths)))
        expected.append(sum(misses) / len(misses))
    np.testing.assert_allclose(dice(logits, targets).numpy(), expected, atol=1e-12)


def test_the_logits_of_ignored_pixels_mean_nothing(case):
    logits, targets = case
    other = torch.where((targets == IGNORED)[:, None], logits + 7 * torch.rand(3, 1, 1), logits)
    for loss in (pixel_cross_entropy, dice):
        assert torch.equal(loss(logits, targets), loss(other, targets))


@pytest.mark.parametrize("focusing", [0.0, 0.5, 1.0, 2.0])
def test_certain_and_ignored_pixels_have_finite_slopes(focusing):
    logits = torch.zeros(2, 2, 1, 2)
    logits[0, 0] = 1000.0  # sure of class 0, rightly and wrongly; the second photo is ignored
    logits.requires_grad_()
    targets = torch.tensor([[[0, 1]], [[IGNORED, IGNORED]]])
    losses = pixel_cross_entropy(logits, targets, focusing=focusing)
    (losses.sum() + dice(logits, targets).sum()).backward()
    assert losses[0, 0, 1].item() == pytest.approx(1000)
    assert losses[1].tolist() == [[0, 0]]
    assert dice(logits, targets)[1].item() == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()
