import math

import pytest
import torch

from xception.training.losses import class_weights, multi_label, single_label


def test_single_label_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    targets = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    expected = (-math.log(0.7) - 0.5 * math.log(0.25) - 0.5 * math.log(0.5)) / 2
    loss = single_label(logits, targets, weights=None, smoothing=0)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_gives_every_class_its_share():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    q = [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]
    expected = -sum(a * math.log(b) for a, b in zip(q, (0.7, 0.2, 0.1), strict=True))
    loss = single_label(logits, torch.tensor([[1.0, 0, 0]]), weights=None, smoothing=0.1)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [single_label, multi_label])
def test_the_loss_of_a_batch_is_the_mean_of_its_halves_even_when_classes_weigh(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=generator)
    targets = torch.eye(3)[torch.tensor([0, 0, 0, 1, 2, 2, 1, 0])]
    weights = torch.tensor([0.3, 5.0, 1.0])
    whole = loss(logits, targets, weights=weights, smoothing=0.1)
    parts = [
        loss(a, b, weights=weights, smoothing=0.1)
        for a, b in zip(logits.chunk(2), targets.chunk(2), strict=True)
    ]
    assert float(whole) == pytest.approx(float(sum(parts)) / 2, rel=1e-6)


def test_multi_label_by_hand():
    p = torch.tensor([[0.8, 0.4], [0.5, 0.9]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    weights = torch.tensor([2.0, 1.0])
    expected = (-2 * math.log(0.8) - math.log(0.6) - 2 * math.log(0.5) - math.log(0.9)) / 2
    loss = multi_label(torch.logit(p), targets, weights=weights, smoothing=0)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_by_hand():
    # 6, 3 and 0 labels: 9 / (2 classes present x count)
    weights = class_weights([6, 3, 0], "balanced")
    assert weights is not None
    assert weights.tolist() == pytest.approx([0.75, 1.5, 1.0])
    assert pytest.approx(9) == 6 * 0.75 + 3 * 1.5  # the mean over labels is 1


def test_softened_weights_by_hand():
    # as 1/30 to 1/10, so that 900 of the one and 100 of the other weigh 1000
    weights = class_weights([900, 0, 100], "softened")
    assert weights is not None
    assert weights.tolist() == pytest.approx([1000 / 1200, 1.0, 1000 / 400])


def test_no_weights():
    assert class_weights([1, 2], "none") is None
