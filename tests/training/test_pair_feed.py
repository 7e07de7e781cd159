import numpy as np
import pytest
import torch

from xception.data.masks import IGNORED
from xception.data.pairs import open_pairs
from xception.models.zoo import create_model
from xception.training.distributed import World
from xception.training.pair_feed import PairFeed

from .conftest import tiny_masks


@pytest.fixture
def feed(scenes):
    return PairFeed(open_pairs(scenes), tiny_masks(), World(), workers=0)


def test_crops_are_normalised_and_targets_are_classes(feed):
    assert feed.steps_per_epoch == 3  # of 14 scenes, four at a time
    batches = list(feed.training(2, 5))
    assert len(batches) == 3
    for images, targets in batches:
        assert images.shape == (4, 3, 33, 33)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert -1 <= float(images.min()) < float(images.max()) <= 1
        assert targets.dtype == torch.int64
        assert set(targets.unique().tolist()) <= {*range(len(feed.pairs.classes)), IGNORED}


def test_any_step_can_be_the_first(feed):
    later = list(feed.training(0, 5))[3:]
    for (x, y), (a, b) in zip(feed.training(3, 5), later, strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)


def test_validation_counts_every_pixel_of_every_validation_scene(feed):
    model = create_model(
        "deeplab_v3plus", **feed.config.model_options, num_classes=len(feed.pairs.classes)
    )
    for parameter in model.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():  # it says class 1, whatever it sees
        model.classifier.get_parameter("bias")[1] = 5
    masks = [feed.pairs.mask(pair) for pair in feed.pairs.of("validation")]
    truths = np.concatenate([mask[mask != IGNORED] for mask in masks])
    share = float((truths == 1).mean())
    judged = feed.validation(model)
    assert judged is not None
    assert judged.figures["val_pixel_accuracy"] == pytest.approx(share)
    assert judged.score == judged.figures["val_miou"] == pytest.approx(share / len(set(truths)))


def test_a_network_for_whole_photos_is_refused(feed):
    with pytest.raises(TypeError, match="pixels"):
        feed.validation(torch.nn.Linear(1, 1))
