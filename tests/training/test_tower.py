import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xception.errors import UserError
from xception.models.inception_v3 import InceptionV3
from xception.training.distributed import World
from xception.training.loop import Trainer
from xception.training.objectives import PhotoLabels
from xception.training.progress import Silent
from xception.training.tower import Both, WithTower, with_tower

from .conftest import tiny

LABELS = PhotoLabels(multilabel=False)


class Nothing:
    """A feed that is never asked."""

    steps_per_epoch = 1

    def training(self, first_step, last_step):
        raise NotImplementedError

    def validation(self, module):
        raise NotImplementedError


def network(**options) -> InceptionV3:
    torch.manual_seed(0)
    return InceptionV3(num_classes=3, width=0.02, multiple=1, **options)


def test_the_gradient_is_that_of_both_losses():
    model = network(auxiliary=True).double()
    x = torch.randn(2, 3, 299, 300, generator=torch.Generator().manual_seed(1)).double()
    truth = torch.eye(3).double()[[2, 0]]
    asked, objective = with_tower(model, LABELS)
    parameters = list(model.parameters())
    loss = objective.loss(asked(x), truth, objective.counts(truth).double())
    found = torch.autograd.grad(loss, parameters)
    stages = model.forward_features(x)
    assert model.auxiliary is not None
    tower = model.auxiliary(stages["grid17"])
    logits = model.head(stages["grid8"].mean((2, 3)))
    by_hand = F.cross_entropy(logits, truth) + 0.4 * F.cross_entropy(tower, truth)
    torch.testing.assert_close(loss, by_hand)
    for one, other in zip(found, torch.autograd.grad(by_hand, parameters), strict=True):
        torch.testing.assert_close(one, other)
    assert found[-1].abs().sum() > 0  # the tower's own bias


def test_the_loop_asks_both_and_keeps_the_network(tmp_path):
    model = network(auxiliary=True)
    trainer = Trainer(
        model,
        Nothing(),
        LABELS,
        tiny(),
        World(),
        keep_best=lambda candidate, figures: None,
        folder=tmp_path,
        fingerprint="f",
        progress=Silent(),
    )
    assert isinstance(trainer.parallel, Both)
    assert isinstance(trainer.objective, WithTower)
    assert trainer.module is model


def test_right_answers_are_those_of_the_network_itself():
    _, objective = with_tower(network(auxiliary=True), LABELS)
    truth = torch.eye(3)[[2, 0]]
    assert objective.right(torch.stack([truth, -truth]), truth).tolist() == [2, 2]
    assert objective.counts(truth).tolist() == [2]


@pytest.mark.parametrize("module", [nn.Linear(1, 1), network()])
def test_without_a_tower_nothing_changes(module):
    assert with_tower(module, LABELS) == (module, LABELS)


def test_photos_too_small_for_the_tower_are_refused_with_the_way_out():
    asked, _ = with_tower(network(auxiliary=True), LABELS)
    with pytest.raises(UserError, match=r"299 pixels or more, not 298: .*auxiliary=false"):
        asked(torch.zeros(2, 3, 298, 400))
